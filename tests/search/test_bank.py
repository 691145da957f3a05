# SPDX-License-Identifier: Apache-2.0
"""Blocks survive the trip to disk, and memory stays within its budget."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax import sharding
from vidret_jax.search import bank as bank_lib


def blocks(n, size):
  rng = np.random.default_rng(0)
  return [
    {
      'embed': jnp.asarray(rng.normal(size=(size, 3)), jnp.float32),
      'deep': {
        'half': jnp.asarray(rng.normal(size=(size, 2)), jnp.bfloat16),
        'mask': jnp.asarray(rng.random(size) < 0.5),
      },
    }
    for _ in range(n)
  ]


def fill(budget, n=5, size=4, rows=18):
  bank = bank_lib.Bank(
    size, rows, sharding.batch_sharding(sharding.make_mesh()), budget
  )
  made = blocks(n, size)
  for block in made:
    bank.append(block)
  return bank, made


@pytest.mark.parametrize('budget', [0, 70, 10**6])
def test_blocks_come_back_bit_for_bit(budget):
  bank, made = fill(budget)
  assert len(bank) == 5 and bank.block_bytes == 4 * (12 + 4 + 1)
  for i in (4, 0, 2, 2):
    got = bank.block(i)
    assert jax.tree.structure(got) == jax.tree.structure(made[i])
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(made[i])):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
  'budget, runs', [(0, [1] * 5), (140, [2, 2, 1]), (10**6, [5])]
)
def test_groups_fit_the_budget(budget, runs):
  bank, _ = fill(budget)
  groups = list(bank.groups())
  assert [len(g) for g in groups] == runs
  assert [i for g in groups for i, _ in g] == list(range(5))


def test_mask_marks_the_padding_of_the_last_block():
  bank, _ = fill(0)
  assert bank.mask(3).all()
  assert bank.mask(4).tolist() == [True, True, False, False]


def test_an_embedding_without_the_example_axis_is_named():
  bank, made = fill(0, n=0)
  del made
  with pytest.raises(ValueError, match="'deep/scale'.*4 rows"):
    bank.append({'deep': {'scale': jnp.ones(())}, 'x': jnp.ones((4, 2))})


def test_a_full_disk_is_explained():
  """With a limit on the size of files, as a full disk would refuse."""
  code = """
import resource, signal
from tests.search.test_bank import fill
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
  fill(0)
except OSError as e:
  assert e.errno and 'TMPDIR' in str(e) and '18 rows' in str(e), str(e)
  raise SystemExit(7)
"""
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert done.returncode == 7, done.stderr.decode()


class Numbers:
  """A source of its own row numbers."""

  ids = tuple(f'r{i}' for i in range(7))
  spec = {'x': ((), np.dtype(np.int32)), '_mask': ((), np.dtype(bool))}

  def __len__(self):
    return len(self.ids)

  def gather(self, index, seeds):
    return {
      'x': np.where(index >= 0, index, 99).astype(np.int32),
      '_mask': index >= 0,
    }


def test_reordered_source_pads_where_told():
  source = bank_lib.Reordered(Numbers(), np.array([5, -1, 0]))
  assert source.ids == ('r5', '', 'r0')
  got = source.gather(np.array([2, 1, 0, -1]), np.zeros(4))
  assert got['x'].tolist() == [0, 99, 5, 99]
  assert got['_mask'].tolist() == [True, False, True, False]


def test_encode_streams_all_rows_with_their_numbers():
  seen = []

  def look(batch, rows):
    seen.extend(rows.tolist())
    return batch

  mesh = sharding.make_mesh()
  got = list(
    bank_lib.encode(
      lambda variables, b: b['x'] + variables, 10, Numbers(), 3, mesh, look
    )
  )
  assert [start for start, _ in got] == [0, 3, 6]
  assert seen == [0, 1, 2, 3, 4, 5, 6, -1, -1]
  assert np.concatenate([x for _, x in got])[:7].tolist() == list(range(10, 17))
