# SPDX-License-Identifier: Apache-2.0
"""Where the time of a profiled run went, operation by operation.

  python -m vidret_jax.main ... --workdir runs/ce --profile 20:30
  python -m vidret_jax.tools.profile runs/ce
  python -m vidret_jax.tools.profile runs/ce --top 40 --by module

Reads the newest XLA trace below the folder. Time is that of an operation
itself, without the operations inside it (a loop's body is counted once); on
several devices or threads it adds up, so the sum may exceed the span. The
same folder opens in TensorBoard and, as trace.json.gz, in Perfetto.
"""

import argparse
import collections
import dataclasses
import pathlib
import re
import sys

from rich import box
from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Op:
  """One execution of an operation of a compiled program.

  Attributes:
    module: the program, as `jit_update`.
    name: the operation, as `fusion.12`.
    start: nanoseconds.
    own: nanoseconds without the operations inside it.
    duration: nanoseconds.
  """

  module: str
  name: str
  start: float
  own: float
  duration: float


def newest_traces(folder):
  """The files of the newest trace below a folder, one per process.

  Raises:
    FileNotFoundError: there is none.
  """
  found = sorted(
    pathlib.Path(folder).rglob('*.xplane.pb'), key=lambda p: p.stat().st_mtime
  )
  if not found:
    raise FileNotFoundError(
      f'no *.xplane.pb below {folder}: train with --profile START:STOP first'
    )
  # The processes of one run write into one folder.
  return [p for p in found if p.parent == found[-1].parent]


def read(path):
  """The operations of one trace file, as a list of `Op`."""
  from jax.profiler import ProfileData

  lines = [
    (plane.name.startswith('/device:'), line)
    for plane in ProfileData.from_file(str(path)).planes
    for line in plane.lines
  ]
  ops = [(device, op) for device, line in lines for op in ops_of(line)]
  # With an accelerator, the host's lines only say what was launched.
  accelerated = any(device for device, _ in ops)
  return [op for device, op in ops if device or not accelerated]


def ops_of(line):
  """Yields the operations of one line of a trace with their own times."""
  events = []
  for event in line.events:
    stats = dict(event.stats)
    name = stats.get('hlo_op')
    if name is None and line.name == 'XLA Ops':
      name = event.name.split(' = ')[0].lstrip('%')
    if name is not None:
      module = re.sub(r'\(\d+\)$', '', str(stats.get('hlo_module', '')))
      events.append((event.start_ns, -event.duration_ns, module, str(name)))
  inside = collections.Counter()
  open_ones = []
  events.sort()
  for i, (start, negative, _, _) in enumerate(events):
    while open_ones and start >= open_ones[-1][0]:
      open_ones.pop()
    if open_ones:
      inside[open_ones[-1][1]] -= negative
    open_ones.append((start - negative, i))
  for i, (start, negative, module, name) in enumerate(events):
    yield Op(module, name, start, max(0.0, -negative - inside[i]), -negative)


def kind(name):
  """`loop_fusion.12.clone` -> `loop_fusion`: the operation without number."""
  return re.sub(r'(\.\d+|\.clone|\.remat\d*)+$', '', name)


def totals(ops, by):
  """Sums own times.

  Args:
    ops: list of `Op`.
    by: 'op', 'kind' or 'module'.

  Returns:
    List of (label, executions, nanoseconds), largest first.
  """
  label = {
    'op': lambda op: f'{op.module}/{op.name}' if op.module else op.name,
    'kind': lambda op: kind(op.name),
    'module': lambda op: op.module or '(none)',
  }[by]
  count, time = collections.Counter(), collections.Counter()
  for op in ops:
    count[label(op)] += 1
    time[label(op)] += op.own
  return [(key, count[key], ns) for key, ns in time.most_common()]


def print_report(ops, by, top, console):
  """Prints the span of the trace and its largest entries."""
  span = max(o.start + o.duration for o in ops) - min(o.start for o in ops)
  rows = totals(ops, by)
  total = sum(ns for _, _, ns in rows)
  console.print(
    f'{len(ops):,} operations in {span / 1e6:,.1f} ms, {total / 1e6:,.1f} ms '
    'of work on all devices and threads together'
  )
  table = Table(box=box.SIMPLE)
  table.add_column(by, overflow='fold')
  for name in ('times', 'ms', 'ms each', '%'):
    table.add_column(name, justify='right')
  for label, count, ns in rows[:top]:
    table.add_row(
      *(label, f'{count:,}', f'{ns / 1e6:,.2f}', f'{ns / count / 1e6:,.3f}'),
      f'{100 * ns / total:.1f}',
    )
  console.print(table)
  if len(rows) > top:
    rest = sum(ns for _, _, ns in rows[top:])
    console.print(
      f'and {len(rows) - top:,} more with {100 * rest / total:.1f} %'
    )


def main(argv=None):
  """Returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', help='workdir of a run, or a trace folder')
  parser.add_argument('--by', choices=['op', 'kind', 'module'], default='op')
  parser.add_argument('--top', type=int, default=20, help='rows to print')
  args = parser.parse_args(argv)
  try:
    paths = newest_traces(args.folder)
  except FileNotFoundError as error:
    print(f'profile: {error}', file=sys.stderr)
    return 1
  ops = [op for path in paths for op in read(path)]
  if not ops:
    print(
      f'profile: {paths[0]} has no operation of a compiled program: was any '
      'step inside the profiled range?',
      file=sys.stderr,
    )
    return 1
  console = Console(width=None if sys.stdout.isatty() else 100)
  console.print(f'{paths[0].parent}')
  print_report(ops, args.by, args.top, console)
  return 0


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
