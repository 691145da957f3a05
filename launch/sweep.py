# SPDX-License-Identifier: Apache-2.0
r"""Runs the sweep of a config, then prints mean and deviation per metric.

A config file may have a function `sweep()` beside `get_config`: it yields
dicts of config arguments, one per run (`dict(seed=0)`, `dict(seed=1)`, ...).

  python launch/sweep.py --config configs/ce_shapes.py --workdir runs/seeds
  python launch/sweep.py --config ... --workdir ... --dry_run
  python launch/sweep.py --config ... --workdir ... --summary_only
  python launch/sweep.py --summary_only runs/a runs/b runs/c

Each run is the plain command with `:seed=0` and so on behind the config and
`<workdir>/seed=0` as its workdir; arguments after `--` are added to every
run. Runs that have their results.json are not run again. Runs that differ in
the seed only make one table: the mean and, in brackets, the standard
deviation of the sample (over n - 1), one decimal, as the papers print them.
With a launcher that returns at once,
  --launcher 'sbatch launch/slurm.sbatch'
come back later with --summary_only.
"""

import argparse
import collections
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

from vidret_jax import config_lib
from vidret_jax.metrics import names


def runs_of(spec, workdir):
  """Lists the runs of a config's sweep.

  Args:
    spec: `FILE.py[:arg]`.
    workdir: folder that gets one folder per run.

  Returns:
    List of (group, spec of the run, workdir of the run); runs of one group
    differ in their seed only.

  Raises:
    ValueError: the file has no sweep, or `arg` sets what the sweep sets.
  """
  head, ext, arg = spec.partition('.py')
  path, arg = head + ext, arg.removeprefix(':')
  module = config_lib.load_module(path)
  if not hasattr(module, 'sweep'):
    raise ValueError(
      f'{path} has no sweep(): add a generator of dicts of config arguments, '
      'such as `for seed in range(3): yield dict(seed=seed)`'
    )
  fixed = [a for a in arg.split(',') if a]
  names = {a.partition('=')[0] for a in fixed}
  runs = []
  for change in module.sweep():
    if twice := names & set(change):
      raise ValueError(
        f'{spec}: {", ".join(sorted(twice))} is set by sweep() itself; leave '
        'it out of --config'
      )
    own = [f'{k}={v}' for k, v in change.items()]
    group = [f'{k}={v}' for k, v in change.items() if k != 'seed']
    name = ','.join(own).replace('/', '_') or 'run'
    runs.append(
      (
        ','.join(fixed + group),
        ':'.join([path] + [','.join(fixed + own)] * bool(fixed + own)),
        str(pathlib.Path(workdir) / name),
      )
    )
  return runs


def summary(title, workdirs):
  """Table of a group of finished runs, as text.

  Args:
    title: what the runs have in common.
    workdirs: their folders, each with the `results.json` and `config.json`
      that the trainer writes.

  Returns:
    A Markdown table: a row per evaluator and direction, a column per metric.

  Raises:
    ValueError: the runs differ in more than their seed, or one has metrics
      that another has not.
  """
  folders = [pathlib.Path(w) for w in workdirs]
  files = [json.loads((f / 'results.json').read_text()) for f in folders]
  results = [f['metrics'] for f in files]
  for folder, result in zip(folders, results):
    if odd := set(result) ^ set(results[0]):
      raise ValueError(
        f'{folder} and {folders[0]} have different metrics: {sorted(odd)}'
      )
  configs = [_config(f) for f in folders]
  for folder, config in zip(folders, configs):
    keys = set(config) | set(configs[0])
    odd = sorted(k for k in keys if config.get(k) != configs[0].get(k))
    if odd:
      raise ValueError(
        f'{folder} and {folders[0]} differ in more than the seed: '
        f'{", ".join(odd)}; make one table for each'
      )
  rows = collections.defaultdict(dict)
  for key in results[0]:
    evaluator, _, name = key.partition('/')
    if place := names.place(name):
      values = [r[key] for r in results]
      rows[f'{evaluator}/{place[0]}'][place[1]] = _cell(values)
  columns = [m for m in names.COLUMNS if any(m in r for r in rows.values())]
  caveats = sorted({c for f in files for c in f['caveats']})
  runs = f'{len(folders)} run' + 's' * (len(folders) > 1)
  lines = [
    f'{title + ": " if title else ""}{runs}',
    *caveats,
    '',
    _line([''] + columns),
    _line(['---'] * (len(columns) + 1)),
  ]
  for row in sorted(rows):
    if any(m in rows[row] for m in columns):
      lines.append(_line([row] + [rows[row].get(m, '') for m in columns]))
  return '\n'.join(lines)


def _cell(values):
  mean = f'{statistics.fmean(values):.1f}'
  if len(values) == 1:
    return mean
  return f'{mean} ({statistics.stdev(values):.1f})'


def _line(cells):
  return '| ' + ' | '.join(cells) + ' |'


def _config(folder):
  """The saved config as {dotted key: value} without its seeds."""
  path = folder / 'config.json'
  flat = {}

  def walk(prefix, node):
    if isinstance(node, dict):
      for key, value in node.items():
        walk(f'{prefix}.{key}' if prefix else key, value)
    elif prefix.rpartition('.')[2] != 'seed':
      flat[prefix] = node

  if path.is_file():
    walk('', json.loads(path.read_text()))
  return flat


def run_all(runs, launcher, extra):
  """Runs one after the other; returns the workdirs of those that failed."""
  failed = []
  for _, spec, workdir in runs:
    if (pathlib.Path(workdir) / 'results.json').is_file():
      print(f'# finished before: {workdir}', flush=True)
      continue
    command = _command(launcher, spec, workdir, extra)
    print('# ' + shlex.join(command), flush=True)
    if subprocess.run(command, check=False).returncode:
      failed.append(workdir)
  return failed


def _command(launcher, spec, workdir, extra):
  return [*launcher, '--config', spec, '--workdir', workdir, *extra]


def main(argv=None):
  """Returns the exit status: 1 if a run failed or none has finished."""
  argv = sys.argv[1:] if argv is None else list(argv)
  cut = argv.index('--') if '--' in argv else len(argv)
  argv, extra = argv[:cut], argv[cut + 1 :]
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', help='FILE.py[:arg] with a sweep()')
  parser.add_argument('--workdir', help='folder of the folders of the runs')
  parser.add_argument('--launcher', help='command in place of the plain one')
  parser.add_argument('--dry_run', action='store_true')
  parser.add_argument('--summary_only', action='store_true')
  parser.add_argument('finished', nargs='*', help='workdirs of finished runs')
  args = parser.parse_args(argv)
  if args.finished and not args.summary_only:
    parser.error('workdirs of finished runs need --summary_only')
  if not args.finished and not (args.config and args.workdir):
    parser.error('--config and --workdir are needed')

  runs = [('', '', w) for w in args.finished]
  failed = []
  try:
    runs = runs or runs_of(args.config, args.workdir)
    launcher = shlex.split(args.launcher or '') or [
      *(sys.executable, '-m', 'vidret_jax.main')
    ]
    if args.dry_run:
      for _, spec, workdir in runs:
        print(shlex.join(_command(launcher, spec, workdir, extra)))
      return 0
    if not args.summary_only:
      failed = run_all(runs, launcher, extra)
    return _print_tables(runs, failed)
  except (ValueError, FileNotFoundError) as error:
    print(f'sweep: {error}', file=sys.stderr)
    return 1


def _print_tables(runs, failed):
  groups = collections.defaultdict(list)
  for group, _, workdir in runs:
    if (pathlib.Path(workdir) / 'results.json').is_file():
      groups[group].append(workdir)
    else:
      state = 'failed' if workdir in failed else 'not finished'
      print(f'{state}: {workdir} (no results.json)', file=sys.stderr)
  for group, workdirs in groups.items():
    print('\n' + summary(group, workdirs))
  return int(bool(failed) or not groups)


if __name__ == '__main__':
  sys.exit(main())
