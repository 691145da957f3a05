# SPDX-License-Identifier: Apache-2.0
"""Finds the files of one split of a dataset of moments."""

from collections.abc import Mapping
import os
import pathlib

from vidret_jax.data.moments import layout as layout_lib
from vidret_jax.data.moments import records


class MissingFiles(FileNotFoundError):
  """A dataset whose files are not on this machine."""


def find(
  layout: layout_lib.Layout,
  ask: records.Request,
  root: str | os.PathLike,
  paths: Mapping[str, str],
) -> dict[str, pathlib.Path]:
  """Finds all files that are needed before any of them is opened.

  Args:
    layout: what the dataset looks like.
    ask: what is wanted of it.
    root: folder of the files.
    paths: key of `layout.KEYS` -> file, absolute or relative to the root, where
      it is not the usual one.

  Returns:
    'annotations', 'query', the streams of videos, and 'durations' unless a
    layout without names has none -> path.

  Raises:
    MissingFiles: naming all that are not there.
    ValueError: an unknown key.
  """
  own = {layout_lib.key_of(key): path for key, path in paths.items()}
  unknown = sorted(set(own) - set(layout_lib.KEYS))
  if unknown:
    raise ValueError(
      f'{layout.name}: unknown keys of paths {unknown}; known: '
      f'{list(layout_lib.KEYS)}.'
    )
  root = pathlib.Path(root)
  known = layout.files(ask.features, ask.text, ask.clip_seconds)
  found, missing = {}, []
  if not root.is_dir():
    missing.append(f'the folder {root}')
  split = f'annotations_{ask.split}'
  for key in (split, 'durations', *ask.streams, 'query'):
    names = (own[key],) if own.get(key) else known[key]
    if key == 'durations' and not names:
      continue
    places = [root / name for name in names]
    path = next((place for place in places if place.is_file()), None)
    if path is not None:
      found['annotations' if key == split else key] = path
    else:
      named = ' or '.join(map(str, places))
      missing.append(named or f'a file for {key}: name it in paths')
  if missing:
    raise _absent(layout, root, missing)
  return found


def _absent(layout, root, missing):
  return MissingFiles(
    f'{layout.name}: not found:\n    ' + '\n    '.join(missing) + '\n'
    f'  published: {layout.source}\n'
    '  next: put them there, or name them in the data of the config (root='
    "'<folder>', paths=dict(<key>='<file>')) with the keys "
    f'{", ".join(layout_lib.KEYS)}; then\n'
    '    python -m vidret_jax.tools.prepare --config <your config> '
    f'--manual_dir <folder, now {root}>'
  )
