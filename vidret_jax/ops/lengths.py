# SPDX-License-Identifier: Apache-2.0
"""Sequences of a batch sorted by length, group by group of neighbours.

A batch is padded to its longest sequence, and most are much shorter. Within
groups of rows the longest come last, so that a fixed share of the batch can be
cut to a shorter length. Groups lie whole on a device where its rows are a
multiple of them: nothing is sent between devices.
"""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def order(mask: Array, group: int) -> Array:
  """Rows of each group from the shortest sequence on: int32 [g, group].

  Args:
    mask: bool [b, t], valid places, in front.
    group: rows of a group; must divide b.
  """
  return jnp.argsort(_lengths(mask, group), axis=1)


def longest(mask: Array, group: int, count: int) -> Array:
  """Length of the longest of the `count` shortest sequences of all groups."""
  return jnp.sort(_lengths(mask, group), axis=1)[:, count - 1].max()


def rows(tree: Any, order_g: Array, which: slice) -> Any:
  """Some rows of every group, e.g. slice(12): its twelve shortest sequences.

  Args:
    tree: of arrays [b, ...].
    order_g: from `order`.
    which: places in the order of each group.

  Returns:
    Arrays [g * rows of a group, ...].
  """
  chosen = order_g[:, which]

  def take(x):
    taken = _taken(x.reshape(*order_g.shape, *x.shape[1:]), chosen)
    return taken.reshape(-1, *x.shape[1:])

  return jax.tree.map(take, tree)


def join(first: Any, last: Any, order_g: Array) -> Any:
  """Undoes `rows`: those of slice(n) and of slice(n, None) to a batch."""
  groups = len(order_g)
  back = jnp.argsort(order_g, axis=1)

  def whole(a, b):
    parts = [x.reshape(groups, -1, *x.shape[1:]) for x in (a, b)]
    taken = _taken(jnp.concatenate(parts, axis=1), back)
    return taken.reshape(-1, *a.shape[1:])

  return jax.tree.map(whole, first, last)


def _lengths(mask: Array, group: int) -> Array:
  return mask.sum(1).reshape(-1, group)


def _taken(x: Array, index: Array) -> Array:
  return jax.vmap(lambda rows, i: rows[i])(x, index)
