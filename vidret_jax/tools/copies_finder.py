# SPDX-License-Identifier: Apache-2.0
"""An index of videos with the network that it is searched with."""

from collections.abc import Mapping, Sequence
import copy
import os
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import folder as folder_lib
from vidret_jax.data.frames import video as video_lib
from vidret_jax.evaluators import base
from vidret_jax.search import copies as copies_lib
from vidret_jax.search import copy_plan, memory
from vidret_jax.search import index as index_lib
from vidret_jax.tools import copies_eyes, copies_index, copies_model
from vidret_jax.tools import trained as trained_lib
from vidret_jax.train import defaults


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


class Finder:
  """An index with its network.

  Attributes:
    index: of the videos.
    trained: the network.
    folder: of the videos, where they are now; None: unknown.
    present: which videos are searched.
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
    gone: bool = False,
  ):
    """Opens an index and loads its network.

    Args:
      folder: of the index.
      weights: a workdir or file; default: where they were then.
      select: which weights of a run; default: as then.
      videos: folder of the videos; default: where they were then.
      parts: files of frozen weights; default: where they were then.
      overrides: 'key=value' of the config.
      gone: whether to search also what is no longer in the folder.

    Raises:
      BadIndex: it is damaged, or the frozen network is another one.
      FileNotFoundError: no index, no such folder, or no weights where they
        were.
    """
    if not os.path.isfile(os.path.join(folder, 'index.json')):
      raise FileNotFoundError(
        f'{folder} is no index. Make one with '
        'python -m vidret_jax.tools.copies index'
      )
    if videos and not os.path.isdir(videos):
      raise FileNotFoundError(f'{videos}: no such folder')
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
    self.present = copies_index.present(self.index, self.folder, gone)

  def videos(self) -> copies_index.Videos:
    """All videos that are searched."""
    return copies_index.Videos(self.index, self.present.pieces)

  def worth(self, videos: copies_index.Videos) -> list[tuple[int, int]]:
    """(frames, bytes) of videos: which of two copies one would keep."""
    out = []
    for name, length in zip(videos.ids, videos.lengths.tolist()):
      file = folder_lib.path(self.folder, name)
      out.append((length, 0 if file is None else os.path.getsize(file)))
    return out

  def seconds(self, name: str, frames: int) -> float:
    """How long a video of so many frames in the index is, about."""
    f = self.trained.frames
    file = folder_lib.path(self.folder, name)
    # A short one was repeated, so its frames do not tell.
    if file is not None and frames < 2 * f.min_frames:
      try:
        with video_lib.opened(pathlib.Path(file)) as container:
          if container.duration:
            return min(container.duration / 1e6, frames / f.fps)
      except (video_lib.UnreadableVideo, OSError):
        pass  # It has changed since it was looked at.
    return frames / f.fps

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
      ValueError: fewer than two videos can be searched.
    """
    videos = self.videos()
    n = len(videos)
    if n < 2:
      raise ValueError(
        f'index {self.index.folder} has {n} video(s) to compare; groups need '
        'two.'
      )
    # A video is on its own list.
    visit = min(1.0, (shortlist + 1) / n) if shortlist > 0 else 1.0
    # Scores that are kept are of these files, not of others of their names.
    dated = copy.copy(videos)
    dated.ids = videos.versions
    found = self._find(dated, dated, visit, folder)
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
      some = {name: self.present.pieces[name] for name in names}
      videos = copies_index.Videos(self.index, some)
      scores = self._find(clip, videos, 1.0).scores[0]
      order = np.lexsort((np.arange(len(names)), -scores))[:top]
      out.append((one[0], [(names[i], float(scores[i])) for i in order]))
    return out, dict(pieces.unreadable)

  def _candidates(self, clip, vectors, top, shortlist) -> list[str]:
    if not self.present.pieces:
      return []
    count = max(shortlist, top) + 1 if shortlist > 0 else len(self.index)
    t = self.trained
    names = copies_index.shortlist(
      *(self.index, t.model, t.mesh, t.variables, vectors, count),
      self.present.pieces,
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
      *(t.model, t.mesh, t.variables, queries, items, options),
      folder=folder,
      watch=base.progress,
    )
