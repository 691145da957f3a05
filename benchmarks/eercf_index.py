# SPDX-License-Identifier: Apache-2.0
r"""Indexes of two levels on disk: building, searching, memory.

  python -m benchmarks.eercf_index [--folder /disk/with/room]

Vectors of 512 dimensions are drawn, 12 frames per item: 10,000 items with the
49 patches per frame of ViT-B/32, and 100,000 with 4, whose full size would be
63 GB. Builds each index as `tools.index` does, in one process, and searches it
in another, one sentence after the other: first with nothing of the file in
memory, as far as the system can be asked for that, then again with what the
system remembers. Writes benchmarks/results/eercf_index.json.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks.eercf_memory import apart, peak_bytes
from benchmarks.eval_memory import resident

LIMIT = 1.5e9
# (items, patches of a frame, items added at a time)
POINTS = ((10_000, 49, 64), (100_000, 4, 512))
SHORTLIST = 50


def build(folder, items, patches, block):
  """Encodes, which is drawing here, and writes an index."""
  from benchmarks import collection
  from vidret_jax import sharding
  from vidret_jax.search import bank as bank_lib
  from vidret_jax.search import index as index_lib
  from vidret_jax.search.programs import programs

  model, variables, _, source = collection.parts(items, 1, patches)
  mesh = sharding.make_mesh()
  index = index_lib.Index.create(
    folder, coarse=model.COARSE, recipe={}, fingerprint='drawn'
  )
  stream = bank_lib.encode(
    programs(model, mesh).encode_item, variables, source, block, mesh
  )
  began, adding = time.perf_counter(), 0.0
  for first, emb in stream:
    emb = {
      key: np.asarray(x)[: items - first]
      for key, x in sharding.fetch(emb).items()
    }
    start = time.perf_counter()
    index.add(source.ids[first : first + block], emb)
    adding += time.perf_counter() - start
  seconds = time.perf_counter() - began
  index.close()
  files = {p.name: p.stat().st_size for p in pathlib.Path(folder).iterdir()}
  return dict(
    build_seconds=seconds,
    add_seconds=adding,
    build_peak_bytes=peak_bytes(),
    bytes=sum(files.values()),
    files=files,
  )


def search(folder, items, patches, block, queries):
  """Opens an index and asks it; returns figures."""
  del block
  import jax

  from benchmarks import collection
  from vidret_jax import sharding
  from vidret_jax.search import index as index_lib
  from vidret_jax.search.programs import programs

  model, variables, asked, _ = collection.parts(items, 1 + queries, patches)
  mesh = sharding.make_mesh()
  encode = programs(model, mesh).encode_query
  before = resident()
  began = time.perf_counter()
  index = index_lib.Index.load(folder)
  opened = time.perf_counter() - began

  def ask(row):
    batch = asked.gather(np.array([row]), np.zeros(1, np.int64))
    sentence = encode(variables, sharding.put_batch(batch, mesh))
    jax.block_until_ready(sentence)
    start = time.perf_counter()
    found = index.query(
      model, mesh, variables, sentence, 10, shortlist=SHORTLIST
    )
    return dict(found.seconds, both=time.perf_counter() - start)

  began = time.perf_counter()
  ask(queries)  # Reads the coarse part, and compiles.
  first = time.perf_counter() - began
  for path in pathlib.Path(folder).iterdir():
    with open(path, 'rb') as file:
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
  latency = {}
  for name in ('cold', 'warm'):
    times = [ask(row) for row in range(queries)]
    latency[name] = {
      stage: statistics.median(t[stage] for t in times) for stage in times[0]
    }
  peak = peak_bytes()
  return dict(
    open_seconds=opened,
    first_query_seconds=first,
    median_seconds=latency,
    queries=queries,
    shortlist=SHORTLIST,
    start_bytes=before,
    search_peak_bytes=peak,
    limit_bytes=LIMIT,
    below_limit=peak < LIMIT,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', help='for the indexes, 8 GB; default: TMPDIR')
  parser.add_argument('--queries', type=int, default=50)
  parser.add_argument('--divide', type=int, default=1, help='items, for a try')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    arguments = json.loads(args.child)
    work = dict(build=build, search=search)[arguments.pop('work')]
    print(json.dumps(work(**arguments)))
    return
  rows = []
  for items, patches, block in POINTS:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
      what = dict(
        folder=os.path.join(folder, 'index'),
        items=items // args.divide,
        patches=patches,
        block=block,
      )
      built, searched = (
        apart('benchmarks.eercf_index', work=work, **what, **more)
        for work, more in (('build', {}), ('search', {'queries': args.queries}))
      )
      del what['folder']
      rows.append(dict(what, **built, **searched))
  from benchmarks import machine

  machine.write('eercf_index', dict(indexes=rows))


if __name__ == '__main__':
  main()
