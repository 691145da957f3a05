# SPDX-License-Identifier: Apache-2.0
"""Run folders of the original RANP: which checkpoint its authors evaluate.

<run>/model.json                     options of the network
<run>/log/val.epoch.<e>.step.<s>.json    metrics of model/epoch.<e>.th
<run>/log/val.step.<s>.json              metrics of model/step.<s>.th
<run>/pred/<set>/scores.csv              which checkpoint was evaluated
"""

from collections.abc import Mapping
import csv
import json
import math
import os
import pathlib
import re

# Upstream's default, even where the name of a run says nDCG.
METRIC = 'rsum'
# Metrics whose names contain one of these are better when they are small.
_LOWER = ('loss', 'medr', 'meanr')
_LOG = re.compile(r'val\.(?:epoch\.(\d+)\.)?step\.(\d+)\.json')


class RunFolderError(ValueError):
  """A run folder of the original that cannot be used as it is."""


def is_one(folder: str | os.PathLike) -> bool:
  """Whether a folder looks like a run of the original."""
  folder = pathlib.Path(folder)
  return (folder / 'model.json').is_file() and (folder / 'model').is_dir()


def checkpoint(log: str) -> str:
  """The checkpoint of a log: 'epoch.1.th' of 'val.epoch.1.step.9.json'.

  Raises:
    RunFolderError: not the name of a log.
  """
  found = _LOG.fullmatch(log)
  if not found:
    raise RunFolderError(
      f'{log}: expected val.epoch.<e>.step.<s>.json or val.step.<s>.json'
    )
  epoch, step = found.groups()
  return f'step.{step}.th' if epoch is None else f'epoch.{epoch}.th'


def best(logs: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
  """The best checkpoints by every metric, all of them where they are equal.

  Args:
    logs: name of a log -> its metrics.

  Returns:
    {metric: checkpoints, by step}, in the order of the metrics in the logs.
    Values that are not finite are never the best.
  """
  ordered = sorted(logs, key=_order)
  metrics = dict.fromkeys(name for log in ordered for name in logs[log])
  out = {}
  for metric in metrics:
    sign = -1 if any(part in metric for part in _LOWER) else 1
    values = {
      log: sign * logs[log][metric]
      for log in ordered
      if math.isfinite(logs[log].get(metric, math.nan))
    }
    top = max(values.values(), default=None)
    # A step may be logged twice: after it, and after the epoch it ends.
    found = [checkpoint(log) for log, value in values.items() if value == top]
    if found:
      out[metric] = list(dict.fromkeys(found))
  return out


def _order(log):
  checkpoint(log)
  epoch, step = _LOG.fullmatch(log).groups()
  return int(step), epoch is None, log


def groups(logs: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
  """Checkpoints by the metrics they are best at, joined with '-'.

  Among equals upstream takes the file that the folder lists first; here it is
  the earliest.
  """
  by_checkpoint = {}
  for metric, found in best(logs).items():
    by_checkpoint.setdefault(found[0], []).append(metric)
  return {'-'.join(metrics): name for name, metrics in by_checkpoint.items()}


def read_logs(folder: str | os.PathLike) -> dict[str, dict[str, float]]:
  """The validation logs of a run: {file name: metrics}.

  Raises:
    FileNotFoundError: there are none.
    RunFolderError: one cannot be read.
  """
  place = pathlib.Path(folder) / 'log'
  files = sorted(place.glob('val.*.json'))
  if not files:
    raise FileNotFoundError(
      f'{place}: no val.*.json. Without them nothing says which checkpoint '
      'is the best; name the file instead of the folder.'
    )
  return {file.name: _metrics(file) for file in files}


def _metrics(path):
  metrics = read_json(path)
  for name, value in metrics.items():
    if not isinstance(value, float) and type(value) is not int:
      raise RunFolderError(f'{path}: {name!r} is no number')
    if abs(value) > 1e300:  # Python's integers have no bound, floats do.
      metrics[name] = math.nan
  return metrics


def read_json(path: str | os.PathLike) -> dict:
  """An object in a JSON file.

  Raises:
    FileNotFoundError: no such file.
    RunFolderError: not JSON, or not an object.
  """
  try:
    with open(path, encoding='utf-8') as file:
      value = json.load(file)
  except (ValueError, RecursionError) as error:
    raise RunFolderError(f'{path}: not JSON ({error})') from error
  if not isinstance(value, dict):
    raise RunFolderError(
      f'{path}: expected an object, found {type(value).__name__}'
    )
  return value


def selected(folder: str | os.PathLike, metric: str = METRIC) -> pathlib.Path:
  """The checkpoint that upstream evaluates: the best by one metric.

  Where several are equally good, upstream takes the one that the file system
  happens to list first. If the run holds its scores, they tell which one that
  was; otherwise it is the earliest here.

  Raises:
    FileNotFoundError: no logs, or no such checkpoint.
    RunFolderError: unreadable logs, or no such metric in them.
  """
  folder = pathlib.Path(folder)
  found = best(read_logs(folder))
  if metric not in found:
    raise RunFolderError(
      f'{folder / "log"}: no metric {metric!r}; there are: {", ".join(found)}'
    )
  equal = found[metric]
  recorded = [name for name in evaluated(folder, metric) if name in equal]
  path = folder / 'model' / (recorded or equal)[0]
  if not path.is_file():
    raise FileNotFoundError(
      f'{path}: no such checkpoint, but it is the best by {metric} in '
      f'{folder / "log"}. Name another file, or another metric.'
    )
  return path


def evaluated(folder: str | os.PathLike, metric: str = METRIC) -> list[str]:
  """Checkpoints that upstream evaluated as the best by a metric."""
  out = []
  for path in sorted(pathlib.Path(folder).glob('pred/*/scores.csv')):
    try:
      with open(path, encoding='utf-8', newline='') as file:
        rows = list(csv.reader(file))[1:]
    except (ValueError, csv.Error) as error:
      raise RunFolderError(f'{path}: not readable ({error})') from error
    # Names of metrics, checkpoint, values; the header lacks the first two.
    out += [r[1] for r in rows if len(r) > 2 and metric in r[0].split('-')]
  return out
