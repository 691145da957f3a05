# SPDX-License-Identifier: Apache-2.0
r"""A copy search in a made-up collection: speed, roofline, memory.

  python -m benchmarks.copy_search [--videos 20000] [--queries 2]

HAP-VR at the published sizes (nine regions of 512, attention, comparator) with
drawn weights compares every query with every video; shards of scores are
written as in a real search. The roofline is a large matrix product in the
model's type on the same devices at the same time of day. Videos have 15 frames
on average, as those of SVD; `--frames 97.5` is FIVR-200K. Compilation is done
before, and timed apart. On CPUs the share of the roofline is by CPU seconds:
others may use the machine. Writes benchmarks/results/copy_search.json.
"""

import argparse
import dataclasses
import resource
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import copy_videos, machine
from vidret_jax import sharding
from vidret_jax.models import hap_vr
from vidret_jax.search import copies, copy_plan

# Per pair of frames: 81 products of 512 values, and the comparator
# (1 -> 32 at full size, 32 -> 64 at a quarter, 64 -> 128 -> 1 at a sixteenth).
FRAME_VALUES = 9 * 512
FRAME_FLOPS = 2 * 9 * FRAME_VALUES
COMPARATOR_FLOPS = (
  2 * 9 * 32 + 2 * 9 * 32 * 64 // 4 + 2 * 9 * 64 * 128 // 16 + 2 * 128 // 16
)
CELL_FLOPS = FRAME_FLOPS + COMPARATOR_FLOPS
# Attention, per frame of a video, once.
ATTENTION_FLOPS = 2 * FRAME_VALUES * 512


def timed(call):
  """(result, {'wall': seconds, 'cpu': seconds of all threads})."""
  began = time.perf_counter(), time.process_time()
  out = jax.block_until_ready(call())
  wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
  return out, dict(wall=wall, cpu=cpu)


def matmul_flops(dtype, precision, n=4096, repeats=5):
  """Best rate of a product of n x n by n x n: per second, per CPU second."""
  a = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(dtype))
  product = jax.jit(lambda x: jnp.dot(x, x, precision=precision))
  seconds = [timed(lambda: product(a))[1] for _ in range(repeats + 1)][1:]
  return {
    clock: 2 * n**3 / min(s[clock] for s in seconds)
    for clock in ('wall', 'cpu')
  }


def peak_bytes():
  """{'host': resident at most, 'device': in use at most, if it is known}."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return dict(
    host=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    device=stats.get('peak_bytes_in_use'),
  )


def few(items, options):
  """Videos that need every program once."""
  plan = copy_plan.plan(items.lengths, options)
  first = {s.frames: s for s in reversed(plan.shards)}
  chosen = np.concatenate([s.records[: s.rows] for s in first.values()])
  chosen = np.unique(plan.records.item[chosen])
  out = copy_videos.Videos('w', items.lengths[chosen])
  return out, plan


def padded(plan, devices):
  """Frames of targets that are computed, rows of padding included."""
  return sum(
    -(-len(s.records) // (s.rows * devices)) * s.rows * devices * s.frames
    for s in plan.shards
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--videos', type=int, default=20_000)
  parser.add_argument('--frames', type=float, default=15, help='mean length')
  parser.add_argument('--spread', type=float, default=0.5, help='of lengths')
  parser.add_argument('--queries', type=int, default=2)
  parser.add_argument('--query_frames', type=float, default=16)
  parser.add_argument('--batch_frames', type=int, default=2048)
  parser.add_argument('--edges', type=int, help='so many; default: fixed ones')
  parser.add_argument('--storage', default='float32')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--precision', default='highest')
  parser.add_argument('--visit', type=float, default=0.05)
  parser.add_argument('--name', default='copy_search')
  args = parser.parse_args()
  mesh = sharding.make_mesh()
  model = hap_vr.make(dtype=args.dtype, precision=args.precision)
  variables = jax.jit(drawn, static_argnums=0)(model)
  options = copies.Options(batch_frames=args.batch_frames, storage=args.storage)
  if args.edges:
    options = dataclasses.replace(options, edges=args.edges)
  items = copy_videos.Videos(
    'v', copy_videos.lengths(args.videos, args.frames, spread=args.spread)
  )
  queries = copy_videos.Videos(
    'q', copy_videos.lengths(args.queries, args.query_frames, spread=0.1)
  )

  def search(items, **changes):
    changed = dataclasses.replace(options, **changes)
    with tempfile.TemporaryDirectory() as folder:
      return timed(
        lambda: copies.find(
          model, mesh, variables, queries, items, changed, folder=f'{folder}/s'
        )
      )

  warm, plan = few(items, options)
  _, compiling = search(warm)
  whole, seconds = search(items)
  product = matmul_flops(args.dtype, args.precision)
  memory = peak_bytes()
  _, first = search(items, visit=args.visit)
  some, pruned = search(items, visit=args.visit)
  devices = jax.local_device_count()
  frames = int(items.lengths.sum())
  cells = frames * int(queries.lengths.sum())
  computed = padded(plan, devices) * sum(
    b.rows * b.frames for b in copy_plan.query_blocks(queries.lengths, options)
  )
  # Virtual devices share the machine that the product had alone.
  on_cpu = jax.devices()[0].platform == 'cpu'
  clock, count = ('cpu', 1) if on_cpu else ('wall', devices)
  roofline = product[clock] * count
  flops = dict(
    own=cells * CELL_FLOPS + frames * ATTENTION_FLOPS,
    with_padding=computed * CELL_FLOPS
    + padded(plan, devices) * ATTENTION_FLOPS,
  )
  same = some.visited
  machine.write(
    args.name,
    dict(
      **vars(args),
      devices=devices,
      query_frames_in_all=int(queries.lengths.sum()),
      video_frames_in_all=frames,
      pairs=int(np.isfinite(whole.scores).sum()),
      compile_and_first_batches_seconds=compiling,
      seconds=seconds,
      frames_per_second_and_device=frames / seconds['wall'] / count,
      feature_bytes_per_second=frames
      * FRAME_VALUES
      * jnp.dtype(args.storage).itemsize
      / seconds['wall'],
      pairs_per_second=whole.scores.size / seconds['wall'],
      cpu_seconds_per_pair=seconds['cpu'] / whole.scores.size,
      frame_pairs_per_second=cells / seconds['wall'],
      flops_per_frame_pair=CELL_FLOPS,
      flops_per_frame=ATTENTION_FLOPS,
      padding_share=computed / cells - 1,
      matmul_flops=product,
      roofline_clock=clock,
      roofline_share={
        k: x / seconds[clock] / roofline for k, x in flops.items()
      },
      peak_bytes=memory,
      pruned=dict(
        visited_share=some.share,
        first_seconds=first,
        seconds=pruned,
        speedup=seconds[clock] / pruned[clock],
        largest_difference=float(
          np.abs(some.scores[same] - whole.scores[same]).max()
        ),
      ),
    ),
  )


def drawn(model):
  """Weights, not trained."""
  clips = jnp.zeros((2, 4, 9, model.dim))
  batch = {'weak': clips, 'strong': clips}
  batch |= {f'{k}_labels': jnp.zeros((2, 4, 8)) for k in ('weak', 'strong')}
  return model.init(
    jax.random.key(0), batch, step=0, train=False, method='loss'
  )


if __name__ == '__main__':
  main()
