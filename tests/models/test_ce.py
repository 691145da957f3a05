# SPDX-License-Identifier: Apache-2.0
"""Tests of models/ce.py: padding, options, bad input, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import ce
from vidret_jax.models.base import row_mask

EXPERTS = (
  ('audio', dict(dim=5, max_tokens=4, clusters=3)),
  ('scene.x.0', dict(dim=7)),
  ('face', dict(dim=3)),
)
TEXT = dict(dim=10, max_tokens=6, clusters=4, ghosts=1, encoder='openai')


def make(**options):
  return ce.make(EXPERTS, TEXT, dim=6, **options)


def make_batch(rows=5, captions=None, seed=0):
  rng = np.random.default_rng(seed)
  lead = (rows,) if captions is None else (rows, captions)
  available = rng.random((rows, 3)) > 0.4
  available[:, 0] = True
  return dict(
    text=rng.normal(size=(*lead, 6, 10)).astype('f'),
    text_mask=rng.random((*lead, 6)) > 0.3,
    experts={
      'audio': rng.normal(size=(rows, 4, 5)).astype('f'),
      'face': rng.normal(size=(rows, 3)).astype('f'),
      'scene.x.0': rng.normal(size=(rows, 7)).astype('f'),
    },
    experts_mask={'audio': rng.random((rows, 4)) > 0.3},
    available=available,
    _mask=np.ones(rows, bool),
    teacher_text=rng.normal(size=(rows, 2, 9)).astype('f') / 5,
    teacher_video=rng.normal(size=(rows, 2, 9)).astype('f') / 5,
  )


@functools.cache
def compiled(model, method):
  """Compiled once per model: eager dispatch compiles every operation."""

  def run(variables, *args):
    kwargs = dict(step=0, train=False) if method == 'loss' else {}
    return model.apply(variables, *args, method=method, **kwargs)

  return jax.jit(run)


def call(model, variables, method, *args):
  return compiled(model, method)(variables, *args)


@functools.cache
def init(model):
  """Variables; the number of rows and of captions makes no difference."""

  def run(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  return jax.jit(run)(jax.random.key(0), make_batch())


@functools.cache
def compiled_step(model):
  @jax.jit
  def run(variables, batch):
    def loss(params):
      (value, logs), state = model.apply(
        {**variables, 'params': params},
        batch,
        step=0,
        train=True,
        method='loss',
        mutable=['batch_stats'],
      )
      return value, (logs, state)

    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  return run


def step(model, variables, batch):
  """Loss, gradients and statistics of one training step."""
  return compiled_step(model)(variables, batch)


def pad(batch, rows, fill):
  """Appends rows that the mask excludes."""

  def more(x):
    if x.dtype == bool:
      extra = np.zeros((rows, *x.shape[1:]), bool)
    else:
      extra = np.full((rows, *x.shape[1:]), fill, x.dtype)
    return np.concatenate([x, extra])

  return jax.tree.map(more, batch)


@pytest.mark.parametrize(
  'options',
  [
    dict(masked_vlad=True, distill=1.0),
    dict(gating='none', fix_norm=False),
    dict(gating='mimic'),
    dict(gating='triplet', missing='keep'),
    dict(gating='concat_mix'),
    dict(gating='pairwise_star', availability='legacy_2019'),
  ],
  ids=str,
)
def test_padding_rows_influence_nothing(options):
  model, batch = make(**options), make_batch()
  variables = init(model)
  want = step(model, variables, batch)
  zeros = step(model, variables, pad(batch, 3, 0))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
    zeros,
    want,
  )
  # To the last bit, whatever the padding holds.
  other = step(model, variables, pad(batch, 3, np.nan))
  jax.tree.map(np.testing.assert_array_equal, other, zeros)


def test_missing_experts_influence_nothing():
  model, batch = make(), make_batch()
  variables = init(model)
  want = call(model, variables, 'encode_item', batch)
  for i, name in enumerate(model.expert_names):
    batch['experts'][name][~batch['available'][:, i]] = np.nan
  got = call(model, variables, 'encode_item', batch)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_experts_come_sorted_and_split_again():
  model = make(gating='none')
  assert model.expert_names == ('audio', 'face', 'scene.x.0')
  assert model.sizes == (5, 3, 7)
  batch = make_batch()
  emb = call(model, init(model), 'encode_item', batch)
  parts = model.split(emb['embed'])
  assert [p.shape for p in parts.values()] == [(5, 5), (5, 3), (5, 7)]
  for part in parts.values():
    np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1, atol=1e-5)


def test_captions_of_a_query_are_averaged():
  model, batch = make(), make_batch(captions=3)
  variables = init(model)
  v = call(model, variables, 'encode_item', batch)
  q = call(model, variables, 'encode_query', batch)
  assert q['weights'].shape == (5, 3, 3)
  flat = dict(text=batch['text'].reshape(15, 6, 10))
  each = call(
    model, variables, 'score', call(model, variables, 'encode_query', flat), v
  )
  got = call(model, variables, 'score', q, v)
  np.testing.assert_allclose(got, each.reshape(5, 3, 5).mean(1), atol=1e-6)


def test_rescore_agrees_with_score():
  model, batch = make(), make_batch()
  variables = init(model)
  q = call(model, variables, 'encode_query', batch)
  v = call(model, variables, 'encode_item', batch)
  index = np.array([[0, 3], [1, 1], [4, 2], [2, 0], [3, 4]])
  cand = jax.tree.map(lambda x: x[index], v)
  got = call(model, variables, 'rescore', q, cand)['score']
  want = call(model, variables, 'score', q, v)
  np.testing.assert_allclose(
    got, np.take_along_axis(np.asarray(want), index, 1), atol=1e-6
  )


def test_uniform_mixture():
  model, batch = make(mixture='uniform'), make_batch()
  variables = init(model)
  q = call(model, variables, 'encode_query', batch)
  np.testing.assert_allclose(q['weights'], 1 / 3)
  grads = step(model, variables, batch)[1]
  assert not any(g.any() for g in jax.tree.leaves(grads['mixing']))


def test_leaky_rule_needs_the_caption_s_own_experts():
  model, batch = make(availability='legacy_2019'), make_batch()
  variables = init(model)
  with pytest.raises(KeyError, match='available'):
    call(model, variables, 'encode_query', dict(text=batch['text']))
  with pytest.raises(ValueError, match='own_available'):
    model.apply(
      variables,
      dict(text=batch['text'], available=batch['available'][:, :2]),
      method='encode_query',
    )


def test_concat_pads_the_shorter_side():
  model, batch = make(gating='concat'), make_batch()
  variables = init(model)
  q = call(model, variables, 'encode_query', batch)
  v = call(model, variables, 'encode_item', batch)
  assert (q['embed'].shape[1], v['embed'].shape[1]) == (40, 25)
  got = call(model, variables, 'score', q, v)
  want = q['embed'][:, :25] @ v['embed'].T
  np.testing.assert_allclose(got, want, atol=1e-5)
  legacy = make(gating='concat', legacy_concat_zero=True)
  assert not call(legacy, variables, 'score', q, v).any()


def test_distillation_is_added_with_its_weight():
  batch = make_batch()
  plain, half = make(), make(distill=0.5)
  variables = init(plain)
  want, _ = call(plain, variables, 'loss', batch)
  got, logs = call(half, variables, 'loss', batch)
  assert logs['distillation'] > 0
  np.testing.assert_allclose(got, want + 0.5 * logs['distillation'], rtol=1e-6)
  del batch['teacher_text']
  with pytest.raises(KeyError, match='teacher_text'):
    call(half, variables, 'loss', batch)


@pytest.mark.parametrize('gating', ['pairwise', 'none'])
def test_bfloat16_is_near_and_keeps_float32_parameters(gating):
  batch = make_batch(rows=16)
  model = make(gating=gating, dtype='bfloat16')
  variables = init(model)
  assert all(
    x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(variables)
  )
  loss, grads = step(model, variables, batch)
  want, _ = step(make(gating=gating), variables, batch)
  assert loss[0].dtype == jnp.float32
  np.testing.assert_allclose(loss[0], want[0], rtol=0.05)
  assert all(
    g.dtype == jnp.float32 and np.isfinite(g).all()
    for g in jax.tree.leaves(grads)
  )


def test_a_longer_expert_list_needs_no_pooling_of_text():
  text = dict(dim=10, max_tokens=6, clusters=0)
  variables = init(ce.make(EXPERTS, text, dim=6))
  assert variables['params']['mixing']['kernel'].shape == (60, 3)


def test_network_of_2019():
  model = make(gating='legacy_2019')
  assert (model.include_self, model.g_norm, model.activation) == (
    False,
    False,
    'relu',
  )
  relation = init(model)['params']['relation']
  assert set(relation) == {
    'g_in',
    'g',
    'h_in',
    'h',
    'units_audio',
    'units_face',
    'units_scene_x_0',
  }


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(text=np.zeros((5, 6, 9), 'f')), r'\(5, 6, 9\).*dim=10'),
    (dict(text=np.zeros((5, 7, 10), 'f')), r'max_tokens=6'),
    (dict(available=np.ones((5, 2), bool)), r'one column per expert'),
    (dict(_mask=np.ones(4, bool)), r'_mask.*\(5,\)'),
    (
      dict(experts={'audio': np.zeros((5, 4, 5), 'f')}),
      r"lacks \['face', 'scene.x.0'\]",
    ),
    (
      dict(experts={**make_batch()['experts'], 'rgb': np.zeros((5, 2), 'f')}),
      r"unknown \['rgb'\]",
    ),
    (
      dict(experts={**make_batch()['experts'], 'face': np.zeros((5, 4), 'f')}),
      r"'face'.*\(5, 4\).*\(5, 3\)",
    ),
    (
      dict(
        experts={**make_batch()['experts'], 'audio': np.zeros((5, 3, 5), 'f')}
      ),
      r"'audio'.*max_tokens=4",
    ),
  ],
)
def test_batches_that_do_not_fit(change, message):
  model, batch = make(), make_batch()
  variables = init(model)
  with pytest.raises(ValueError, match=message):
    model.apply(
      variables,
      {**batch, **change},
      step=0,
      train=True,
      method='loss',
      mutable=['batch_stats'],
    )


def test_a_batch_without_experts_says_what_it_has():
  model, batch = make(), make_batch()
  variables = init(model)
  with pytest.raises(KeyError, match='experts.*_mask'):
    call(model, variables, 'encode_item', {'_mask': batch['_mask']})


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(gating='pairs'), 'pairwise.*concat_mix'),
    (dict(mixture='learnt'), 'uniform'),
    (dict(missing='zero'), 'renormalise'),
    (dict(availability='2019'), 'legacy_2019'),
    (dict(marign=0.1), 'marign.*margin'),
    (dict(dtype='float8'), 'bfloat16'),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


@pytest.mark.parametrize(
  'experts, message',
  [
    ((), 'distinct'),
    ((('a', dict(dim=1)), ('a', dict(dim=2))), 'twice'),
    ((('a', dict(width=1)),), 'width'),
    ((('a', dict(dim=1, max_tokens=3)),), 'clusters'),
    ((('a.b', dict(dim=1)), ('a_b', dict(dim=1))), 'twice'),
  ],
)
def test_bad_experts(experts, message):
  with pytest.raises(ValueError, match=message):
    ce.make(experts, TEXT)


def test_bad_text():
  with pytest.raises(ValueError, match='max_tokens'):
    ce.make(EXPERTS, dict(dim=3, clusters=2))


def test_row_mask_defaults_to_all():
  assert row_mask({}, 3).all()
