# SPDX-License-Identifier: Apache-2.0
"""Rows of named streams: padding, caches, sharing, damaged records."""

import pathlib

import numpy as np
import pytest

from vidret_jax.data import playable, row_store, store

SHAPES = {'a': (4, 3), 'b': (2, 1)}
COUNTS = ((4, 1), (0, 2), (2, 0))
IDS = ('x', 'y', 'z')


def owners(seed=0):
  rng = np.random.default_rng(seed)
  return [
    {s: rng.normal(size=(n, SHAPES[s][1])).astype(np.float32)
     for s, n in zip(SHAPES, counts)}
    for counts in COUNTS
  ]  # fmt: skip


class Data:
  """Decoded records, as TFDS gives them."""

  def __init__(self, rows, names=IDS):
    self._rows = [
      {'id': name.encode(), **row} for name, row in zip(names, rows)
    ]
    self.asked = []

  def __getitems__(self, index):
    self.asked.append(list(index))
    return [self._rows[i] for i in index]


def on_disk(rows=None, names=IDS):
  data = Data(rows or owners(), names)
  return data, row_store.OnDisk(data, IDS, SHAPES, pathlib.Path('folder'))


@pytest.mark.parametrize('cache', row_store.CACHES)
@pytest.mark.parametrize('spare', [0, 2])
def test_rows_are_padded(cache, spare):
  rows = row_store.open_rows(on_disk()[1], cache)
  assert dict(rows.shapes) == SHAPES
  index = np.asarray([2, -1, 0, 2, 1])
  found = rows.read(index, spare=spare)
  atol = 1e-3 if cache == 'ram16' else 0
  for stream, (limit, width) in SHAPES.items():
    values, mask = found[stream]
    assert values.dtype == np.float32 and mask.dtype == bool
    assert values.shape == (5, limit, width + spare)
    for i, owner in enumerate(index):
      want = np.zeros((limit, width + spare))
      count = 0
      if owner >= 0:
        own = owners()[owner][stream]
        count = len(own)
        want[:count, :width] = own
      np.testing.assert_allclose(values[i], want, rtol=0, atol=atol)
      assert mask[i].tolist() == [j < count for j in range(limit)]


def test_an_owner_is_read_once():
  data, rows = on_disk()
  rows.read(np.asarray([2, 0, 2, -1, 2]))
  assert data.asked == [[0, 2]]
  rows.read(np.asarray([-1, -1]))
  assert len(data.asked) == 1


@pytest.mark.parametrize(
  'rows, names, message',
  [
    (None, ('x', 'q', 'z'), "folder: record 1 is of 'q' with 0 rows of a, "),
    (
      [{'a': np.zeros((5, 3)), 'b': np.zeros((0, 1))}] * 3,
      IDS,
      "record 0 is of 'x' with 5 rows of a, expected 'x' with at most 4",
    ),
    (owners()[:1], IDS, 'folder: records 0 and following cannot be read'),
  ],
)
def test_damaged_records(rows, names, message):
  with pytest.raises(store.MissingRecords, match=message):
    row_store.open_rows(on_disk(rows, names)[1], 'ram')


def test_unknown_cache():
  with pytest.raises(ValueError, match="Unknown cache='disk'"):
    row_store.open_rows(on_disk()[1], 'disk')


def test_shared_while_in_use():
  made = []

  def build():
    made.append(on_disk()[1])
    return made[-1]

  a = row_store.shared(('test', 1), build)
  assert row_store.shared(('test', 1), build) is a
  assert row_store.shared(('test', 2), build) is not a
  assert len(made) == 2
  made.clear()
  del a
  assert row_store.shared(('test', 1), build) and len(made) == 1


def test_playable(tmp_path):
  inner = tmp_path / 'videos'
  inner.mkdir()
  for name in ('a', 'b.mp4', 'c.webm'):
    (inner / name).touch()
  (tmp_path / 'd.mp4').touch()
  for video, file in (('a', 'a'), ('b', 'b.mp4'), ('c', 'c.webm')):
    assert playable.find(str(inner), video) == str(inner / file)
  for video in ('../d', '../d.mp4', str(tmp_path / 'd'), 'x', 'a\0', ''):
    assert playable.find(str(inner), video) is None
  assert playable.find(None, 'a') is None
