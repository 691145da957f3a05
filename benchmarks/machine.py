# SPDX-License-Identifier: Apache-2.0
"""What this machine can do, so that figures of two machines compare.

  python -m benchmarks.machine

Every benchmark prints these facts and stores them beside its results.
"""

import concurrent.futures
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import time

import jax
import jax.numpy as jnp

RESULTS = pathlib.Path(__file__).parent / 'results'
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')


def _cpu_name():
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.processor()


def _best_seconds(call, repeats):
  """Fastest of some runs: the machine may be busy with other things."""
  best = float('inf')
  for _ in range(repeats):
    began = time.perf_counter()
    jax.block_until_ready(call())
    best = min(best, time.perf_counter() - began)
  return best


def matmul_gflops(n=2048, repeats=8):
  """Rate of one float32 matrix product of n x n by n x n."""
  a = jax.random.normal(jax.random.key(0), (n, n), jnp.float32)
  product = jax.jit(lambda x: jnp.dot(x, x, precision='highest'))
  jax.block_until_ready(product(a))
  return 2 * n**3 / _best_seconds(lambda: product(a), repeats) / 1e9


def memory_gbytes_per_second(megabytes=256, repeats=8):
  """Rate of x + 1 over an array far larger than the caches: read and write."""
  x = jnp.zeros((megabytes * 2**18,), jnp.float32)
  add = jax.jit(lambda x: x + 1, donate_argnums=0)
  best = float('inf')
  for _ in range(repeats):
    began = time.perf_counter()
    x = jax.block_until_ready(add(x))
    best = min(best, time.perf_counter() - began)
  return 2 * x.nbytes / best / 1e9


def measure():
  """Facts of this machine as a dict; takes about a second."""
  device = jax.devices()[0]
  return dict(
    cpu=_cpu_name(),
    cores=len(os.sched_getaffinity(0)),
    memory_gbytes=round(
      os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1
    ),
    devices=f'{jax.device_count()} x {device.device_kind}',
    python=platform.python_version(),
    **{p: importlib.metadata.version(p) for p in _PACKAGES},
    # Others on the machine make every figure worse: below the number of cores
    # this is a quiet machine.
    load_average=os.getloadavg()[0],
    matmul_gflops=matmul_gflops(),
    memory_gbytes_per_second=memory_gbytes_per_second(),
    date=datetime.date.today().isoformat(),
  )


def apart(call, *args):
  """What a call returns in a process of its own.

  Peaks of memory of several calls then do not add up. An error of the call, or
  the end of its process, is an error here.
  """
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(call, *args).result()


def write(name, results, facts=None):
  """Prints results and the machine's facts, and stores them as JSON.

  Args:
    name: of the benchmark, and of the file below benchmarks/results.
    results: a dict of plain values.
    facts: of `measure`, if the caller needed them.
  """
  facts = facts or measure()
  RESULTS.mkdir(exist_ok=True)
  path = RESULTS / f'{name}.json'
  text = json.dumps(dict(results=results, machine=facts), indent=1)
  path.write_text(text + '\n')
  print(text)
  print(f'written to {path}')


if __name__ == '__main__':
  print(json.dumps(measure(), indent=1))
