# SPDX-License-Identifier: Apache-2.0
"""Where numbers go: metrics.jsonl always, TensorBoard where it is installed.

The only file that knows clu, and, with `data/`, TensorFlow.
"""

import contextlib
import importlib.util
import json
import os
import sys

from absl import logging


def hide_accelerators():
  """Keeps TensorFlow, which only reads data, away from GPUs and TPUs."""
  if importlib.util.find_spec('tensorflow') is None:
    return
  with _quiet():
    import tensorflow as tf

    for kind in ('GPU', 'TPU'):
      tf.config.set_visible_devices([], kind)


@contextlib.contextmanager
def _quiet():
  """Drops what C++ writes to stderr while TensorFlow is loaded.

  It remarks on absent GPUs before its log level can be set.
  """
  sys.stderr.flush()
  keep = os.dup(2)
  try:
    with open(os.devnull, 'w') as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(keep, 2)
    os.close(keep)


class Writer:
  """Writes scalars of one run; only process 0 is active.

  `metrics.jsonl` has one JSON object per line: `step`, then scalars by name.
  Its content is a function of config and data alone: no times, no rates, and
  after a restart no line twice. Times go to TensorBoard and the log.
  """

  def __init__(self, workdir, step, active=True):
    """Opens the files to go on after `step`, dropping what came later.

    Args:
      workdir: of the run.
      step: the restored step; 0 for a new run.
      active: False makes every method do nothing.
    """
    self.path = os.path.join(workdir, 'metrics.jsonl')
    self._file = self._board = None
    if not active:
      return
    rows = [r for r in read(self.path) if r['step'] <= step and _lasting(r)]
    with self._errors():
      with open(self.path + '.tmp', 'w') as f:
        f.writelines(_line(r) for r in rows)
        f.flush()
        os.fsync(f.fileno())
      os.replace(self.path + '.tmp', self.path)
      self._file = open(self.path, 'a')
    self._board = _board(os.path.join(workdir, 'tb'))

  def write(self, step, scalars, **labels):
    """Appends one row; TensorBoard does not get the labels."""
    if self._file is None:
      return
    scalars = {k: float(v) for k, v in scalars.items()}
    with self._errors():
      self._file.write(_line({'step': int(step), **labels, **scalars}))
    self.write_times(step, scalars)

  def write_times(self, step, scalars):
    """Writes scalars that differ from run to run: TensorBoard only."""
    self._on_board('write_scalars', int(step), scalars)

  def flush(self):
    """Brings everything written so far to the disk."""
    if self._file is None:
      return
    with self._errors():
      self._file.flush()
      os.fsync(self._file.fileno())
    self._on_board('flush')

  def close(self):
    """Flushes and closes."""
    self.flush()
    if self._file is not None:
      self._file.close()
    self._on_board('close')
    self._file = self._board = None

  @contextlib.contextmanager
  def _errors(self):
    """Says which file could not be written, once; closes it."""
    try:
      yield
    except OSError as e:
      self._file = None
      raise OSError(
        f'writing {self.path} failed: {e.strerror}. The checkpoints are whole: '
        'free space, then start the same command again'
      ) from e

  def _on_board(self, method, *args):
    """TensorBoard is a convenience: if it fails, the run goes on without."""
    if self._board is None:
      return
    try:
      getattr(self._board, method)(*args)
    except Exception as e:
      self._board = None
      logging.warning('no more TensorBoard files: %s', e)


def read(path):
  """The rows of a metrics.jsonl; a last line cut short is left out."""
  if not os.path.exists(path):
    return []
  rows = []
  with open(path) as f:
    for line in f:
      try:
        rows.append(json.loads(line))
      except ValueError:
        break
  return rows


def at_step(path, step):
  """All scalars that were written at one step, final evaluations aside."""
  out = {}
  for row in read(path):
    if row['step'] == step and _lasting(row):
      out |= {k: v for k, v in row.items() if k != 'step'}
  return out


def write_results(workdir, title, results, caveats):
  """Writes results.json, the end of a run in one file."""
  path = os.path.join(workdir, 'results.json')
  content = {'weights': title, 'metrics': results, 'caveats': caveats}
  with open(path + '.tmp', 'w') as f:
    json.dump(content, f, indent=2)
  os.replace(path + '.tmp', path)


def _lasting(row):
  """Rows of the final evaluation are written anew by every finished run."""
  return row.get('phase') != 'final'


def _line(row):
  return json.dumps(row) + '\n'


def _board(folder):
  """A TensorBoard writer, or None where clu or TensorFlow are absent."""
  try:
    from clu import metric_writers
    from clu.metric_writers import summary_writer

    return metric_writers.AsyncWriter(summary_writer.SummaryWriter(folder))
  except ImportError as e:
    logging.info('no TensorBoard files: %s', e)
    return None
