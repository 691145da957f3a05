# SPDX-License-Identifier: Apache-2.0
"""Brings clips below a page, so that it plays from disk and from any server."""

import os
import pathlib
import re
import shutil

from vidret_jax.evaluators.report import markup

MODES = ('link', 'copy', 'none')
# What browsers are told; a container they do not know is offered untyped.
TYPES = {
  '.mp4': 'video/mp4',
  '.m4v': 'video/mp4',
  '.webm': 'video/webm',
  '.ogv': 'video/ogg',
  '.mov': 'video/quicktime',
}
_CONTAINERS = (*TYPES, '.mkv', '.avi', '.mpg', '.mpeg', '.3gp')


class Clips:
  """The folder of clips of one page.

  File names are numbers with what is harmless of the id: nothing of a dataset
  can name a file outside the folder or a type of file that is not a video.
  """

  def __init__(
    self, folder: pathlib.Path, mode: str = 'link', name: str = 'videos'
  ):
    """Starts anew; clips of an older page are removed.

    Args:
      folder: of the page.
      mode: 'link' makes a hard link or, across disks, a symbolic one; 'copy'
        makes the folder self-contained; 'none' shows no clips.
      name: of the folder of clips beside the page.
    """
    self._folder = folder / name
    self._name = name
    self._mode = mode
    self._known: dict[str, markup.Link | None] = {}
    if self._folder.is_symlink():
      self._folder.unlink()
    elif self._folder.is_dir():
      for old in self._folder.iterdir():
        if re.fullmatch(r'\d{4,}-[\w.-]*', old.name):
          old.unlink()

  def place(self, item_id: str, file: str | None) -> markup.Link | None:
    """A link to the clip of an item, or None if there is no such file."""
    if item_id not in self._known:
      self._known[item_id] = self._place(item_id, file)
    return self._known[item_id]

  def _place(self, item_id, file):
    if self._mode == 'none' or not file:
      return None
    try:
      source = pathlib.Path(file).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
      return None  # The page shows a placeholder.
    suffix = source.suffix.lower()
    if not source.is_file() or suffix not in _CONTAINERS:
      return None
    stem = re.sub(r'[^A-Za-z0-9_-]+', '-', item_id)[:60].strip('-')
    name = f'{len(self._known):04d}-{stem}{suffix}'
    self._folder.mkdir(parents=True, exist_ok=True)
    _bring(source, self._folder / name, self._mode)
    return markup.link(self._name, name)


def media_type(name: str) -> str | None:
  """What browsers are told of a file, or None if they have to look."""
  return next((t for s, t in TYPES.items() if name.endswith(s)), None)


def player(
  link: markup.Link | None,
  name: str,
  *,
  source: markup.Link | None = None,
  loop: bool = True,
  later: bool = False,
) -> markup.Markup:
  """A clip that plays, or a box that says that there is none.

  Args:
    link: from `Clips.place`.
    name: of the clip, for those who cannot see it.
    source: what to play instead of the whole clip: a moment of it.
    loop: whether it begins again.
    later: nothing is read before it plays, or a script of the page wants it: a
      browser stands still over the beginnings of thousands of clips.
  """
  if link is None:
    return markup.tag('div', 'no video file', cls='video none')
  return markup.tag(
    'video',
    markup.tag('source', src=source or link, type=media_type(link)),
    controls=True,
    muted=True,
    loop=loop,
    playsinline=True,
    preload='none' if later else 'metadata',
    cls='video',
    aria_label=f'clip {name}',
  )


def _bring(source: pathlib.Path, target: pathlib.Path, mode: str) -> None:
  target.unlink(missing_ok=True)
  if mode == 'copy':
    shutil.copyfile(source, target)
    return
  try:
    os.link(source, target)
  except OSError:  # Another disk, or files of another user.
    target.symlink_to(source)
