# SPDX-License-Identifier: Apache-2.0
"""Tests of models/hap_vr.py and hap_vr_model.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import hap_vr
from vidret_jax.ops import video_in_video

pytestmark = pytest.mark.usefixtures('quick_compiler')

DIM, REGIONS, FRAMES, LABELS = 6, 2, 8, 5
BACKBONE = dict(stages=(1,) * 4, width=4, dims=DIM, kernels=(4, 2, 1, 1))
LABELLER = dict(image_size=32, patch=16, width=8, layers=1, heads=2)
ROWS = 4


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(*shape, seed=0):
  x = draw(*shape, seed=seed)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make(**options):
  return hap_vr.make(**{'dim': DIM, **options})


def example_batch(rows=ROWS):
  """Strong views are like the weak ones."""
  weak = unit(rows, FRAMES, REGIONS, DIM)
  labels = draw(rows, FRAMES, LABELS, seed=1)
  return dict(
    weak=weak,
    strong=weak + 0.2 * draw(*weak.shape, seed=2),
    weak_labels=labels,
    strong_labels=labels + draw(*labels.shape, seed=3),
    _mask=np.ones(rows, bool),
  )


@functools.cache
def variables_of(model):
  return random(model, example_batch(2))


def random(model, batch):
  """Other values than those of an initialisation: nothing is zero."""
  init = functools.partial(model.init, step=0, train=False, method='loss')
  shapes = jax.eval_shape(init, jax.random.key(0), batch)
  rng = np.random.default_rng(1)

  def draw(path, x):
    # Small enough that similarities stay between their bounds.
    x = rng.normal(size=x.shape) / max(x.size, 4) ** 0.4
    return np.asarray(abs(x) if 'var' in str(path[-1]) else x, np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def compiled_step(model):
  def loss(variables, batch, step):
    return model.apply(variables, batch, step=step, train=True, method='loss')

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def step(model, variables, batch, number=0):
  """((loss, parts), gradient)."""
  return compiled_step(model)(variables, batch, np.int32(number))


def close(got, want, rtol=1e-4):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    atol = 1e-5 * (0.1 + np.abs(b).max())
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# ------------------------------------------------------------------ options


@pytest.mark.parametrize(
  'options, word',
  [
    (dict(dim=0), 'dim=0'),
    (dict(groups=0), 'groups=0'),
    (dict(max_frames=3), 'max_frames=3: expected 4'),
    (dict(bits=8), 'bits=8, attention=True'),
    (dict(bits=0, attention=False), 'bits=0'),
    (dict(frame_pool='mean'), "frame_pool='mean'.*topk, chamfer"),
    (dict(video_pool='mean'), "video_pool='mean'"),
    (dict(frame_rate=0.0), 'frame_rate=0.0'),
    (dict(video_rate=1.5), 'video_rate=1.5'),
    (dict(video_sigma=0.0), 'video_sigma=0.0'),
    (dict(frame_sigma=-1.0), 'frame_sigma=-1.0'),
    (dict(temperature=0.0), 'temperature=0.0'),
    (dict(kernel='cuda'), "kernel='cuda'"),
    (dict(loss={'frames': 1.0}), "no part 'frames'.*frame, video"),
    (dict(top_rate=0.6, bottom_rate=0.5), 'top_rate=0.6, bottom_rate=0.5'),
    (dict(backbone=BACKBONE), 'labeller=None.*loss.frame=0'),
    (dict(dtype='int8'), "dtype='int8'"),
  ],
)
def test_bad_options_are_named(options, word):
  with pytest.raises(ValueError, match=word):
    hap_vr.make(**options)


def test_what_needs_no_labels_has_no_labeller():
  options = dict(backbone=BACKBONE, loss={'frame': 0.0})
  assert hap_vr.make(**options).labeller is None
  model = hap_vr.make(labeller=LABELLER, top_rate=0.9, **options)
  assert model.labeller is None
  assert hap_vr.make(backbone=BACKBONE, labeller=LABELLER).labeller.width == 8


def test_default_weights_are_the_published_ones():
  weights = make().weights
  assert (weights.frame, weights.video, weights.nce) == (6.0, 4.0, 1.0)
  assert (weights.sshn, weights.reg) == (3.0, 1.0)


# ----------------------------------------------------------------- training


def test_the_loss_is_the_weighted_sum_of_its_parts():
  (loss, parts), grad = step(make(), variables_of(make()), example_batch())
  assert set(parts) == {'frame', 'video', 'nce', 'hardneg', 'self', 'reg'}
  want = (
    6 * parts['frame']
    + 4 * parts['video']
    + parts['nce']
    + 3 * (parts['hardneg'] + parts['self'])
    + parts['reg']
  )
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  for leaf in jax.tree.leaves(grad):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


def test_one_program_of_float32_whatever_the_step_and_the_mask():
  batch = example_batch()
  variables, run = variables_of(make()), compiled_step(make())
  before = run._cache_size()
  for number, valid in ((1, 4), (2, 3), (3, 0)):
    masked = {**batch, '_mask': np.arange(ROWS) < valid}
    out = step(make(), variables, masked, number)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))
  assert run._cache_size() - before <= 1
  assert {x.dtype for x in jax.tree.leaves(out)} == {np.dtype(np.float32)}


def spoilt(batch, rows, value):
  """The batch with rows that are padding, whatever they hold."""
  out = {k: np.array(x) for k, x in batch.items()}
  for k in out:
    out[k][rows] = False if k == '_mask' else value
  return out


def test_masked_rows_influence_nothing_and_groups_are_separate_batches():
  variables, batch = variables_of(make()), example_batch()
  halves = []
  for rows in (slice(2, 4), slice(0, 2)):
    half, same = (
      step(make(), variables, spoilt(batch, rows, x)) for x in (1.0, np.nan)
    )
    close(half, same, rtol=1e-6)
    halves.append(half)
  groups = step(make(groups=2), variables, batch)
  close(groups, jax.tree.map(lambda a, b: (a + b) / 2, *halves))
  whole = step(make(), variables, batch)[0][0]
  assert abs(whole - groups[0][0]) > 0.1


def test_a_batch_that_cannot_be_parted_is_named():
  variables, batch = variables_of(make()), example_batch()
  model = make(groups=3)
  assert jax.tree.map(np.shape, variables_of(model)) == jax.tree.map(
    np.shape, variables
  )
  with pytest.raises(ValueError, match='groups=3: a batch of 4 pairs'):
    model.apply(variables, batch, step=0, train=True, method='loss')


def test_pieces_of_the_comparison_are_the_whole(monkeypatch):
  x = jnp.asarray(unit(1, 4, FRAMES, REGIONS, DIM))

  def gradient():
    def total(variables):
      out = make().apply(variables, x, method='clip_similarity')
      return (out[0] * draw(1, 4, 4, seed=3)).sum(), out

    step = jax.jit(jax.value_and_grad(total, has_aux=True))
    return step(variables_of(make()))

  want = gradient()
  shapes = [y.shape for y in want[0][1]]
  assert shapes == [(1, 4, 4), (1, 4, 4, 8, 8), (1, 4, 4, 2, 2)]
  monkeypatch.setattr('vidret_jax.models.hap_vr_model._PAIRS', 4)
  close(gradient(), want)


def test_short_clips_are_named():
  batch = {
    k: x if k == '_mask' else x[:, :3] for k, x in example_batch().items()
  }
  with pytest.raises(ValueError, match='clips of 3 frames.*input.data.window'):
    jax.eval_shape(
      lambda v: make().apply(v, batch, step=0, train=True, method='loss'),
      variables_of(make()),
    )


def test_regions_of_another_width_are_named():
  wide = {'regions': unit(1, 4, REGIONS, DIM + 1), 'length': np.array([4])}
  for options, known in (({}, True), ({'features_only': True}, False)):
    model = make(**options)
    call = functools.partial(model.apply, variables_of(model))
    if known:
      with pytest.raises(
        ValueError, match=f'{DIM + 1} values.*model.dim={DIM}'
      ):
        call(wide, method='encode_item')
    else:
      assert call(wide, method='encode_item')['regions'].shape[-1] == DIM + 1


def test_bits_are_trained_soft_and_parts_without_weight_not_at_all():
  model = make(attention=False, bits=3, loss={'frame': 0.0, 'video': 0.0})
  batch = {k: x for k, x in example_batch(2).items() if 'labels' not in k}
  # So small beside one direction that bits are neither -1 nor 1.
  batch['weak'] = 1e-3 * batch['weak'] + np.eye(DIM, dtype='f')[0]
  variables = random(model, batch)
  kernel = variables['params']['binarization']['kernel']
  kernel[0] = 0
  assert kernel.shape == (DIM, 3) and 'attention' not in variables['params']
  (_, parts), grad = step(model, variables, batch)
  assert set(parts) == {'nce', 'hardneg', 'self', 'reg'}
  assert np.abs(grad['params']['binarization']['kernel']).max() > 0


# ------------------------------------------------------------- from frames


@pytest.mark.parametrize('smooth', [False, True])
def test_frames_are_regions_labels_and_pasted_clips(smooth):
  model = make(backbone=BACKBONE, labeller=LABELLER, antialias=smooth)
  pixels = np.random.default_rng(0).integers(0, 255, (2, 2, 4, 32, 32, 3))
  weak, strong = pixels.astype(np.uint8)
  # The first strong clip is pasted over the second one.
  mix = np.array([[1, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0, 0]], np.float32)
  batch = dict(weak=weak, strong=strong, mix=mix)
  variables = random(model, {**batch, '_mask': np.ones(2, bool)})

  @jax.jit
  def both(variables, batch):
    """What the model makes of the batch, and the same by hand."""
    how = video_in_video.plan(batch['mix'], 32, 32)
    edited = video_in_video.composite(batch['strong'], how, antialias=smooth)
    clips = jnp.concatenate([batch['weak'], edited])
    labels = video_in_video.label_matrix(video_in_video.links(how))

    def method(model):
      features = model.labeller(clips.reshape(-1, 32, 32, 3))
      got = model._views(batch, np.ones((1, 2), bool))
      want = model.see(clips)[None], features.reshape(1, 4, 4, -1), labels[None]
      return got, want

    return model.apply(variables, method=method)

  got, want = both(variables, batch)
  close(got, want)
  labels = want[2][0]
  assert not labels[0, 1] and labels[2, 1] and labels[2, 3]
  assert np.isfinite(want[0]).all()
  videos = dict(frames=weak, length=np.array([4, 3]))
  encode = functools.partial(model.apply, method='encode_item')
  shape = jax.eval_shape(encode, variables, videos)['regions'].shape
  assert shape == (2, *want[0].shape[2:])


def test_a_model_without_backbone_says_so():
  frames = np.zeros((1, 4, 32, 32, 3), np.uint8)
  with pytest.raises(ValueError, match='has no backbone'):
    make().apply(
      variables_of(make()),
      dict(frames=frames, length=[4]),
      method='encode_item',
    )


# ------------------------------------------------------------ embeddings


def videos(lengths, frames, seed=0, spare=7.0):
  x = unit(len(lengths), frames, REGIONS, DIM, seed=seed)
  length = np.asarray(lengths, np.int32)
  real = np.arange(frames) < length[:, None]
  return dict(regions=np.where(real[..., None, None], x, spare), length=length)


def cut(batch, i):
  n = int(batch['length'][i])
  return dict(regions=batch['regions'][i : i + 1, :n], length=np.array([n]))


@functools.cache
def compiled(model, method):
  def run(variables, q, v):
    def both(model):
      q_emb, v_emb = model.encode_query(q), model.encode_item(v)
      return getattr(model, method)(q_emb, v_emb)

    return model.apply(variables, method=both)

  return jax.jit(run)


@pytest.mark.parametrize(
  'options',
  [
    # Two of 4 places, and two of 2 regions, count.
    dict(video_rate=0.5, frame_rate=1.0),
    dict(attention=False, bits=3),
    dict(features_only=True, video_rate=0.3),
  ],
)
def test_fine_is_pairwise_whatever_lies_in_the_padding(options):
  model = make(**options)
  variables = variables_of(model)
  queries = videos([5, 9], 12, seed=1, spare=np.nan)
  items = videos([4, 16, 7], 18, spare=np.nan)
  got = compiled(model, 'fine')(variables, queries, items)
  assert got.shape == (2, 3) and got.dtype == jnp.float32
  assert len(set(np.round(np.ravel(got), 6))) > 2
  for i, j in ((0, 1), (1, 2))[: 1 + len(options) // 2]:
    alone = compiled(model, 'fine')(variables, cut(queries, i), cut(items, j))
    np.testing.assert_allclose(alone[0, 0], got[i, j], rtol=1e-5, atol=1e-6)


def test_long_queries_are_compared_in_strips(monkeypatch):
  model, variables = make(), variables_of(make())
  queries, items = videos([22], 22), videos([13, 8], 13, seed=2)
  want = compiled(model, 'fine')(variables, queries, items)
  monkeypatch.setattr('vidret_jax.models.hap_vr_model._STRIP', 8)
  again = make(max_frames=2047)
  got = compiled(again, 'fine')(variables, queries, items)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_the_coarse_score_is_the_cosine_of_means():
  model, variables = make(), variables_of(make())
  items = videos([4, 6, 2], 6, spare=np.nan)
  got = compiled(model, 'score')(variables, items, items)
  means = np.stack([cut(items, i)['regions'].mean((0, 1, 2)) for i in range(3)])
  means /= np.linalg.norm(means, axis=1, keepdims=True)
  np.testing.assert_allclose(got, means @ means.T, rtol=1e-5, atol=1e-6)
  assert model.COARSE == ('vector',)


def test_features_only_reads_no_weights():
  model, items = make(features_only=True), videos([4, 16, 7], 18)
  encode = functools.partial(model.apply, {}, method='encode_item')
  emb = jax.jit(encode)(items)
  jax.eval_shape(functools.partial(model.apply, {}, method='fine'), emb, emb)
  real = np.arange(18) < items['length'][:, None]
  kept = np.where(real[..., None, None], items['regions'], 0)
  np.testing.assert_array_equal(emb['regions'], kept)
  assert emb['regions'].dtype == jnp.float32
