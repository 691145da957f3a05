# SPDX-License-Identifier: Apache-2.0
r"""EERCF on the embedded corpus: what two stages keep, and what they cost.

  python -m benchmarks.eercf_shapes --workdir runs/eercf_shapes

Trains the config with three seeds through the command that users type, then
evaluates the test split with short lists of several lengths, and with all pairs
scored by the second stage. Runs that are finished are not repeated. Writes
benchmarks/results/eercf_shapes.json.
"""

import argparse
import pathlib

from benchmarks import machine, shapes_ce

CONFIG = 'configs/eercf_shapes.py'
SEEDS = (0, 1, 2)
# Lengths of the short lists; 0 is all items.
LENGTHS = (5, 10, 20, 50, 0)


def evaluate(folder, spec, lengths):
  """Test metrics of a run by length of the short lists, and the sizes.

  The weights are the run's, the config is the one on disk: how levels are mixed
  to rank takes no part in training.
  """
  from vidret_jax import config_lib
  from vidret_jax.evaluators import two_stage
  from vidret_jax.train import ckpt, defaults
  from vidret_jax.train import run as run_lib

  config = defaults.resolve(config_lib.load(spec))
  run = run_lib.Run(config)
  variables, _ = ckpt.load_variables(str(folder), run.shapes(), config.select)
  data = config_lib.freeze(config.evals.test.data)
  out = {}
  for k in lengths:
    evaluator = two_stage.Evaluator(run.model, run.mesh, data=data, k=k)
    out[k] = evaluator.run(variables)
  sizes = [len(x) for x in (evaluator.ranks.text, evaluator.ranks.video)]
  return out, sizes


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--config', default=CONFIG, help='FILE.py[:arg]')
  args = parser.parse_args()
  folders = [
    shapes_ce.train('EERCF', '', seed, args.workdir, args.config)
    for seed in SEEDS
  ]
  found = [evaluate(folder, args.config, LENGTHS) for folder in folders]
  runs, (queries, videos) = [f for f, _ in found], found[0][1]
  rows = {
    'coarse': shapes_ce.summarise([r[LENGTHS[0]] for r in runs], 'coarse_')
  }
  costs = {}
  for k in LENGTHS:
    name = str(k) if k else 'all'
    of_k = [run[k] for run in runs]
    rows[name] = shapes_ce.summarise(of_k)
    rows[name]['shortlisted'] = shapes_ce.spread(
      [r['t2v_shortlisted'] for r in of_k]
    )
    costs[name] = {
      key: x
      for key, x in of_k[0].items()
      if key.endswith(('_per_query', '_share'))
    }
  machine.write(
    'eercf_shapes',
    dict(
      config=args.config,
      seeds=SEEDS,
      queries=queries,
      videos=videos,
      rankings=rows,
      costs=costs,
      # Not of runs that were interrupted and went on later.
      training_seconds=[
        float(path.read_text())
        for path in (folder / 'seconds' for folder in folders)
        if path.is_file()
      ],
    ),
  )
  print('put them on the page: python -m benchmarks.tables')


if __name__ == '__main__':
  main()
