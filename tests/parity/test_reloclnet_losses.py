# SPDX-License-Identifier: Apache-2.0
"""VideoCL, FrameCL and ranking with sampled negatives on given arrays."""

import re

import jax
import numpy as np
import pytest

from tests.parity import reloclnet_goldens as rg
from vidret_jax.losses import contrastive, ranking

_CASE = re.compile(r'(nce|fcl|rank)(\d+)_')


@pytest.mark.usefixtures('quick_compiler')
def test_losses_and_gradients(golden, errors):
  io = golden('losses.npz')
  found = {m[0][:-1] for k in io.groups() if (m := _CASE.match(k))}
  assert found
  check = dict(nce=check_video, fcl=check_frame, rank=check_ranking)
  for case in sorted(found):
    check[case.rstrip('0123456789')](errors, io, case)


def slope(loss, argnums=0):
  return jax.jit(jax.value_and_grad(loss, argnums=argnums))


def check_loss(errors, case, got, want):
  errors.close(f'{case} loss', got, want, atol=0, rtol=rg.LOSS)


def check_slope(errors, case, got, want):
  errors.close(f'{case} gradient', got, want, rg.allowed(want))


def check_video(errors, io, case):
  loss, grad = slope(contrastive.both_ways)(io[f'{case}_scores'])
  check_loss(errors, case, loss, io[f'{case}_loss'])
  check_slope(errors, case, grad, io[f'{case}_grad'])


def check_frame(errors, io, case):
  given = (io[f'{case}_{k}'] for k in ('video', 'query', 'match', 'mask'))
  loss, grads = slope(contrastive.frame, argnums=(0, 1))(*given)
  check_loss(errors, case, loss, io[f'{case}_loss'])
  for name, grad in zip(('video', 'query'), grads):
    check_slope(errors, f'{case} {name}', grad, io[f'{case}_grad_{name}'])


def check_ranking(errors, io, case):
  scores = io[f'{case}_scores']
  is_lse, hard, pool = io[f'{case}_cfg']
  ranks = [io[f'{case}_ranks_{k}'] for k in ('ctx', 'q')]
  # What is drawn here lies where upstream's draws lie.
  last = min(pool, len(scores) - 1) if hard else len(scores) - 1
  where = np.ones(len(scores), bool)
  ours = ranking.draw_ranks(
    jax.random.key(0), where, int(pool) if hard else None
  )
  for drawn in (*ranks, np.asarray(ours)):
    assert 1 <= drawn.min() and drawn.max() <= last
  options = dict(
    kind='lse' if is_lse else 'hinge', margin=float(io['rank_margin'])
  )

  def both(sim):
    parts = [
      ranking.sampled(s, r, **options) for s, r in zip((sim, sim.T), ranks)
    ]
    return parts[0] + 2 * parts[1], parts

  grad, parts = jax.jit(jax.grad(both, has_aux=True))(scores)
  for name, part in zip(('ctx', 'q'), parts):
    check_loss(errors, f'{case} {name}', part, io[f'{case}_loss_{name}'])
  want = io[f'{case}_grad_of_ctx_plus_2q']
  if ties(scores):
    # Which of equal scores is taken differs, what pairs take does not.
    grad, want = (np.diagonal(x) for x in (grad, want))
  check_slope(errors, case, grad, want)


def ties(scores):
  """Whether a row or a column has equal scores besides its own pair's."""
  others = [
    np.delete(r, i) for s in (scores, scores.T) for i, r in enumerate(s)
  ]
  return any(len(np.unique(r)) < len(r) for r in others)
