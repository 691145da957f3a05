# SPDX-License-Identifier: Apache-2.0
"""Tests of models/eercf.py: masks, options, the two stages of scoring."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import clip, eercf

SIZES = dict(
  vision_width=64,
  vision_layers=1,
  patch=4,
  image_size=8,
  text_width=64,
  text_layers=1,
  context=8,
  vocab=30,
  dim=64,
)
FRAMES = 3
EVERYTHING = dict(
  patch_strong=0.6, intra=0.2, intra_patch=0.5, intra_video=1.1, weak=0.7
)


def make(**options):
  return eercf.make(
    **{
      'clip': SIZES,
      'max_frames': FRAMES,
      'temporal_layers': 1,
      **options,
    }
  )


def make_batch(rows=5, seed=0):
  rng = np.random.default_rng(seed)
  text = rng.integers(1, 28, (rows, 6)).astype('i4')
  for row, end in enumerate(rng.integers(2, 6, rows)):
    text[row, 0], text[row, end], text[row, end + 1 :] = 28, 29, 0
  side = SIZES['image_size']
  count = rng.integers(1, FRAMES + 1, rows)
  count[0] = FRAMES - 1
  return dict(
    text=text,
    frames=rng.integers(0, 256, (rows, FRAMES, side, side, 3)).astype('u1'),
    frame_mask=np.arange(FRAMES) < count[:, None],
  )


BATCH = make_batch()


def variables_of(model):
  """Random values in every parameter, both maps away from the identity."""
  init = jax.jit(
    lambda key: model.init(key, BATCH, step=0, train=True, method='loss')
  )
  rng = np.random.default_rng(1)

  def draw(path, x):
    value = jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype)
    names = [k.key for k in path]
    if names[-1] in ('video_map', 'frame_map'):
      return x + 0.2 * value
    return x + 2.0 if names[-1] == 'logit_scale' else value

  return jax.tree_util.tree_map_with_path(draw, init(jax.random.key(0)))


MODEL = make(loss_weights=EVERYTHING)


@pytest.fixture(scope='module')
def variables():
  return variables_of(MODEL)


@functools.partial(jax.jit, static_argnames=('model', 'method'))
def apply(model, variables, method, *args):
  return model.apply(variables, *args, method=method)


def encode(model, variables, batch):
  q = apply(model, variables, 'encode_query', batch)
  return q, apply(model, variables, 'encode_item', batch)


@functools.partial(jax.jit, static_argnames='model')
def step(model, variables, batch):
  def loss(params):
    return model.apply(
      {'params': params}, batch, step=0, train=True, method='loss'
    )

  return jax.value_and_grad(loss, has_aux=True)(variables['params'])


def assert_near(got, want, rtol=1e-4, atol=1e-5):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    largest = np.abs(b).max(initial=0)
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * (0.1 + largest))


def assert_grads_near(got, want):
  """Softmaxes at 0.01 amplify rounding: relative to each tensor's largest."""
  assert_near(got, want, rtol=0, atol=5e-4)


def assert_finite(tree):
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    assert np.isfinite(x).all(), jax.tree_util.keystr(path)


# ---------------------------------------------------------------- embeddings


def test_embeddings(variables):
  q, v = encode(MODEL, variables, BATCH)
  shapes = {k: x.shape for k, x in {**q, **v}.items()}
  assert shapes == dict(
    sentence=(5, 64),
    video=(5, 64),
    frames=(5, 3, 64),
    states=(5, 3, 64),
    patches=(5, 3 * 4, 64),
    frame_mask=(5, 3),
  )
  for name, x in {**q, **v}.items():
    if name != 'frame_mask':
      np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, rtol=1e-5)
  mask = BATCH['frame_mask'][..., None]
  mean = (v['states'] * mask).sum(1) / mask.sum(1)
  mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
  np.testing.assert_allclose(v['video'], mean, atol=1e-5)


def test_the_collection_keeps_only_what_is_scored(variables):
  q, v = encode(MODEL, variables, BATCH)
  assert eercf.Eercf.COARSE == ('video',)
  want = apply(MODEL, variables, 'score', q, v)
  coarse = {k: v[k] for k in eercf.Eercf.COARSE}
  np.testing.assert_array_equal(
    apply(MODEL, variables, 'score', q, coarse), want
  )
  by_hand = np.float64(q['sentence']) @ variables['params']['video_map']
  by_hand = by_hand @ np.float64(v['video']).T
  by_hand *= np.exp(variables['params']['clip']['logit_scale'])
  np.testing.assert_allclose(want, by_hand, atol=1e-3)


def test_bytes_and_normalised_floats_are_one(variables):
  floats = dict(BATCH)
  floats['frames'] = np.asarray(clip.normalize(jnp.asarray(BATCH['frames'])))
  by_hand = (BATCH['frames'] / 255 - np.array(clip.MEAN)) / np.array(clip.STD)
  np.testing.assert_allclose(floats['frames'], by_hand, atol=2e-6)
  want = apply(MODEL, variables, 'encode_item', BATCH)
  got = apply(MODEL, variables, 'encode_item', floats)
  assert_near(got, want)


def test_text_and_video_embed_alone(variables):
  """Views of queries lack the frames, views of items the text."""
  q, v = encode(MODEL, variables, BATCH)
  text = {'text': BATCH['text'], '_mask': np.ones(5, bool)}
  video = {k: BATCH[k] for k in ('frames', 'frame_mask')}
  assert_near(apply(MODEL, variables, 'encode_query', text), q)
  assert_near(apply(MODEL, variables, 'encode_item', video), v)


# --------------------------------------------------------------------- masks


def with_garbage(batch, where):
  """Other text and NaN frames in the rows outside where."""
  out = dict(batch)
  floats = clip.normalize(jnp.asarray(batch['frames']))
  out['frames'] = np.where(where[:, None, None, None, None], floats, np.nan)
  out['text'] = np.where(where[:, None], batch['text'], 7)
  return {**out, '_mask': where}


def test_padding_rows_influence_nothing(variables):
  where = np.array([True, True, False, True, False])
  small = {k: x[where] for k, x in BATCH.items()}
  (want, want_scalars), want_grads = step(MODEL, variables, small)
  for batch in ({**BATCH, '_mask': where}, with_garbage(BATCH, where)):
    (loss, scalars), grads = step(MODEL, variables, batch)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert_near(scalars, want_scalars)
    assert_grads_near(grads, want_grads)


def test_nothing_but_padding(variables):
  (loss, _), grads = step(
    MODEL, variables, {**BATCH, '_mask': np.zeros(5, bool)}
  )
  assert np.isfinite(loss)
  assert_finite(grads)
  for name, x in grads.items():
    for leaf in jax.tree.leaves(x):
      assert not np.asarray(leaf).any(), name


def test_padded_slots_are_zero_whatever_they_hold(variables):
  slots = ~BATCH['frame_mask'][..., None, None, None]
  other = {**BATCH, 'frames': np.where(slots, 255, BATCH['frames'])}
  want = apply(MODEL, variables, 'encode_item', BATCH)
  assert_near(apply(MODEL, variables, 'encode_item', other), want, 0, 0)
  floats = clip.normalize(jnp.asarray(BATCH['frames']))
  other['frames'] = np.where(slots, np.nan, floats)
  got, grads = step(MODEL, variables, other)
  assert_finite((got, grads))


def shorter(variables, batch, frames):
  """The same clips in a model with fewer slots."""
  model = make(max_frames=frames, mask_padding=True, loss_weights=EVERYTHING)
  params = dict(variables['params'])
  params['frame_map'] = params['frame_map'][:frames, :frames]
  cut = {k: x if k == 'text' else x[:, :frames] for k, x in batch.items()}
  return model, {'params': params}, cut


def test_padding_takes_part_unless_masked(variables):
  """Upstream's quirk, and the option without it."""
  batch = {k: x[:4] for k, x in BATCH.items()}
  batch['frame_mask'] = np.arange(FRAMES) < np.array([[2], [2], [1], [2]])
  model, small_variables, cut = shorter(variables, batch, 2)
  masked = make(mask_padding=True, loss_weights=EVERYTHING)

  want_q, want_v = encode(model, small_variables, cut)
  want = apply(model, small_variables, 'levels', want_q, want_v)
  q, v = encode(masked, variables, batch)
  assert_near(apply(masked, variables, 'levels', q, v), want)
  np.testing.assert_allclose(
    step(masked, variables, batch)[0][0],
    step(model, small_variables, cut)[0][0],
    rtol=1e-5,
  )

  quirk = apply(MODEL, variables, 'levels', q, v)
  np.testing.assert_allclose(quirk['video'], want['video'], atol=1e-4)
  for name in ('frame_weak', 'frame_strong', 'patch_weak', 'patch_strong'):
    assert np.abs(quirk[name] - want[name]).max() > 1e-2, name


@pytest.mark.parametrize('mask_padding', [False, True])
def test_a_clip_without_frames_is_finite(variables, mask_padding):
  model = make(mask_padding=mask_padding, loss_weights=EVERYTHING)
  mask = BATCH['frame_mask'].copy()
  mask[1] = False
  batch = {**BATCH, 'frame_mask': mask}
  q, v = encode(model, variables, batch)
  levels = apply(model, variables, 'levels', q, v)
  assert_finite(levels)
  assert_finite(apply(model, variables, 'fine', q, v))
  assert not np.asarray(v['video'][1]).any()
  # A pair of which nothing can be learnt leaves the others as they are.
  got = step(model, variables, batch)
  assert_finite(got)
  present = np.array([True, False, True, True, True])
  want = step(model, variables, {**BATCH, '_mask': present})
  assert_grads_near(got, want)


def test_a_single_pair_is_finite(variables):
  assert_finite(step(MODEL, variables, {k: x[:1] for k, x in BATCH.items()}))


def test_equal_pairs_are_finite(variables):
  """One video's captions only: no feature varies over the batch."""
  same = {k: np.repeat(x[:1], 3, 0) for k, x in BATCH.items()}
  assert_finite(step(MODEL, variables, same))


# -------------------------------------------------------------------- scores


def levels_by_hand(variables, q, v):
  """The table of scores, pair by pair, in float64."""
  p = jax.tree.map(np.float64, variables['params'])
  q, v = jax.tree.map(np.float64, (q, v))
  scale = np.exp(p['clip']['logit_scale'])

  def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()

  def cosine(s, content, weights):
    pooled = weights @ content
    return s @ pooled / np.linalg.norm(pooled)

  shape = (len(q['sentence']), len(v['video']))
  out = {name: np.zeros(shape) for name in eercf.LEVELS}
  for i, s in enumerate(q['sentence']):
    for j in range(shape[1]):
      frames, patches = v['frames'][j] @ s, v['patches'][j] @ s
      pair = dict(
        video=s @ p['video_map'] @ v['video'][j],
        frame_weak=frames @ (softmax(frames / 0.01) @ p['frame_map']),
        frame_strong=cosine(s, v['states'][j], softmax(frames / 0.1)),
        patch_weak=patches @ softmax(patches / 0.01),
        patch_strong=cosine(s, v['patches'][j], softmax(patches / 0.01)),
      )
      for name, x in pair.items():
        out[name][i, j] = scale * x
  return out


def test_levels(variables):
  q, v = encode(MODEL, variables, BATCH)
  q = jax.tree.map(lambda x: x[:3], q)
  want = levels_by_hand(variables, q, v)
  got = apply(MODEL, variables, 'levels', q, v)
  assert set(got) == set(eercf.LEVELS)
  for name in eercf.LEVELS:
    np.testing.assert_allclose(got[name], want[name], atol=2e-3, err_msg=name)
  for name in eercf.LEVELS:
    alone = MODEL.apply(variables, q, v, (name,), method='levels')
    assert set(alone) == {name}
    np.testing.assert_allclose(alone[name], got[name], atol=1e-4)


@pytest.mark.parametrize(
  'weights',
  [
    {},
    dict(video=0.0, frame_strong=1.5, patch_strong=0.7),
    dict(frame_weak=0.0, frame_strong=0.0, patch_weak=0.0),
  ],
)
def test_fine_mixes_the_levels(variables, weights):
  model = make(rank_weights=weights)
  q, v = encode(model, variables, BATCH)
  levels = apply(model, variables, 'levels', q, v)
  assert dict(eercf.RANK_WEIGHTS) == dict(
    video=0.5, frame_weak=0.8, frame_strong=0.2, patch_weak=0.2, patch_strong=0
  )
  mix = {**eercf.RANK_WEIGHTS, **weights}
  want = sum(w * levels[k] for k, w in mix.items())
  got = apply(model, variables, 'fine', q, v)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  'weights, mask_padding', [({}, False), (dict(patch_strong=0.4), True)]
)
def test_rescoring_candidates_is_the_fine_score(
  variables, weights, mask_padding
):
  model = make(rank_weights=weights, mask_padding=mask_padding)
  q, v = encode(model, variables, BATCH)
  order = np.random.default_rng(2).permuted(
    np.tile(np.arange(5), (5, 1)), axis=1
  )[:, :3]
  candidates = jax.tree.map(lambda x: x[order], v)
  got = apply(model, variables, 'rescore', q, candidates)['score']
  fine = np.asarray(apply(model, variables, 'fine', q, v))
  want = np.take_along_axis(fine, order, 1)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
  # On the diagonal: each query's own item as its only candidate.
  own = jax.tree.map(lambda x: x[:, None], v)
  got = apply(model, variables, 'rescore', q, own)['score'][:, 0]
  np.testing.assert_allclose(got, np.diagonal(fine), rtol=1e-5, atol=1e-4)


def test_banks_in_bfloat16_score_alike(variables):
  q, v = encode(MODEL, variables, BATCH)

  def narrow(x):
    return x.astype('bfloat16') if x.dtype == jnp.float32 else x

  want = apply(MODEL, variables, 'levels', q, v)
  got = apply(MODEL, variables, 'levels', q, jax.tree.map(narrow, v))
  scale = float(np.exp(variables['params']['clip']['logit_scale']))
  for name in eercf.LEVELS:
    assert got[name].dtype == jnp.float32
    np.testing.assert_allclose(
      got[name], want[name], atol=0.02 * scale, err_msg=name
    )


# ---------------------------------------------------------------------- loss


def test_loss_by_hand(variables):
  """Weights, terms and the own captions' gates, in float64."""
  q, v = encode(MODEL, variables, BATCH)
  levels = levels_by_hand(variables, q, v)
  q, v = jax.tree.map(np.float64, (q, v))
  scale = np.exp(np.float64(variables['params']['clip']['logit_scale']))
  s, w = q['sentence'], {**eercf.LOSS_WEIGHTS, **EVERYTHING}

  def own(parts, content, temperature):
    e = np.exp(np.einsum('bd,bfd->bf', s, parts) / temperature)
    pooled = np.einsum('bf,bfd->bd', e / e.sum(1, keepdims=True), content)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

  def contrast(x):
    rows = np.log(np.exp(x).sum(1)) - np.diagonal(x)
    columns = np.log(np.exp(x).sum(0)) - np.diagonal(x)
    return (rows.mean() + columns.mean()) / 2

  def pearson(y):
    z = [(x - x.mean(0)) / x.std(0, ddof=1) for x in (s, y)]
    return 0.14 * (((z[0] * z[1]).mean(0) - 1) ** 2).sum()

  h = own(v['frames'], v['states'], 0.1)
  k = own(v['patches'], v['patches'], 0.01)
  weak = contrast(
    sum(w[n] * levels[n] for n in ('video', 'frame_weak', 'patch_weak'))
  )
  strong = contrast(
    scale * s @ (w['frame_strong'] * h + w['patch_strong'] * k).T
  )
  intra = (
    w['intra_video'] * pearson(v['video'])
    + w['intra_frame'] * pearson(h)
    + w['intra_patch'] * pearson(k)
  )
  want = dict(weak=weak, strong=strong, intra=intra, scale=scale)
  (loss, scalars), _ = step(MODEL, variables, BATCH)
  assert set(scalars) == set(want)
  for name, x in want.items():
    np.testing.assert_allclose(scalars[name], x, rtol=1e-3, err_msg=name)
  total = w['weak'] * weak + w['strong'] * strong + w['intra'] * intra
  np.testing.assert_allclose(loss, total, rtol=1e-3)


def nearly(weights):
  """Zeros as numbers that change nothing, but are not left out."""
  return {k: w or 1e-30 for k, w in weights.items()}


@pytest.mark.parametrize(
  'weights',
  [
    dict(strong=0.0, patch_weak=0.0),
    dict(weak=0.0, patch_strong=0.3, intra_frame=0.0),
    dict(
      **dict.fromkeys(('video', 'frame_weak', 'patch_weak'), 0.0),
      **dict.fromkeys(('frame_strong', 'intra_frame', 'intra_video'), 0.0),
      **dict(intra=0.1, intra_patch=0.7),
    ),
  ],
)
def test_terms_without_weight_are_skipped_with_equal_results(
  variables, weights
):
  full = {**eercf.LOSS_WEIGHTS, **weights}
  (got, _), grads = step(make(loss_weights=weights), variables, BATCH)
  if not any(full[n] for n in ('video', 'frame_weak', 'patch_weak')):
    # Logits that are all zero say log(5) and teach nothing.
    got = got + full['weak'] * np.log(5)
  if not any(full[n] for n in ('frame_strong', 'patch_strong')):
    got = got + full['strong'] * np.log(5)
  (want, _), want_grads = step(
    make(loss_weights=nearly(full)), variables, BATCH
  )
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert_grads_near(grads, want_grads)


def test_skipping_leaves_the_parameters_as_they_are(variables):
  none = dict.fromkeys(eercf.LOSS_WEIGHTS, 0.0)
  bare = make(loss_weights=none)
  shapes = jax.tree.map(jnp.shape, variables_of(bare))
  assert shapes == jax.tree.map(jnp.shape, variables)
  (loss, scalars), grads = step(bare, variables, BATCH)
  assert loss == 0 and scalars['weak'].dtype == jnp.float32
  assert not any(np.asarray(x).any() for x in jax.tree.leaves(grads))


def test_recomputing_changes_no_gradient(variables):
  want = step(MODEL, variables, BATCH)
  got = step(make(remat=True, loss_weights=EVERYTHING), variables, BATCH)
  assert_grads_near(got, want)


def test_half_precision_towers(variables):
  half = make(dtype='bfloat16', loss_weights=EVERYTHING)
  q, v = encode(half, variables, BATCH)
  for name, x in {**q, **v}.items():
    assert x.dtype == (bool if name == 'frame_mask' else jnp.float32), name
  (want, _), _ = step(MODEL, variables, BATCH)
  (loss, _), grads = step(half, variables, BATCH)
  np.testing.assert_allclose(loss, want, rtol=0.1)
  assert_finite(grads)


def test_first_values():
  model = make(linear_patch='3d')
  init = jax.jit(
    lambda key: model.init(key, BATCH, step=0, train=False, method='loss')
  )
  start = init(jax.random.key(0))
  assert set(start) == {'params'}
  params = start['params']
  np.testing.assert_array_equal(params['video_map'], np.eye(64))
  np.testing.assert_array_equal(params['frame_map'], np.eye(FRAMES))
  assert params['temporal']['positional_embedding'].shape == (8, 64)
  assert params['clip']['visual']['conv2']['kernel'].shape == (3, 4, 4, 3, 64)
  assert 'conv1' not in params['clip']['visual']
  assert set(params) == {'clip', 'temporal', 'video_map', 'frame_map'}


# ------------------------------------------------------------------- options


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(clip='ViT-B/8'), "clip='ViT-B/8': expected one of"),
    (dict(linear_patch='4d'), "linear_patch='4d': expected '2d' or '3d'"),
    (dict(max_frames=0), 'max_frames=0: expected 1 to 8, the positions'),
    (dict(max_frames=9), 'max_frames=9: expected 1 to 8'),
    (dict(temporal_layers=0), 'temporal_layers=0: expected 1 or more'),
    (dict(clip={**SIZES, 'dim': 96}), 'clip.dim=96: expected a multiple of 64'),
    (
      dict(loss_weights=dict(vdeo=1.0)),
      'loss_weights: unknown vdeo; known are video, frame_weak',
    ),
    (
      dict(rank_weights=dict(weak=1.0)),
      'rank_weights: unknown weak; known are video, frame_weak',
    ),
    (
      dict(rank_weights=dict.fromkeys(eercf.RANK_WEIGHTS, 0)),
      'rank_weights: all are zero',
    ),
    (dict(dtype='int8'), "dtype='int8'"),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_wrong_number_of_frames(variables):
  batch = {
    k: x if k == 'text' else np.concatenate([x, x], 1) for k, x in BATCH.items()
  }
  with pytest.raises(ValueError, match='clip of the data has 6 frames, the mo'):
    MODEL.apply(variables, batch, method='encode_item')


def test_wrong_frame_size(variables):
  batch = {**BATCH, 'frames': BATCH['frames'][:, :, :4, :4]}
  with pytest.raises(ValueError, match=r'expected \[b, f, 8, 8, 3\]: set imag'):
    MODEL.apply(variables, batch, method='encode_item')


def test_published_size():
  """Own parameters of the paper's model, four layers over twelve frames."""
  model = eercf.make()
  batch = dict(
    text=np.zeros((1, 4), 'i4'),
    frames=np.zeros((1, 12, 224, 224, 3), 'u1'),
    frame_mask=np.ones((1, 12), bool),
  )
  shapes = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), batch, step=0, train=True, method='loss'
    )
  )
  count = sum(x.size for x in jax.tree.leaves(shapes))
  assert count == 164_188_561
