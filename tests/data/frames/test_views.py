# SPDX-License-Identifier: Apache-2.0
"""Pairs, items and queries of a table whose clips are real files."""

import functools
import threading

import numpy as np
import pytest

from tests.data import frame_sets
from vidret_jax.data import source as source_lib
from vidret_jax.data import splitmix
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data.frames import captions, files, store, views

FRAMES, SIZE, WORDS = 5, 16, 8
LENGTHS = (3, 5, 9, 1)
ROWS = [
  *(('b', 'a man sings'), ('a', 'the dog runs'), ('b', 'the red guitar')),
  *(('c', 'a man cooks'), ('d', 'the road'), ('a', 'a dog plays in the pan')),
]
VARIANTS = [[f'the {text}' for _, text in ROWS]]


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  path = tmp_path_factory.mktemp('words') / 'tokenizer.json'
  return tokenizer_lib.load(frame_sets.write_tokenizer(path))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Folders of 3, 5, 9 and 1 frames: b, a, c, d."""
  root = tmp_path_factory.mktemp('clips')
  rng = np.random.default_rng(0)
  for name, count in zip('bacd', LENGTHS):
    frame_sets.write_frames(root / name, frame_sets.film(rng, count, (20, 16)))
  return root


def clips_of(folder, table, **options):
  paths = [folder / video for video in table.ids]

  def fetch(row):
    fetch.count[row] = fetch.count.get(row, 0) + 1
    return files.read(paths[row], size=SIZE, max_frames=FRAMES)

  fetch.count = {}
  shape = (FRAMES, SIZE, SIZE, 3)
  clips = store.Store(table.ids, paths, fetch, shape=shape, **options)
  clips.decoded = fetch.count
  return clips


@pytest.fixture
def opened(folder, words):
  """(table, clips, make pairs)."""
  table = captions.table(ROWS, 'here', variants=VARIANTS)
  plain = captions.table(ROWS, 'here')
  clips = clips_of(folder, table)

  def pairs(*, variants=False, **options):
    return views.Pairs(
      table if variants else plain, clips, words, max_words=WORDS, **options
    )

  return plain, clips, pairs


def seeds(n, start=0):
  return splitmix.row_seeds(7, np.zeros(n, np.int64), np.arange(n) + start)


def check_spec(source, batch):
  assert set(batch) == set(source.spec)
  for key, (shape, dtype) in source.spec.items():
    assert batch[key].shape[1:] == shape and batch[key].dtype == dtype, key


def test_pairs_hold_every_caption_in_file_order(opened, words, folder):
  _, _, pairs = opened
  source = pairs()
  assert source.ids == ('b#0', 'a#0', 'b#1', 'c#0', 'd#0', 'a#1')
  index = np.asarray([2, -1, 5, 0])
  batch = source.gather(index, seeds(4))
  check_spec(source, batch)
  assert batch['_mask'].tolist() == [True, False, True, True]
  texts = [ROWS[i][1] for i in (2, 5, 0)]
  np.testing.assert_array_equal(
    batch['text'][[0, 2, 3]], words.rows(texts, WORDS)
  )
  assert source.texts(index, seeds(4)) == [texts[0], '', *texts[1:]]
  assert batch['frame_mask'].sum(1).tolist() == [3, 0, 5, 3]
  np.testing.assert_array_equal(
    batch['frames'][2], files.read(folder / 'a', size=SIZE, max_frames=5)
  )
  np.testing.assert_array_equal(batch['frames'][0], batch['frames'][3])
  assert not batch['frames'][~batch['frame_mask']].any()
  assert not batch['text'][1].any()


def test_a_drawn_caption_follows_from_the_seed_of_the_row(opened):
  _, _, pairs = opened
  source = pairs(captions='one')
  assert source.ids == ('b', 'a', 'c', 'd')
  index = np.zeros(400, np.int64)
  told = source.texts(index, seeds(400))
  assert set(told) == {'a man sings', 'the red guitar'}
  assert 150 < told.count('a man sings') < 250
  assert told == source.texts(index, seeds(400))
  assert told[100:] == source.texts(index[:300], seeds(300, 100))


def test_a_paraphrase_is_of_the_same_row(opened):
  _, _, pairs = opened
  source = pairs(variants=True)
  for row, (_, text) in enumerate(ROWS):
    told = source.texts(np.full(100, row), seeds(100))
    assert set(told) == {text, f'the {text}'}


@pytest.mark.parametrize('order', views.ORDERS)
def test_frames_in_another_order(opened, order):
  _, _, pairs = opened
  index = np.asarray([0, 1, 3, 4])  # 3, 5, 5 (of 9) and 1 frames.
  want = pairs().gather(index, seeds(4))
  source = pairs(order=order)
  got = source.gather(index, seeds(4))
  np.testing.assert_array_equal(got['frame_mask'], want['frame_mask'])
  assert not got['frames'][~got['frame_mask']].any()
  places = []
  for clip, ordered, n in zip(
    want['frames'], got['frames'], want['frame_mask'].sum(1)
  ):
    same = (clip[:n, None] == ordered[None, :n]).all((2, 3, 4))
    assert (same.sum(0) == 1).all() and (same.sum(1) == 1).all()
    places.append(same.argmax(0).tolist())
  if order == 'as_is':
    assert places == [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0]]
  elif order == 'reversed':
    assert places == [[2, 1, 0], [4, 3, 2, 1, 0], [4, 3, 2, 1, 0], [0]]
  else:
    again = source.gather(index, seeds(4))
    np.testing.assert_array_equal(again['frames'], got['frames'])
    other = source.gather(index, seeds(4, 4))
    assert (other['frames'] != got['frames']).any()


def test_shuffled_orders_are_all_equally_likely():
  frames = np.tile(np.arange(4), (6000, 1))
  count = np.full(6000, 3)
  found = views.ordered(frames, count, 'shuffled', seeds(6000))
  assert (found[:, 3] == 3).all()  # The padding.
  _, times = np.unique(found[:, :3], axis=0, return_counts=True)
  assert len(times) == 6 and (abs(times - 1000) < 150).all()


def test_items_and_queries(opened, words):
  table, clips, _ = opened
  items = views.Items(table, clips)
  queries = views.Queries(table, words, max_words=WORDS)
  assert items.ids == ('b', 'a', 'c', 'd')
  assert items.captions(1) == ['the dog runs', 'a dog plays in the pan']
  assert items.videos == [None] * 4  # Folders are not playable.
  assert queries.ids == ('b#0', 'b#1', 'a#0', 'a#1', 'c#0', 'd#0')
  truth = queries.ground_truth(items)
  assert truth.item_of_query.tolist() == [0, 0, 1, 1, 2, 3]
  for source in (items, queries):
    blocks = [b for _, b in source_lib.blocks(source, 4)]
    for block in blocks:
      check_spec(source, block)
    rows = np.concatenate([b['_mask'] for b in blocks]).sum()
    assert rows == len(source)
  batch = queries.gather(np.arange(6), np.zeros(6, np.int64))
  np.testing.assert_array_equal(batch['text'], words.rows(queries.texts, WORDS))
  with pytest.raises(ValueError, match="among the 1 items, the first is 'b'"):
    queries.ground_truth(
      views.Items(captions.table([('a', 'x')], 'there'), clips)
    )


@pytest.mark.parametrize('num_threads', [0, 3])
def test_an_unreadable_video_is_masked_and_named_once(
  folder, words, tmp_path, num_threads, caplog
):
  table = captions.table(ROWS, 'here')
  for video in 'bcd':
    (tmp_path / video).symlink_to(folder / video)
  bad = frame_sets.film(np.random.default_rng(1), 2, (20, 16))
  frame_sets.write_frames(tmp_path / 'a', bad)
  (tmp_path / 'a' / 'a_1.jpg').write_bytes(b'\xff\xd8\xff\xe0 no picture')
  (tmp_path / 'd').unlink()
  clips = clips_of(tmp_path, table, num_threads=num_threads)
  source = views.Pairs(table, clips, words, max_words=WORDS)
  items = views.Items(table, clips)
  with caplog.at_level('WARNING', logger='absl'):
    for _ in range(2):
      batch = source.gather(np.arange(6), seeds(6))
      rows = items.gather(np.arange(4), np.zeros(4, np.int64))
  assert batch['_mask'].tolist() == [True, False, True, True, False, False]
  np.testing.assert_array_equal(batch['_mask'], batch['frame_mask'].any(1))
  assert rows['frame_mask'].any(1).tolist() == [True, False, True, False]
  assert rows['_mask'].all()  # Nothing is dropped from an evaluation.
  assert set(source.unreadable) == set(items.unreadable) == {'a', 'd'}
  assert 'a_1.jpg' in source.unreadable['a']
  told = [r.getMessage() for r in caplog.records]
  assert len(told) == 2 and all('ranked last' in t for t in told)
  assert clips.decoded[1] == 1 or num_threads  # Tried once, and given up.


def test_a_fault_of_the_program_is_no_unreadable_video(folder):
  def fetch(row):
    raise KeyError(row)

  clips = store.Store(['a', 'b'], [None, None], fetch, shape=(1, 2, 2, 3))
  with pytest.raises(KeyError):
    clips.read(np.asarray([0, 1]))
  assert not clips.unreadable


def test_a_video_is_decoded_once_per_batch_and_kept_within_the_budget(folder):
  table = captions.table(ROWS, 'here')
  rows = np.asarray([0, 0, 1, 3, 0])
  one = SIZE * SIZE * 3
  plain = clips_of(folder, table)
  want, count = plain.read(rows)
  assert count.tolist() == [3, 3, 5, 1, 3]
  assert plain.decoded == {0: 1, 1: 1, 3: 1}
  plain.read(rows)
  assert plain.decoded == {0: 2, 1: 2, 3: 2}
  ram = clips_of(folder, table, cache_bytes=None)
  for _ in range(3):
    np.testing.assert_array_equal(ram.read(rows)[0], want)
  assert ram.decoded == {0: 1, 1: 1, 3: 1}
  # Room for six frames: a (5) and d (1) fit, b (3) does not fit beside a.
  small = clips_of(folder, table, cache_bytes=6 * one, num_threads=0)
  for row in (1, 3, 1, 3, 0, 3, 1):
    small.read(np.asarray([row]))
  assert small.decoded == {1: 2, 3: 1, 0: 1}


def test_threads_may_share_a_source(folder, words):
  table = captions.table(ROWS, 'here')
  clips = clips_of(folder, table, cache_bytes=30000, num_threads=4)
  source = views.Pairs(table, clips, words, max_words=WORDS, order='shuffled')
  want = source.gather(np.arange(6), seeds(6))
  failed = []

  def work(start):
    for i in range(10):
      index = np.roll(np.arange(6), start + i)
      got = source.gather(index, seeds(6)[index])
      for key, value in want.items():
        if not np.array_equal(got[key], value[index]):
          failed.append(key)

  threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failed


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(order='backwards'), "frame_order='backwards' is unknown"),
    (dict(captions='some'), "captions='some' is unknown"),
  ],
)
def test_unknown_options(opened, options, message):
  _, _, pairs = opened
  with pytest.raises(ValueError, match=message):
    pairs(**options)


def test_bad_numbers(opened, words):
  table, clips, _ = opened
  with pytest.raises(ValueError, match='max_words is 1'):
    views.Queries(table, words, max_words=1)
  make = functools.partial(
    store.Store, table.ids, [None] * 4, None, shape=(1, 2, 2, 3)
  )
  with pytest.raises(ValueError, match='cache_bytes=-1'):
    make(cache_bytes=-1)
  with pytest.raises(ValueError, match='num_threads=-2'):
    make(num_threads=-2)


def test_long_captions_are_told_of_once(opened, tmp_path, caplog):
  table, _, _ = opened
  # The count of cut texts belongs to a tokenizer: one of its own.
  path = frame_sets.write_tokenizer(tmp_path / 'tokenizer.json')
  mine = tokenizer_lib.load(path)
  with caplog.at_level('WARNING', logger='absl'):
    queries = views.Queries(table, mine, max_words=4)
    for _ in range(2):
      queries.gather(np.arange(6), np.zeros(6, np.int64))
  assert len(caplog.records) == 1
  assert 'here: ' in caplog.text and 'of 6 texts are longer' in caplog.text


def test_a_map_is_read_like_a_store(folder, tmp_path):
  table = captions.table(ROWS, 'here')
  clips = clips_of(folder, table)
  frames, count = clips.read(np.arange(4))
  np.save(tmp_path / 'x.npy', frames)
  mapped = store.Mapped(
    np.load(tmp_path / 'x.npy', mmap_mode='r'), count, clips.paths, {}
  )
  assert mapped.shape == clips.shape
  for rows in ([3, -1, 0, 0], [-1]):
    for got, want in zip(
      mapped.read(np.asarray(rows)), clips.read(np.asarray(rows))
    ):
      np.testing.assert_array_equal(got, want)
      assert type(got) is np.ndarray
