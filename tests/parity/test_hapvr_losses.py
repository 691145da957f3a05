# SPDX-License-Identifier: Apache-2.0
"""Every part of HAP-VR's loss on given similarities, with gradients."""

import re

import jax
import numpy as np
import pytest

from tests.parity import hapvr_goldens as hg
from vidret_jax.losses import average_precision as ap
from vidret_jax.losses import contrastive, frame_labels, hard_negatives

pytestmark = pytest.mark.usefixtures('quick_compiler')

_CASE = re.compile(
  r'(qlap|nce|inner\d+)(?:_([a-z]+))?_([st])([\d.]+)(?:_r([\d.]+))?'
)


def options(match):
  """Keywords of a case, from the end of its name."""
  number = float(match[4])
  if match[3] == 't':
    return dict(temperature=number)
  return dict(sigma=number, rho=float(match[5]))


def check(errors, name, found, loss, grad):
  errors.close(f'{name} loss', found[0], loss, **hg.FORWARD)
  errors.close(f'{name} gradient', found[1], grad, **hg.gradient(grad))


def without_order(grad, sim, labels):
  """Gradients with those of a row's tied hardest negatives added up."""
  negative = labels == 0
  tied = sim == np.where(negative, sim, -np.inf).max(1, keepdims=True)
  tied &= negative
  return np.where(tied, 0, grad), np.where(tied, grad, 0).sum(1)


def test_losses_of_videos(golden, errors):
  io = golden('losses.npz')
  labels = io['labels']
  sims = {k.removeprefix('sim_'): io[k] for k in io.groups() if k[:4] == 'sim_'}
  assert sims
  losses = dict(qlap=ap.quad_linear_ap, nce=contrastive.info_nce)
  programs, cases = {}, 0
  for case in io.groups():
    found = _CASE.fullmatch(case)
    if not found or found[1] not in losses:
      continue
    kind, given = losses[found[1]], options(found)
    program = programs.setdefault(
      kind,
      jax.jit(
        lambda sim, given, kind=kind: jax.value_and_grad(
          lambda s: kind(s, labels, **given)
        )(sim)
      ),
    )
    got = program(sims[found[2]], given)
    check(errors, case, got, io[case], io[f'{case}_grad'])
    cases += 1
  assert cases

  @jax.jit
  def ends(sim):
    def total(s):
      found = hard_negatives.sshn(s, labels)
      return sum(found), found

    return jax.grad(total, has_aux=True)(sim)

  for name, sim in sims.items():
    grad, (hard, own) = ends(sim)
    errors.close(f'{name} hard', hard, io[f'sshn_{name}_hardneg'], **hg.FORWARD)
    errors.close(f'{name} self', own, io[f'sshn_{name}_self'], **hg.FORWARD)
    want = io[f'sshn_{name}_grad']
    # Which of equal maxima has the gradient is not fixed.
    parts = [without_order(g, sim, labels) for g in (grad, want)]
    for part, x, y in zip(('others', 'hardest'), *parts):
      errors.close(f'{name} slope {part}', x, y, **hg.gradient(want))
  reg = jax.jit(jax.value_and_grad(hard_negatives.overshoot))(io['reg_x'])
  check(errors, 'reg', reg, io['reg'], io['reg_grad'])
  x, sigma = io['ql_x'], 0.0625  # As the README has it.
  curve = jax.jit(jax.vmap(jax.value_and_grad(ap.quad_linear), (0, None)))
  check(errors, 'quad-linear', curve(x, sigma), io['ql_y'], io['ql_grad'])
  of_frames(io)  # Of the tests below.


def of_frames(io):
  """Reads what is about frames."""
  return {
    k: io[k]
    for k in io.groups()
    if k.startswith(('inner', 'pseudo')) or k in ('dino_feat', 'frame_sim')
  }


@pytest.fixture
def io(golden):
  """The file, without a check that all of it is read."""
  arrays = golden('losses.npz')
  arrays.under('')
  return arrays


def test_frame_labels(io, errors):
  features = io['dino_feat']
  n, t = features.shape[:2]
  rows, columns = np.divmod(np.arange(n * n), n)
  unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
  alike = np.einsum('aid,bjd->abij', unit, unit).reshape(n * n, t, t)
  for rates in [k for k in io.groups() if re.fullmatch(r'pseudo\d+_rates', k)]:
    name = rates.removesuffix('_rates')
    top, bottom = map(float, io[rates])
    chosen = frame_labels.frame_labels(
      features, rows, columns, top=top, bottom=bottom
    )
    for sign, side, index in zip(('pos', 'neg'), ('top', 'bottom'), chosen):
      mask = np.zeros((n * n, t, t), np.uint8)
      np.put_along_axis(mask, np.asarray(index), 1, 2)
      want = io[f'{name}_{sign}'].reshape(mask.shape)
      np.testing.assert_array_equal(mask, want, f'{name} {sign}')
      want = io[f'{name}_{side}k_sim'].reshape(index.shape)
      got = np.take_along_axis(alike, np.asarray(index), 2)
      errors.close(f'{name} {side}', got, want, **hg.FORWARD)


def test_losses_of_frames(io, errors):
  cases = {
    k: (io['frame_sim'], found[1].removeprefix('inner'), options(found))
    for k in io.groups()
    if (found := _CASE.fullmatch(k)) and k.startswith('inner')
  }
  assert cases
  # As the README has it.
  grid = io['inner_grid_sim'].astype(np.float32)
  cases['inner_grid'] = (grid, '0', dict(sigma=0.0625, rho=5.0))
  programs = {}
  for case, (sims, labelled, given) in cases.items():
    top, bottom = map(float, io[f'pseudo{labelled}_rates'])

    def loss(sims, given, top=top, bottom=bottom):
      return ap.batch_frame_ap(
        sims, io['dino_feat'], io['labels'], top=top, bottom=bottom, **given
      )

    program = programs.setdefault(labelled, jax.jit(jax.value_and_grad(loss)))
    got = program(sims, given)
    check(errors, case, got, io[case], io[f'{case}_grad'])
