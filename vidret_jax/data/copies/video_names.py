# SPDX-License-Identifier: Apache-2.0
"""What videos of a folder are called in files of features and of frames."""

import os

from vidret_jax.data import folder as folder_lib

# From paths below the folder, with '/'.
NAMES = {
  'stem': lambda path: path.rpartition('/')[2].rpartition('.')[0],
  # As upstream's tools/extract_frames.py.
  'first_dot': lambda path: path.rpartition('/')[2].partition('.')[0],
  # As the lists of SVD.
  'file': lambda path: path.rpartition('/')[2],
  'path': lambda path: path.replace('/', '__'),
}


def named(
  root: str | os.PathLike, names: str = 'stem'
) -> tuple[dict[str, str], dict[str, str]]:
  """All videos below a folder.

  Args:
    root: the folder.
    names: 'stem': the name of the file without its ending; 'first_dot':
      without all that follows the first dot; 'file': the whole; 'path': with
      the folders that it is in, joined by '__'.

  Returns:
    ({id: path below the folder}, {path: why it is left out}), sorted by path.

  Raises:
    ValueError: no such folder, no video in it, or two that would have the same
      id.
  """
  if names not in NAMES:
    raise ValueError(f'names={names!r}: expected one of {", ".join(NAMES)}.')
  found, bad = {}, {}
  paths = folder_lib.find(root)
  if not paths:
    raise ValueError(f'{root}: no videos; expected files such as a.mp4.')
  for path in paths:
    name = NAMES[names](path)
    if name in found:
      raise ValueError(
        f'{root}: {found[name]} and {path} would both be {name!r}. Rename one '
        'of them, or name videos by their path (--names path).'
      )
    if not name.isprintable():
      # Also bytes that are no UTF-8, which HDF5 could not have as a name.
      bad[ascii(path)] = 'has a name that cannot be printed'
    else:
      found[name] = path
  return found, bad
