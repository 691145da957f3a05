# SPDX-License-Identifier: Apache-2.0
"""Tests of models/reloclnet.py: ReLoCLNet, and XML of the same blocks."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import reloclnet

pytestmark = pytest.mark.usefixtures('quick_compiler')

ROWS, CLIPS, WORDS = 5, 9, 4
WIDTHS = dict(video=7, subtitle=6)
QUERY = 5
SETS = (('video', 'subtitle'), ('video',), ('subtitle',))
PAIR, SINGLE = ('reloclnet', SETS[0]), ('xml', SETS[2])
RANKS = dict(ctx=np.array([1, 2, 1, 2, 1]), query=np.array([2, 1, 1, 1, 2]))


def make(variant='reloclnet', streams=SETS[0], **options):
  options = {
    **dict(dim=8, heads=2, max_clips=CLIPS, max_words=6, dropout=0.0),
    **dict(input_dropout=0.0, margin=0.5, hard_start_epoch=-1),
    **options,
  }
  return reloclnet.make(variant=variant, streams=streams, **options)


def example_batch(rows=ROWS, **widths):
  rng = np.random.default_rng(0)
  length = rng.integers(3, CLIPS + 1, (rows, 1))
  words = rng.integers(1, WORDS + 1, (rows, 1))
  start = rng.integers(0, length - 2)
  batch = dict(
    query_mask=np.arange(WORDS) < words,
    clip_mask=np.arange(CLIPS) < length,
    span=np.concatenate([start, start + 2], 1).astype('i4'),
    _mask=np.ones(rows, bool),
  )
  for key, width in dict(query=QUERY, **(widths or WIDTHS)).items():
    mask = batch['query_mask' if key == 'query' else 'clip_mask']
    x = rng.normal(size=(*mask.shape, width)).astype('f')
    batch[key] = np.where(mask[..., None], x, 0)
  return batch


BATCH = example_batch()


def shapes_for(model, batch):
  batch = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in batch.items()}
  init = functools.partial(model.init, step=0, train=False, method='loss')
  return jax.eval_shape(init, jax.random.key(0), batch)


@functools.cache
def shapes(model):
  return shapes_for(model, BATCH)


@functools.cache
def variables_of(model):
  """Other values than those of an initialisation: larger, nothing is zero."""
  return random(shapes(model))


def random(tree):
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: (0.5 * rng.normal(size=x.shape)).astype('f'), tree
  )


@functools.cache
def compiled_step(model):
  def loss(variables, batch):
    return model.apply(
      variables, batch, RANKS, step=0, train=True, method='objective'
    )

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


@functools.cache
def embeddings(model):
  """Embeddings of the batch, scores, similarities and logits of all pairs."""

  def everything(model):
    q, v = model.encode_query(BATCH), model.encode_item(BATCH)
    sim = model.similarity(q, v)
    return q, v, model.score(q, v), sim, model.boundaries(sim, v['mask'])

  run = jax.jit(lambda v: model.apply(v, method=everything))
  return jax.device_get(run(variables_of(model)))


# ----------------------------------------------------------------- training


@pytest.mark.parametrize(
  'variant, streams, widths',
  [
    ('reloclnet', SETS[0], WIDTHS),
    # Places in time alone are a stream of videos.
    ('reloclnet', SETS[1], dict(video=2)),
    ('xml', SETS[2], WIDTHS),
  ],
)
def test_every_set_of_streams_trains(variant, streams, widths):
  model, batch = make(variant, streams), example_batch(**widths)
  variables = random(shapes_for(model, batch))
  (loss, parts), grad = compiled_step(model)(variables, batch)
  contrastive = {'frame', 'video'} if variant == 'reloclnet' else set()
  assert set(parts) == {'span', 'neg_ctx', 'neg_q'} | contrastive
  assert np.isfinite(loss) and all(x != 0 for x in parts.values())
  np.testing.assert_allclose(loss, sum(parts.values()), rtol=1e-6)
  for path, slope in flax.traverse_util.flatten_dict(grad).items():
    assert np.isfinite(slope).all(), path
    # A softmax does not see a shift of all keys.
    assert slope.any() or path[-2:] == ('key', 'bias'), path


def spoilt(batch, where):
  """NaN, other places and full masks in the rows outside where."""
  out = {}
  for key, x in batch.items():
    junk = np.full((), {'f': np.nan, 'i': 99, 'b': True}[x.dtype.kind], x.dtype)
    out[key] = np.where(where.reshape(-1, *[1] * (x.ndim - 1)), x, junk)
  return {**out, '_mask': where}


def test_excluded_rows_influence_nothing():
  model, where = make(), np.arange(ROWS) < 3
  variables, step = variables_of(model), compiled_step(model)
  got = step(variables, spoilt(BATCH, where))
  want = step(variables, {**BATCH, '_mask': where})
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    atol = 1e-5 * (0.1 + np.abs(b).max())
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)
  small, ranks = ({k: x[where] for k, x in y.items()} for y in (BATCH, RANKS))
  alone = functools.partial(
    model.apply, step=0, train=False, method='objective'
  )
  _, parts = jax.jit(alone)(variables, small, ranks)
  for name, part in parts.items():
    np.testing.assert_allclose(got[0][1][name], part, rtol=1e-4, err_msg=name)
  # Nothing but padding: neither a loss nor a gradient.
  for x in jax.tree.leaves(step(variables, spoilt(BATCH, where & False))):
    assert not np.asarray(x).any()


def test_short_videos_at_their_own_length_are_the_same():
  model = make(short_clips=6)
  batch, ones = example_batch(rows=16), np.ones(16, 'i4')
  assert model.plans == 2 and make().plans == 1
  # Four of sixteen may be long, in any place.
  length = np.where(np.arange(16) % 4 == 1, CLIPS, 4)
  batch['clip_mask'] = np.arange(CLIPS) < length[:, None]
  for name in SETS[0]:
    batch[name] *= batch['clip_mask'][..., None]
  batch['span'] = np.minimum(batch['span'], length[:, None] - 1)
  assert model.plan(batch) == 1
  more = np.arange(CLIPS) < np.where(np.arange(16) == 0, 5, length)[:, None]
  assert model.plan({**batch, 'clip_mask': more}) == 0
  objective = functools.partial(
    model.apply, step=0, train=False, method='objective'
  )

  @jax.jit
  def both_plans(variables):
    ranks = dict(ctx=ones, query=ones)
    return [objective(variables, batch, ranks, plan=i)[1] for i in range(2)]

  plain, planned = both_plans(variables_of(model))
  for name, want in plain.items():
    np.testing.assert_allclose(planned[name], want, rtol=1e-4, err_msg=name)


def test_schedules_follow_the_traced_step():
  options = dict(hard_start_epoch=1, hard_pool=1, span_start_epoch=2)
  model = make(*SINGLE, steps_per_epoch=10, **options)
  ones = {k: np.ones(ROWS, 'i4') for k in RANKS}

  @jax.jit
  def run(variables, step, key):
    kwargs = dict(step=step, train=False, rngs={'sample': key})
    drawn = model.apply(variables, BATCH, method='loss', **kwargs)
    hard = model.apply(variables, BATCH, ones, method='objective', **kwargs)
    return drawn[1], hard[1]

  def at(step, seed=0):
    parts = run(variables_of(model), step, jax.random.key(seed))
    return jax.tree.map(float, parts)

  for step in (10, 19, 500):
    drawn, hard = at(step)
    assert drawn == hard
  easy = {at(9, seed)[0]['neg_ctx'] for seed in range(5)}
  assert len(easy) > 1 and max(easy) <= hard['neg_ctx']
  assert at(19)[0]['span'] == 0 and at(20)[0]['span'] > 0
  assert run._cache_size() == 1
  never = make(hard_start_epoch=-1, span_start_epoch=-1)
  assert min(never.hard_start, never.span_start) > 10**8


def test_dropout_is_active_in_training_only():
  calm = make(*SINGLE)
  model = make(*SINGLE, dropout=0.3, input_dropout=0.3)

  def encode(model, train, key):
    def both(model):
      q = model.encode_query(BATCH, train=train)
      v = model.encode_item(BATCH, train=train)
      return q['subtitle'], v['subtitle']

    rngs = {'dropout': key}
    return model.apply(variables_of(calm), method=both, rngs=rngs)

  keys = [jax.random.key(i, impl='unsafe_rbg') for i in range(2)]
  run = jax.jit(functools.partial(encode, model, True))
  for first, second in zip(*map(run, keys)):
    assert np.abs(first - second).max() > 1e-2
  # Without training both are one program.
  found = [
    str(jax.make_jaxpr(functools.partial(encode, m, False))(keys[0]))
    for m in (model, calm)
  ]
  assert found[0] == found[1]


# ------------------------------------------------------------ embeddings


def best_cosine(query, clips, mask):
  query, clips = np.float64(query), np.float64(clips)
  query = query / np.linalg.norm(query, axis=-1, keepdims=True)
  clips = clips / np.linalg.norm(clips, axis=-1, keepdims=True)
  found = np.einsum('qd,vtd->qvt', query, clips)
  return np.where(mask, found, -np.inf).max(-1)


@pytest.mark.parametrize('variant, streams', [PAIR, SINGLE])
def test_scores_and_logits_are_their_definitions(variant, streams):
  model = make(variant, streams)
  q, v, score, sim, logits = embeddings(model)
  params, mask = variables_of(model)['params']['span'], BATCH['clip_mask']
  end = '_first' if variant == 'xml' else ''
  want = [best_cosine(q[s], v[s + end], mask) for s in streams]
  np.testing.assert_allclose(score, np.mean(want, 0), atol=1e-5)
  want = np.zeros_like(sim)
  for s in streams:
    asked = q[s] @ params[s]['kernel'] + params[s]['bias']
    want += np.einsum('qd,vtd->qvt', asked, v[s]) / len(streams)
  np.testing.assert_allclose(sim, want, atol=1e-4)
  for got, kernel in zip(logits, (params['start'], params['end'])):
    rows = [np.correlate(r, kernel, 'same') for r in sim.reshape(-1, CLIPS)]
    want = np.where(mask, np.reshape(rows, sim.shape), np.float32(-1e10))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('variant, streams', [PAIR, SINGLE])
def test_rescore_is_the_same_for_chosen_pairs(variant, streams):
  model = make(variant, streams)
  q, v, score, _, logits = embeddings(model)
  chosen = np.array([[0, 3], [1, 1], [4, 2], [0, 1], [2, 4]])
  candidates = {k: x[chosen] for k, x in v.items()}
  run = jax.jit(functools.partial(model.apply, method='rescore'))
  found = run(variables_of(model), q, candidates)
  rows = np.arange(ROWS)[:, None]
  for name, want in dict(score=score, start=logits[0], end=logits[1]).items():
    np.testing.assert_allclose(
      found[name], want[rows, chosen], rtol=1e-5, atol=1e-5
    )


def test_padding_of_a_query_means_nothing():
  model = make()
  junk = np.full((ROWS, 2, QUERY), 7.0, 'f')
  batch = dict(
    query=np.concatenate([BATCH['query'], junk], 1),
    query_mask=np.pad(BATCH['query_mask'], ((0, 0), (0, 2))),
  )
  run = jax.jit(functools.partial(model.apply, method='encode_query'))
  got, want = run(variables_of(model), batch), embeddings(model)[0]
  for name in want:
    np.testing.assert_allclose(got[name], want[name], atol=1e-6)


def test_half_precision_stays_close():
  model, half = make(), make(dtype='bfloat16')
  q, v, score, sim, _ = embeddings(half)
  assert q['video'].dtype == v['video'].dtype == jnp.bfloat16
  assert v['video_unit'].dtype == score.dtype == sim.dtype == np.float32
  _, _, want, want_sim, _ = embeddings(model)
  np.testing.assert_allclose(score, want, atol=0.03)
  np.testing.assert_allclose(sim, want_sim, atol=0.05 * np.abs(want_sim).max())
