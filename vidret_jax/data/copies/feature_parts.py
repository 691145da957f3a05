# SPDX-License-Identifier: Apache-2.0
"""Features of many videos, written part by part and joined at the end.

HDF5 files do not survive a kill while they are written. So videos go into small
files, `<out>.parts/<key>.hdf5`, each of which appears when it is whole; what is
in them is done. The end result is put together from them, and takes its name
when it is whole.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
from typing import Any
import uuid

import numpy as np

from vidret_jax.data import bad_file, hdf5_files, whole_files

REGIONS, LABELS = KINDS = ('regions', 'labels')
# 'flat': datasets of regions at the root, as the MeVer group publishes them;
# 'cache': groups `regions` and `labels` of them.
LAYOUTS = ('flat', 'cache')
_SETTINGS, _UNREADABLE = 'settings.json', 'unreadable'
_ENDING, _PARTIAL = '.hdf5', '.partial'


@dataclasses.dataclass
class Done:
  """What the parts hold.

  Attributes:
    frames: video -> number of its frames.
    part: video -> the part that it is in.
    unreadable: video -> why it could not be read.
  """

  frames: dict[str, int] = dataclasses.field(default_factory=dict)
  part: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


class Parts:
  """The parts of one file; many processes may write them at the same time."""

  def __init__(self, out: str | os.PathLike):
    """Takes the path of the file that they are parts of."""
    self.out = pathlib.Path(out)
    self.folder = self.out.with_name(f'{self.out.name}.parts')

  @contextlib.contextmanager
  def begun(self, settings: Mapping[str, Any]) -> Iterator[None]:
    """Makes the folder, or goes on in it, as the only one that does.

    Args:
      settings: JSON values that features depend on.

    Raises:
      ValueError: parts are there of other settings, or another run is at them.
    """
    with begun(self.folder, settings):
      for left in self.folder.glob(f'*{_PARTIAL}'):
        left.unlink()
      yield

  def done(self) -> Done:
    """Looks into all parts.

    Raises:
      bad_file.BadFile: one is damaged.
    """
    done = Done()
    for path in sorted(self.folder.glob(f'*{_ENDING}')):
      try:
        with hdf5_files.open_file(path) as file, hdf5_files.readable(path):
          text = file[_UNREADABLE].asstr()[()]
          done.unreadable.update(json.loads(text))
          for name, item in file[REGIONS].items():
            done.frames[name], done.part[name] = len(item), path
      except ValueError as error:
        raise bad_file.BadFile(
          f'{path}: is damaged ({str(error)[:200]}). Remove it: its videos are '
          'extracted again.'
        ) from None
    for name in done.frames:
      done.unreadable.pop(name, None)
    return done

  def write(self, key: str | None = None) -> 'Part':
    """A new part; a key that is there already is replaced."""
    return Part(self.folder, key or uuid.uuid4().hex)

  def join(
    self,
    layout: str,
    done: Done,
    overwrite: bool = False,
    look: Callable[[], None] = lambda: None,
  ) -> None:
    """Makes the file and removes the parts.

    Args:
      layout: one of `LAYOUTS`.
      done: what the parts hold.
      overwrite: replace a file that is there.
      look: is told of every video.

    Raises:
      FileExistsError: the file is there.
      bad_file.BadFile: a part is damaged.
    """
    import h5py

    whole_files.refuse_existing(self.out, overwrite)
    temporary = self.folder / f'whole{_PARTIAL}'
    by_part: dict[pathlib.Path, list[str]] = {}
    for name, path in done.part.items():
      by_part.setdefault(path, []).append(name)
    kinds = (REGIONS,) if layout == 'flat' else KINDS
    with h5py.File(temporary, 'w') as out:
      for path, names in by_part.items():
        with hdf5_files.open_file(path) as part, hdf5_files.readable(path):
          for name in names:
            for kind in kinds:
              if name not in part[kind]:
                continue
              target = out if layout == 'flat' else out.require_group(kind)
              part[kind].copy(name, target, name)
            look()
    os.replace(temporary, self.out)
    shutil.rmtree(self.folder)


class Part:
  """One part; a context that makes it appear, unless something is raised."""

  def __init__(self, folder: pathlib.Path, key: str):
    """Takes the folder and a name for the part."""
    import h5py

    self._path = folder / f'{key}{_ENDING}'
    self._temporary = folder / f'{key}.{uuid.uuid4().hex}{_PARTIAL}'
    self._file = h5py.File(self._temporary, 'w')
    for kind in KINDS:
      self._file.create_group(kind)
    self.unreadable: dict[str, str] = {}
    self.size = 0  # Bytes of features.

  def add(self, name: str, features: Mapping[str, np.ndarray]) -> None:
    """Takes `regions` [t, r, d] of a video, and perhaps `labels` [t, l].

    Raises:
      ValueError: a number that is not finite.
    """
    for kind, rows in features.items():
      if not np.isfinite(rows).all():
        raise ValueError(
          f'{kind} of video {name!r} have NaN or Inf: are the weights of the '
          'network damaged, or is float16 too narrow for them?'
        )
      self._file[kind].create_dataset(name, data=rows)
      self.size += rows.nbytes

  def __enter__(self) -> 'Part':
    return self

  def __exit__(self, kind, error, trace):
    try:
      if kind is None:
        self._file[_UNREADABLE] = json.dumps(self.unreadable)
      self._file.close()
      if kind is None:
        os.replace(self._temporary, self._path)
    finally:
      self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def begun(folder: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[None]:
  """Makes a folder, or goes on in it, as the only one that does.

  Args:
    folder: of the work.
    settings: JSON values that its results depend on.

  Raises:
    ValueError: it was begun with other settings, or another run is at it.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with _locked(folder):
    file = folder / _SETTINGS
    given = json.loads(json.dumps(settings))
    if file.exists():
      _check_settings(file, given)
    else:
      whole_files.write_json(file, given)
    yield


def _check_settings(file, given):
  before = whole_files.read_json(file, dict)
  if differ := sorted(
    key for key in {*before, *given} if before.get(key) != given.get(key)
  ):
    lines = [
      f'  {key}: {before.get(key)!r} before, {given.get(key)!r} now'
      for key in differ
    ]
    raise ValueError(
      f'{file.parent} was begun with other settings:\n'
      + '\n'.join(lines)
      + '\nGive the former ones, or remove this folder to begin anew.'
    )


@contextlib.contextmanager
def _locked(folder):
  with open(folder / 'lock', 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise ValueError(
        f'{folder}: another run is writing there. Wait for it, or end it.'
      ) from None
    yield
