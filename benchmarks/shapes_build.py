# SPDX-License-Identifier: Apache-2.0
r"""Making the whole embedded corpus: clips, measurements, records.

  python -m benchmarks.shapes_build

Writes it into a temporary folder, as the first use does. Writes
benchmarks/results/shapes_build.json.
"""

import pathlib
import resource
import tempfile
import time

from benchmarks import machine
from vidret_jax.data import shapes


def processor_seconds():
  """Time of this process and of the workers that have ended."""
  used = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  return sum(u.ru_utime + u.ru_stime for u in used)


def main():
  with tempfile.TemporaryDirectory() as folder:
    before, began = processor_seconds(), time.perf_counter()
    shapes.prepare(folder, progress=False)
    seconds = time.perf_counter() - began
    used = processor_seconds() - before
    files = [f for f in pathlib.Path(folder).rglob('*') if f.is_file()]
    results = dict(
      clips=sum(f.suffix == '.mp4' for f in files),
      seconds=seconds,
      processor_seconds=used,
      bytes=sum(f.stat().st_size for f in files),
    )

  machine.write('shapes_build', results)


if __name__ == '__main__':
  main()
