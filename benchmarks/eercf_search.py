# SPDX-License-Identifier: Apache-2.0
r"""Scores of EERCF at 1,000 x 1,000: coarse, two stages, all pairs.

  python -m benchmarks.eercf_search [--queries 1000] [--items 1000] [--k 50]

Embeddings at the sizes of ViT-B/32 (512 dimensions, 12 frames of 49 patches)
are drawn. Times the first stage, the scores of the short lists, the whole
evaluation with both directions, and all pairs at all levels, which is what the
original computes; compares the orders, and counts what the compiled programs
compute for one query. Writes benchmarks/results/eercf_search.json.
"""

import argparse
import time

import jax
import numpy as np

from benchmarks import collection, machine
from vidret_jax import sharding
from vidret_jax.evaluators import two_stage as evaluator_lib
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import store as store_lib
from vidret_jax.search import two_stage
from vidret_jax.search.programs import programs

# Seconds of the original for all pairs of 1,000 x 1,000 at the levels that its
# score uses, on a machine of this kind (2 cores, PyTorch 2.13).
ORIGINAL = 38.0
ITEM_BLOCK = 64


def timed(call, repeats):
  """(result, seconds of each of some calls after the first)."""
  out, seconds = call(), []
  for _ in range(repeats):
    began = time.perf_counter()
    out = call()
    seconds.append(time.perf_counter() - began)
  return out, dict(all=seconds, best=min(seconds))


def encoded(program, variables, source, block, mesh):
  """Embeddings of a source: [(first row, block)]."""
  return list(bank_lib.encode(program, variables, source, block, mesh))


def all_pairs(p, variables, queries, items, count):
  """Fine scores of all pairs, [queries, items] on the host."""
  out = np.empty(count, np.float32)
  for row, q in queries:
    for column, v in items:
      part = np.asarray(p.fine(variables, q, v))
      part = part[: count[0] - row, : count[1] - column]
      out[row : row + len(part), column : column + part.shape[1]] = part
  return out


def agreement(fine, numbers, dense):
  """How short lists by two stages and from the full matrix differ."""
  same = np.take_along_axis(dense, numbers, 1)
  ours, theirs = (
    two_stage.order(scores, numbers)[1] for scores in (fine, same)
  )
  return dict(
    largest_difference=float(np.abs(fine - same).max()),
    largest_score=float(np.abs(same).max()),
    lists_in_the_same_order=float((ours == theirs).all(1).mean()),
    places_with_the_same_item=float((ours == theirs).mean()),
  )


def coarse_block(p, variables, queries, found, count, mesh, args, facts):
  """Times the coarse scores of all pairs as one block."""
  rows = len(queries)
  ((_, asked),) = encoded(p.encode_query, variables, queries, rows, mesh)
  videos = jax.numpy.concatenate([e['video'] for _, e in found])
  videos = {'video': videos[:count]}
  score = p.score.lower(variables, asked, videos).compile()
  _, out = timed(
    lambda: jax.block_until_ready(score(variables, asked, videos)), args.repeats
  )
  out['gflop'] = score.cost_analysis()['flops'] / 1e9
  out['gflops'] = out['gflop'] / out['best']
  out['fraction_of_matmul_peak'] = out['gflops'] / facts['matmul_gflops']
  return out


def stages(collected, mesh, args, facts):
  """Times each stage on embeddings in memory, and all pairs beside them."""
  model, variables, queries, items = collected
  p, shape = programs(model, mesh), (len(queries), len(items))
  rows = bank_lib.block_size(args.query_block, len(queries), mesh)
  size = bank_lib.block_size(ITEM_BLOCK, len(items), mesh)
  asked = encoded(p.encode_query, variables, queries, rows, mesh)
  found = encoded(p.encode_item, variables, items, size, mesh)
  bank = bank_lib.Bank(size, len(items), sharding.replicated(mesh), 2**40)
  store = store_lib.FineStore(len(items), mesh, 2**40, exact=model.COARSE)
  for _, emb in found:
    bank.append(two_stage.split(emb, model.COARSE)[0])
    store.append(emb)

  def shortlist():
    lists = [
      two_stage.shortlist(model, mesh, variables, q, bank, args.k)[1]
      for _, q in asked
    ]
    return np.concatenate(lists)[: len(queries)]

  def rerank():
    scores = []
    for row, q in asked:
      mine = np.full((rows, numbers.shape[1]), -1, np.int32)
      part = numbers[row : row + rows]
      mine[: len(part)] = part
      scores.append(
        two_stage.fine_scores(model, mesh, variables, q, store, mine)
      )
    return np.concatenate(scores)[: len(queries)]

  coarse = coarse_block(
    p, variables, queries, found, len(items), mesh, args, facts
  )
  numbers, listing = timed(shortlist, args.repeats)
  fine, ranking = timed(rerank, args.repeats)
  dense, dearest = timed(
    lambda: all_pairs(p, variables, asked, found, shape), 1
  )
  cost = p.fine.lower(variables, asked[0][1], found[0][1]).compile()
  blocks = len(asked) * len(found)
  dearest['gflop'] = blocks * cost.cost_analysis()['flops'] / 1e9
  dearest['gflops'] = dearest['gflop'] / dearest['best']
  return dict(
    coarse_block=coarse,
    shortlist=listing,
    rerank=ranking,
    two_stages_seconds=listing['best'] + ranking['best'],
    all_pairs=dearest,
    agreement=agreement(fine, numbers, dense),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--queries', type=int, default=1000)
  parser.add_argument('--items', type=int, default=1000)
  parser.add_argument('--k', type=int, default=50)
  parser.add_argument('--patches', type=int, default=49, help='of a frame')
  parser.add_argument('--query_block', type=int, default=500)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  facts, mesh = machine.measure(), sharding.make_mesh()
  collected = collection.parts(args.items, args.queries, args.patches)
  model, variables, queries, items = collected
  found = stages(collected, mesh, args, facts)

  evaluator = evaluator_lib.Evaluator(
    model,
    mesh,
    queries=queries,
    items=items,
    k=args.k,
    query_block=args.query_block,
    item_block=ITEM_BLOCK,
    fine_bytes=2**31,
  )
  results, whole = timed(lambda: evaluator.run(variables), args.repeats)
  seconds = dict(
    stages=found['two_stages_seconds'],
    evaluation=whole['best'],
    all_pairs=found['all_pairs']['best'],
  )
  comparable = (args.queries, args.items) == (1000, 1000)
  machine.write(
    'eercf_search',
    dict(
      queries=args.queries,
      items=args.items,
      k=args.k,
      query_block=args.query_block,
      dimensions=model.sizes.dim,
      frames=model.max_frames,
      patches=model.max_frames * args.patches,
      **found,
      evaluation=whole,
      original_seconds=ORIGINAL if comparable else None,
      speedup={k: ORIGINAL / s for k, s in seconds.items()}
      if comparable
      else None,
      per_query={
        key: results[key]
        for key in results
        if key.endswith(('_per_query', '_share'))
      },
    ),
    facts,
  )


if __name__ == '__main__':
  main()
