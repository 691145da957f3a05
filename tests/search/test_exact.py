# SPDX-License-Identifier: Apache-2.0
"""Top-k of a collection in blocks, against a stable sort of all scores."""

import numpy as np
import pytest

from vidret_jax import sharding
from vidret_jax.evaluators import matrix
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import exact
from vidret_jax.search.programs import programs


def collection(sims, item_block, budget=10**6):
  """(model, mesh, variables, embedded queries, items)."""
  model, variables = matrix.retriever(sims)
  mesh = sharding.make_mesh()
  q, v = sims.shape
  _, source = matrix.sources(np.zeros(q, int), [f'v{i}' for i in range(v)])
  size = bank_lib.block_size(item_block, v, mesh)
  bank = bank_lib.Bank(size, v, sharding.replicated(mesh), budget)
  p = programs(model, mesh)
  for _, emb in bank_lib.encode(p.encode_item, variables, source, size, mesh):
    bank.append(emb)
  queries = p.encode_query(variables, {'number': np.arange(q, dtype=np.int32)})
  return model, mesh, variables, queries, bank


@pytest.mark.parametrize('item_block', [1, 4, 5, 64])
@pytest.mark.parametrize('budget', [0, 10**6])
def test_top_k_is_exact(item_block, budget):
  rng = np.random.default_rng(item_block)
  sims = rng.integers(0, 6, (8, 23)).astype(np.float32)
  scores, numbers = exact.top_k(*collection(sims, item_block, budget), 7)
  want = np.argsort(-sims, 1, kind='stable')[:, :7]
  np.testing.assert_array_equal(numbers, want)
  np.testing.assert_array_equal(scores, np.take_along_axis(sims, want, 1))


def test_small_collections_give_all_they_have():
  sims = np.array([[1.0, 3, 2]], np.float32)
  _, numbers = exact.top_k(*collection(sims, 8), 10)
  assert numbers.tolist() == [[1, 2, 0]]


def test_items_without_a_score_come_last():
  sims = np.array([[1.0, np.nan, 2]], np.float32)
  scores, numbers = exact.top_k(
    *collection(sims, 2), 3, has_score=np.array([True, False, True])
  )
  assert numbers.tolist() == [[2, 0, 1]]
  assert scores.tolist() == [[2, 1, -np.inf]]


def test_approximate_search_finds_the_clear_winners():
  sims = np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32)
  sims[np.arange(8), np.arange(8) * 5] = 100
  _, numbers = exact.top_k(*collection(sims, 16), 3, approximate=True)
  assert numbers[:, 0].tolist() == (np.arange(8) * 5).tolist()


def test_own_scores_are_those_of_the_matrix():
  sims = np.random.default_rng(0).normal(size=(6, 11)).astype(np.float32)
  column = np.array([10, 0, 3, -1, 7, 7])
  got = exact.own_scores(*collection(sims, 4), column)
  want = np.where(column >= 0, sims[np.arange(6), column], -np.inf)
  np.testing.assert_array_equal(got, want)


def test_k_must_be_positive():
  with pytest.raises(ValueError, match='k=0'):
    exact.top_k(*collection(np.zeros((1, 1), np.float32), 1), 0)
