# SPDX-License-Identifier: Apache-2.0
r"""The CE comparisons of docs/results.md on the embedded corpus.

  python -m benchmarks.shapes_ce --workdir runs/shapes_ce

Trains CE, MoEE, CE without collaborative gating, and alone every expert that no
video lacks, three seeds each, through the command that users type; then hides
more and more experts of the test videos from the trained CE and MoEE. Runs that
are finished are not repeated. Writes benchmarks/results/shapes_ce.json.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from benchmarks import machine
from benchmarks.pieces import METRICS

CONFIG = 'configs/ce_shapes.py'
SEEDS = (0, 1, 2)
MODELS = {'CE': '', 'MoEE': 'model=moee', 'CE - CG': 'model=mimic'}
HIDDEN = (0.0, 0.2, 0.4, 0.6, 0.8)


def train(name, arg, seed, workdir, config=CONFIG):
  """One run of the main command; returns its workdir."""
  folder = workdir / name.replace(' ', '_') / f'seed={seed}'
  if not (folder / 'results.json').is_file():
    path, _, given = config.partition(':')
    spec = ','.join(filter(None, [given, arg, f'seed={seed}']))
    command = [
      *(sys.executable, '-m', 'vidret_jax.main'),
      *('--config', f'{path}:{spec}', '--workdir', str(folder)),
    ]
    began = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f'seed={seed}.log', 'w') as log:
      subprocess.run(command, check=True, stdout=log, stderr=log)
    (folder / 'seconds').write_text(f'{time.monotonic() - began:.1f}')
  return folder


def metrics_of(folder):
  """{'test/t2v_R@1': value} of a finished run."""
  return json.loads((folder / 'results.json').read_text())['metrics']


def hide_experts(folder, rates):
  """Test metrics of a run when more experts are missing: {rate: metrics}."""
  from vidret_jax import config_lib
  from vidret_jax.evaluators import retrieval
  from vidret_jax.train import ckpt
  from vidret_jax.train import run as run_lib

  config = config_lib.load_json(str(folder / 'config.json'))
  run = run_lib.Run(config)
  variables, _ = ckpt.load_variables(str(folder), run.shapes(), config.select)
  data = config_lib.freeze(config.evals.test.data)
  return {
    rate: retrieval.Evaluator(
      run.model, run.mesh, data=data, drop_rate=rate
    ).run(variables)
    for rate in rates
  }


def seconds_of(folders):
  """{name: seconds of its runs}, but of those that went on after a stop."""
  return {
    name: [float((f / 'seconds').read_text()) for f in runs]
    for name, runs in folders.items()
    if all((f / 'seconds').is_file() for f in runs)
  }


def compare(models, metrics, workdir, config, seeds=SEEDS):
  """Trains some models with some seeds.

  Args:
    models: {name: argument of the config}.
    metrics: names of test metrics.
    workdir: of all runs.
    config: its path.
    seeds: of each model.

  Returns:
    What a file of results holds: the config, the seeds, the metrics' means and
    deviations, the seconds.
  """
  folders = {
    name: [train(name, arg, seed, workdir, config) for seed in seeds]
    for name, arg in models.items()
  }
  rows = {}
  for name, runs in folders.items():
    found = [metrics_of(folder) for folder in runs]
    rows[name] = {
      m: spread([numbers[f'test/{m}'] for numbers in found]) for m in metrics
    }
  return dict(
    config=config, seeds=seeds, models=rows, seconds=seconds_of(folders)
  )


def has_everywhere(expert):
  """Whether no test or training video lacks an expert."""
  from vidret_jax.data import shapes

  def lacks(split):
    items = shapes.make(view='items', split=split)
    index = np.arange(len(items))
    have = items.gather(index, index)['available']
    return not have[:, items.names.index(expert)].all()

  return not (lacks('train') or lacks('test'))


def spread(values):
  """Mean and standard deviation of the sample."""
  return dict(mean=statistics.fmean(values), std=statistics.stdev(values))


def summarise(runs, prefix=''):
  """{'t2v_R@1': {mean, std}} over runs of one model."""
  keys = [f'{d}_{m}' for d in ('t2v', 'v2t') for m in METRICS]
  return {k: spread([r[prefix + k] for r in runs]) for k in keys}


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  args = parser.parse_args()

  from vidret_jax.data import shapes

  variants = dict(MODELS)
  # An expert that some videos lack cannot rank them alone.
  everywhere = [n for n, _ in shapes.EXPERTS if has_everywhere(n)]
  variants |= {f'only {name}': f'expert={name}' for name in everywhere}
  folders = {
    name: [train(name, arg, seed, args.workdir) for seed in SEEDS]
    for name, arg in variants.items()
  }
  rows = {
    name: summarise([metrics_of(f) for f in runs], 'test/')
    for name, runs in folders.items()
  }
  hidden = {}
  for name in ('CE', 'MoEE'):
    runs = [hide_experts(folder, HIDDEN) for folder in folders[name]]
    hidden[name] = {
      f'{rate:.0%}': summarise([run[rate] for run in runs]) for rate in HIDDEN
    }
  test = shapes.make(view='queries', split='test')
  items = shapes.make(view='items', split='test')
  machine.write(
    'shapes_ce',
    dict(
      config=CONFIG,
      seeds=SEEDS,
      queries=len(test),
      videos=len(items),
      models=rows,
      hidden=hidden,
      seconds=seconds_of(folders),
    ),
  )
  print('put them on the page: python -m benchmarks.tables')


if __name__ == '__main__':
  main()
