# SPDX-License-Identifier: Apache-2.0
"""How relevant each caption of a batch is for each clip, from their classes.

  relevance = (IoU of the verb classes + IoU of the noun classes) / 2

Wray, Doughty, Damen: On Semantic Similarity in Video Retrieval, CVPR 2021,
section 4; used for mining by Falcon et al., ICIAP 2022. A single class per
clip, as EPIC-Kitchens has of verbs, is a set of one.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

PARTS = ('full', 'verb_dummy', 'noun_dummy', 'verb', 'noun')
# Sums of two quotients of numbers up to 30 that differ, differ by at least
# 2.8e-5; one that is computed in float32 is wrong by at most 1e-7.
_SLACK = 1e-6


def relevance(
  video_verbs: Array,
  video_nouns: Array,
  verbs: Array,
  nouns: Array,
  *,
  part: str = 'full',
) -> Array:
  """Relevance of all captions for all clips.

  Rows are sets: repetitions count once, -1 is padding. Two empty sets share
  nothing and have IoU zero. Not symmetric, and the diagonal need not be one,
  where a clip has classes of several captions.

  Args:
    video_verbs: int [v, c], classes of each clip; widths may differ.
    video_nouns: int [v, c].
    verbs: int [q, c], classes of each caption.
    nouns: int [q, c].
    part: 'full', as above. 'verb' and 'noun': one IoU alone. 'verb_dummy' and
      'noun_dummy': the mean of that IoU and one, never below 1/2, with which
      upstream trains the verb and noun levels: it compares the real classes of
      one kind and equal stand-ins of the other.

  Returns:
    float32 [v, q], in [0, 1]. Memory is that of a few such arrays, whatever
    the number of classes.
  """
  if part not in PARTS:
    raise ValueError(f'part={part!r}: expected one of {PARTS}.')
  parts = []
  if part in ('full', 'verb', 'verb_dummy'):
    parts.append(overlap(video_verbs, verbs, 'verb'))
  if part in ('full', 'noun', 'noun_dummy'):
    parts.append(overlap(video_nouns, nouns, 'noun'))
  if part.endswith('_dummy'):
    parts.append(1.0)
  return sum(parts) / len(parts)


def overlap(a: Array, b: Array, kind: str = '') -> Array:
  """Intersection over union of all pairs of sets.

  Args:
    a: int [v, c], padded with -1.
    b: int [q, c], padded with -1.
    kind: what the classes are, for the message of an error.

  Returns:
    float32 [v, q]; zero where both sets are empty.
  """
  a, b = jnp.asarray(a), jnp.asarray(b)
  for name, x in (('clips', a), ('captions', b)):
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(
        f'{kind} classes of the {name}: expected integers [rows, classes], '
        f'padded with -1, found {x.dtype} {tuple(x.shape)}.'
      )
  a, b = _distinct(a), _distinct(b)

  # One class of every caption at a time: what compares all classes of all
  # pairs at once has their number times the memory.
  def add(shared, column):
    found = (a[:, :, None] == column) & (column >= 0)
    return shared + found.any(1), None

  start = jnp.zeros((len(a), len(b)), jnp.int32)
  shared, _ = jax.lax.scan(add, start, b.T)
  sizes = (a >= 0).sum(1)[:, None] + (b >= 0).sum(1)
  union = jnp.maximum(sizes - shared, 1)
  return shared.astype(jnp.float32) / union.astype(jnp.float32)


def _distinct(x: Array) -> Array:
  """Repetitions within a row become padding."""
  earlier = np.tri(x.shape[1], k=-1, dtype=bool)
  repeated = ((x[:, :, None] == x[:, None, :]) & earlier).any(2)
  return jnp.where(repeated, -1, x)


def at_least(relevance: Array, threshold: float) -> Array:
  """Whether relevance reaches the threshold, decided as exact numbers would be.

  The original computes in float64, rounds to float32 and compares with the
  threshold in float32; for sets of up to 30 classes that is the decision of
  exact arithmetic. float32 throughout is not: 5/6 and 23/30 have the mean 0.8,
  but come out below it. Hence a slack far below the distance of two values.

  Args:
    relevance: of any shape.
    threshold: in (0, 1].

  Returns:
    bool, of the same shape.
  """
  return relevance.astype(jnp.float32) >= np.float32(
    np.float32(threshold) - np.float32(_SLACK)
  )
