# SPDX-License-Identifier: Apache-2.0
"""Scores of a copy search in a folder, so that a killed one goes on.

  manifest.json      what the scores depend on: weights, model, options, videos,
                     and what computes
  <stage>/00000.npz  scores of one shard: `scores` float32 [q, n] of the targets
                     `records` int64 [n], and `made_by`, the manifest's sum

Each file appears whole or not at all, and depends on what the manifest names
only. Scores of another search are refused.
"""

from collections.abc import Mapping
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import re
from typing import Any
import zipfile

import jax
import numpy as np

from vidret_jax import sharding
from vidret_jax.search import copy_plan, copy_together
from vidret_jax.search import copy_reading as reading

FORMAT = 'vidret_jax copies'
VERSION = 1
MANIFEST = 'manifest.json'
LOCK = 'lock'
# So many bytes of features are read to tell other ones by.
_SAMPLE = 2**28
# Options that change neither a score nor which file it is in.
_FREE = ('readers', 'ahead', 'query_bytes')


class StaleScores(ValueError):
  """A folder with scores of another search, or a damaged one."""


def describe(
  model: Any,
  variables: Any,
  queries: reading.View,
  items: reading.View,
  options: copy_plan.Options,
) -> dict[str, Any]:
  """What scores depend on, as JSON values.

  Videos are known by ids, lengths and features: of all, if they are few, else
  of some from everywhere, since reading all of a large collection takes as long
  as searching it.

  Args:
    model: the system.
    variables: its weights, as numpy.
    queries: videos.
    items: videos.
    options: of the search.
  """
  weights = hashlib.sha256()
  for path, x in jax.tree_util.tree_leaves_with_path(variables):
    head = (sharding.path_name(path), str(x.dtype), x.shape)
    weights.update(repr(head).encode())
    weights.update(np.ascontiguousarray(x).tobytes())
  # Where a function lies in memory says nothing.
  name = re.sub(r' at 0x[0-9a-f]+', '', repr(model))
  kept = {f'option {k}': v for k, v in vars(options).items() if k not in _FREE}
  return json.loads(
    json.dumps(
      {
        'format': FORMAT,
        'version': VERSION,
        'platform': jax.default_backend(),
        'weights': weights.hexdigest()[:16],
        'model': hashlib.sha256(name.encode()).hexdigest()[:16],
        'queries': _videos(queries),
        'items': _videos(items),
        **kept,
      }
    )
  )


def _videos(view: reading.View) -> str:
  digest = hashlib.sha256()
  digest.update(json.dumps(list(view.ids)).encode())
  digest.update(np.asarray(view.lengths, '<i8').tobytes())
  digest.update(repr((view.regions, view.dim)).encode())
  for i in _sample(view):
    x = reading.read(view, int(i))
    digest.update(str(x.dtype).encode())
    digest.update(x.tobytes())
  return digest.hexdigest()[:16]


def _sample(view) -> np.ndarray:
  """Numbers of evenly spaced videos of about `_SAMPLE` bytes."""
  lengths = np.asarray(view.lengths, np.int64)
  found = np.flatnonzero(lengths > 0)
  size = int(lengths.sum()) * view.regions * view.dim * 4
  count = max(1, min(len(found), _SAMPLE * len(found) // size))
  return found[np.linspace(0, len(found) - 1, count).astype(int)]


class Shards:
  """The scores of a search, in a folder."""

  def __init__(self, folder: str | os.PathLike, about: Mapping[str, Any]):
    """Opens a folder, or makes it. All processes call this together.

    Args:
      folder: new, empty or of this search; the same for all processes.
      about: of `describe`.

    Raises:
      StaleScores: it is of another search, or another process works on it, or
        not all processes see it.
      copy_together.OthersFailed: one of these, in another process.
    """
    self._folder = pathlib.Path(folder)
    self._about = dict(about)
    text = json.dumps(self._about, sort_keys=True)
    self._sum = hashlib.sha256(text.encode()).hexdigest()[:16]
    self._lock = None
    try:
      copy_together.together('the folder of scores', self._make)
      copy_together.together('the folder of scores', self._look)
    except BaseException:
      self.close()
      raise

  def _make(self):
    path = self._folder / MANIFEST
    self._check(path)
    if jax.process_index() == 0:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._lock = self._take_lock()
      if not path.exists():
        text = json.dumps(self._about, indent=1, sort_keys=True)
        _write(path, lambda file: file.write(f'{text}\n'.encode()))

  def _look(self):
    path = self._folder / MANIFEST
    if not path.exists():
      raise StaleScores(
        f'{path} is not there for process {jax.process_index()}: all processes '
        'must see the same folder.'
      )
    self._check(path)

  def has(self, stage: str, shard: copy_plan.Shard) -> bool:
    """Whether the scores of a shard are there."""
    return self._path(stage, shard).exists()

  def write(
    self, stage: str, shard: copy_plan.Shard, scores: np.ndarray
  ) -> None:
    """Adds the scores of a shard, float32 [q, n], in one step."""
    path = self._path(stage, shard)
    path.parent.mkdir(exist_ok=True)
    arrays = dict(
      scores=scores, records=shard.records, made_by=np.array(self._sum)
    )
    _write(path, lambda file: np.savez(file, **arrays))

  def read(
    self, stage: str, shard: copy_plan.Shard, queries: int
  ) -> np.ndarray:
    """Scores of a shard, float32 [queries, n].

    Raises:
      StaleScores: they are damaged, absent, or of another search.
    """
    path = self._path(stage, shard)
    again = 'Delete this file and search again: only it is computed anew.'
    try:
      with np.load(path, allow_pickle=False) as file:
        scores, records = file['scores'], file['records']
        made_by = str(file['made_by'])
    except FileNotFoundError as e:
      raise StaleScores(
        f'{path} is absent. Do all processes see the same folder?'
      ) from e
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as e:
      raise StaleScores(
        f'{path} is damaged: {type(e).__name__}: {e}. {again}'
      ) from e
    if made_by != self._sum:
      raise StaleScores(
        f'{path} was made by search {made_by}, this is {self._sum}. {again}'
      )
    want = (queries, len(shard.records))
    if (
      scores.shape != want
      or scores.dtype != np.float32
      or not np.array_equal(records, shard.records)
    ):
      raise StaleScores(
        f'{path} has scores {scores.dtype} {list(scores.shape)} of '
        f'{len(records)} targets, expected float32 {list(want)} of shard '
        f'{shard.number}. {again}'
      )
    return scores

  def close(self) -> None:
    """Lets others work on the folder."""
    if self._lock is not None:
      self._lock.close()

  def _path(self, stage, shard):
    return self._folder / stage / f'{shard.number:05d}.npz'

  def _check(self, path):
    """Raises StaleScores if there is a manifest of something else."""
    if not path.exists():
      others = self._folder.is_dir() and [
        p.name
        for p in self._folder.iterdir()
        if p.name not in (LOCK, f'{MANIFEST}.part')
      ]
      if others or self._folder.exists() and not self._folder.is_dir():
        raise StaleScores(
          f'{self._folder} exists and has no {MANIFEST}: it holds no scores. '
          'Name a new folder.'
        )
      return
    try:
      found = json.loads(path.read_bytes())
      if not isinstance(found, dict):
        raise ValueError(f'it holds a {type(found).__name__}')
    except ValueError as e:
      raise StaleScores(
        f'{path} is damaged: {e}. Name a new folder, or delete this one.'
      ) from e
    keys = sorted({*found, *self._about})
    lines = [
      f'  {key}: the folder has {found.get(key)!r}, here it is '
      f'{self._about.get(key)!r}'
      for key in keys
      if found.get(key) != self._about.get(key)
    ]
    if lines:
      raise StaleScores(
        f'{self._folder} holds scores of another search:\n'
        + '\n'.join(lines)
        + '\nName another folder, or delete this one.'
      )

  def _take_lock(self):
    file = open(self._folder / LOCK, 'ab')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.close()
      raise StaleScores(
        f'another process searches into {self._folder} now; wait until it is '
        'done.'
      ) from None
    except OSError as e:
      # Some network file systems know no locks.
      logging.getLogger(__name__).warning(
        '%s cannot be locked (%s): see that no other search writes there',
        *(self._folder, e.strerror),
      )
    return file


def _write(path: pathlib.Path, fill) -> None:
  """Writes a file that is there whole or not at all, even after a power cut."""
  part = path.with_name(path.name + '.part')
  try:
    with open(part, 'wb') as file:
      fill(file)
      file.flush()
      os.fsync(file.fileno())
  except OSError as e:
    part.unlink(missing_ok=True)
    raise OSError(
      e.errno,
      f'{e.strerror}: scores cannot be kept. Make room, and search again: what '
      'is done is not done again',
      str(path),
    ) from e
  part.replace(path)
  place = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(place)
  finally:
    os.close(place)
