# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation with PyTorch's statistics, masks and batch sequences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax.ops import masks

Array = jax.Array


class BatchNorm(nn.Module):
  """`torch.nn.BatchNorm1d` over the last axis.

  It differs from `flax.linen.BatchNorm` where checkpoints and padded batches
  need it to: the running variance is the unbiased one, momentum weighs the
  new value, excluded rows influence nothing, and a stack of batches counts as
  so many successive calls. Statistics are those of the global batch: under
  jit with a sharded batch there is nothing else to do.

  Attributes:
    eps: added to the variance.
    momentum: share of the new batch in the running statistics.
    dtype: type of the parameters and statistics.
  """

  eps: float = 1e-5
  momentum: float = 0.1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    *,
    train: bool,
    where: Array | None = None,
    stacked: bool = False,
  ) -> Array:
    """Normalises x.

    Args:
      x: [..., d], or [b, g, d] with `stacked`.
      train: batch statistics, and an update of the running ones.
      where: bool, broadcastable to x.shape[:-1]; False rows are left out of
        the statistics.
      stacked: axis 1 holds g batches, each normalised on its own. The running
        statistics receive g momentum updates in that order, in closed form:
        r <- (1-p)^g r + p sum_i (1-p)^(g-1-i) s_i.

    Returns:
      The shape and type of x.
    """
    d = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (d,), self.dtype)
    bias = self.param('bias', nn.initializers.zeros, (d,), self.dtype)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, (d,), self.dtype)
    var = self.variable('batch_stats', 'var', jnp.ones, (d,), self.dtype)
    count = self.variable('batch_stats', 'count', jnp.zeros, (), jnp.int32)
    wide = x.astype(self.dtype)
    if not train:
      gain = scale / jnp.sqrt(var.value + self.eps)
      return ((wide - mean.value) * gain + bias).astype(x.dtype)

    axes = (0,) if stacked else tuple(range(x.ndim - 1))
    if where is not None:
      where = jnp.broadcast_to(where, x.shape[:-1])[..., None]
    batch_mean = masks.masked_mean(wide, where, axes)
    centred = wide - batch_mean
    batch_var = masks.masked_mean(centred * centred, where, axes)
    gain = scale / jnp.sqrt(batch_var + self.eps)
    y = centred * gain + bias

    if not self.is_initializing():
      shape = batch_mean.shape[:-1]
      if where is None:
        rows = np.prod([x.shape[a] for a in axes])
        n = jnp.full(shape, rows, self.dtype)
      else:
        n = where.sum(axes, dtype=self.dtype)[..., 0]
      unbiased = batch_var * (n / jnp.maximum(n - 1, 1))[..., None]
      self._update(mean, batch_mean, n)
      self._update(var, unbiased, n)
      count.value = count.value + (n > 0).sum(dtype=jnp.int32)
    return y.astype(x.dtype)

  def _update(self, running, batch, n):
    """Momentum updates by each non-empty batch, oldest first."""
    batch, n = jnp.atleast_2d(batch), jnp.atleast_1d(n)
    share = jnp.where(n > 0, self.momentum, 0.0).astype(self.dtype)
    # Product of (1 - share) over the later batches, and over all.
    left = jnp.cumprod((1 - share)[::-1])[::-1]
    later = jnp.append(left[1:], jnp.ones((), self.dtype))
    mean = jnp.dot(share * later, batch, precision='highest')
    running.value = left[0] * running.value + mean
