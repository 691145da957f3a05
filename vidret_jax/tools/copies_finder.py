# SPDX-License-Identifier: Apache-2.0
"""An index of videos with the network that it is searched with."""

from collections.abc import Mapping, Sequence
import os
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from rich.console import Console

from vidret_jax import config_lib as cl
from vidret_jax.data import folder as folder_lib
from vidret_jax.search import copies as copies_lib
from vidret_jax.search import copy_plan, memory
from vidret_jax.search import index as index_lib
from vidret_jax.tools import copies_eyes, copies_index, copies_model
from vidret_jax.tools import index as index_tool
from vidret_jax.tools import trained as trained_lib
from vidret_jax.train import defaults

_ROWS = 128  # That wait to be written, and ...
_SECONDS = 20.0  # ... how long they wait at most.


def read(
  path: str | os.PathLike,
  overrides: Sequence[str],
  weights: str,
  select: str | None,
  **options: Any,
) -> copies_model.Trained:
  """Reads a config and the weights for it; see `copies_model.load`."""
  config = trained_lib.read_config(path, overrides)
  defaults.use_compile_cache(config.compile_cache)
  trained = copies_model.load(config, weights, select, **options)
  memory.give_back()  # What reading the weights took.
  return trained


def open_index(
  out: str | os.PathLike,
  trained: copies_model.Trained,
  videos: str,
  dtype: str,
) -> index_lib.Index:
  """The index in `out`, or a new one.

  Raises:
    BadIndex: it is damaged, or of another frozen network or folder.
    FileExistsError: `out` holds something else.
  """
  videos = str(pathlib.Path(videos).absolute())
  made = dict(recipe=trained.recipe, fingerprint=trained.fingerprint)
  index = index_tool.reopen(out, videos, **made)
  if index is not None:
    return index
  with tempfile.TemporaryDirectory(prefix='vidret_index_') as folder:
    config = pathlib.Path(folder) / 'config.json'
    cl.save(trained.config, str(config))
    return index_lib.Index.create(
      out,
      coarse=trained.model.COARSE,
      dtype=dtype,
      about=dict(
        videos=videos,
        weights=trained.source,
        select=trained.select,
        parts=trained.parts,
      ),
      files={'config.json': config},
      **made,
    )


def names_of(index: index_lib.Index) -> set[str]:
  """Videos of an index."""
  return {copies_index.video_of(row) for row in index.ids}


def folder_bytes(index: index_lib.Index) -> int:
  """Size of an index."""
  return sum(p.stat().st_size for p in index.folder.iterdir())


def fill(
  index: index_lib.Index,
  trained: copies_model.Trained,
  root: str,
  names: Sequence[str],
  *,
  batch_size: int,
  threads: int | None,
  console: Console,
) -> tuple[int, dict[str, str], int]:
  """Adds the videos that an index lacks, below a bar.

  Returns:
    (exit status: 130 if it was stopped, {video: why it cannot be read},
    how many were added).
  """
  known = names_of(index)
  files = {
    name: os.path.join(root, name) for name in names if name not in known
  }
  pieces = copies_eyes.Pieces(
    files, trained.frames, piece=trained.recipe['piece'], num_threads=threads
  )
  waiting = _Waiting(index)
  status = 0
  with index_tool.progress(console) as bar:
    task = bar.add_task('looking at videos', total=len(files), bad='')

    def look(_):
      bad = len(pieces.unreadable)
      bar.update(task, advance=1, bad=f'{bad} unreadable' * bool(bad))

    try:
      for name, emb in copies_eyes.encode(
        trained.eyes, trained.mesh, trained.variables, pieces, batch_size, look
      ):
        waiting.add(name, emb)
      waiting.write()
    except KeyboardInterrupt:
      status = 130
  return status, dict(pieces.unreadable), waiting.written


class _Waiting:
  """Rows of whole videos, written some at a time."""

  def __init__(self, index):
    self.written = 0
    self._index, self._since = index, time.monotonic()
    self._ids, self._rows, self._videos = [], [], 0

  def add(self, name, emb):
    self._ids += copies_index.row_names(name, emb['length'].tolist())
    self._rows.append(emb)
    self._videos += 1
    late = time.monotonic() - self._since > _SECONDS
    if len(self._ids) >= _ROWS or late:
      self.write()

  def write(self):
    if self._ids:
      emb = {
        key: np.concatenate([rows[key] for rows in self._rows])
        for key in self._rows[0]
      }
      self._index.add(self._ids, emb)
      self.written += self._videos
    self._since = time.monotonic()
    self._ids, self._rows, self._videos = [], [], 0


class Finder:
  """An index with its network.

  Attributes:
    index: of the videos.
    trained: the network.
    folder: of the videos, where they are now; None: unknown.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    weights: str | None = None,
    select: str | None = None,
    videos: str | None = None,
    parts: Mapping[str, str | None] | None = None,
    overrides: Sequence[str] = (),
  ):
    """Opens an index and loads its network.

    Args:
      folder: of the index.
      weights: a workdir or file; default: where they were then.
      select: which weights of a run; default: as then.
      videos: folder of the videos; default: where they were then.
      parts: files of frozen weights; default: where they were then.
      overrides: 'key=value' of the config.

    Raises:
      BadIndex: it is damaged, or the frozen network is another one.
      FileNotFoundError: no index, or no weights where they were.
    """
    self.index = index_lib.Index.load(folder)
    about = self.index.about
    moved = weights
    weights = weights or about.get('weights')
    if not weights or not os.path.exists(weights):
      raise FileNotFoundError(
        f'the weights of index {folder} are no longer in {weights}; say with '
        '--run where they are'
      )
    path = self.index.path('config.json')
    # Another run of the same frozen network may have other options.
    if moved and os.path.isfile(os.path.join(moved, 'config.json')):
      path = os.path.join(moved, 'config.json')
    recipe = self.index.recipe
    said = dict(about.get('parts') or {})
    said |= {k: v for k, v in (parts or {}).items() if v}
    self.trained = read(
      path,
      overrides,
      weights,
      select or about.get('select'),
      parts=said,
      frames=recipe.get('frames'),
      piece=recipe.get('piece', copies_eyes.PIECE),
    )
    self.index.require(
      recipe=self.trained.recipe, fingerprint=self.trained.fingerprint
    )
    self.folder = videos or about.get('videos')

  def videos(self) -> copies_index.Videos:
    """All videos of the index."""
    return copies_index.Videos(self.index)

  def worth(self, videos: copies_index.Videos) -> list[tuple[int, int]]:
    """(frames, bytes) of videos: which of two copies one would keep."""
    out = []
    for name, length in zip(videos.ids, videos.lengths.tolist()):
      file = folder_lib.path(self.folder, name)
      out.append((length, 0 if file is None else os.path.getsize(file)))
    return out

  def all_pairs(
    self, shortlist: int, folder: str | None = None
  ) -> tuple[copies_index.Videos, np.ndarray, np.ndarray | None]:
    """Scores of all videos with all, or with those on their short lists.

    Args:
      shortlist: videos that the network compares with each, the best by the
        coarse score; 0: all.
      folder: keeps the scores of parts, so that a killed search goes on.

    Returns:
      (videos, float32 [n, n], bool [n, n] what was compared or None for all).

    Raises:
      ValueError: the index has fewer than two videos.
    """
    videos = self.videos()
    n = len(videos)
    if n < 2:
      raise ValueError(
        f'index {self.index.folder} has {n} video(s); groups need two.'
      )
    # A video is on its own list.
    visit = min(1.0, (shortlist + 1) / n) if shortlist > 0 else 1.0
    found = self._find(videos, videos, visit, folder)
    return videos, found.scores, found.visited

  def ask(
    self, clips: Sequence[str], top: int, shortlist: int
  ) -> tuple[list[tuple[str, list[tuple[str, float]]]], dict[str, str]]:
    """The best videos for clips.

    Args:
      clips: files.
      top: how many to return.
      shortlist: videos that the network compares, the best by the coarse
        score; 0: all.

    Returns:
      ([(clip, [(video, score)] best first)], {clip: why it cannot be read}).
      A clip that is itself in the index is not among its own answers.
    """
    t = self.trained
    pieces = copies_eyes.Pieces(
      {clip: clip for clip in dict.fromkeys(clips)},
      t.frames,
      piece=t.recipe['piece'],
    )
    encoded = list(copies_eyes.encode(t.eyes, t.mesh, t.variables, pieces, 1))
    out = []
    for one in encoded:
      clip = copies_index.Clips([one])
      names = self._candidates(one[0], one[1]['vector'], top, shortlist)
      if not names:
        out.append((one[0], []))
        continue
      videos = copies_index.Videos(self.index, names)
      scores = self._find(clip, videos, 1.0).scores[0]
      order = np.lexsort((np.arange(len(names)), -scores))[:top]
      out.append((one[0], [(names[i], float(scores[i])) for i in order]))
    return out, dict(pieces.unreadable)

  def _candidates(self, clip, vectors, top, shortlist) -> list[str]:
    if not len(self.index):
      return []
    count = max(shortlist, top) + 1 if shortlist > 0 else len(self.index)
    t = self.trained
    names = copies_index.shortlist(
      self.index, t.model, t.mesh, t.variables, vectors, count
    )
    names = [name for name in names if not self._same(clip, name)]
    return names[: count - 1] if shortlist > 0 else names

  def _same(self, clip, name) -> bool:
    file = folder_lib.path(self.folder, name)
    return file is not None and os.path.samefile(file, clip)

  def _find(self, queries, items, visit, folder=None):
    t = self.trained
    options = copy_plan.Options(
      visit=visit, storage=str(np.promote_types(queries.dtype, items.dtype))
    )
    return copies_lib.find(
      t.model, t.mesh, t.variables, queries, items, options, folder=folder
    )
