# SPDX-License-Identifier: Apache-2.0
"""Readers of the published folders against the original's.

Ours pads to fixed sizes where the original cuts a batch to its longest row,
and leaves it to the model to normalise the edges of a graph.
"""

import json

import numpy as np
import pytest

from vidret_jax.data.graphs import (
  classes,
  features,
  layout,
  published,
  relevance_files,
  tensors,
)

_LAYOUTS = (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)


@pytest.fixture(scope='module')
def root(golden_root):
  return golden_root / 'ranp'


def _json(path):
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  return json.loads(path.read_text())


def _toys(root):
  return {
    path.name.removeprefix('tiny_'): path
    for path in sorted(root.glob('tiny_*'))
  }


def _layout(toy):
  return next(
    one for one in _LAYOUTS if (toy / 'annotation' / one.annotation).is_dir()
  )


def _open(toy, width=None):
  """A toy root with those of its streams that make up a width."""
  kind = _layout(toy)
  there = (toy / 'ordered_feature' / kind.features).iterdir()
  there = sorted(path.name for path in there if path.is_dir())
  usual = [stream for stream in kind.streams if stream in there]
  for streams in filter(None, (usual, there, *([s] for s in there))):
    found = published.Published(kind, toy, streams=streams)
    if width in (None, found.width):
      return found
  raise AssertionError(f'{toy}: no streams of width {width}')


def _pairs(found):
  names = found.names['train']
  return [
    (name, i, k)
    for i, name in enumerate(names)
    for k, _ in enumerate(found.captions(name))
  ]


def _normalised(edges):
  edges = edges.astype(np.float32)
  return edges / np.maximum(edges.sum(-1, keepdims=True), 1)


def _caption(found, text, sizes):
  """Tensors of a caption under the names and in the form of the original."""
  max_words, num_verbs, num_nouns = sizes
  ids, mask = tensors.sentence(text, found.word2int, max_words)
  out = tensors.graph(
    found.graph(text),
    max_words=max_words,
    num_verbs=num_verbs,
    num_nouns=num_nouns,
  )
  return {
    'sent_ids': ids,
    'sent_lens': mask.sum(),
    'verb_masks': out['verb_mask'],
    'noun_masks': out['noun_mask'],
    'node_roles': out['roles'],
    'rel_edges': _normalised(out['edge_mask']),
  }


def _sizes(want):
  verbs, nouns = want['verb_masks'].shape[-2:], want['noun_masks'].shape[-2:]
  return verbs[1], verbs[0], nouns[0]


def _same(name, got, want):
  assert got.keys() == want.keys(), name
  for key in want:
    np.testing.assert_array_equal(got[key], want[key], f'{name}{key}')


def _cut(batch):
  """Batches of the original end with the longest sentence."""
  longest = batch['sent_lens'].max()
  for key in ('verb_masks', 'noun_masks'):
    assert not batch[key][..., longest:].any()
    batch[key] = batch[key][..., :longest]
  assert (batch['sent_ids'][:, longest:] == tensors.PADDING).all()
  batch['sent_ids'] = batch['sent_ids'][:, :longest]
  return batch


def _stacked(rows):
  return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _check_items(found, told, arrays, key):
  """Single training items and their batch."""
  pairs = _pairs(found)
  assert told['num_pairs'] == len(pairs)
  assert told['pair_idxs'] == [[i, k] for _, i, k in pairs]
  items, rows = told['items'], []
  for item in items:
    name, _, k = pairs[item['index']]
    assert name == item['name']
    where = f'{key}/item{item["index"]}/'
    want = arrays.under(where)
    got = _caption(found, found.captions(name)[k], _sizes(want))
    assert got['sent_lens'] == item['sent_lens']
    frames = want['attn_fts'].shape[0]
    x, mask = features.select(found.features('train', name), frames)
    assert mask.sum() == item['attn_lens']
    rows.append({**got, 'attn_fts': x, 'attn_lens': mask.sum()})
    own = {k: v for k, v in rows[-1].items() if k in want}
    _same(where, own, want)
    verbs, nouns = found.classes(name)[k]
    want = item['verb_class']
    assert verbs == ([want] if isinstance(want, int) else want)
    assert nouns == item['noun_classes']
  got = _cut(_stacked(rows))
  want = arrays.under(f'{key}/collate/')
  assert want.pop('names').tolist() == [item['name'] for item in items]
  longest = got['attn_lens'].max()
  assert not got['attn_fts'][:, longest:].any()
  got['attn_fts'] = got['attn_fts'][:, :longest]
  _same(f'{key}/collate/', got, want)
  for what, part in (('video_verb_classes', 0), ('video_noun_classes', 1)):
    for stem, want in told.get(what, {}).items():
      (name,) = (
        n for n in found.names['train'] if n.removesuffix('.mp4') == stem
      )
      got = classes.pooled([c[part] for c in found.classes(name)])
      assert got == want, (what, name)


def _check_test_captions(found, told, arrays, key, sizes):
  texts = found.evaluation('test').texts
  assert list(texts) == told['tst_captions']
  first, step = 0, None
  number = 0
  while f'{key}/tstcap{number}/sent_lens' in arrays:
    want = arrays.under(f'{key}/tstcap{number}/')
    step = step or len(want['sent_lens'])
    rows = [_caption(found, t, sizes) for t in texts[first : first + step]]
    _same(f'{key}/tstcap{number}/', _cut(_stacked(rows)), want)
    first, number = first + step, number + 1
  assert number


def _check_tight(toys, arrays, keys):
  """Items with little room, of the first toy with this width."""
  rows = [g for g in arrays.under('tight/') if g.endswith('/attn_fts')]
  for row in rows:
    item = row.split('/')[0]
    want = arrays.under(f'tight/{item}/')
    frames, width = want['attn_fts'].shape
    for key in keys:
      try:
        found = _open(toys[key], width)
      except AssertionError:
        continue
      break
    name, _, k = _pairs(found)[int(item.removeprefix('item'))]
    got = _caption(found, found.captions(name)[k], _sizes(want))
    x, _ = features.select(found.features('train', name), frames)
    got = {**got, 'attn_fts': x}
    _same(f'tight/{item}/', {k: got[k] for k in want}, want)


def _check_frames(arrays, errors):
  """Choice of frames, and streams of different lengths."""
  for key, want in arrays.under('select/').items():
    if key.endswith('_len'):
      continue
    t = int(key.removeprefix('T'))
    x = np.arange(t, dtype=np.float32)[:, None]
    got, mask = features.select(x, len(want))
    np.testing.assert_array_equal(got[:, 0], want, key)
    assert mask.sum() == arrays[f'select/{key}_len']
  for key, want in arrays.under('align/').items():
    streams = [np.arange(1, int(t) + 1)[:, None] for t in key.split('_')]
    np.testing.assert_array_equal(features.align(streams), want, key)
  for key in {k.split('/')[0] for k in arrays.under('align48/')}:
    case = arrays.under(f'align48/{key}/')
    got = features.align_1ka([case['in_a'], case['in_b']], len(case['out']))
    errors.close(f'align48/{key}', got, case['out'], 1e-6)


def test_reader(root, golden, errors):
  told, arrays = _json(root / 'reader.json'), golden('reader.npz')
  toys = _toys(root)
  for key, of_toy in told.items():
    if key not in toys:
      pytest.skip(f'{root / f"tiny_{key}"} is absent')
    batch = arrays.under(f'{key}/collate/')
    found = _open(toys[key], batch['attn_fts'].shape[-1])
    _check_items(found, of_toy, arrays, key)
    item = arrays.under(f'{key}/item{of_toy["items"][0]["index"]}/')
    _check_test_captions(found, of_toy, arrays, key, _sizes(item))
    np.testing.assert_array_equal(
      found.relevance('test'), arrays[f'{key}/tst_rel_mat']
    )
  _check_tight(toys, arrays, list(told))
  _check_frames(arrays, errors)


def test_pooling(root):
  for case in _json(root / 'relevance.json')['pooling']:
    assert classes.pooled(case['captions'], case['percent']) == case['kept']


@pytest.mark.parametrize('kind', _LAYOUTS, ids=lambda kind: kind.name)
def test_toy_roots(root, kind):
  """Whole roots: lists and captions in the order of predictions."""
  toys = [toy for toy in _toys(root).values() if _layout(toy) == kind]
  if not toys:
    pytest.skip(f'{root} has no folder of {kind.name}')
  for toy in toys:
    found = _open(toy)
    for split in ('val', 'test'):
      asked = found.evaluation(split)
      if asked.relevance is not None:
        shape = len(found.names[split]), len(asked.texts)
        assert relevance_files.read(asked.relevance).shape == shape
      for text, clips in zip(asked.texts, asked.answers, strict=True):
        names = found.names[split]
        want = [i for i, n in enumerate(names) if text in found.captions(n)]
        assert clips.tolist() == want
    for split, names in found.names.items():
      for name in names:
        assert found.features(split, name).shape[1] == found.width
    for file in toy.glob('results/**/pred/tst/*.npz'):
      with np.load(file) as told:
        assert told['vid_names'].tolist() == list(found.names['test'])
        assert told['cap_names'].tolist() == list(asked.texts)
