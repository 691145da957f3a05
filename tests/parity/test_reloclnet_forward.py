# SPDX-License-Identifier: Apache-2.0
"""ReLoCLNet: every level, scores, boundaries, losses and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import goldens
from tests.parity import reloclnet_goldens as rg
from vidret_jax.models.reloclnet_model import Weights

pytestmark = pytest.mark.usefixtures('quick_compiler')

# Array -> module whose result it is; '{}' stands for a stream.
QUERY = dict(
  query_proj='query/proj',
  query_pos='query/position',
  query_enc='query/enc_1',
  query_enc1='query/enc_2',
)
LEVELS = dict(
  proj='{}/proj',
  enc1='{}/enc_1',
  cross_att='{}/cross',
  cross='{}/cross_norm',
  mid='{}/enc_2',
  out='{}/enc_3',
)
TERMS = tuple(rg.TERMS.values())
# Of the draws of negatives, from all and from the hardest.
KINDS = ('easy', 'hard')


@functools.cache
def computed(golden_root, name):
  """All that is compared with a forward file, in one compilation."""
  io = goldens.Arrays(rg.present(rg.folder(golden_root) / f'forward{name}.npz'))
  cfg, model, variables = rg.load(golden_root, f'model{name}')
  batch, both = rg.batch(io), [ranks_of(io, kind) for kind in KINDS]
  alone = model.clone(weights=Weights(*(1.0 for _ in TERMS)))

  def terms(variables):
    parts = objective(alone, variables, batch, both[0])[1]
    return jnp.stack([parts[name] for name in TERMS])

  def everything(variables):
    found, inside = encoded(model, variables, batch)
    losses = jax.vmap(functools.partial(objective, model, variables, batch))(
      jax.tree.map(lambda *x: jnp.stack(x), *both)
    )
    values, pull = jax.vjp(terms, variables)
    grads = jax.vmap(lambda row: pull(row)[0])(jnp.eye(len(TERMS)))
    return found, inside, losses, values, grads

  return cfg, model, batch, jax.jit(everything)(variables)


def test_forward(golden_root, golden, errors, forward_name):
  io = golden(f'forward{forward_name}.npz')
  cfg, model, batch, results = computed(golden_root, forward_name)
  found, inside, losses, values, grads = results
  check_query(errors, io, inside, batch['query_mask'])
  check_levels(errors, io, inside, batch['clip_mask'])
  check_scores(errors, io, model, found, inside, batch['clip_mask'])
  check_spans(errors, io, found, batch['clip_mask'])
  check_batch(io, batch)
  for i, kind in enumerate(KINDS):
    check_negatives(errors, io, kind, found['score'], cfg)
    check_losses(errors, io, kind, *jax.tree.map(lambda x, i=i: x[i], losses))
  check_terms(errors, io, values, grads, cfg)


def test_gradients(golden_root, golden, errors):
  want = golden('forward_grads.npz').under('')
  cfg, model, _, results = computed(golden_root, '')
  weights = [getattr(model.weights, name) for name in TERMS]
  grads = jax.tree.map(
    lambda x: np.tensordot(np.array(weights, 'f'), x, 1), results[-1]
  )
  rg.check_gradients(errors, 'loss', grads, want, cfg)
  state = rg.state(rg.folder(golden_root) / 'model_state.pth')
  assert set(want) == set(state)


def encoded(model, variables, batch):
  """Embeddings, scores and logits of all pairs, and what modules returned."""

  def everything(model):
    q, v = model.encode_query(batch), model.encode_item(batch)
    sim = model.similarity(q, v)
    start, end = model.boundaries(sim, v['mask'])
    own = model.boundaries(jnp.einsum('iit->it', sim), v['mask'])
    return dict(
      **dict(q=q, v=v, score=model.score(q, v), similarity=sim),
      **dict(start=start, end=end, own=own),
    )

  return model.apply(variables, method=everything, capture_intermediates=True)


def objective(model, variables, batch, ranks):
  return model.apply(
    variables, batch, ranks, step=0, train=False, method='objective'
  )


def ranks_of(io, kind):
  found = dict(ctx=io[f'neg_rank_ctx_{kind}'], query=io[f'neg_rank_q_{kind}'])
  return {k: v.astype(np.int32) for k, v in found.items()}


def result(inside, path, call=0):
  """What a module returned when it was called."""
  node = inside['intermediates']
  for name in path.split('/'):
    node = node[name]
  return np.asarray(node['__call__'][call])


def check_query(errors, io, inside, mask):
  for name, path in QUERY.items():
    got, want = result(inside, path), io[name]
    errors.close(name, got[mask], want[mask], atol=rg.VALID)
  logits = np.where(mask[..., None], result(inside, 'query/modular'), -np.inf)
  weights = np.exp(logits - logits.max(1, keepdims=True))
  weights /= weights.sum(1, keepdims=True)
  errors.close('modular_att', weights, io['modular_att'], atol=rg.VALID)


def check_levels(errors, io, inside, mask):
  for i, (stream, theirs) in enumerate(rg.STREAMS.items()):
    paths = {k: (v.format(stream), 0) for k, v in LEVELS.items()}
    # One table for both streams.
    paths['pos'] = ('position', i)
    for name, (path, call) in paths.items():
      got, want = result(inside, path, call), io[f'{theirs}_{name}']
      check_rows(errors, f'{theirs}_{name}', got, want, mask)


def check_rows(errors, name, got, want, mask):
  errors.close(name, got[mask], want[mask], atol=rg.VALID)
  errors.close(f'{name} padded', got[~mask], want[~mask], atol=rg.PADDED)


def check_scores(errors, io, model, found, inside, mask):
  for name in ('q2c', 'q2c_cross'):
    errors.close(name, found['score'], io[name], atol=rg.SCORE)
  for stream, theirs in rg.STREAMS.items():
    query = found['q'][stream]
    errors.close(f'{theirs}_query', query, io[f'{theirs}_query'], rg.VALID)
    alone = model.clone(streams=(stream,))
    score = alone.apply({}, found['q'], found['v'], method='score')
    errors.close(f'q2c_{theirs}', score, io[f'q2c_{theirs}'], rg.SCORE)
    raw = np.einsum('qd,vtd->qvt', query, result(inside, f'{stream}/enc_2'))
    best = np.where(mask, raw, -np.inf).max(-1)
    name = f'vcl_scores_{theirs}'
    errors.close(name, best, io[name], atol=rg.RAW)


def check_spans(errors, io, found, mask):
  own = np.einsum('iit->it', found['similarity'])
  for name, got in (('', own), ('_cross', found['similarity'])):
    want, valid = io[f'similarity{name}'], np.broadcast_to(mask, got.shape)
    got = np.asarray(got)
    name = f'similarity{name}'
    errors.close(name, got[valid], want[valid], atol=rg.RAW)
    errors.close(
      f'{name} padded', got[~valid], want[~valid], atol=rg.RAW_PADDED
    )
  for i, (ours, theirs) in enumerate((('start', 'st'), ('end', 'ed'))):
    name = f'{theirs}_logits'
    rg.check_boundaries(errors, name, found['own'][i], io[name], mask)
    name = f'{theirs}_logits_cross'
    rg.check_boundaries(errors, name, found[ours], io[name], mask)


def check_batch(io, batch):
  """All inputs are used, and a moment reaches to its end, inclusive."""
  for key, value in rg.batch(io).items():
    np.testing.assert_array_equal(batch[key], value)
  place, span = np.arange(batch['clip_mask'].shape[1]), batch['span']
  match = (place >= span[:, :1]) & (place <= span[:, 1:])
  np.testing.assert_array_equal(io['in_match_labels'] > 0, match)


def check_negatives(errors, io, kind, score, cfg):
  """A rank is a place in the order of our scores, the true pair first."""
  score = np.asarray(score)
  last = cfg['hard_pool_size'] if kind == 'hard' else len(score) - 1
  for name, sim in (('ctx', score), ('q', score.T)):
    ranks = io[f'neg_rank_{name}_{kind}']
    assert 1 <= ranks.min() and ranks.max() <= min(last, len(score) - 1)
    order = np.argsort(-np.where(np.eye(len(sim)), 999, sim), axis=1)
    rows = np.arange(len(sim))
    errors.close(
      f'negatives {name} {kind}',
      sim[rows, order[rows, ranks]],
      sim[rows, io[f'neg_idx_{name}_{kind}']],
      atol=rg.SCORE,
    )


def check_losses(errors, io, kind, total, parts):
  assert set(parts) <= set(TERMS)
  for theirs, ours in rg.TERMS.items():
    name = f'loss_{theirs}_{kind}'
    # A term of weight 0 is left out.
    errors.close(name, parts.get(ours, 0.0), io[name], atol=0, rtol=rg.LOSS)
  for name in (f'loss_{kind}', f'loss_overall_{kind}'):
    errors.close(name, total, io[name], atol=0, rtol=rg.LOSS)


def check_terms(errors, io, values, grads, cfg):
  for i, theirs in enumerate(rg.TERMS):
    name = f'lw_{theirs}'
    errors.close(name, values[i], io[f'term_{name}'], atol=0, rtol=rg.LOSS)
    grad = jax.tree.map(lambda x, i=i: x[i], grads)
    want = io.under(f'termgrad_{name}/')
    assert want
    rg.check_gradients(errors, name, grad, want, cfg)
