# SPDX-License-Identifier: Apache-2.0
"""Average precision as a loss, over videos and over frames of videos.

With scores s of the candidates of a query, its positives P and negatives N,

  AP = mean_{j in P} r+_j / (r+_j + r-_j)
  r+_j = 1 + rho sum_{k in P} H(s_k - s_j)
  r-_j = sum_{k in N} Q(s_k - s_j)

where H is 1 above zero and has no gradient, and Q is `quad_linear`. QuadLinear-
AP of HAP-VR (Liu et al., ACM MM 2024, https://arxiv.org/abs/2407.15566).
"""

import functools

import jax
import jax.numpy as jnp

from vidret_jax.losses import frame_labels as frame_labels_lib
from vidret_jax.ops import masks

Array = jax.Array

# Numbers of one intermediate array that are held at a time.
_HELD = 2**24
# Pairs of clips whose frames are ranked at a time.
_PAIRS = 512


def quad_linear(x: Array, sigma: float) -> Array:
  """An upper bound of the unit step that is quadratic, then linear.

    2 x / sigma + 1 for x > 0; (1 + x / sigma)^2 down to -sigma; 0 below

  Its slope is 2 / sigma at zero and 0 at -sigma.
  """
  x = x / sigma
  return jnp.where(x > 0, 2 * x + 1, jnp.square(jnp.maximum(1 + x, 0)))


def quad_linear_ap(
  sim_qv: Array,
  labels_qv: Array,
  *,
  sigma: float = 0.05,
  rho: float = 0.1,
  where: Array | None = None,
) -> Array:
  """One less the mean average precision of the clips of a batch.

  Every clip is a query and a candidate of all, of itself as well.

  Args:
    sim_qv: [n, n], queries are rows.
    labels_qv: [n, n], above zero where a column is a positive of the row.
    sigma: width of `quad_linear`.
    rho: weight of the positives that are ranked above one.
    where: bool [n], valid clips; others influence nothing.

  Returns:
    A scalar. Rows without a positive do not count; it is zero where no row
    counts.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  n = sim_qv.shape[0]
  if sim_qv.shape != (n, n) or labels_qv.shape != (n, n):
    raise ValueError(
      'quad_linear_ap needs a square matrix of similarities and labels of the '
      f'same shape, found {tuple(sim_qv.shape)} and {tuple(labels_qv.shape)}.'
    )
  if where is None:
    where = jnp.ones((n,), bool)
  pairs = masks.pair_mask(where)
  # Masked here, too, so that nothing non-finite reaches the gradient.
  sim_qv = jnp.where(pairs, _wide(sim_qv), 0)
  positive, negative = ((labels_qv > 0) == x for x in (True, False))
  positive, negative = positive & pairs, negative & pairs

  @jax.checkpoint
  def of_query(row):
    sim, positive, negative = row
    return _average_precision(sim, sim, positive, negative, sigma, rho)

  rows, held = (sim_qv, positive, negative), max(_HELD // n**2, 1)
  if held >= n:
    precision = jax.vmap(of_query)(rows)
  else:
    precision = jax.lax.map(of_query, rows, batch_size=held)
  count = positive.any(1)
  return count.any() - masks.masked_mean(precision, count, 0)


def frame_ap(
  sim: Array,
  positive: Array,
  negative: Array,
  *,
  sigma: float = 0.05,
  rho: float = 5.0,
  where: Array | None = None,
) -> Array:
  """One less the mean average precision of the frames of pairs of clips.

  Every frame of one clip ranks frames of the other; those that are neither
  positive nor negative are left out. TBInnerQuadLinearAP of HAP-VR.

  Args:
    sim: [n, tq, tv], frames of one clip against frames of the other.
    positive: int [n, tq, k], which frames of the other are positives.
    negative: int [n, tq, l], negatives; what is both is a positive.
    sigma: width of `quad_linear`.
    rho: weight of the positives that are ranked above one.
    where: bool [n], valid pairs; others influence nothing.

  Returns:
    A scalar, zero where no pair is valid.

  Raises:
    ValueError: if the shapes do not fit together.
  """
  found = [tuple(x.shape) for x in (sim, positive, negative)]
  if len({shape[:2] for shape in found}) > 1 or {3} != {*map(len, found)}:
    raise ValueError(
      'frame_ap needs sim [n, tq, tv] and indices of positives and negatives '
      f'[n, tq, k], found {found}.'
    )
  if where is None:
    where = jnp.ones(sim.shape[:1], bool)
  cost = 1 - _frame_precision(sim, positive, negative, sigma, rho, where)
  return masks.masked_mean(cost, where, 0)


def batch_frame_ap(
  sim: Array,
  features: Array,
  labels_qv: Array,
  *,
  top: float = 0.35,
  bottom: float = 0.35,
  sigma: float = 0.05,
  rho: float = 5.0,
  where: Array | None = None,
  held: int = _PAIRS,
) -> Array:
  """`frame_ap` of all pairs of a batch with a label above zero.

  Frames are labelled by `frame_labels`. Only labelled pairs are computed,
  `held` of them at a time: a batch of n clips has about 2 n to 3 n.

  Args:
    sim: [n, n, t, t], frames of clips against frames of clips.
    features: [n, t, d], of which frame labels are made.
    labels_qv: [n, n], pairs above zero are ranked; other pairs are not.
    top: share of frames that are positives, see `frame_labels`.
    bottom: share of frames that are negatives.
    sigma: see `frame_ap`.
    rho: see `frame_ap`.
    where: bool [n], valid clips; others influence nothing.
    held: pairs in memory at a time.

  Returns:
    A scalar, zero where no pair is left.

  Raises:
    ValueError: if the shapes do not fit together, or on wrong shares.
  """
  n, t = features.shape[:2]
  if sim.shape != (n, n, t, t) or labels_qv.shape != (n, n):
    raise ValueError(
      f'batch_frame_ap got features {tuple(features.shape)} with sim and '
      f'labels {tuple(sim.shape)} and {tuple(labels_qv.shape)}: expected '
      f'{(n, n, t, t)} and {(n, n)}.'
    )
  pairs = labels_qv > 0
  if where is not None:
    pairs = pairs & masks.pair_mask(where)
  count = pairs.sum()
  held = min(held, n * n)
  places = jnp.nonzero(pairs, size=-(-n * n // held) * held, fill_value=0)
  sim, features = jnp.asarray(sim), jnp.asarray(features)
  widths, shares = (sigma, rho), (top, bottom, held)
  total = _pairs_precision(sim, features, *places, count, widths, shares)
  return (count > 0) - total / jnp.maximum(count, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _pairs_precision(
  sim, features, rows, columns, count, widths, shares
) -> Array:
  """Sum of `_frame_precision` of the first `count` pairs.

  A batch has few labelled pairs, but no number of them is too many: so a loop
  that ends with them, and its slope is taken on the way. JAX cannot turn such
  a loop around.

  Args:
    sim: [n, n, t, t].
    features: [n, t, d].
    rows: int [p], places of the pairs in sim, a whole number of `held`.
    columns: int [p].
    count: int, how many are pairs.
    widths: (sigma, rho).
    shares: (top, bottom, held).
  """
  given = (sim, features, rows, columns, count, widths)
  return _sweep(*given, shares, slope=False)[0]


def _pairs_precision_forward(*given):
  return _sweep(*given, slope=True)


def _pairs_precision_backward(shares, grad, cotangent):
  del shares
  return (cotangent * grad).astype(grad.dtype), *[None] * 5


_pairs_precision.defvjp(_pairs_precision_forward, _pairs_precision_backward)


def _sweep(sim, features, rows, columns, count, widths, shares, slope):
  """(sum, its slope in sim or None)."""
  (sigma, rho), (top, bottom, held) = widths, shares

  def add(i, carry):
    total, grad = carry
    at = i * held
    r, c = (jax.lax.dynamic_slice(x, (at,), (held,)) for x in (rows, columns))
    positive, negative = frame_labels_lib.frame_labels(
      features, r, c, top=top, bottom=bottom
    )
    real = at + jnp.arange(held) < count

    def of(chosen):
      return _frame_precision(
        chosen, positive, negative, sigma, rho, real
      ).sum()

    if not slope:
      return total + of(sim[r, c]), None
    more, step = jax.value_and_grad(of)(sim[r, c])
    return total + more, grad.at[r, c].add(step)

  start = jnp.zeros((), jnp.promote_types(sim.dtype, jnp.float32))
  grad = jnp.zeros_like(sim) if slope else None
  return jax.lax.fori_loop(0, -(-count // held), add, (start, grad))


def _frame_precision(sim, positive, negative, sigma, rho, where) -> Array:
  """[n]: mean over frames of their average precision, zero if not valid."""
  sim = masks.zero_rows(_wide(sim), where)
  of_positive, of_negative = (
    jnp.take_along_axis(sim, index, 2) for index in (positive, negative)
  )
  both = (negative[..., None] == positive[..., None, :]).any(-1)
  precision = _average_precision(
    of_positive,
    of_negative,
    jnp.ones(positive.shape, bool),
    ~both,
    sigma,
    rho,
  )
  return masks.zero_rows(precision.mean(1), where)


def _average_precision(sim_p, sim_n, positive, negative, sigma, rho) -> Array:
  """[...]: the module's AP.

  Args:
    sim_p: [..., k], scores among which are those of the positives.
    sim_n: [..., l], scores among which are those of the negatives.
    positive: bool [..., k].
    negative: bool [..., l].
    sigma: of Q.
    rho: of r+.
  """
  own = sim_p[..., :, None]
  above = (sim_p[..., None, :] > own) & positive[..., None, :]
  better = 1 + rho * above.sum(-1)
  worse = quad_linear(sim_n[..., None, :] - own, sigma)
  worse = jnp.where(negative[..., None, :], worse, 0).sum(-1)
  return masks.masked_mean(better / (better + worse), positive, -1)


def _wide(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
