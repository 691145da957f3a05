# SPDX-License-Identifier: Apache-2.0
"""Files of videos that a report can play."""

import pathlib

_SUFFIXES = ('', '.mp4', '.avi', '.webm')


def find(folder: str | None, video: str) -> str | None:
  """The path of a video in a folder of files named by id, or None.

  Ids come from files of strangers: none leads out of the folder.
  """
  inside = pathlib.PurePosixPath(video)
  if (
    not folder or inside.is_absolute() or '..' in inside.parts or '\0' in video
  ):
    return None
  for suffix in _SUFFIXES:
    file = pathlib.Path(folder, f'{video}{suffix}')
    if file.is_file():
      return str(file)
  return None
