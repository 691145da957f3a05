# SPDX-License-Identifier: Apache-2.0
"""XML: levels, scores, boundaries and losses of two streams and of one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import goldens
from tests.parity import reloclnet_goldens as rg

pytestmark = pytest.mark.usefixtures('quick_compiler')


def inputs(golden_root):
  """Of the model with two streams; that of one was given the same."""
  path = rg.folder(golden_root) / 'xml' / 'xml_forward.npz'
  return goldens.Arrays(rg.present(path))


def test_forward(golden_root, golden, errors, xml_name):
  io = golden(f'xml/{xml_name}_forward.npz')
  _, model, variables = rg.load(golden_root, f'xml/{xml_name}')
  given = io if 'in_query_feat' in io else inputs(golden_root)
  # All inputs of the file are read, whatever streams there are.
  batch = rg.batch(given)
  batch = {k: v for k, v in batch.items() if k in model.streams or is_shared(k)}
  drawn = 'neg_rank_ctx' in io

  def everything(model):
    q, v = model.encode_query(batch), model.encode_item(batch)
    sim = model.similarity(q, v)
    cross = model.boundaries(sim, v['mask'])
    own = model.boundaries(jnp.einsum('iit->it', sim), v['mask'])
    found = dict(q=q, v=v, score=model.score(q, v), cross=cross, own=own)
    if drawn:
      ranks = dict(ctx=io['neg_rank_ctx'], query=io['neg_rank_q'])
      found['loss'] = model.objective(batch, ranks, step=0, train=False)
    return found

  run = jax.jit(lambda v: model.apply(v, method=everything))
  found, mask = run(variables), batch['clip_mask']
  check_levels(errors, io, model.streams, found, mask)
  for name in ('q2c', 'q2c_cross'):
    if name in io:
      errors.close(name, found['score'], io[name], atol=rg.SCORE)
  for i, theirs in enumerate(('st', 'ed')):
    for name, kind in (('', 'own'), ('_cross', 'cross')):
      name = f'{theirs}_logits{name}'
      rg.check_boundaries(errors, name, found[kind][i], io[name], mask)
  if drawn:
    check_losses(errors, io, *found['loss'])


def is_shared(key):
  return key not in rg.STREAMS


def check_levels(errors, io, streams, found, mask):
  """What videos are found with, what spans are found with, and the query."""
  for stream in streams:
    prefix = f'{rg.STREAMS[stream]}_' if len(streams) > 1 else ''
    for theirs, ours in (('feat1', f'{stream}_first'), ('feat2', stream)):
      name, got = f'{prefix}{theirs}', np.asarray(found['v'][ours])
      want = io[name]
      errors.close(name, got[mask], want[mask], atol=rg.VALID)
      errors.close(f'{name} padded', got[~mask], want[~mask], atol=rg.PADDED)
    name = f'{prefix}query'
    errors.close(name, found['q'][stream], io[name], atol=rg.VALID)


def check_losses(errors, io, total, parts):
  known = {k: v for k, v in rg.TERMS.items() if f'loss_{k}' in io}
  assert set(parts) <= set(known.values())
  for theirs, ours in known.items():
    name = f'loss_{theirs}'
    errors.close(name, parts.get(ours, 0.0), io[name], atol=0, rtol=rg.LOSS)
  name = 'loss_overall'
  errors.close(name, total, io[name], atol=0, rtol=rg.LOSS)
