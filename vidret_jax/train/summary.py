# SPDX-License-Identifier: Apache-2.0
"""What a person sees: parameters, progress, the table at the end."""

import io
import logging as stdlib_logging
import math
import os
import sys
import time

from absl import logging
import jax
from rich import box
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)
from rich.table import Table

from vidret_jax import sharding
from vidret_jax.metrics import names as names_lib

# Without a terminal, one line of progress per so many seconds.
_QUIET_SECONDS = 15.0


def set_up_logging():
  """Logs our own progress briefly, and of the libraries only warnings.

  Orbax and TensorFlow log through absl too, dozens of lines per checkpoint.
  """
  ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

  def wanted(record):
    if record.pathname.startswith(ours):
      return record.levelno >= stdlib_logging.WARNING or (
        jax.process_index() == 0
      )
    record.exc_info = None  # We raise, with fewer words, what they report.
    if 'orbax' in record.pathname:  # It warns of every save without metrics.
      return record.levelno >= stdlib_logging.ERROR
    return record.levelno >= stdlib_logging.WARNING

  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.addFilter(wanted)
  handler.setFormatter(
    stdlib_logging.Formatter('%(asctime)s %(levelname).1s %(message)s', '%X')
  )


def log_parameters(params, workdir):
  """Logs the parameters by module; parameters.txt lists every tensor.

  Args:
    params: tree of arrays.
    workdir: of the run; gets the file.
  """
  modules, every = {}, []
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    name, size = sharding.path_name(path), math.prod(x.shape)
    split = str(tuple(x.sharding.spec)) if x.sharding.spec else ''
    every.append((name, tuple(x.shape), x.dtype, f'{size:,}', split))
    count, total = modules.get(name.split('/')[0], (0, 0))
    modules[name.split('/')[0]] = count + 1, total + size
  listing = _table('parameter shape type size split', every)
  with open(os.path.join(workdir, 'parameters.txt'), 'w') as f:
    f.write(listing)
  brief = [(name, n, f'{size:,}') for name, (n, size) in modules.items()]
  logging.info(
    'parameters:\n%s%s in all; parameters.txt lists every tensor',
    _table('module tensors parameters', brief),
    f'{sum(size for _, size in modules.values()):,}',
  )


def _table(columns, rows):
  """Text of a plain table; numbers stand to the right."""
  table = Table(box=box.SIMPLE)
  for i, name in enumerate(columns.split()):
    number = rows and str(rows[0][i]).replace(',', '').isdigit()
    table.add_column(name, justify='right' if number else 'left')
  for row in rows:
    table.add_row(*map(str, row))
  console = Console(file=io.StringIO(), width=100)
  console.print(table)
  return console.file.getvalue()


class Bar:
  """A progress bar on a terminal, else a line now and then in the log."""

  def __init__(self, total, start, batch_size, visible=True):
    self._total, self._batch_size, self._visible = total, batch_size, visible
    self._bar, self._told = None, time.monotonic()
    self._clock = time.monotonic(), start
    if visible and sys.stderr.isatty():
      self._bar = Progress(
        TextColumn('step'),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn('{task.description}'),
        console=Console(stderr=True),
      )
      self._task = self._bar.add_task('', total=total, completed=start)
      self._bar.start()

  def update(self, step):
    """Moves the bar."""
    if self._bar:
      self._bar.update(self._task, completed=step)

  def tell(self, step, loss):
    """Shows the loss and the speed since the last call, and returns it."""
    now, (before, done) = time.monotonic(), self._clock
    speed = (step - done) * self._batch_size / max(now - before, 1e-9)
    self._clock = now, step
    text = f'loss {loss:.4g}  {speed:.0f} examples/s'
    if self._bar:
      self._bar.update(self._task, description=text)
    elif self._visible and now - self._told > _QUIET_SECONDS:
      self._told = now
      logging.info('step %d of %d  %s', step, self._total, text)
    return {'time/examples_per_second': speed}

  def close(self):
    """Leaves the terminal as it was."""
    if self._bar:
      self._bar.stop()


def one_line(results):
  """'val/t2v_R@1 12.3  ...' for the log."""
  return '  '.join(f'{k} {v:.4g}' for k, v in results.items())


def print_results(results, title, caveats=(), look=()):
  """Prints the final table.

  Args:
    results: {'<evaluator>/<direction>_<name>': value}.
    title: which weights these are.
    caveats: sentences to print under every number.
    look: lines that say where files are.
  """
  console = Console()
  rows, rest = {}, {}
  for key, value in results.items():
    where, _, name = key.rpartition('/')
    place = names_lib.place(name)
    if place is None:
      rest[key] = value
    else:
      rows.setdefault((where, place[0]), {})[place[1]] = value
  if rows:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in ('eval', 'direction'):
      table.add_column(name)
    shown = [m for m in names_lib.COLUMNS if any(m in r for r in rows.values())]
    for name in shown:
      table.add_column(name, justify='right')
    for (where, direction), row in rows.items():
      cells = [f'{row[m]:.1f}' if m in row else '' for m in shown]
      table.add_row(where, direction, *cells)
    console.print(table)
  for key, value in rest.items():
    console.print(f'{key} {value:.4g}', highlight=False)
  for line in (*caveats, *look):
    console.print(line, highlight=False, soft_wrap=True, markup=False)
