# SPDX-License-Identifier: Apache-2.0
"""HAP-VR's network on whole batches of clips: every pooling, and bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import hapvr_goldens as hg
from vidret_jax.losses import hard_negatives
from vidret_jax.ops import chamfer

pytestmark = pytest.mark.usefixtures('quick_compiler')


def run(model, variables, x):
  """Everything that clips of one length go through, by name."""
  clips = dict(regions=x, length=np.full(len(x), x.shape[1], np.int32))

  def forward(model, clips):
    emb = model.encode_item(clips)
    sim, frames, places = model.clip_similarity(emb['regions'][None])
    return dict(
      regions=emb['regions'],
      frames=frames[0],
      places=places[0],
      sim=sim[0],
      reg=hard_negatives.overshoot(places),
      fine=model.fine(emb, emb),
    )

  return jax.jit(lambda v, c: model.apply(v, c, method=forward))(
    variables, clips
  )


def test_attention_and_every_pooling(golden, errors, golden_root):
  io = golden('forward_att.npz')
  path = hg.present(hg.folder(golden_root) / 'ckpt_att_params.npz')
  state, x = dict(np.load(path, allow_pickle=False)), io['x']
  for i, name in enumerate(io['mode_names']):
    model, variables = hg.make(state, **hg.pooling(name))
    got = run(model, variables, x)

    def check(what, found, stored, i=i):
      errors.close(f'{i} {what}', found, io[f'mode{i}_{stored}'], **hg.FORWARD)

    errors.close(f'{i} regions', got['regions'], io['indexed'], **hg.FORWARD)
    # Of some modes the first clips against the last ones.
    rows, columns = io[f'mode{i}_frame_level_sim'].shape[:2]
    check('frames', got['frames'][:rows, -columns:], 'frame_level_sim')
    if f'mode{i}_comparator_out' in io:
      check('comparator', got['places'], 'comparator_out')
    check('reg', got['reg'], 'reg_loss')
    check('sim', got['sim'], 'sim')
    check('evaluation', got['fine'], 'eval_sim_unnormalised')
    # Without the comparator, but of weighed regions.
    model, variables = hg.make(state, features_only=True, **hg.pooling(name))
    weighed = hg.videos(list(io['indexed']), x.shape[1])
    got = jax.jit(lambda v, b, m=model: m.apply(v, b, b, method=hg.evaluate))(
      variables, weighed
    )
    check('features only', got, 'eval_sim_features_only')
  model, variables = hg.make(state)
  got = model.apply(variables, x, method=lambda m, x: m.weigh.weights(x))
  errors.close('weights', got, io['att_weights'], **hg.FORWARD)


def test_without_attention(golden, errors):
  io = golden('forward_noatt.npz')
  got = run(*hg.make(io.under('param/')), io['x'])
  for name, stored in dict(
    frames='frame_level_sim', sim='sim', reg='reg_loss'
  ).items():
    errors.close(name, got[name], io[stored], **hg.FORWARD)


def test_bits(golden, errors):
  io = golden('forward_bin.npz')
  x, (model, variables) = io['x'], hg.make(io.under('param/'))
  hard, soft = (
    model.apply(
      variables, x, train, method=lambda m, x, train: m.binarization(x, train)
    )
    for train in (False, True)
  )
  assert np.mean(np.asarray(hard) != io['codes_eval']) <= hg.FLIPS
  errors.close('soft bits', soft, io['codes_train'], **hg.SOFT_BITS)

  def evaluation(model, codes):
    length = jnp.full(len(codes), codes.shape[1])
    emb = dict(regions=codes, length=length)
    frames = model.frame_similarity(emb, emb) / codes.shape[-1]
    return frames, model.fine(emb, emb)

  def training(model, codes):
    sim, frames, places = model.clip_similarity(codes[None])
    return frames[0], sim[0], hard_negatives.overshoot(places)

  # From upstream's bits, so that a flipped one is no error of what follows.
  frames, fine = jax.jit(lambda v, c: model.apply(v, c, method=evaluation))(
    variables, io['codes_eval']
  )
  want = io['f2f_eval_scaled'].reshape(frames.shape)
  errors.close('frames', frames, want, **hg.FORWARD)
  errors.close('evaluation', fine, io['video_sim_eval'], **hg.FORWARD)
  frames, sim, reg = jax.jit(lambda v, c: model.apply(v, c, method=training))(
    variables, io['codes_train']
  )
  for name, got, stored in (
    ('frames of training', frames, 'frame_level_sim_train'),
    ('sim', sim, 'sim_train'),
    ('reg', reg, 'reg_train'),
  ):
    errors.close(name, got, io[stored], **hg.FORWARD)


def test_counts_of_the_best(golden):
  io, rates = golden('topk_k_table.npz'), 0
  for name in io.groups():
    rate = float(name.removeprefix('k_rate'))
    got = chamfer.top_counts(len(io[name]), rate)[1:]
    np.testing.assert_array_equal(got, io[name], name)
    rates += 1
  assert rates
