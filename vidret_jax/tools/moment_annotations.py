# SPDX-License-Identifier: Apache-2.0
r"""Converts published moment annotations to the form of the TVR release.

  python -m vidret_jax.tools.moment_annotations --dataset activitynet \
      --out data/ActivityNetCaptions train.json val_1.json val_2.json
  python -m vidret_jax.tools.moment_annotations --dataset charades \
      --out data/CharadesSTA charades_sta_train.txt charades_sta_test.txt \
      --durations Charades_v1_train.csv Charades_v1_test.csv
  python -m vidret_jax.tools.moment_annotations --dataset didemo \
      --out data/DiDeMo train_data.json val_data.json test_data.json
  python -m vidret_jax.tools.moment_annotations --dataset own \
      --out data/mine train.csv val.csv --durations videos/

Tables of your own have the columns video, start, end, sentence, and duration if
--durations does not tell: a table, a JSON object or the folder of the videos.

Writes <dataset>_<split>_release.jsonl and <dataset>_video2dur_idx.json. Files
under other names: SPLIT=FILE. Moments that cannot be are repaired and counted,
none is left out.
"""

import argparse
from collections.abc import Sequence
import contextlib
import os
import pathlib
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vidret_jax.data import (
  moment_annotations,
  moment_release,
  video_seconds,
  whole_files,
)
from vidret_jax.data.moments import layout

# Dataset -> published file -> split.
FILES = {
  'activitynet': {
    'train.json': 'train',
    'val_1.json': 'val',
    'val_2.json': 'test',
  },
  'charades': {
    'charades_sta_train.txt': 'train',
    'charades_sta_test.txt': 'test',
  },
  'didemo': {
    'train_data.json': 'train',
    'val_data.json': 'val',
    'test_data.json': 'test',
  },
  'own': {'train.csv': 'train', 'val.csv': 'val', 'test.csv': 'test'},
}
_SHOWN = 3  # Videos in a list of repairs.


def convert(args: argparse.Namespace) -> list[tuple[pathlib.Path, dict]]:
  """Does what the command line says.

  Returns:
    Per split the file of annotations and what there is to tell of it.

  Raises:
    ValueError: a file that does not say what it has to.
    OSError: one that is not there, or one that is there already.
  """
  out = pathlib.Path(args.out)
  name = args.name or args.dataset
  files = _splits(args)
  paths = {split: out / f'{name}_{split}_release.jsonl' for split in files}
  table_path = out / f'{name}_video2dur_idx.json'
  for path in (*paths.values(), table_path):
    whole_files.refuse_existing(path, args.overwrite)
  durations = None
  if args.durations:
    durations = video_seconds.read(args.durations)
  queries = {s: _read(args.dataset, f, durations) for s, f in files.items()}
  rows, tables, repairs = moment_release.release(queries)
  with contextlib.ExitStack() as stack:
    # All of them appear, or none does.
    for split, path in paths.items():
      target = stack.enter_context(whole_files.partial(path, args.overwrite))
      whole_files.write_lines(target, rows[split])
    target = stack.enter_context(
      whole_files.partial(table_path, args.overwrite)
    )
    whole_files.write_json(target, tables)
  found = [
    (
      paths[split],
      dict(
        videos=len(tables[split]),
        queries=len(rows[split]),
        repairs=repairs[split],
      ),
    )
    for split in files
  ]
  videos = len({v for table in tables.values() for v in table})
  return [*found, (table_path, dict(videos=videos))]


def _read(dataset, path, durations):
  if dataset == 'activitynet':
    return moment_annotations.activitynet(path)
  return getattr(moment_annotations, dataset)(path, durations)


def _splits(args):
  """Split -> file, as the names say."""
  found = {}
  for given in args.files:
    split, is_named, path = given.partition('=')
    if not is_named:
      path = given
      split = FILES[args.dataset].get(os.path.basename(path))
    if split is None:
      raise ValueError(
        f'{path}: of which split is it? Expected one of '
        f'{list(FILES[args.dataset])}, or SPLIT={path}.'
      )
    layout.split_of(split)
    if split in found:
      raise ValueError(
        f'{path} and {found[split]} are both {split}. Give one of them.'
      )
    found[split] = path
  return found


def tell(found: list[tuple[pathlib.Path, dict]], console: Console) -> None:
  """Prints what was written, and what was repaired."""
  table = Table()
  table.add_column('file', overflow='fold')
  for column in ('videos', 'queries', 'size'):
    table.add_column(column, justify='right')
  for path, facts in found:
    size = os.path.getsize(path) / 2**20
    queries = f'{facts["queries"]:,}' if 'queries' in facts else ''
    table.add_row(
      *(escape(str(path)), f'{facts["videos"]:,}', queries, f'{size:,.1f} MiB')
    )
  console.print(table)
  for path, facts in found:
    repairs = facts.get('repairs')
    for videos, what in (
      (repairs and repairs.swapped, 'ended before they started, turned round'),
      (repairs and repairs.cut, 'reached beyond the video, cut'),
      (repairs and repairs.empty, 'have no length, no answer can hit them'),
    ):
      if videos:
        such = ', '.join(dict.fromkeys(videos[: 4 * _SHOWN]))
        console.print(
          escape(f'{path.name}: {len(videos):,} moments {what} ({such})'),
          highlight=False,
          soft_wrap=True,
        )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line, checked for what belongs together."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('files', nargs='+', metavar='[SPLIT=]FILE', help='as published')
  add('--dataset', required=True, choices=sorted(FILES))
  add('--out', required=True, help='folder to write to')
  add('--name', help='how files begin; default: the dataset')
  add(
    *('--durations',),
    nargs='+',
    metavar='FILE',
    help='seconds of videos, CSV or JSON, or the folder of the videos; for '
    'charades its two tables; didemo takes 5 s a segment if you have none',
  )
  add('--overwrite', action='store_true')
  args = parser.parse_args(argv)
  if args.dataset == 'charades' and not args.durations:
    parser.error(
      'charades needs --durations Charades_v1_train.csv Charades_v1_test.csv'
    )
  if args.dataset == 'activitynet' and args.durations:
    parser.error('the files of activitynet have durations; drop --durations')
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  try:
    found = convert(args)
  except (ValueError, OSError) as error:
    print(f'moment_annotations: {error}', file=sys.stderr)
    return 1
  tell(found, Console(width=None if sys.stdout.isatty() else 100))
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
