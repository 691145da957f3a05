# SPDX-License-Identifier: Apache-2.0
"""Relevance on the device, mining, and the cosine against the originals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.losses import mining
from vidret_jax.ops import phrases, relevance, similarity

LOSS = 1e-5
MATRIX = 1e-6
DIRECTIONS = dict(bi='bi', i2t='v2t', t2i='t2v')


@pytest.fixture
def description(golden_root):
  def load(name):
    file = golden_root / 'ranp' / name
    if not file.exists():
      pytest.skip(f'{file} is absent')
    return json.loads(file.read_text())

  return load


def options(case):
  """The arguments of an upstream criterion, as ours."""
  softmax = case['loss'].startswith('norm_softmax')
  out = dict(threshold=case.get('threshold'))
  if softmax:
    out.update(loss='softmax', temperature=case['temperature'])
    out.update(positives=case['loss'].endswith('_ranp'))
  else:
    out.update(hardest=case['max_violation'], topk=case['topk'])
    out.update(direction=DIRECTIONS[case['direction']], margin=case['margin'])
    out.update(semi_hard=case['semi_hard_neg'])
    if 'margin_pos' in case:
      out.update(positives=True, margin_pos=case['margin_pos'])
  return mining.Mining(**out)


def total(sim, relevance_vq, chosen):
  """Their matrices have clips as rows, ours captions."""
  parts = mining.mine(sim.T, relevance_vq.T, chosen)
  return sum(parts.values()), parts


def test_losses_and_gradients(golden, description, errors):
  cases, arrays = description('losses.json'), golden('losses.npz')
  assert cases
  for case in cases:
    name, matrix = str(case['case']), case['matrix']
    sim = jnp.asarray(arrays[f'scores/{matrix}'])
    rel = jnp.asarray(arrays[f'{case.get("relevance", "relevance")}/{matrix}'])
    grad, parts = jax.grad(total, has_aux=True)(sim, rel, options(case))
    found = [float(parts[k]) for k in ('negatives', 'positives') if k in parts]
    # Upstream's softmax gives a single number.
    found = found if len(case['parts']) == len(found) else [sum(found)]
    errors.close(f'parts/{name}', found, case['parts'], LOSS)
    want = arrays[f'grad/{name}']
    atol = 1e-4 * np.abs(want).max() + 1e-7
    errors.close(f'grad/{name}', grad, want, atol)
  compare_operations(arrays, errors)


def compare_operations(arrays, errors):
  """`ops/*`: the cosine, and a unit vector with its gradient at zero."""
  a, b = (jnp.asarray(arrays[f'ops/{k}']) for k in 'ab')

  def unit(x):
    return similarity.l2_normalize(x, eps=phrases.EPS)

  def weighted(x):
    return jnp.sum(unit(x) * jnp.arange(x.shape[-1]))

  cosine = similarity.dot_all(phrases.unit(a), phrases.unit(b))
  errors.close('cosine', cosine, arrays['ops/cosine'], 1e-5)
  errors.close('l2norm', unit(a), arrays['ops/l2norm'], 1e-5)
  # Row by row: that of a row of zeros is 1e10 times as large.
  rows = zip(jax.grad(weighted)(a), arrays['ops/l2norm_grad'])
  for i, (got, want) in enumerate(rows):
    atol = 1e-4 * np.abs(want).max() + 1e-7
    errors.close(f'l2norm_grad/{i}', got, want, atol)


def padded(rows):
  """Lists of classes, or one class per row, as ids padded with -1."""
  rows = [r if isinstance(r, list) else [r] for r in rows]
  out = np.full((len(rows), max(map(len, rows))), -1, np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row
  return out


def test_relevance(golden, description, errors):
  lists, arrays = description('relevance.json'), golden('relevance.npz')
  parts = dict(sent='full', verb='verb_dummy', noun='noun_dummy')
  for kind in arrays.groups():
    given = lists[kind]
    keys = ('verb_class', 'noun_classes')
    captions = [padded(given[k]) for k in keys]
    names = ('video_verb_classes', 'video_noun_classes')
    clips = [padded(given.get(n, given[k])) for n, k in zip(names, keys)]
    for name, want in arrays.under(f'{kind}/').items():
      got = jax.jit(relevance.relevance, static_argnames='part')(
        *clips, *captions, part=parts[name]
      )
      assert got.dtype == want.dtype
      errors.close(f'{kind}/{name}', got, want, MATRIX)


def test_decisions_at_the_threshold(description, errors):
  found = description('relevance.json')
  fields = found['exact_thresholds_fields']
  rows = [dict(zip(fields, row)) for row in found['exact_thresholds']]
  assert rows

  def sets(kind):
    """A clip and a caption with classes in common, as asked for, by row."""
    clips, captions = [], []
    for row in rows:
      union, shared = row[f'{kind}_union'], row[f'{kind}_inter']
      clips.append(list(range(union)))
      captions.append(list(range(shared)))
    return padded(clips), padded(captions)

  clips, captions = zip(sets('verb'), sets('noun'))
  got = jnp.diagonal(jax.jit(relevance.relevance)(*clips, *captions))
  errors.close('relevance', got, [r['relevance'] for r in rows], MATRIX)
  for value in sorted({r['threshold'] for r in rows}):
    here = np.array([r['threshold'] == value for r in rows])
    decided = jax.jit(relevance.at_least, static_argnums=1)(got, value)
    want = np.array([r['is_positive'] for r in rows])
    np.testing.assert_array_equal(np.asarray(decided)[here], want[here])
