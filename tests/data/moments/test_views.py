# SPDX-License-Identifier: Apache-2.0
"""Views of a small table in memory, against the rows they are made of."""

import numpy as np
import pytest

from vidret_jax.data import row_store
from vidret_jax.data import source as source_lib
from vidret_jax.data.moments import layout, records, views

CLIPS, WORDS = 6, 4
COUNTS = (6, 2, 4)
TOKENS = (4, 1, 3, 2)
WIDTHS = {'video': 3, 'subtitle': 5}
ROWS = (
  dict(desc_id=9, desc='a', vid_name='z', ts=[0, 3], type='v'),
  dict(desc_id=4, desc='b', vid_name='x', ts=[2.0, 7.4], type='vt'),
  dict(desc_id=7, desc='c', vid_name='z', ts=[[1.6, 5], [0, 1]], type='t'),
  dict(desc_id=5, desc='d', vid_name='x', ts=[8.9, 9]),
)


def table(rows=ROWS):
  return records.Table(
    videos=['x', 'y', 'z'],
    numbers=[12, 10, 11],
    seconds=[9.0, 2.6, 6.0],
    clips=list(COUNTS),
    rows=rows,
    clip_seconds=1.5,
  )


def stored(counts, shapes, seed=0):
  rng = np.random.default_rng(seed)
  arrays = [
    {s: rng.normal(size=(n, d)).astype(np.float32) for s, (_, d) in shapes}
    for n in counts
  ]
  return arrays, row_store.Kept(arrays, dict(shapes))


def opened(context='video_sub_tef', rows=ROWS):
  streams = views.streams_of(context)
  shapes = [(s, (CLIPS, WIDTHS[s])) for s in streams]
  arrays, kept = stored(COUNTS, shapes)
  clips = views.Clips(table(rows), kept, context=context, max_clips=CLIPS)
  said, words = stored(TOKENS, [('query', (WORDS, 2))], seed=1)
  return arrays, clips, said, words


def tef(count):
  out = np.zeros((CLIPS, 2), np.float32)
  for i in range(count):
    out[i] = np.float32(i) / count, np.float32(i + 1) / count
  return out


@pytest.mark.parametrize('context', layout.CONTEXTS)
def test_items(context):
  arrays, clips, _, _ = opened(context)
  items = views.Items(table(), clips)
  index = np.asarray([2, -1, 0, 2])
  batch = items.gather(index, index)
  streams = [s for s, part in (('video', 'video'), ('subtitle', 'sub'))
             if part in context]  # fmt: skip
  keys = {*(streams or ['video']), 'clip_mask', '_mask'}
  assert set(batch) == set(items.spec) == keys
  for key, (shape, dtype) in items.spec.items():
    assert batch[key].shape == (4, *shape) and batch[key].dtype == dtype
  assert batch['_mask'].tolist() == [True, False, True, True]
  for row, video in enumerate(index):
    count = COUNTS[video] if video >= 0 else 0
    assert batch['clip_mask'][row].tolist() == [i < count for i in range(CLIPS)]
    for stream in keys & {'video', 'subtitle'}:
      want = np.zeros((CLIPS, 0))
      if stream in streams:
        want = np.zeros((CLIPS, WIDTHS[stream]), np.float32)
        want[:count] = arrays[video][stream][:count]
      if 'tef' in context:
        want = np.concatenate([want, tef(count)], axis=1)
      np.testing.assert_array_equal(batch[stream][row], want, stream)


def test_items_tell_of_their_videos(tmp_path):
  _, clips, _, _ = opened()
  (tmp_path / 'y.mp4').touch()
  items = views.Items(table(), clips, videos=str(tmp_path))
  assert items.ids == ('x', 'y', 'z') and len(items) == 3
  assert items.numbers.tolist() == [12, 10, 11]
  assert items.numbers.dtype == np.int64
  assert items.durations.tolist() == [9.0, 2.6, 6.0]
  assert items.clip_seconds == 1.5
  assert items.videos == [None, str(tmp_path / 'y.mp4'), None]
  assert views.Items(table(), clips).videos == [None] * 3
  assert [items.captions(i) for i in range(3)] == [['b', 'd'], [], ['a', 'c']]


def test_queries():
  _, clips, said, words = opened()
  queries = views.Queries(table(), words)
  assert queries.ids == ('9', '4', '7', '5')
  assert queries.numbers.tolist() == [9, 4, 7, 5]
  assert queries.texts == ['a', 'b', 'c', 'd']
  assert queries.kinds == ('v', 'vt', 't', '')
  assert queries.answered and tuple(queries.rows) == ROWS
  index = np.asarray([3, -1, 0])
  batch = queries.gather(index, index)
  assert set(batch) == set(queries.spec) == {'query', 'query_mask', '_mask'}
  assert batch['_mask'].tolist() == [True, False, True]
  assert batch['query_mask'].sum(1).tolist() == [2, 0, 4]
  np.testing.assert_array_equal(batch['query'][0, :2], said[3]['query'])
  assert not batch['query'][1].any()
  truth = queries.ground_truth(views.Items(table(), clips))
  assert isinstance(truth, source_lib.GroundTruth)
  assert truth.item_of_query.tolist() == [2, 0, 2, 0]
  assert truth.spans.dtype == np.float64
  assert truth.spans.tolist() == [[0, 3], [2, 7.4], [1.6, 5], [8.9, 9]]


def test_queries_of_other_videos():
  _, clips, _, words = opened()
  queries = views.Queries(table(), words, where='folder')
  less = records.Table(['x'], [12], [9.0], [6], [], 1.5)
  items = views.Items(less, clips)
  with pytest.raises(ValueError, match="folder: video 'z' .* the 1 items"):
    queries.ground_truth(items)


def test_pairs():
  arrays, clips, said, words = opened()
  pairs = views.Pairs(table(), clips, words)
  assert pairs.ids == ('z#9', 'x#4', 'z#7', 'x#5') and len(pairs) == 4
  assert pairs.numbers.tolist() == [9, 4, 7, 5]
  index = np.asarray([2, -1, 1, 3, 0])
  batch = pairs.gather(index, index)
  assert set(batch) == set(pairs.spec)
  for key, (shape, dtype) in pairs.spec.items():
    assert batch[key].shape == (5, *shape) and batch[key].dtype == dtype
  # Of several annotators the first one; ends are at most the last clip.
  assert batch['span'].tolist() == [[1, 3], [0, 0], [1, 5], [5, 5], [0, 2]]
  assert batch['_mask'].tolist() == [True, False, True, True, True]
  np.testing.assert_array_equal(batch['video'][0, :4, :3], arrays[2]['video'])
  np.testing.assert_array_equal(batch['query'][2, :1], said[1]['query'])
  assert not any(batch[k][1].any() for k in batch)
  assert pairs.texts(np.asarray([1, 0])) == ['b', 'a']
  alone = pairs.gather(np.asarray([-1]), np.asarray([-1]))
  assert not any(value.any() for value in alone.values())


def test_a_hidden_test_set():
  rows = tuple(dict(desc_id=r['desc_id'], desc=r['desc']) for r in ROWS)
  _, clips, _, words = opened(rows=rows)
  queries = views.Queries(table(rows), words, where='folder')
  items = views.Items(table(rows), clips)
  assert not queries.answered and queries.kinds == ('',) * 4
  assert queries.rows[0] == dict(desc_id=9, desc='a')
  assert items.captions(0) == []
  index = np.arange(4)
  assert queries.gather(index, index)['query_mask'].any()
  with pytest.raises(ValueError, match='folder: .*nothing to compare with'):
    queries.ground_truth(items)
  with pytest.raises(ValueError, match='folder: .*not trained on'):
    views.Pairs(table(rows), clips, words, where='folder')


def test_table_survives_json():
  back = records.Table.from_json(table().to_json())
  assert back.to_json() == table().to_json()
  assert back.labels.tolist() == table().labels.tolist()
