# SPDX-License-Identifier: Apache-2.0
r"""Evaluates a file of similarities as FIVR, EVVE and SVD do.

  python -m vidret_jax.tools.evaluate_copies --pred similarities.json \
      --gt fivr_audio.pickle --easy fivr_easy_duplicates.txt --data fivr-200k
  python -m vidret_jax.tools.evaluate_copies --pred similarities.json \
      --gt annotation.json --ids youtube_ids.txt --data fivr-200k --official

The file holds {query: {video: score}}, larger is nearer: what results of
FIVR-200K are exchanged in, and what our evaluator writes. Annotations are the
published ones, or of your own (docs/data_formats.md). Numbers are percent,
under the names of S2VS and HAP-VR: DSVR is the mAP and DSVD the micro-AP of the
same task, _h is without the easy duplicates.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import sys
from typing import Any

import numpy as np
import rich.console
import rich.table

from vidret_jax.data import whole_files
from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.data.copies import layout, published
from vidret_jax.evaluators import copy_files, copy_truth
from vidret_jax.metrics import copies

# Name -> layout and split; None: annotations of your own.
_DATA = {
  'own': None,
  'fivr-200k': (layout.FIVR, '200k'),
  'fivr-5k': (layout.FIVR, '5k'),
  'evve': (layout.EVVE, 'all'),
  'svd': (layout.SVD, 'all'),
  'svd-labeled': (layout.SVD, 'labeled'),
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--pred', required=True, metavar='FILE', help='similarities, .json')
  add(
    '--gt',
    required=True,
    metavar='FILE',
    help='annotations: fivr_audio.pickle, evve.pickle, test_groundtruth, your '
    'own .json, or annotation.json of FIVR-200K with --ids',
  )
  add('--data', choices=_DATA, default='own', help='what --gt is')
  add('--easy', metavar='FILE', help='fivr_easy_duplicates.txt')
  add('--unlabelled', metavar='FILE', help='unlabeled-data-id of SVD')
  add('--ids', metavar='FILE', help='database of annotation.json, an id a line')
  add(
    '--searched',
    metavar='FILE',
    help='ids of all videos that were searched, one a line; one that has no '
    'score was there and not found (default: those with any score)',
  )
  add(
    '--tasks',
    nargs='+',
    choices=copies.TASKS,
    default=[],
    help='of FIVR (default: DSVR CSVR ISVR)',
  )
  add('--audio', action='store_true', help='also DAVR (FIVR)')
  add(
    '--missing',
    choices=copies.MISSING,
    default='ignore',
    help='whether right videos without any score are left out, as S2VS and '
    'HAP-VR do, or are misses (default: %(default)s)',
  )
  add(
    '--official',
    action='store_true',
    help='count as the script of FIVR-200K does: --missing penalise, of equal '
    'scores the earlier id first, and a query that is in its own list is not '
    'left out',
  )
  add('--curves', action='store_true', help='also precision at 21 recalls')
  add('--out', metavar='FILE', help='write all numbers as JSON')
  return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
  """Reads the files and judges.

  Returns:
    What `--out` writes, in percent: `metrics`, `counts`, `right` (per task,
    pairs that count and pairs expected), `queries` (task -> query -> AP),
    `events` and `curves` where there are any; and sentences about what deserves
    a look.

  Raises:
    ValueError, OSError: a file is not what it should be.
  """
  known = annotations(args)
  judge = copy_truth.Judge(
    known,
    known.queries,
    known.database,
    tasks=copy_truth.tasks(args.tasks, args.audio),
    missing='penalise' if args.official else args.missing,
    ties='earlier' if args.official else 'later',
    curves=args.curves,
    itself=args.official,
  )
  scores, found, notes = copy_files.matrix(
    copy_files.read(args.pred),
    known.queries,
    known.database,
    args.pred,
    searched=_ids(args.searched) if args.searched else None,
  )
  tasks = judge.judge(scores, found)
  out = dict(
    protocol=known.protocol,
    missing=judge.missing,
    ties=judge.ties,
    metrics=copies.summary(tasks),
    counts={k: int(v) for k, v in judge.counts(found).items()},
    right={
      name: [int(t.right.sum()), int(t.expected.sum())]
      for name, t in tasks.items()
    },
    queries={
      name: {
        known.queries[i]: float(100 * t.ap[i])
        for i in np.flatnonzero(~np.isnan(t.ap)).tolist()
      }
      for name, t in tasks.items()
    },
  )
  if judge.events:
    events = copies.by_event(tasks['EVVE'], judge.events)
    out['events'] = {name: 100 * value for name, value in events.items()}
  if args.curves:
    out['curves'] = {n: (100 * t.curve).tolist() for n, t in tasks.items()}
  return out, [*notes, *judge.notes(found)]


def annotations(args: argparse.Namespace) -> annotations_lib.Annotations:
  """Reads `--gt` and what belongs to it.

  Raises:
    ValueError, FileNotFoundError: a file is not what it should be.
  """
  path = pathlib.Path(args.gt)
  files = {layout.ANNOTATIONS: path}
  if not path.is_file():
    raise FileNotFoundError(f'--gt {path}: no such file.')
  _check_lists(args)
  if _DATA[args.data] is None:
    if path.suffix != '.json':
      raise ValueError(
        f'--gt {path}: annotations of your own are a .json file; say with '
        '--data which published ones these are.'
      )
    return annotations_lib.read(path)
  kind, split = _DATA[args.data]
  if kind is layout.FIVR and path.suffix == '.json' and not args.ids:
    raise ValueError(f'--gt {path} needs --ids: youtube_ids.txt')
  if kind is layout.FIVR and args.ids:
    labels = whole_files.read_json(path, dict)
    return annotations_lib.build(
      str(path),
      protocol='fivr',
      queries=list(labels),
      database=_ids(args.ids),
      labels=labels,
      easy=_ids(args.easy) if args.easy else (),
    )
  for key, names in kind.splits[split].items():
    if key in (layout.FEATURES, layout.ANNOTATIONS):
      continue
    given = getattr(args, key)
    if not given:
      raise ValueError(
        f'--data {args.data} needs --{key}: {pathlib.Path(names[0]).name}'
      )
    files[key] = pathlib.Path(given)
  return published.read(kind, split, files)


def _check_lists(args):
  """Refuses lists that would change nothing."""
  kind, split = _DATA[args.data] or (None, None)
  used = {*kind.splits[split]} if kind else set()
  if kind is layout.FIVR:
    used.add('ids')
  for key in ('easy', 'unlabelled', 'ids'):
    if getattr(args, key) and key not in used:
      raise ValueError(f'--{key} says nothing about --data {args.data}.')


def _ids(path):
  lines = map(str.strip, whole_files.text_lines(path))
  return [line for line in lines if line]


def show(result: dict[str, Any]) -> None:
  """Prints the tables."""
  values = result['metrics']
  out = rich.table.Table(title='percent')
  for name in ('task', 'mAP', 'uAP', 'queries', 'right pairs'):
    out.add_column(name, justify='left' if name == 'task' else 'right')
  for task, (right, expected) in result['right'].items():
    mean, pooled = copies.names(task)
    out.add_row(
      task,
      *(f'{values[name]:.2f}' for name in (mean, pooled)),
      f'{len(result["queries"][task]):,}',
      f'{right:,} of {expected:,}',
    )
  console = rich.console.Console()
  console.print(out)
  for name, value in result.get('events', {}).items():
    console.print(f'{name}: {value:.2f}', highlight=False, markup=False)


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  try:
    for path in (args.pred, args.gt, args.easy, args.ids, args.searched):
      if args.out and path and _same(args.out, path):
        raise ValueError(f'--out {args.out} would replace what is evaluated')
    result, notes = evaluate(args)
    if args.out:
      result['notes'] = notes
      whole_files.write_json(args.out, result, overwrite=True)
  except (ValueError, OSError) as error:
    print(f'evaluate_copies: {error}', file=sys.stderr)
    return 1
  show(result)
  for note in notes:
    print(f'note: {note}')
  if args.out:
    print(f'written: {args.out}')
  return 0


def _same(a, b):
  return os.path.realpath(a) == os.path.realpath(b)


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
