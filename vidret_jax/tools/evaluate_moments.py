# SPDX-License-Identifier: Apache-2.0
r"""Evaluates a file of found moments as the TVR challenge does.

  python -m vidret_jax.tools.evaluate_moments --gt tvr_val_release.jsonl \
      --pred tvr_val_submission.json --out metrics.json

The annotations have an object a line: desc_id, vid_name, ts (start and end in
seconds, or pairs of several annotators) and, in TVR, type. The predictions are
those of the challenge: video2idx, and lists of [video_idx, start, end, score]
for VCMR, SVMR and VR. Numbers and file are upstream's, to the digit
(`standalone_eval/eval.py` of TVRetrieval and ReLoCLNet).
"""

import argparse
from collections.abc import Sequence
import json
import math
import os
import sys

import rich.console
import rich.table

from vidret_jax.data import whole_files
from vidret_jax.evaluators import moment_files, moment_truth
from vidret_jax.metrics import moments


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--gt', required=True, metavar='FILE', help='annotations, .jsonl')
  add('--pred', required=True, metavar='FILE', help='predictions, .json')
  add('--out', metavar='FILE', help='write the numbers as upstream does')
  add(
    '--topk',
    type=int,
    nargs='+',
    default=list(moments.CUTOFFS),
    help='the k of recall at k (default: %(default)s; TVRetrieval has 5, too)',
  )
  add(
    '--iou',
    type=float,
    nargs='+',
    default=list(moments.THRESHOLDS),
    help='least overlaps (default: %(default)s)',
  )
  add(
    '--tasks',
    nargs='+',
    choices=moments.TASKS,
    help='what to evaluate (default: all that the predictions have)',
  )
  add(
    '--no-match',
    action='store_true',
    help='evaluate the queries that both files have, instead of insisting on '
    'the same ones',
  )
  add(
    '--no-types',
    action='store_true',
    help='leave out the numbers for each type of query',
  )
  return parser.parse_args(argv)


def evaluate(
  args: argparse.Namespace,
) -> tuple[dict[str, dict[str, float | str]], list[str]]:
  """Reads both files and judges.

  Returns:
    The table, not rounded, and sentences about what deserves a look.

  Raises:
    ValueError, OSError: a file is not what it should be.
  """
  rows = moment_truth.read(args.gt)
  predictions = moment_files.read(args.pred)
  found = predictions.tasks
  if absent := [task for task in args.tasks or () if task not in found]:
    raise ValueError(
      f'{args.pred}: has no {", ".join(absent)}; there is {", ".join(found)}'
    )
  if args.no_match:
    rows = _asked(rows, found, args.pred)
  data = moment_truth.annotations(rows, predictions.video2idx, args.gt)
  notes = [*predictions.notes, *data.notes]
  tasks = [task for task in found if task in (args.tasks or found)]
  if data.truth.spans is None:
    if 'VR' not in tasks:
      raise ValueError(
        f"{args.gt}: no row has 'ts', which {', '.join(tasks)} needs; without "
        'moments only VR can be evaluated'
      )
    if left := [task for task in tasks if task != 'VR']:
      notes.append(
        f"{args.gt}: no row has 'ts': {', '.join(left)} left out, only videos "
        'are evaluated'
      )
    tasks = ['VR']
  kinds = None if args.no_types else data.kinds
  if data.kinds is None and not args.no_types:
    notes.append(f"{args.gt}: no row has 'type': no numbers for each type")
  predictions = predictions._replace(tasks={t: found[t] for t in tasks})
  lists = moment_files.aligned(
    predictions, data.ids, args.pred, match=not args.no_match
  )
  table = moments.evaluate(
    lists, data.truth, kinds=kinds, thresholds=args.iou, cutoffs=args.topk
  )
  return table, notes


def _asked(rows, found, where):
  """Rows of annotations that some task has; `video2idx` covers only those."""
  asked = {name for task in found.values() for name in task.ids}
  ids = [str(row['desc_id']) for row in rows]
  if asked.isdisjoint(ids):
    raise ValueError(
      f'{where}: no query is one of the annotations, whose ids are '
      f'{moment_truth.a_few(ids)}; found {moment_truth.a_few(sorted(asked))}'
    )
  return [row for name, row in zip(ids, rows) if name in asked]


def show(
  table: dict[str, dict[str, float | str]],
  thresholds: Sequence[float],
  cutoffs: Sequence[int],
) -> None:
  """Prints the table."""
  out = rich.table.Table(title='recall in percent')
  for name in ('task', 'queries', 'IoU'):
    out.add_column(name)
  for k in cutoffs:
    out.add_column(f'R@{k}', justify='right')
  for block, row in moments.as_upstream(table).items():
    task = block.removesuffix('_by_type')
    kinds = ('',) if block == task else moments.KINDS
    overlaps = ('',) if task == 'VR' else tuple(map(str, thresholds))
    for kind in kinds:
      for overlap in overlaps:
        name = ''.join(f'{part}-' for part in (kind, overlap) if part)
        values = [row[f'{name}r{k}'] for k in cutoffs]
        if not math.isnan(values[0]):  # A type that no query has.
          texts = [f'{value:.2f}' for value in values]
          out.add_row(task, kind or 'all', overlap, *texts)
  console = rich.console.Console()
  console.print(out)
  ratios = (
    row[moments.RATIO] for row in table.values() if moments.RATIO in row
  )
  if ratio := next(ratios, None):
    console.print(f'types in percent: {ratio}', highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  try:
    for path in (args.gt, args.pred):
      if args.out and os.path.realpath(args.out) == os.path.realpath(path):
        raise ValueError(f'--out {args.out} would replace what is evaluated')
    table, notes = evaluate(args)
    if args.out:
      with whole_files.partial(args.out, overwrite=True) as draft:
        # As upstream: NaN for a type without queries.
        draft.write_text(json.dumps(moments.as_upstream(table), indent=4))
  except (ValueError, OSError) as error:
    print(f'evaluate_moments: {error}', file=sys.stderr)
    return 1
  show(table, args.iou, args.topk)
  for note in notes:
    print(f'note: {note}')
  if args.out:
    print(f'written: {args.out}')
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
