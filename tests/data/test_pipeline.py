"""The order of training is a pure function of (seed, step)."""

import subprocess
import sys

import numpy as np
import pytest

from vidret_jax.data import pipeline
from vidret_jax.data import source as source_lib


class Rows:
  """A source whose batches say which rows and seeds they were asked for."""

  spec = {
    'row': ((), np.int64),
    'seed': ((), np.int64),
    'nested': {'a.b': ((2,), np.float32)},
    '_mask': ((), np.bool_),
  }

  def __init__(self, n, broken=()):
    self.ids = [f'video{i}' for i in range(n)]
    self.broken = set(broken)

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    for i in index:
      if int(i) in self.broken:
        raise ValueError(f'{self.ids[i]}: expert colour holds NaN')
    return {
      'row': index,
      'seed': seeds,
      'nested': {'a.b': np.stack([index, seeds % 7], -1).astype(np.float32)},
      '_mask': index >= 0,
    }


def take(source, count, **kw):
  kw = dict(batch_size=4, seed=0) | kw
  stream = pipeline.train_iter(source, **kw)
  return [next(stream) for _ in range(count)]


@pytest.mark.parametrize('epoch_end', pipeline.EPOCH_ENDS)
@pytest.mark.parametrize('start', [1, 3, 7])
def test_a_later_start_continues_the_same_stream(epoch_end, start):
  whole = take(Rows(10), 10, epoch_end=epoch_end)
  rest = take(Rows(10), 10 - start, epoch_end=epoch_end, start_step=start)
  for a, b in zip(whole[start:], rest, strict=True):
    np.testing.assert_array_equal(a['row'], b['row'])
    np.testing.assert_array_equal(a['seed'], b['seed'])


@pytest.mark.parametrize('epoch_end', pipeline.EPOCH_ENDS)
def test_processes_together_read_the_global_batch(epoch_end):
  whole = take(Rows(11), 6, epoch_end=epoch_end)
  shares = [
    take(Rows(11), 6, epoch_end=epoch_end, process_index=i, process_count=2)
    for i in range(2)
  ]
  for one, left, right in zip(whole, *shares, strict=True):
    both = np.concatenate([left['row'], right['row']])
    np.testing.assert_array_equal(one['row'], both)


def test_pad_visits_every_example_once_per_epoch_as_upstream():
  assert pipeline.steps_per_epoch(10, 4, 'pad') == 3
  batches = take(Rows(10), 6, epoch_end='pad')
  for epoch in (batches[:3], batches[3:]):
    rows = np.concatenate([b['row'] for b in epoch])
    mask = np.concatenate([b['_mask'] for b in epoch])
    assert sorted(rows[mask]) == list(range(10))
    assert (rows[~mask] == source_lib.PADDING).all() and (~mask).sum() == 2
  assert not np.array_equal(batches[0]['row'], batches[3]['row'])


def test_pad_leaves_out_a_rest_of_one_row():
  assert pipeline.steps_per_epoch(9, 4, 'pad') == 2
  assert all(b['_mask'].all() for b in take(Rows(9), 4, epoch_end='pad'))


def test_carry_fills_batches_across_epochs():
  rows = np.concatenate(
    [b['row'] for b in take(Rows(10), 5, epoch_end='carry')]
  )
  assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))


def test_row_seeds_differ_by_epoch_example_and_run():
  def seeds(seed):
    batches = take(Rows(8), 4, epoch_end='drop', seed=seed)
    return np.concatenate([b['seed'] for b in batches])

  first, second = seeds(0), seeds(1)
  assert len(set(first) | set(second)) == 32
  assert (first >= 0).all()


def test_nested_arrays_keep_their_names_and_values():
  (batch,) = take(Rows(8), 1, epoch_end='drop')
  np.testing.assert_array_equal(batch['nested']['a.b'][:, 0], batch['row'])


def test_a_readers_error_arrives_unchanged():
  with pytest.raises(ValueError, match='expert colour holds NaN'):
    take(Rows(8, broken=[5]), 2, epoch_end='drop')


def test_an_open_stream_does_not_keep_the_process_alive():
  program = """
import time
from tests.data import test_pipeline as t
class Slow(t.Rows):
  def gather(self, index, seeds):
    time.sleep(0.2)
    return super().gather(index, seeds)
stream = t.pipeline.train_iter(Slow(64), batch_size=4, seed=0)
next(stream)
"""
  subprocess.run([sys.executable, '-c', program], check=True, timeout=120)


def test_refusals_name_the_key_and_the_way_out():
  with pytest.raises(ValueError, match="input.epoch_end='stop'"):
    pipeline.steps_per_epoch(8, 4, 'stop')
  with pytest.raises(ValueError, match='lower input.batch_size'):
    take(Rows(3), 1, epoch_end='drop')
  with pytest.raises(ValueError, match='does not divide over 3 processes'):
    take(Rows(8), 1, process_count=3)


def test_blocks_read_a_source_once_in_order():
  parts = list(source_lib.blocks(Rows(10), 4))
  assert [start for start, _ in parts] == [0, 4, 8]
  rows = np.concatenate([block['row'] for _, block in parts])
  np.testing.assert_array_equal(rows[:10], np.arange(10))
  assert [b['_mask'].sum() for _, b in parts] == [4, 4, 2]


def test_blocks_divide_over_processes():
  left, right = (
    [
      b['row']
      for _, b in source_lib.blocks(
        Rows(10), 4, process_index=i, process_count=2
      )
    ]
    for i in range(2)
  )
  rows = np.concatenate([np.concatenate(p) for p in zip(left, right)])
  np.testing.assert_array_equal(rows[:10], np.arange(10))


def test_ground_truth_refuses_items_outside_the_collection():
  with pytest.raises(ValueError, match='outside the 2 items'):
    source_lib.GroundTruth(('q',), ('a', 'b'), np.array([2]))
  with pytest.raises(ValueError, match='one item per query'):
    source_lib.GroundTruth(('q',), ('a', 'b'), np.array([0, 1]))
