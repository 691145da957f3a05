# SPDX-License-Identifier: Apache-2.0
"""Makes the video features of moment retrieval, one video at a time.

Every function reads files that others made, checks all of them before it
writes, and calls `report(done, total)` while it works. What it returns says
what is in the new file.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import clip_files, clip_pooling, whole_files
from vidret_jax.data.moments import features as moment_features

_MIN_SECONDS, _MAX_SECONDS = 1e-3, 1e6
_SHOWN = 3  # Names in a note.
MASK = '-mask'  # Which clips have subtitles.

Path = str | os.PathLike
Report = Callable[[int, int], Any]


@dataclasses.dataclass
class Made:
  """A new file.

  Attributes:
    path: of it.
    what: its names stand for: 'videos' or 'queries'.
    names: how many.
    rows: of all of them.
    width: of a row.
    notes: what to know about it.
  """

  path: pathlib.Path
  what: str = 'videos'
  names: int = 0
  rows: int = 0
  width: int = 0
  notes: list[str] = dataclasses.field(default_factory=list)

  def add(self, rows: np.ndarray) -> None:
    """Counts what was written."""
    self.names += 1
    self.rows += len(rows)
    self.width = rows.shape[1]

  def note(self, what: str, names: Sequence[str]) -> None:
    """Remembers what happened to these names, if there are any."""
    if names:
      more = ', ...' if len(names) > _SHOWN else ''
      some = ', '.join(names[:_SHOWN])
      self.notes.append(f'{what}: {len(names):,} ({some}{more})')


def check_times(fps: float, first: float, max_seconds: float) -> None:
  """Refuses times of frames that cannot be.

  Raises:
    ValueError: naming the option.
  """
  for name, value in (('--fps', fps), ('--max-seconds', max_seconds)):
    if not 0 < value <= _MAX_SECONDS:
      raise ValueError(f'{name} {value:g}: expected a number above 0.')
  if not 0 <= first < max_seconds:
    raise ValueError(
      f'--first {first:g}: expected the time of the first frame in seconds.'
    )


def check_clip(clip_seconds: float) -> None:
  """Refuses lengths of clips that cannot be.

  Raises:
    ValueError: naming the option.
  """
  if not _MIN_SECONDS <= clip_seconds <= _MAX_SECONDS:
    raise ValueError(
      f'--clip-seconds {clip_seconds:g}: expected seconds, {_MIN_SECONDS:g} or '
      'more.'
    )


def pool(
  inputs: Sequence[Path],
  out: Path,
  *,
  kind: str = 'max',
  fps: float = 3.0,
  first: float = 0.1,
  clip_seconds: float = 1.5,
  max_seconds: float = 300.0,
  overwrite: bool = False,
  report: Report = lambda done, total: None,
) -> Made:
  """Frame features to clip features; see `clip_pooling.pool_frames`.

  Raises:
    ValueError: frames further apart than a clip is long, or a bad input.
  """
  check_times(fps, first, max_seconds)
  check_clip(clip_seconds)
  if first >= clip_seconds:
    raise ValueError(
      f'--first {first:g}: expected a frame within the first clip of '
      f'{clip_seconds:g} s, as clips end at the first without frames.'
    )
  if fps * clip_seconds < 1:
    raise ValueError(
      f'--fps {fps:g}: there are clips of {clip_seconds:g} s without a frame. '
      'Extract more frames, or make the clips longer with --clip-seconds.'
    )
  whole_files.refuse_existing(out, overwrite)
  made = Made(pathlib.Path(out))
  limit = clip_pooling.frame_limit(fps, first, max_seconds)
  cut = []
  with (
    _opened(inputs) as files,
    whole_files.create_hdf5(out, overwrite) as target,
  ):
    found = clip_files.sources(files)
    for name in counted(found, report):
      rows = clip_pooling.pool_frames(
        found[name].read(name, limit),
        pool=kind,
        fps=fps,
        first=first,
        clip_seconds=clip_seconds,
        max_seconds=max_seconds,
      )
      cut += [name] * (found[name].count(name) > limit)
      target.create_dataset(name, data=rows)
      made.add(rows)
  made.note(f'videos cut at {max_seconds:g} s', cut)
  return made


def align(
  inputs: Sequence[Path],
  like: Path,
  out: Path,
  *,
  overwrite: bool = False,
  report: Report = lambda done, total: None,
) -> Made:
  """Gives videos the row counts that they have in another file.

  Raises:
    ValueError: a video of the other file is in no input, or a bad input.
  """
  whole_files.refuse_existing(out, overwrite)
  made = Made(pathlib.Path(out))
  with (
    _opened([like, *inputs]) as (model, *files),
    whole_files.create_hdf5(out, overwrite) as target,
  ):
    found = clip_files.sources(files)
    _all_there(model, found, files)
    notes = _Alignment()
    for name in counted(model.names, report):
      rows = found[name].read(name, model.count(name))
      notes.count(name, found[name].count(name), model.count(name))
      rows = clip_pooling.align(rows, model.count(name))
      target.create_dataset(name, data=rows)
      made.add(rows)
  notes.tell(made)
  extra = [n for n in found if n not in model]
  made.note(f'videos left out, as {model.path.name} lacks them', extra)
  return made


def join(
  inputs: Sequence[Path],
  out: Path,
  *,
  normalised: bool = True,
  overwrite: bool = False,
  report: Report = lambda done, total: None,
) -> Made:
  """Puts features of several files side by side, aligned to the first file.

  Args:
    inputs: two files or more; the videos are those of the first.
    out: file to be written.
    normalised: rows of each file get length one before they are joined.
    overwrite: replace `out`.
    report: called with (done, total).

  Raises:
    ValueError: a video of the first file is not in another, or a bad input.
  """
  if len(inputs) < 2:
    raise ValueError(f'{len(inputs)} files to join, expected two or more.')
  whole_files.refuse_existing(out, overwrite)
  made = Made(pathlib.Path(out))
  with (
    _opened(inputs) as files,
    whole_files.create_hdf5(out, overwrite) as target,
  ):
    first, *others = files
    for other in others:
      _all_there(first, other, [other])
    notes = _Alignment()
    for name in counted(first.names, report):
      count = first.count(name)
      parts = [first.read(name)]
      for other in others:
        notes.count(name, other.count(name), count)
        parts.append(clip_pooling.align(other.read(name, count), count))
      if normalised:
        parts = [moment_features.normalise(x) for x in parts]
      rows = np.concatenate(parts, -1)
      target.create_dataset(name, data=rows)
      made.add(rows)
  notes.tell(made)
  return made


class _Alignment:
  """Counts what was cut and what was filled up."""

  def __init__(self):
    self._cut, self._filled = [], []

  def count(self, name, had, want):
    if had != want:
      (self._cut if had > want else self._filled).append(name)

  def tell(self, made):
    made.note('videos were longer and are cut', self._cut)
    made.note('videos were shorter and end with zero rows', self._filled)


@contextlib.contextmanager
def _opened(paths):
  """Opens files of features that are closed together."""
  with contextlib.ExitStack() as stack:
    rows = clip_files.Rows
    yield [stack.enter_context(rows(p, companion=MASK)) for p in paths]


def counted(names: Collection[str], report: Report) -> Iterator[str]:
  """Yields names and reports each when it is done."""
  for done, name in enumerate(names, 1):
    yield name
    report(done, len(names))


def _all_there(wanted, found, files):
  absent = [name for name in wanted.names if name not in found]
  if absent:
    raise ValueError(
      f'{", ".join(str(f.path) for f in files)}: no {absent[0]!r} and '
      f'{len(absent) - 1} more of the {len(wanted.names)} videos of '
      f'{wanted.path}. Extract them, or take them out of that file.'
    )
