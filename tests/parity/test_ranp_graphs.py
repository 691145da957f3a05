# SPDX-License-Identifier: Apache-2.0
"""Role graphs from tags, and relevance matrices, against the original's."""

import collections
import json
import pathlib

import numpy as np
import pytest

from vidret_jax.data.graphs import captions as captions_lib
from vidret_jax.data.graphs import classes as classes_lib
from vidret_jax.data.graphs import (
  epic_sentences,
  files,
  layout,
  relevance,
  relevance_files,
  srl,
)

_KINDS = (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)
_RULE = 'DT followed by a tag starting with NN, two tokens'


def _json(path: pathlib.Path):
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def root(golden_root):
  return golden_root / 'ranp'


@pytest.fixture(params=_KINDS, ids=lambda kind: kind.name)
def toy(root, request):
  """(layout, root folder of a toy dataset, its annotations)."""
  found = sorted(root.glob(f'*/annotation/{request.param.annotation}'))
  if not found:
    pytest.skip(f'{root}/*/annotation/{request.param.annotation} is absent')
  return request.param, found[0].parents[1], found[0]


def _chunks(tags):
  """Noun phrases by the rule of the toy parser."""
  pairs = enumerate(zip(tags, tags[1:]))
  return [[i, i + 2] for i, (a, b) in pairs if a == 'DT' and b[:2] == 'NN']


def _same(got, want):
  """Equal graphs, in the order of the nodes, too."""
  assert got == want
  for caption, (nodes, _) in want.items():
    assert list(got[caption][0]) == list(nodes), caption


def _check(sent2srl, tags, want, want_augmented):
  got, failed = srl.graphs(sent2srl)
  assert set(failed) == set(sent2srl) - set(want)
  _same(got, want)
  augmented = {
    c: srl.augment(g, tags[c], _chunks(tags[c])) if len(g[0]) == 1 else g
    for c, g in got.items()
  }
  _same(augmented, want_augmented)


def test_special_cases(root):
  said = _json(root / 'srl2graph.json')
  if said['noun_chunk_rule_of_the_toy_parser'] != _RULE:
    pytest.skip(f'{root / "srl2graph.json"} has noun phrases of another rule')
  _check(
    *(said['sent2srl'], said['pos_tags']),
    *(said['sent2rolegraph'], said['sent2rolegraph_augment']),
  )


def test_toy_datasets(toy):
  _, _, folder = toy
  names = ('sent2srl', 'toy_parses', 'sent2rolegraph', 'sent2rolegraph.augment')
  _check(*(_json(folder / f'{name}.json') for name in names))


def test_read_srl(toy):
  _, _, folder = toy
  want = _json(folder / 'sent2srl.json')
  assert srl.read(folder / 'sent2srl.json') == want


@pytest.mark.parametrize('verbs', ['single', 'multi'])
def test_relevance(verbs, root, golden, errors):
  """Of both files; the dummy classes of the level losses are equal classes."""
  said = _json(root / 'relevance.json')
  arrays = golden('relevance.npz')
  for kind in (verbs, *({'single', 'multi'} - {verbs})):
    lists = said[kind]
    verb, noun = lists['verb_class'], lists['noun_classes']
    video_verb = lists.get('video_verb_classes', verb)
    video_noun = lists.get('video_noun_classes', noun)
    same = [[0]] * len(verb)
    rows = {
      'sent': (video_verb, video_noun, verb, noun),
      'verb': (video_verb, [[0]] * len(video_verb), verb, same),
      'noun': ([[0]] * len(video_noun), video_noun, same, noun),
    }
    for level, sides in rows.items():
      got = relevance.matrix(*sides)
      assert got.dtype == np.float64
      errors.close(
        f'{kind}/{level}', got.astype(np.float32), arrays[f'{kind}/{level}'], 0
      )


class Toy:
  """Captions of a toy dataset and, where they are written, their classes."""

  def __init__(self, kind, root):
    self.kind, self.root = kind, root
    self.files = kind.files()
    self.captions = captions_lib.Captions(
      self.path('captions'), kind.captions_by
    )
    self.graphs = files.json_object(
      self.path('graphs').with_name('sent2rolegraph.json')
    )

  def path(self, key):
    return self.root / self.files[key][0]

  def texts(self, split):
    """{clip: its captions}."""
    names = files.strings(self.path(f'names_{split}'), 'clips')
    return {n: list(self.captions.slots(n).values()) for n in names}

  def has_predicate(self, caption):
    return len(self.graphs[caption][0]) > 1

  def known(self):
    """(caption, (verb classes, noun classes)) of training."""
    texts = self.texts('train')
    slots = {n: range(len(said)) for n, said in texts.items()}
    found = captions_lib.read_classes(
      self.path('classes'), slots, by=self.kind.classes_by
    )
    pairs = [
      pair for n in texts for pair in zip(texts[n], found[n], strict=True)
    ]
    return [(c, found) for c, found in pairs if self.has_predicate(c)]


def _infer(pairs):
  """What gives all captions their classes by their words, or None.

  A word that stands for a class has it in all its captions. Rare words that
  are not needed (they happen to occur with others) stand for none.
  """
  common, count = {}, collections.Counter()
  for caption, found in pairs:
    for word in set(caption.split()):
      common[word] = common.get(word, set(found)) & set(found)
      count[word] += 1
  table = {w: next(iter(c)) for w, c in common.items() if len(c) == 1}
  repeats = any(len(set(found)) < len(found) for _, found in pairs)

  def classes(caption):
    found = [table[w] for w in caption.split() if w in table]
    return found if repeats else sorted(set(found))

  def explains():
    return all(sorted(classes(c)) == sorted(found) for c, found in pairs)

  for word in sorted(table, key=lambda w: (count[w], w)):
    i = table.pop(word)
    if not all(set(classes(c)) == set(found) for c, found in pairs):
      table[word] = i
  return classes if explains() else None


@pytest.fixture(scope='module')
def tables(root):
  """Caption -> classes, for verbs and nouns, and the words that were seen."""
  pairs = []
  for kind in _KINDS:
    for folder in sorted(root.glob(f'*/annotation/{kind.annotation}')):
      pairs += Toy(kind, folder.parents[1]).known()
  found = [_infer([(c, both[k]) for c, both in pairs]) for k in (0, 1)]
  if None in found:
    pytest.skip('the toy annotations do not tell which word is of which class')
  return found, {w for c, _ in pairs for w in c.split()}


@pytest.mark.parametrize('split', ['val', 'test'])
def test_relevance_of_toy_datasets(toy, tables, split, errors):
  """Of captions with a predicate and known words; others have other classes.

  The toys mark every clip as fully relevant for its own captions.
  """
  kind, folder, _ = toy
  toy = Toy(kind, folder)
  texts = toy.texts(split)
  columns = [c for said in texts.values() for c in said]
  if kind.narrations and split == 'test':
    columns = files.narrations(toy.path('narrations'))
  names = toy.files[f'relevance_{split}']
  paths = [folder / n for n in names if (folder / n).is_file()]
  if not paths:
    pytest.skip(f'{folder / names[0]} is absent')
  want = relevance_files.read(paths[0], (len(texts), len(columns)))
  rules, seen = tables

  def told(caption):
    there = toy.has_predicate(caption) if caption in toy.graphs else True
    return there and set(caption.split()) <= seen

  clips = [
    [classes_lib.pooled([rule(c) for c in said]) for said in texts.values()]
    for rule in rules
  ]
  got = relevance.matrix(
    *clips, *([rule(c) for c in columns] for rule in rules)
  )
  rows = [all(map(told, said)) for said in texts.values()]
  known = np.outer(rows, [told(c) for c in columns])
  own = np.array([[c in said for c in columns] for said in texts.values()])
  assert (want[own] == 1).all()
  if not (known & ~own).any():
    pytest.skip(f'the classes of no caption in {paths[0]} are known')
  errors.close('relevance', got[known & ~own], want[known & ~own], 1e-9)


def test_epic_sentences(root):
  """Sentences belong to the clips that say them."""
  kind = layout.EPIC_KITCHENS
  name = f'annotation/{kind.annotation}/{kind.narrations}'
  path = next(iter(sorted(root.glob(f'*/{name}'))), root / name)
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  folder = path.parents[2]
  texts = Toy(kind, folder).texts('test')
  said = [one[0] for one in texts.values()]
  clips = epic_sentences.Clips(
    list(texts), said, [0] * len(said), [[0]] * len(said)
  )
  narrations = files.narrations(path)
  if not set(narrations) <= set(said):
    pytest.skip(f'{path} has sentences of no clip')
  rows = epic_sentences.read_sentences(path, clips)
  assert [said[i] for i in rows] == list(narrations)
