# SPDX-License-Identifier: Apache-2.0
"""Encoded queries come back as they were, from devices and from a file."""

import resource
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax import sharding
from vidret_jax.search import copy_queries


def tree(seed, n=3):
  x = jax.random.normal(jax.random.key(seed), (n, 5, 2))
  return {'a': x, 'b': x.astype(jnp.bfloat16), 'n': jnp.arange(n)}


def same(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    assert isinstance(a, jax.Array) and a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('fitting', [0, 1, 3])
def test_what_fits_stays_and_the_rest_is_in_a_file(fitting):
  trees = [tree(0), tree(1, n=7), tree(2)]
  sizes = [sum(x.nbytes for x in jax.tree.leaves(t)) for t in trees]
  where = sharding.replicated(sharding.make_mesh())
  kept = copy_queries.Queries(sum(sizes[:fitting]), where)
  for one in trees:
    kept.add(one)
  assert kept._size == sum(sizes[fitting:])
  for number in (2, 0, 1, 2):
    same(kept[number], trees[number])


def test_a_full_disk_names_the_place_and_the_option():
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  kept = copy_queries.Queries(0, sharding.replicated(sharding.make_mesh()))
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limit[1]))
    with pytest.raises(OSError, match='TMPDIR.*query_bytes') as error:
      kept.add({'a': np.zeros(2**17, np.uint8)})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  assert tempfile.gettempdir() in str(error.value)
