# SPDX-License-Identifier: Apache-2.0
"""EERCF's towers, features, scores, losses and gradients, as upstream's."""

import json

import jax
import numpy as np

from tests.parity import eercf_goldens
from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import eercf as convert
from vidret_jax.convert import rules as rules_lib
from vidret_jax.losses import contrastive
from vidret_jax.models import clip, eercf
from vidret_jax.ops import similarity

TOWER = dict(atol=3e-5)
SCORE = dict(atol=2e-4)
LOSS = dict(atol=0, rtol=1e-4)
HALF = dict(atol=5e-2)
GRAD = 1e-3  # Of the largest element of a tensor, and of norms.
PEARSON = 0.14  # Contained in upstream's terms.


def apply(model, variables, method, *args, **kwargs):
  return jax.jit(
    lambda variables: model.apply(variables, *args, method=method, **kwargs)
  )(variables)


def embed(model, variables, batch):
  def both(model):
    return model.encode_query(batch), model.encode_item(batch)

  return apply(model, variables, both)


def features(model, variables, batch):
  """What the towers and the temporal transformer give, by upstream's names."""

  def all_of(model):
    mask = batch['frame_mask']
    frames, patches = model.encode_frames(batch['frames'], mask)
    return dict(
      sequence_output=model.clip.encode_text(batch['text'])[:, None],
      seq_features=model.clip.encode_text(batch['text'], every=True),
      visual_output=frames,
      visual_patches=patches,
      temporal_out=model.temporal(frames, mask),
    )

  return apply(model, variables, all_of)


def check_scores(errors, io, model, variables, batch):
  q, v = embed(model, variables, batch)
  levels = apply(model, variables, 'levels', q, v)
  for name, got in levels.items():
    errors.close(f'eval_{name}', got, io[f'eval_{name}'], **SCORE)
  # Upstream copies the frames' matrix where it does not look at patches.
  name = 'eval_nopatch_patch_strong'
  errors.close(name, levels['frame_strong'], io[name], **SCORE)

  texts = len(io['eval_rect_video'])
  some = jax.tree.map(lambda x: x[:texts], q)
  for name, got in apply(model, variables, 'levels', some, v).items():
    errors.close(f'eval_rect_{name}', got, io[f'eval_rect_{name}'], **SCORE)

  missing = {k: x.copy() for k, x in batch.items()}
  missing['frames'][-1], missing['frame_mask'][-1] = 0, False
  q, v = embed(model, variables, missing)
  for name, got in apply(model, variables, 'levels', q, v).items():
    want = io[f'eval_missing_{name}']
    assert np.isfinite(got).all(), name
    known = np.isfinite(want)
    assert known[:, :-1].all()
    errors.close(f'eval_missing_{name}', got[known], want[known], **SCORE)


def check_train_scores(errors, io, model, variables, batch):
  """Strong levels gated by each video's own caption, and the correlations."""
  q, v = embed(model, variables, batch)
  names = ('frame_strong', 'patch_strong')

  def run(model):
    pooled = model.own_gated(q, v, names)
    out = {
      k: model.clip.scale() * similarity.dot_all(q['sentence'], x)
      for k, x in pooled.items()
    }
    weak = [n for n in eercf.LEVELS if n not in names]
    contents = (v['video'], *(pooled[n] for n in names))
    terms = [contrastive.pearson(q['sentence'], y) for y in contents]
    return {**out, **model.levels(q, v, weak)}, terms

  scores, terms = apply(model, variables, run)
  assert set(scores) == set(eercf.LEVELS)
  for name, got in scores.items():
    errors.close(f'train_{name}', got, io[f'train_{name}'], **SCORE)
  got = PEARSON * np.array(terms)
  errors.close('train_pearson', got, io['train_pearson'], **LOSS)


def loss_and_grads(model, variables, batch):
  def loss(params):
    return model.apply(
      {'params': params}, batch, step=0, train=True, method='loss'
    )

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, scalars), grads = step(variables['params'])
  return {'loss': value, **scalars}, grads


def by_key(model, grads):
  """Gradients by upstream's names; the table has one leaf for every key."""
  leaves = rules_lib.flatten({'params': grads})
  return {
    rule.key: np.asarray(rule.form.to_torch(np.asarray(leaves[rule.leaf])))
    for rule in convert.rules(model)
  }


def close_to_largest(errors, name, got, want):
  errors.close(name, got, want, atol=GRAD * np.abs(want).max(initial=0))


def check_losses(errors, io, prefix, got):
  for name in ('loss', 'weak', 'strong', 'intra'):
    key = f'{prefix}loss_{name}'
    errors.close(key, got[name], io[key], **LOSS)


def check_norms(errors, name, grads, want):
  assert set(grads) == set(want)
  for key, norm in want.items():
    got = np.linalg.norm(grads[key].astype(np.float64))
    errors.close(f'{name}/{key}', got, norm, atol=1e-12, rtol=GRAD)


def check_grads(errors, io, grads):
  for key, want in io.under('grad::').items():
    close_to_largest(errors, f'grad::{key}', grads[key], want)
  for key, want in io.under('grad8::').items():
    close_to_largest(errors, f'grad8::{key}', grads[key][:8], want)
  norm = np.sqrt(
    sum(np.square(x.astype(np.float64)).sum() for x in grads.values())
  )
  errors.close('grad_global_norm', norm, io['grad_global_norm'], 0, GRAD)
  table = grads['clip.token_embedding.weight']
  rows = io['grad_token_rows']
  np.testing.assert_array_equal(np.flatnonzero(table.any(1)), rows)
  close_to_largest(
    errors, 'grad_token_values', table[rows], io['grad_token_values']
  )


def check_half(errors, io, model, variables, batch):
  found = features(model, variables, batch)
  for name in ('sequence_output', 'visual_output'):
    errors.close(f'fp16_{name}', found[name], io[f'fp16_{name}'], **HALF)
  q, v = embed(model, variables, batch)
  for name, got in apply(model, variables, 'levels', q, v).items():
    errors.close(f'fp16_eval_{name}', got, io[f'fp16_eval_{name}'], **HALF)


def test_network(trained, golden_root, golden, errors):
  root = golden_root / 'eercf'
  io = golden(f'eercf_{trained}_forward.npz')
  norms = json.loads(
    eercf_goldens.present(root / f'eercf_{trained}_grad_norms.json').read_text()
  )
  model, variables = eercf_goldens.golden_model(root, trained)
  batch = eercf_goldens.batch(io)
  # Upstream hands the mask of the words on, and never looks at it.
  assert io['input_mask'].shape == batch['text'].shape

  for name, got in features(model, variables, batch).items():
    errors.close(name, got, io[name], **TOWER)
  check_scores(errors, io, model, variables, batch)
  check_train_scores(errors, io, model, variables, batch)

  losses, grads = loss_and_grads(model, variables, batch)
  grads = by_key(model, grads)
  check_losses(errors, io, '', losses)
  check_grads(errors, io, grads)
  check_norms(errors, 'default', grads, norms['default'])

  setting = norms['all_weights_setting']
  assert set(setting) == set(eercf_goldens.LOSS_WEIGHTS)
  weights = {eercf_goldens.LOSS_WEIGHTS[k]: w for k, w in setting.items()}
  model, _ = eercf_goldens.golden_model(root, trained, loss_weights=weights)
  losses, grads = loss_and_grads(model, variables, batch)
  check_losses(errors, io, 'allw_', losses)
  check_norms(errors, 'allw', by_key(model, grads), norms['all_weights'])
  errors.close(
    'allw_grad_norms',
    [norms['all_weights'][k] for k in sorted(norms['all_weights'])],
    io['allw_grad_norms'],
    atol=1e-12,
  )

  model, _ = eercf_goldens.golden_model(root, trained, dtype='float16')
  check_half(errors, io, model, variables, batch)


def towers_of(root, name, dtype='float32'):
  sizes = eercf_goldens.make(eercf_goldens.config(root, name)).sizes
  path = eercf_goldens.present(root / f'clip_{name}.pth')
  variables, _ = clip_convert.load(path, sizes)
  model = clip.Clip(sizes, num=clip.Numerics(dtype))
  return model, {'params': variables['params']['clip']}


def as_clips(images):
  """[n, 3, r, r] -> [n, 1, r, r, 3]: clips of one frame."""
  return images.transpose(0, 2, 3, 1)[:, None]


def encode(model, variables, images, ids):
  """Features of both towers, and outputs of all modules within them."""

  def both(model):
    return model.encode_image(images)[:, 0], model.encode_text(ids, every=True)

  (image, text), state = apply(
    model, variables, both, capture_intermediates=True, mutable='intermediates'
  )
  first = ids.argmax(-1)
  found = dict(
    image_feat=image[:, 0],
    image_hidden=image,
    text_feat=text[np.arange(len(ids)), first],
    text_hidden=text,
  )
  pooled = apply(model, variables, 'encode_text', ids)
  return found, pooled, state['intermediates']


def test_towers(towers, golden_root, golden, errors):
  root = golden_root / 'eercf'
  io = golden(f'clip_{towers}_encode.npz')
  images, ids = as_clips(io['images']), io['ids'].astype(np.int32)
  model, variables = towers_of(root, towers)
  found, pooled, inside = encode(model, variables, images, ids)
  for name, got in found.items():
    errors.close(f'fp32_{name}', got, io[f'fp32_{name}'], **TOWER)
  errors.close('text pooled', pooled, io['fp32_text_feat'], **TOWER)

  s = model.sizes
  kernel = variables['params']['visual']['conv1']['kernel']
  patches = clip.cut(images[:, 0], s.patch) @ kernel.reshape(-1, s.vision_width)
  patches = patches.reshape(-1, s.grid, s.grid, s.vision_width)
  steps = dict(
    v_conv1=patches.transpose(0, 3, 1, 2),
    v_ln_pre=inside['visual']['ln_pre']['__call__'][0],
    v_block0_LND=inside['visual']['block_0']['__call__'][0].swapaxes(0, 1),
    t_block0_LND=inside['text']['block_0']['__call__'][0].swapaxes(0, 1),
    t_ln_final=inside['text']['ln_final']['__call__'][0],
  )
  for name, got in steps.items():
    errors.close(f'fp32_{name}', got, io[f'fp32_{name}'], **TOWER)

  model, variables = towers_of(root, towers, 'float16')
  found, pooled, _ = encode(model, variables, images, ids)
  for name, got in found.items():
    errors.close(f'fp16_{name}', got, io[f'fp16_{name}'], **HALF)
  errors.close('half pooled', pooled, io['fp16_text_feat'], **HALF)


def test_public_towers(public_towers, golden_root, golden, errors):
  io = golden(f'clip_{public_towers}_public.npz')
  model, variables = towers_of(golden_root / 'eercf', public_towers)
  images, ids = as_clips(io['images']), io['ids'].astype(np.int32)

  def run(model):
    image = model.encode_image(images)[:, 0, 0]
    text = model.encode_text(ids)
    unit = [similarity.l2_normalize(x) for x in (image, text)]
    return image, text, model.scale() * similarity.dot_all(*unit)

  image, text, logits = apply(model, variables, run)
  errors.close('image_feat', image, io['image_feat'], **TOWER)
  errors.close('text_feat', text, io['text_feat'], **TOWER)
  errors.close('per_image', logits, io['logits_per_image'], **SCORE)
  errors.close('per_text', logits.T, io['logits_per_text'], **SCORE)
