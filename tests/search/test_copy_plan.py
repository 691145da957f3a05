# SPDX-License-Identifier: Apache-2.0
"""Buckets, shards and hosts: every frame once, little padding, even loads."""

import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from vidret_jax.search import copy_plan
from vidret_jax.search import copy_reading as reading


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  lengths=st.lists(st.just(0) | st.integers(4, 300), min_size=1, max_size=60),
  chunk=st.sampled_from([4, 24, 64, 100]),
  batch=st.integers(4, 500),
)
def test_every_chunk_is_in_one_shard(lengths, chunk, batch):
  options = copy_plan.Options(
    chunk=chunk, edges=(8, 16, 50), batch_frames=batch, shard_frames=2 * batch
  )
  plan = copy_plan.plan(np.array(lengths), options)
  records, seen = plan.records, []
  for i, n in enumerate(lengths):
    starts = [s for s in range(0, n, chunk) if not s or n - s > 3]
    mine = records.item == i
    assert records.start[mine].tolist() == starts
    assert records.length[mine].tolist() == [min(chunk, n - s) for s in starts]
  for number, shard in enumerate(plan.shards):
    assert shard.number == number
    length = records.length[shard.records]
    assert length.max() <= shard.frames
    assert shard.frames in (8, 16, 50, chunk)
    assert shard.rows * shard.frames <= max(batch, shard.frames)
    # Whole batches only, but for the last shard of a length.
    assert shard.cost <= max(2 * batch, shard.frames)
    seen += shard.records.tolist()
  assert sorted(seen) == list(range(len(records)))


def test_chunks_are_averaged_without_weights():
  records = copy_plan.cut(np.array([0, 50, 10, 24, 27, 60]), 24)
  assert records.item.tolist() == [1, 1, 2, 3, 4, 5, 5, 5]
  scores = np.array([[1, 2, 3, 4, 5, 6, 7, 11]], np.float32)
  out = np.full((1, 6), np.nan, np.float32)
  copy_plan.average(records, scores, 6, out)
  np.testing.assert_array_equal(out, [[np.nan, 1.5, 3, 4, 5, 8]])


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
  lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12),
  groups=st.integers(1, 4),
)
def test_groups_of_queries_pad_least(lengths, groups):
  lengths = np.array(lengths)

  def padded(edges):
    return sum(min(e for e in edges if e >= n) for n in lengths)

  got = copy_plan.group_edges(lengths, groups)
  assert got == sorted(set(got)) and len(got) <= groups
  choices = sorted({-(-n // 4) * 4 for n in lengths.tolist()})
  best = min(
    padded((*some, choices[-1]))
    for k in range(groups)
    for some in itertools.combinations(choices[:-1], k)
  )
  assert padded(got) == best
  blocks = copy_plan.query_blocks(
    lengths, copy_plan.Options(query_buckets=groups, batch_frames=128)
  )
  assert sorted(q for b in blocks for q in b.queries) == list(
    range(len(lengths))
  )
  for block in blocks:
    assert len(block.queries) <= block.rows <= max(1, 128 // block.frames)
    assert lengths[block.queries].max() <= block.frames
  assert len({(b.frames, b.rows) for b in blocks}) <= groups


def test_hosts_have_like_loads():
  """On a collection like FIVR-200K: 225,960 videos, 22 million frames."""
  rng = np.random.default_rng(0)
  lengths = np.clip(rng.lognormal(4.2, 0.9, 225_960), 8, 2048).astype(int)
  plan = copy_plan.plan(lengths, copy_plan.Options())
  costs = np.array([s.cost for s in plan.shards])
  assert len({(s.frames, s.rows) for s in plan.shards}) <= 15
  assert costs.sum() < 1.25 * lengths.sum()
  fitted = copy_plan.plan(lengths, copy_plan.Options(edges=15))
  assert sum(s.cost for s in fitted.shards) < 1.16 * lengths.sum()
  assert len({s.frames for s in fitted.shards}) <= 15
  for hosts in (1, 4):
    host = copy_plan.assign(costs, hosts)
    load = np.bincount(host, costs, hosts)
    assert load.max() < 1.02 * load.mean()
  assert copy_plan.assign([1, 5, 5, 1], 2).tolist() == [0, 0, 1, 1]
  # What is done costs nothing: the rest is shared.
  assert copy_plan.assign([5, 0, 5, 0], 2)[[0, 2]].tolist() == [0, 1]


def test_batches_are_nearly_full():
  for most in (1, 7, 8, 128, 2048):
    sizes = set()
    for n in range(1, 2 * most + 2):
      rows = copy_plan.batch_rows(n, most)
      sizes.add(rows)
      assert 1 <= rows <= most and -(-n // rows) == -(-n // most)
      batches = -(-n // most)
      waste, step = rows * batches - n, max(1, most // 8)
      assert waste < rows and (rows <= step or waste <= batches * step)
    assert len(sizes) <= 8 + most.bit_length()


def test_reading_ahead_is_bounded_and_in_order():
  made, used = [], []

  def make(job):
    made.append(job)
    assert job - len(used) <= 3
    return job * job

  for job, value in reading.ahead(range(20), make, readers=2, most=3):
    used.append(job)
    assert value == job * job
  assert used == list(range(20)) and sorted(made) == used


def test_an_error_of_a_reader_comes_at_its_place():
  def make(job):
    return 6 // (3 - job)

  stream = reading.ahead(range(9), make, readers=3, most=4)
  assert [next(stream) for _ in range(3)] == [(0, 2), (1, 3), (2, 6)]
  with pytest.raises(ZeroDivisionError):
    next(stream)
