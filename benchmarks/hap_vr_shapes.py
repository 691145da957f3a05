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
  found = shapes_ce.compare(MODELS, METRICS, args.workdir, CONFIG)
  machine.write('hap_vr_shapes', found)
  print('put them on the page: python -m benchmarks.tables')


if __name__ == '__main__':
  main()
