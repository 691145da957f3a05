# SPDX-License-Identifier: Apache-2.0
"""Measures single clips of a corpus, one per line of standard input.

  python -m vidret_jax.data.shapes.instant_worker FOLDER < ids

Of every id this reads FOLDER/../videos/<id>.mp4 and writes
FOLDER/rows/<id>.npy, whose presence says that the clip is done. Answers one
JSON line per id.
"""

import os
import pathlib
import sys

import numpy as np

from vidret_jax.data.shapes import instants, pool


def main() -> None:
  folder = pathlib.Path(sys.argv[1])

  def measure(name):
    rows = instants.snippets(folder.parent / 'videos' / f'{name}.mp4')
    done = folder / 'rows' / f'{name}.npy'
    part = done.with_suffix(f'.{os.getpid()}.part')
    with part.open('wb') as file:
      np.save(file, rows)
    os.replace(part, done)

  pool.serve(measure)


if __name__ == '__main__':
  main()
