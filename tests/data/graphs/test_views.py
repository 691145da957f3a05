# SPDX-License-Identifier: Apache-2.0
"""Views of clips with captions as role graphs."""

import json

import numpy as np
import pytest

from tests.data import graph_sets
from vidret_jax.data import pipeline
from vidret_jax.data.graphs import (
  classes,
  records,
  store,
  tensors,
  texts,
  views,
)

FRAMES, WIDTH = 4, 5
SIZES = dict(max_words=6, num_verbs=2, num_nouns=3)


def corpus(seed=0, count=5):
  """{clip: [(caption, graph, verbs, nouns)]}; two clips share a caption."""
  rng = np.random.default_rng(seed)
  told = {
    clip: [graph_sets.caption(rng, (i + k) % 4) for k in range(1 + i % 3)]
    for i, clip in enumerate(graph_sets.clip_ids('msrvtt', count))
  }
  first, *_, last = told
  told[last].append(told[first][0])
  told[last].append(told[first][0])
  return told


def table(told, **more):
  graphs = {one[0]: one[1] for said in told.values() for one in said}
  words = sorted({w for text in graphs for w in text.split()})
  words.remove(graph_sets.UNKNOWN)
  return records.table(
    {clip: [one[0] for one in said] for clip, said in told.items()},
    graphs=graphs,
    vocabulary={w: i + 3 for i, w in enumerate(words)},
    num_words=len(words) + 3,
    **more,
  )


def trained(told):
  keep = [[one[2:] for one in said] for said in told.values()]
  return table(told, classes=keep)


def rows_of(told, seed=1):
  rng = np.random.default_rng(seed)
  return [
    rng.normal(size=(1 + i % FRAMES, WIDTH)).astype(np.float32)
    for i in range(len(told))
  ]


def kept(told):
  return store.kept(rows_of(told), (FRAMES, WIDTH))


def whole(source):
  index = np.arange(len(source))
  return source.gather(index, index)


def test_pairs_are_all_captions_clip_by_clip():
  told = corpus()
  made = trained(told)
  source = views.Pairs(made, kept(told), texts.Texts(made, **SIZES))
  want = [(c, k, one) for c, said in told.items() for k, one in enumerate(said)]
  assert source.ids == tuple(f'{clip}#{k}' for clip, k, _ in want)
  batch = whole(source)
  assert source.texts(np.arange(len(source))) == [one[0] for *_, one in want]
  frames = dict(zip(told, rows_of(told), strict=True))
  for row, (clip, _, (text, graph, verbs, nouns)) in enumerate(want):
    ids, mask = tensors.sentence(text, made.vocabulary, SIZES['max_words'])
    np.testing.assert_array_equal(batch['words'][row], ids)
    np.testing.assert_array_equal(batch['word_mask'][row], mask)
    for key, value in tensors.graph(graph, **SIZES).items():
      np.testing.assert_array_equal(batch[key][row], value, err_msg=key)
    own = frames[clip]
    np.testing.assert_array_equal(batch['features'][row][: len(own)], own)
    assert not batch['features'][row][len(own) :].any()
    assert batch['feature_mask'][row].tolist() == [
      i < len(own) for i in range(FRAMES)
    ]
    pooled = graph_sets.pooled([one[2:] for one in told[clip]])
    for key, found in (
      ('verb_classes', verbs),
      ('noun_classes', nouns),
      ('video_verb_classes', pooled[0]),
      ('video_noun_classes', pooled[1]),
    ):
      got = batch[key][row]
      assert got[got != classes.ABSENT].tolist() == sorted(set(found)), key
  assert batch['_mask'].all() and source.sizes == {'num_words': made.num_words}


def test_batches_are_what_the_spec_says_and_padding_is_zeros():
  told = corpus()
  made = trained(told)
  rows = {'the': 0, 'man': 1}, np.ones((2, 7), np.float32)
  for said in (
    texts.Texts(made, **SIZES),
    texts.Texts(made, **SIZES, graphs=False),
    texts.Texts(made, **SIZES, graphs=False, vectors=rows),
  ):
    sources = (
      views.Pairs(made, kept(told), said),
      views.Items(made, kept(told), sizes=said.sizes),
      views.Queries(made, said),
    )
    for source in sources:
      batch = source.gather(np.asarray([1, -1, 0]), np.zeros(3, np.int64))
      found = {k: (v.shape[1:], v.dtype) for k, v in batch.items()}
      assert found == source.spec
      assert batch['_mask'].tolist() == [True, False, True]
      for key, value in batch.items():
        assert not value[1].any(), key
      again = source.gather(np.asarray([0]), np.zeros(1, np.int64))
      for key, value in again.items():
        np.testing.assert_array_equal(value[0], batch[key][2])
      nothing = source.gather(np.asarray([-1, -1]), np.zeros(2, np.int64))
      assert not any(value.any() for value in nothing.values())
    assert {*said.spec} <= {*sources[0].spec}


def test_vectors_close_up_over_unknown_words():
  told = {'a': [('x man y dog', None, [], [])], 'b': [('x y', None, [], [])]}
  made = records.table(
    {clip: [one[0] for one in said] for clip, said in told.items()},
    vocabulary={},
    num_words=3,
  )
  rows = np.asarray([[1.0, 2], [3, 4]], np.float32)
  said = texts.Texts(
    made, max_words=3, graphs=False, vectors=({'dog': 0, 'man': 1}, rows)
  )
  batch = whole(views.Queries(made, said))
  assert batch['word_mask'].tolist() == [[True, True, False], [False] * 3]
  np.testing.assert_array_equal(
    batch['word_vectors'], [[[3, 4], [1, 2], [0, 0]], np.zeros((3, 2))]
  )
  short = texts.Texts(
    made, max_words=1, graphs=False, vectors=({'dog': 0, 'man': 1}, rows)
  )
  batch = short.rows(np.asarray([0, 1]))
  np.testing.assert_array_equal(batch['word_vectors'][:, 0], [[3, 4], [0, 0]])


def test_queries_are_captions_with_all_their_answers():
  told = corpus()
  made = table(told)
  relevance = np.random.default_rng(0).random((100, len(told)))
  count = sum(len(said) for said in told.values())
  relevance = relevance[:count].astype(np.float32)
  items = views.Items(made, kept(told))
  source = views.Queries(made, texts.Texts(made, **SIZES), relevance)
  assert source.texts == [o[0] for said in told.values() for o in said]
  assert source.ids[-2:] == ('video4.mp4#2', 'video4.mp4#3')
  answers = source.answers(items)
  for text, found in zip(source.texts, answers, strict=True):
    want = [i for i in range(len(items)) if text in items.captions(i)]
    assert found.tolist() == want
  assert {0, 4} <= set(answers[-1].tolist()) == set(answers[0].tolist())
  truth = source.ground_truth(items)
  assert truth.item_of_query.tolist() == [found[0] for found in answers]
  assert truth.graded is relevance
  other = table(dict(reversed(told.items())))
  with pytest.raises(ValueError, match='not the 5 clips of the queries'):
    source.ground_truth(views.Items(other, kept(told)))
  with pytest.raises(ValueError, match=r'shape \(3, 5\), expected \(\d+, 5\)'):
    views.Queries(made, texts.Texts(made, **SIZES), relevance[:3])


def test_a_list_of_queries_of_its_own():
  told = corpus()
  first = [said[0][0] for said in told.values()]
  listed = [first[2], 'no clip has this', first[2]]
  graphs = {one[0]: one[1] for said in told.values() for one in said}
  graphs[listed[1]] = [{}, []]
  made = records.table(
    {clip: [one[0] for one in said] for clip, said in told.items()},
    queries=listed, graphs=graphs, vocabulary={}, num_words=3,
  )  # fmt: skip
  relevance = np.zeros((3, len(told)), np.float32)
  relevance[1, 3] = 0.5
  items = views.Items(made, kept(told))
  source = views.Queries(made, texts.Texts(made, **SIZES), relevance)
  assert source.ids == ('narration#0', 'narration#1', 'narration#2')
  assert source.texts == listed
  assert [a.tolist() for a in source.answers(items)] == [[2], [], [2]]
  assert source.ground_truth(items).item_of_query.tolist() == [2, 3, 2]
  bare = views.Queries(made, texts.Texts(made, **SIZES))
  assert bare.ground_truth(items).item_of_query.tolist() == [2, 0, 2]
  assert not whole(source)['verb_mask'][1].any()
  assert (whole(source)['words'][1][:4] == tensors.UNKNOWN).all()


def test_one_query_per_clip():
  told = corpus()
  first = [said[0][0] for said in told.values()]
  first[1] = first[0]  # Answered by its own clip all the same.
  made = table(told, queries=first, owners=list(range(len(told))))
  source = views.Queries(made, texts.Texts(made, **SIZES))
  items = views.Items(made, kept(told))
  assert source.ids == tuple(f'{clip}#0' for clip in told)
  truth = source.ground_truth(items)
  assert truth.item_of_query.tolist() == list(range(len(told)))
  assert truth.graded is None
  assert [a.tolist() for a in source.answers(items)] == [
    [i] for i in range(len(told))
  ]


def test_tables():
  told = corpus()
  made = trained(told)
  assert len(made.texts) == len(set(made.texts))
  again = records.Table.from_json(made.to_json())
  assert again.to_json() == made.to_json()
  for text, graph in zip(again.texts, again.graphs, strict=True):
    full = next(o[1] for said in told.values() for o in said if o[0] == text)
    want = tensors.graph(full, **SIZES)
    for key, value in tensors.graph(json.loads(graph), **SIZES).items():
      np.testing.assert_array_equal(value, want[key])
  with pytest.raises(ValueError, match="clip 'b' has no caption"):
    records.table({'a': ['x'], 'b': []}, vocabulary={}, num_words=3)
  with pytest.raises(ValueError, match="clip 'a' is there twice"):
    records.Table(['a', 'a'], ['x'], [[0], [0]], {}, 3)


@pytest.mark.parametrize('key', ['max_words', 'num_verbs', 'num_nouns'])
def test_sizes_are_positive(key):
  with pytest.raises(ValueError, match=f'{key}=0'):
    texts.Texts(table(corpus()), **{**SIZES, key: 0})


def test_graphs_that_are_not_there():
  made = records.table({'a': ['x']}, vocabulary={}, num_words=3)
  with pytest.raises(ValueError, match='FOLDER: graphs=True, but'):
    texts.Texts(made, where='FOLDER')


def test_files_that_reports_play(tmp_path):
  folder = tmp_path / 'clips'
  folder.mkdir()
  for name in ('a.mp4', 'b'):
    (folder / name).touch()
  (tmp_path / 'c.mp4').touch()
  told = {clip: ['x'] for clip in ('a', 'b', 'd', '../c', '/etc/passwd')}
  made = records.table(told, vocabulary={}, num_words=3)
  items = views.Items(made, kept(told), videos=str(folder))
  assert items.videos == [str(folder / 'a.mp4'), str(folder / 'b')] + [None] * 3
  assert views.Items(made, kept(told)).videos == [None] * 5


def test_training_stream():
  told = corpus()
  made = trained(told)
  source = views.Pairs(made, kept(told), texts.Texts(made, **SIZES))
  stream = pipeline.train_iter(source, batch_size=4, seed=3)
  batch = next(stream)
  stream.close()
  index, _ = pipeline.batch_rows(0, len(source), 4, 3, 'pad')
  for key, value in source.gather(index, index).items():
    np.testing.assert_array_equal(batch[key], value)
