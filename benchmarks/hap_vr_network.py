# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of HAP-VR's network and losses on random features.

  taskset -c 0 python -m benchmarks.hap_vr_network

Sizes of the paper: 28 frames of nine regions of 512. One core, as the figures
of the original are: pin the process. Every part runs in a process of its own,
so that peaks of memory do not add up. Writes
benchmarks/results/hap_vr_network.json.
"""

import argparse
import functools
import os
import resource
import time

import numpy as np

from benchmarks import machine

FRAMES, REGIONS, DIM, LABELS = 28, 9, 512, 384
# Seconds of the original (PyTorch 2.13) on one core of a machine of this kind;
# a pair's, and frames a second of the attention.
ORIGINAL = {
  'train 16 clips': 1.36,
  'train 32 clips': 13.2,
  'frame AP 16 clips': 0.56,
  'pair 16 x 16': 1.9e-3,
  'pair 100 x 100': 43e-3,
  'attention': 1 / 9000,
}


def timed(call, *args, repeats=5):
  """Seconds of some calls after one that compiles."""
  import jax

  jax.block_until_ready(call(*args))
  seconds = []
  for _ in range(repeats):
    began = time.perf_counter()
    jax.block_until_ready(call(*args))
    seconds.append(time.perf_counter() - began)
  return seconds


def unit(rng, *shape):
  x = rng.standard_normal(shape, np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def train(clips):
  """Network and losses, forward, backward and AdamW, of a batch of clips."""
  import jax
  import optax

  from vidret_jax.models import hap_vr

  rng, pairs = np.random.default_rng(0), clips // 2
  batch = {
    name: unit(rng, pairs, FRAMES, *width)
    for name, width in (
      *((name, (REGIONS, DIM)) for name in ('weak', 'strong')),
      *((name, (LABELS,)) for name in ('weak_labels', 'strong_labels')),
    )
  }
  model, tx = hap_vr.make(), optax.adamw(4e-5, weight_decay=0.01)
  loss = functools.partial(model.apply, step=0, train=True, method='loss')
  variables = model.init(
    jax.random.key(0), batch, step=0, train=False, method='loss'
  )
  state = variables, tx.init(variables)

  @jax.jit
  def update(state, batch):
    variables, moments = state
    grads = jax.grad(lambda v: loss(v, batch)[0])(variables)
    change, moments = tx.update(grads, moments, variables)
    return optax.apply_updates(variables, change), moments

  return dict(seconds=timed(update, state, batch, repeats=3))


def frame_ap(clips):
  """Average precision of frames, forward and backward."""
  import jax

  from vidret_jax.losses import average_precision

  rng = np.random.default_rng(0)
  sim = rng.random((clips, clips, FRAMES, FRAMES), np.float32)
  features = unit(rng, clips, FRAMES, LABELS)
  labels = np.tile(np.eye(clips // 2, dtype=np.float32), (2, 2))
  call = jax.jit(jax.value_and_grad(average_precision.batch_frame_ap))
  memory = call.lower(sim, features, labels).compile().memory_analysis()
  # What the plain form holds: pairs x frames x frames x frames, about a dozen.
  one = 4 * clips**2 * FRAMES**3
  return dict(
    seconds=timed(call, sim, features, labels),
    temporary_bytes=memory.temp_size_in_bytes,
    plain_array_bytes=one,
    times_smaller_than_one_plain_array=one / memory.temp_size_in_bytes,
  )


def pair(frames, targets):
  """One query against targets of as many frames; seconds of a pair."""
  import jax

  from vidret_jax.models import hap_vr

  rng, model = np.random.default_rng(0), hap_vr.make()

  def video(n):
    x = unit(rng, n, frames, REGIONS, DIM)
    return {'regions': x, 'length': np.full(n, frames, np.int32)}

  def everything(model, batch):
    videos = model.encode_item(batch)
    return model.fine(videos, videos)

  variables = model.init(jax.random.key(0), video(1), method=everything)
  call = jax.jit(functools.partial(model.apply, method='fine'))
  seconds = timed(call, variables, video(1), video(targets))
  return dict(seconds=[s / targets for s in seconds], targets=targets)


def attention(frames):
  """Weighing regions; seconds of a frame."""
  import jax

  from vidret_jax.layers import region_attention

  x = unit(np.random.default_rng(0), 1, frames, REGIONS, DIM)
  layer = region_attention.RegionAttention(DIM)
  variables = layer.init(jax.random.key(0), x)
  seconds = timed(jax.jit(layer.apply), variables, x)
  return dict(seconds=[s / frames for s in seconds], frames=frames)


PARTS = {
  'train 16 clips': (train, 16),
  'train 32 clips': (train, 32),
  'frame AP 16 clips': (frame_ap, 16),
  'frame AP 128 clips': (frame_ap, 128),
  'pair 16 x 16': (pair, 16, 512),
  'pair 100 x 100': (pair, 100, 16),
  'attention': (attention, 2000),
}


def measure(name):
  """Figures of one part."""
  part, *args = PARTS[name]
  found = part(*args)
  best, original = min(found['seconds']), ORIGINAL.get(name)
  return dict(
    found,
    best_seconds=best,
    original_seconds=original,
    times_faster=original and original / best,
    peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
  )


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.parse_args()
  results = {}
  for name in PARTS:
    results[name] = machine.apart(measure, name)
    print(name, results[name]['best_seconds'], flush=True)
  cores = len(os.sched_getaffinity(0))
  machine.write('hap_vr_network', dict(cores_used=cores, parts=results))


if __name__ == '__main__':
  main()
