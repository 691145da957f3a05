# SPDX-License-Identifier: Apache-2.0
"""Ranks by counting and running top-k, on one block of similarities at a time.

A rank needs no sort: it is the number of candidates that score higher, and the
number that score the same. Both add up over blocks, for rows and for columns,
so a collection of any size is ranked without its similarity matrix. Equality is
exact; callers compare scores made by one compiled function only, and a query's
own score is put where it belongs, whatever a second product of the same block
rounds it to.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Counts(NamedTuple):
  """What one block adds to the ranks.

  Attributes:
    row_greater: int32 [q], items that beat the query's own one.
    row_equal: int32 [q], items that tie with it, itself included.
    col_greater: int32 [v], captions (or pooled videos) above the threshold.
    col_equal: int32 [v], those at the threshold.
    bad: int32 [], scores that are not finite.
  """

  row_greater: Array
  row_equal: Array
  col_greater: Array
  col_equal: Array
  bad: Array


class ShortLists(NamedTuple):
  """Candidates with a dearer score that replaces the one of the block.

  Attributes:
    place: int32 [n, k], columns (or rows) of the block; outside of it if the
      candidate is in another block.
    score: [n, k], finite in all places that count.
  """

  place: Array
  score: Array


class TwoStages(NamedTuple):
  """Short lists of a block, and the thresholds that are dear scores.

  Whoever is on a short list comes before all who are not; scores are compared
  within one stage only.

  Attributes:
    rows: lists of the queries, places are columns.
    columns: lists of the items, places are rows; None: the queries' lists, read
      from the other side.
    own_q: [q], dear score of each query with its own item; -inf if that is not
      on the list, and `own_q` of `count` holds.
    threshold_v: [v], likewise for the columns.
  """

  rows: ShortLists
  columns: ShortLists | None
  own_q: Array
  threshold_v: Array


def spread(lists: ShortLists, width: int) -> tuple[Array, Array]:
  """Dense form of short lists: (bool [n, width], scores [n, width])."""
  row = jnp.arange(len(lists.place))[:, None]
  # Negative places would count from the end.
  place = jnp.where(lists.place < 0, width, lists.place)
  listed = (
    jnp.zeros((len(row), width), bool).at[row, place].set(True, mode='drop')
  )
  score = jnp.zeros((len(row), width), lists.score.dtype)
  return listed, score.at[row, place].set(lists.score, mode='drop')


def as_seen_from(
  fine_stage: Array, sim_qv: Array, listed_qv: Array, fine_qv: Array
) -> Array:
  """One matrix that compares with a threshold as (stage, score) pairs would.

  Args:
    fine_stage: bool, broadcast to [q, v]: whether the threshold is a score of
      the second stage.
    sim_qv: scores of the first stage.
    listed_qv: bool, which pairs are on a short list.
    fine_qv: their scores of the second stage.

  Returns:
    [q, v]: for a threshold of the second stage, pairs of the first are below
    everything; for one of the first stage, listed pairs are above everything.
  """
  return jnp.where(
    fine_stage,
    jnp.where(listed_qv, fine_qv, -jnp.inf),
    jnp.where(listed_qv, jnp.inf, sim_qv),
  )


def sink(sim_qv: Array, has_score_v: Array) -> Array:
  """Puts items without a score below all others: [q, v]."""
  return jnp.where(has_score_v, sim_qv, -jnp.inf)


def take_own(sim_qv: Array, column_q: Array, before_q: Array) -> Array:
  """Picks each query's own score out of the block that holds it.

  Args:
    sim_qv: [q, v].
    column_q: int32 [q], column of the own item, negative if not in this block.
    before_q: [q], what to keep for those.

  Returns:
    [q].
  """
  own = jnp.take_along_axis(sim_qv, jnp.maximum(column_q, 0)[:, None], 1)[:, 0]
  return jnp.where(column_q >= 0, own, before_q)


def count(
  sim_qv: Array,
  own_q: Array,
  column_q: Array,
  threshold_v: Array,
  query_mask: Array,
  item_mask: Array,
  has_score_v: Array,
  video_q: Array | None = None,
  stages: TwoStages | None = None,
) -> Counts:
  """Counts one block.

  Args:
    sim_qv: [q, v].
    own_q: [q], score of each query with its own item.
    column_q: int32 [q], column of that item, outside [0, v) if in another
      block.
    threshold_v: [v], the best score of each item's own captions.
    query_mask: bool [q]; rows that are padding count nowhere.
    item_mask: bool [v].
    has_score_v: bool [v], see `sink`.
    video_q: int32 [q], increasing numbers from 0 of the videos the rows belong
      to. If given, rows of a video are reduced to their maximum before columns
      are counted; a video must not be spread over several blocks.
    stages: short lists with dearer scores; None: there is one stage.

  Returns:
    `Counts` of the block.
  """
  real = query_mask[:, None] & item_mask
  bad = jnp.sum(real & has_score_v & ~jnp.isfinite(sim_qv))
  own = own_q[:, None]
  here = jnp.arange(sim_qv.shape[1]) == column_q[:, None]
  sim_qv = jnp.where(here, own, sink(sim_qv, has_score_v))
  rivals, rival_mask = sim_qv, query_mask
  if stages is not None:
    sim_qv, rivals = _two_matrices(sim_qv, stages)
    own = _threshold(stages.own_q, own_q)[:, None]
    threshold_v = _threshold(stages.threshold_v, threshold_v)
  if video_q is not None:
    n = len(video_q)
    rivals = jax.ops.segment_max(
      jnp.where(query_mask[:, None], rivals, -jnp.inf), video_q, n
    )
    rival_mask = jax.ops.segment_max(query_mask.astype(jnp.int32), video_q, n)
    rival_mask = rival_mask > 0
  rival_mask = rival_mask[:, None]
  return Counts(
    row_greater=jnp.sum((sim_qv > own) & item_mask, 1),
    row_equal=jnp.sum((sim_qv == own) & item_mask, 1),
    col_greater=jnp.sum((rivals > threshold_v) & rival_mask, 0),
    col_equal=jnp.sum((rivals == threshold_v) & rival_mask, 0),
    bad=bad,
  )


def _threshold(fine: Array, coarse: Array) -> Array:
  return jnp.where(fine > -jnp.inf, fine, coarse)


def _two_matrices(sim_qv: Array, stages: TwoStages) -> tuple[Array, Array]:
  """What rows and what columns compare with their thresholds: [q, v] each."""
  listed = spread(stages.rows, sim_qv.shape[1])
  fine_rows = stages.own_q[:, None] > -jnp.inf
  by_row = as_seen_from(fine_rows, sim_qv, *listed)
  if stages.columns is not None:
    listed = (x.T for x in spread(stages.columns, sim_qv.shape[0]))
  by_column = as_seen_from(stages.threshold_v > -jnp.inf, sim_qv, *listed)
  return by_row, by_column


def merge_top(
  best: tuple[Array, Array],
  sim_qv: Array,
  first: Array,
  item_mask: Array,
  approximate: bool = False,
) -> tuple[Array, Array]:
  """Merges one block into a running top-k; equal scores go to the lower index.

  `lax.top_k` prefers what stands first among equals, and blocks arrive in
  order, so the running winners are put before the block.

  Args:
    best: (scores [q, k], item numbers int32 [q, k]), sorted; unused places hold
      -inf and -1.
    sim_qv: [q, v], items `first`, `first` + 1, ...
    first: int32 [].
    item_mask: bool [v].
    approximate: lets the accelerator miss a few (`lax.approx_max_k`).

  Returns:
    The new pair, [q, k] each.
  """
  scores, numbers = best
  k, width = scores.shape[1], sim_qv.shape[1]
  sim_qv = jnp.where(item_mask, sim_qv, -jnp.inf)
  select = jax.lax.approx_max_k if approximate else jax.lax.top_k
  new, column = select(sim_qv, min(k, width))
  found = jnp.where(item_mask[column], first + column, -1).astype(numbers.dtype)
  scores = jnp.concatenate([scores, new.astype(scores.dtype)], 1)
  numbers = jnp.concatenate([numbers, found], 1)
  scores, place = jax.lax.top_k(scores, k)
  return scores, jnp.take_along_axis(numbers, place, 1)
