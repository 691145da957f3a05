# SPDX-License-Identifier: Apache-2.0
r"""What finding moments in a corpus costs: encoding it, and all three tasks.

  python -m benchmarks.reloclnet_search [--videos 2179 --queries 10895]

TVR's validation split with random features and drawn weights, at the paper's
sizes: every query finds videos (VR), moments in its own (SVMR) and moments in
the 100 best (VCMR), as the evaluator does it. Nothing is scaled up: all queries
are asked. Writes benchmarks/results/reloclnet_search.json.
"""

import argparse
import resource
import time

import jax

from benchmarks import clips, collection, machine
from vidret_jax import config_lib, sharding
from vidret_jax.search import moment_corpus, moments
from vidret_jax.train import defaults
from vidret_jax.train import state as state_lib

# Seconds of the original on a machine of this kind (2 cores, PyTorch 2.13):
# 200 videos, and the whole search; memory of the latter in bytes.
ORIGINAL = dict(encode_200=2.2, search=16 * 60, memory=60e9)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--config', default='configs/reloclnet_tvr.py')
  parser.add_argument('--videos', type=int, default=2179)
  parser.add_argument('--queries', type=int, default=10895)
  args = parser.parse_args()
  config = defaults.resolve(
    config_lib.load(args.config, ['model.steps_per_epoch=682'])
  )
  model, spec = collection.model_and_spec(config)
  mesh = sharding.make_mesh()
  variables = jax.jit(
    state_lib.init_fn(model, spec, 0), out_shardings=sharding.replicated(mesh)
  )()
  entry = config.evals.val
  options = moments.Options(**config_lib.freeze(entry.search))
  queries, items, own = clips.views(config, args.videos, args.queries)

  def encode(source):
    began = time.perf_counter()
    corpus = moment_corpus.encode(
      model,
      mesh,
      variables,
      source,
      block=entry.item_block,
      bank_bytes=entry.get('bank_bytes', 2**30),
    )
    return corpus, time.perf_counter() - began

  def search(corpus, count):
    part = clips.views(config, args.videos, args.queries)[0]
    part.ids = part.ids[:count]
    began = time.perf_counter()
    moments.find(
      model,
      mesh,
      variables,
      part,
      corpus,
      options,
      own=own[:count],
      query_block=entry.query_block,
    )
    return time.perf_counter() - began

  encode(items)  # Compiles.
  few = clips.views(config, 200, 200)[1]
  encode(few)
  _, seconds_200 = encode(few)
  corpus, encoding = encode(items)
  first = search(corpus, entry.query_block)  # Compiles.
  searching = search(corpus, args.queries)
  whole = encoding + searching
  machine.write(
    'reloclnet_search',
    dict(
      config=args.config,
      videos=args.videos,
      queries=args.queries,
      tasks=moments.TASKS,
      encode_200_seconds=seconds_200,
      encode_seconds=encoding,
      first_block_with_compilation_seconds=first,
      search_seconds=searching,
      seconds=whole,
      seconds_per_query=searching / args.queries,
      original=ORIGINAL,
      speedup=dict(
        encode_200=ORIGINAL['encode_200'] / seconds_200,
        whole=ORIGINAL['search'] / whole,
      ),
      peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    ),
  )


if __name__ == '__main__':
  main()
