# SPDX-License-Identifier: Apache-2.0
r"""HAP-VR on the embedded corpus: what its losses do.

  python -m benchmarks.hap_vr_shapes --workdir runs/hap_vr_shapes

Trains with all losses and with InfoNCE alone, three seeds each, and scores
without a trained network (Chamfer), through the command that users type. A seed
draws the frozen networks, too: all rows of a seed have the same. Runs that are
finished are not repeated. Writes benchmarks/results/hap_vr_shapes.json.
"""

import argparse
import pathlib

from benchmarks import machine, shapes_ce

CONFIG = 'configs/hap_vr_shapes.py'
SEEDS = (0, 1, 2)
MODELS = {
  'HAP-VR': '',
  'InfoNCE alone': 'loss=infonce',
  'not trained: Chamfer': 'loss=none',
}
METRICS = ('DSVR', 'CSVR', 'ISVR', 'DSVD', 'CSVD', 'ISVD')


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  args = parser.parse_args()
  folders = {
    name: [shapes_ce.train(name, arg, s, args.workdir, CONFIG) for s in SEEDS]
    for name, arg in MODELS.items()
  }
  rows = {}
  for name, runs in folders.items():
    found = [shapes_ce.metrics_of(folder) for folder in runs]
    rows[name] = {
      m: shapes_ce.spread([numbers[f'test/{m}'] for numbers in found])
      for m in METRICS
    }
  machine.write(
    'hap_vr_shapes',
    dict(
      config=CONFIG,
      seeds=SEEDS,
      models=rows,
      seconds={
        name: [float((f / 'seconds').read_text()) for f in runs]
        for name, runs in folders.items()
        # Not of runs that were interrupted and went on later.
        if all((f / 'seconds').is_file() for f in runs)
      },
    ),
  )
  print('put them on the page: python -m benchmarks.tables')


if __name__ == '__main__':
  main()
