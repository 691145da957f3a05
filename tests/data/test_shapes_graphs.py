# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as role graphs over clip features."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from vidret_jax.data import shapes, shapes_graphs, words
from vidret_jax.data.graphs import tensors
from vidret_jax.data.shapes import (
  annotations,
  concepts,
  corpus,
  measure,
  snippets,
)
from vidret_jax.data.shapes import vocabulary as vocab

COUNTS = {'train': 10, 'val': 4, 'test': 5, 'copies': 0}
NONE = np.zeros(1, np.int64)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shapes_graphs')
  shapes.prepare(folder, counts=COUNTS, progress=False)
  return folder


@pytest.fixture(scope='module')
def rows(root):
  return annotations.read(corpus.corpus_dir(root))


def make(root, view, split='train', **options):
  return shapes_graphs.make(
    view=view, split=split, root=root, progress=False, **options
  )


def of(rows, split):
  return [r for r in rows if r['split'] == split]


def one(source, i):
  """One row, without the axis of the batch."""
  batch = source.gather(np.array([i]), NONE)
  return {key: value[0] for key, value in batch.items()}


@pytest.mark.parametrize('kind', ['ids', 'vectors'])
@pytest.mark.parametrize('graphs', [True, False])
@pytest.mark.parametrize('view', ['pairs', 'items', 'queries'])
def test_batches_are_what_the_spec_says(root, view, graphs, kind):
  source = make(root, view, words=kind, graphs=graphs)
  batch = source.gather(np.array([1, -1]), np.zeros(2, np.int64))
  assert {k: (x.shape[1:], x.dtype) for k, x in batch.items()} == {
    k: (tuple(shape), dtype) for k, (shape, dtype) in source.spec.items()
  }
  assert batch['_mask'].tolist() == [True, False]
  for key, value in batch.items():
    assert not value[1].any(), key
  assert ('roles' in batch) == (graphs and view != 'items')
  assert ('video_noun_classes' in batch) == (view == 'pairs')
  assert bool(source.sizes) == (kind == 'ids')


def test_pairs_are_all_captions_with_their_graphs_and_classes(root, rows):
  source = make(root, 'pairs')
  here = of(rows, 'train')
  told = [(r, c) for r in here for c in r['captions']]
  assert len(source) == len(told)
  assert source.texts(np.arange(len(told))) == [c['text'] for _, c in told]
  table = json.loads((corpus.corpus_dir(root) / 'word2int.json').read_text())
  assert source.sizes == {'num_words': len(table)}
  sizes = dict(max_words=30, num_verbs=4, num_nouns=6)
  for i, (row, caption) in enumerate(told):
    got = one(source, i)
    said = caption['text'].split()[:30]
    assert got['words'][got['word_mask']].tolist() == [table[w] for w in said]
    for key, value in tensors.graph(caption['graph'], **sizes).items():
      np.testing.assert_array_equal(got[key], value)
    for kind in ('verb', 'noun'):
      own = got[f'{kind}_classes']
      assert own[own >= 0].tolist() == sorted(set(caption[f'{kind}_classes']))
      every = [c for x in row['captions'] for c in x[f'{kind}_classes']]
      least = len(row['captions']) / 4
      want = sorted({c for c in every if every.count(c) >= least})
      pooled = got[f'video_{kind}_classes']
      assert pooled[pooled >= 0].tolist() == want


def test_features_are_the_measured_experts_in_time(root, rows):
  source = make(root, 'items', 'test')
  folder = corpus.corpus_dir(root)
  assert sum(snippets.widths(snippets.STREAMS)) == source.spec['features'][0][1]
  edges = np.cumsum([0, *snippets.widths(snippets.STREAMS)])
  spans = dict(zip(snippets.STREAMS, zip(edges, edges[1:]), strict=True))
  for i, row in enumerate(of(rows, 'test')):
    got = one(source, i)
    assert got['feature_mask'].all() and len(got['features']) == 12
    with np.load(folder / 'experts' / f'{row["id"]}.npz') as file:
      found = dict(file)
    for name, (a, b) in spans.items():
      block = got['features'][:, a:b]
      size = (block**2).sum(axis=1).mean()
      assert size == pytest.approx(float(len(found[name]) > 0), abs=1e-5), name
    # By the way measure.py joins its parts: motion in six, others likewise.
    for name, parts in (('colour', 4), ('layout', 3), ('motion', 6)):
      pieces = np.split(found[name][0], parts)
      scale = np.sqrt(np.mean([(x**2).sum() for x in pieces]))
      a, b = spans[name]
      for t, snippet in enumerate(got['features'][:, a:b]):
        want = pieces[t * parts // 12] / scale
        np.testing.assert_allclose(snippet, want, atol=1e-6)
    a, b = spans['texture']
    flat = found['texture'][0] / np.linalg.norm(found['texture'][0])
    np.testing.assert_allclose(
      got['features'][:, a:b], np.tile(flat, (12, 1)), atol=1e-6
    )


@pytest.mark.parametrize('windows', [1, 5, 12, 13, 24])
def test_sound_is_averaged_into_twelve_steps(windows):
  sound = np.zeros((windows, measure.DIMS['audio']))
  sound[:, 0] = np.arange(1, windows + 1)
  rows = snippets.stream('audio', sound)
  assert (np.diff(rows[:, 0]) >= 0).all() and (rows[:, 1:] == 0).all()
  if windows == 24:
    want = np.arange(12) * 2 + 1.5
    np.testing.assert_allclose(rows[:, 0] / rows[0, 0], want / 1.5, rtol=1e-6)
  if windows == 5:  # Each step has the window that it lies in, or two.
    assert len(set(rows[:, 0].tolist())) > 5


def test_streams_are_chosen(root):
  source = make(root, 'items', streams=('motion', 'colour'), max_frames=4)
  assert source.spec['features'][0] == (4, 48)
  full = one(make(root, 'items', streams=('motion', 'colour')), 0)
  np.testing.assert_array_equal(
    one(source, 0)['features'], full['features'][[0, 4, 7, 11]]
  )


def test_queries_know_their_answers_and_relevance(root, rows):
  items, queries = (make(root, v, 'test') for v in ('items', 'queries'))
  here = of(rows, 'test')
  assert list(items.ids) == [r['id'] for r in here]
  assert all(pathlib.Path(v).is_file() for v in items.videos)
  told = [c for r in here for c in r['captions']]
  assert list(queries.texts) == [c['text'] for c in told]
  assert items.captions(1) == [c['text'] for c in here[1]['captions']]
  truth = queries.ground_truth(items)
  answers = queries.answers(items)
  for q, caption in enumerate(told):
    same = [
      k
      for k, r in enumerate(here)
      if caption['text'] in [c['text'] for c in r['captions']]
    ]
    assert answers[q].tolist() == same and truth.item_of_query[q] == same[0]
  assert truth.graded.shape == (len(queries), len(items))
  want = np.zeros_like(truth.graded)
  for v, row in enumerate(here):
    for q, caption in enumerate(told):
      for kind in ('verb', 'noun'):
        every = [c for x in row['captions'] for c in x[f'{kind}_classes']]
        least = len(row['captions']) / 4
        clip = {c for c in every if every.count(c) >= least}
        mine = set(caption[f'{kind}_classes'])
        want[q, v] += len(clip & mine) / max(1, len(clip | mine)) / 2
  np.testing.assert_allclose(truth.graded, want, atol=1e-7)


def test_vectors_are_those_of_any_word(root, rows):
  source = make(root, 'queries', 'val', words='vectors')
  got, said = one(source, 0), source.texts[0].split()[:30]
  np.testing.assert_array_equal(
    got['word_vectors'][: len(said)], words.embed_tokens(said)
  )
  assert got['word_mask'].sum() == len(said)


def test_the_vocabulary_is_that_of_training_and_kept(root, rows, tmp_path):
  path = corpus.corpus_dir(root) / 'word2int.json'
  make(root, 'queries', 'test')
  table = json.loads(path.read_text())
  said = {
    w
    for r in of(rows, 'train')
    for c in r['captions']
    for w in c['text'].split()
  }
  assert list(table.values()) == list(range(len(said) + 3))
  assert set(list(table)[3:]) == said
  before = path.stat().st_mtime_ns
  make(root, 'pairs')
  assert path.stat().st_mtime_ns == before
  unknown = [
    (q, i)
    for q, text in enumerate(make(root, 'queries', 'test').texts)
    for i, word in enumerate(text.split()[:30])
    if word not in said
  ]
  assert unknown
  source = make(root, 'queries', 'test')
  for q, i in unknown:
    assert one(source, q)['words'][i] == tensors.UNKNOWN


def test_prepare_makes_what_lies_there(root, tmp_path):
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  folder = corpus.corpus_dir(tmp_path)
  (folder / 'word2int.json').unlink(missing_ok=True)
  kw = dict(split='val', root=tmp_path, progress=False)
  assert shapes_graphs.prepare(**kw, streams=('motion',)) == folder
  assert (folder / 'word2int.json').is_file()
  assert not list(folder.glob('*.part'))


def test_concepts_are_what_the_words_name(root, rows):
  def named(text, *things):
    ids = [vocab.NOUN_CLASSES.index(x) for x in things]
    caption = dict(text=text, noun_classes=ids)
    return [concepts.names()[c] for c in concepts.nouns(caption)]

  text = 'a huge scarlet hoop spins over the title sale'
  assert named(text, 'ring', 'word') == [('ring', 'red'), ('word', 'sale')]
  text = 'a disc and a lime star hop on a steel meshed floor as a low hum plays'
  assert named(text, 'circle', 'star', 'ground', 'sound') == [
    *(('circle', ''), ('star', 'green')),
    *(('ground', 'gridded'), ('sound', 'hum')),
  ]
  text = 'a voice talks about the weather as a sound plays'
  assert named(text, 'voice', 'sound') == [('sound', ''), ('voice', 'weather')]
  assert named('a thing moves up') == []
  source = make(root, 'pairs', classes='concepts')
  told = [c for r in of(rows, 'train') for c in r['captions']]
  for i, caption in enumerate(told):
    got = one(source, i)['noun_classes']
    want = sorted(set(concepts.nouns(caption)))
    assert got[got >= 0].tolist() == want
    # Coarse classes and concepts speak of the same things.
    coarse = {vocab.NOUN_CLASSES[c] for c in caption['noun_classes']}
    assert {concepts.names()[c][0] for c in want} == coarse
    got = one(source, i)['verb_classes']
    acts = set(caption['verb_classes']) & set(range(len(vocab.ACTIONS)))
    assert set(got[got >= 0].tolist()) == acts
  coarse, fine = (
    make(root, 'queries', 'test', classes=kind).ground_truth(
      make(root, 'items', 'test')
    )
    for kind in ('corpus', 'concepts')
  )
  assert fine.graded.mean() < coarse.graded.mean()


@pytest.mark.parametrize(
  'options, word',
  [
    (dict(view='clips'), 'Unknown view'),
    (dict(split='copies'), "no split 'copies'"),
    (dict(words='bytes'), "words='bytes'"),
    (dict(classes='all'), "classes='all'"),
    (dict(streams=('motions',)), "'motions' is unknown"),
    (dict(streams=('motion', 'motion')), 'given twice'),
    (dict(streams='motion'), 'streams='),
    (dict(streams=()), 'streams='),
    (dict(max_words=0), 'max_words=0'),
  ],
)
def test_bad_options_are_named(root, options, word):
  with pytest.raises(ValueError, match=word):
    make(root, **{'view': 'pairs', **options})
