# SPDX-License-Identifier: Apache-2.0
"""Finds the files of one dataset below a root folder of the RANP release."""

from collections.abc import Mapping, Sequence
import itertools
import os
import pathlib

from vidret_jax.data.graphs import layout as layout_lib


class MissingFiles(FileNotFoundError):
  """A dataset whose files are not on this machine."""


class Places:
  """Where the files of a dataset are.

  Attributes:
    layout: what the dataset looks like.
    root: the folder.
  """

  def __init__(
    self,
    layout: layout_lib.Layout,
    root: str | os.PathLike,
    paths: Mapping[str, str] | Sequence[tuple[str, str]] = (),
  ):
    """Looks at nothing yet.

    Args:
      layout: what the dataset looks like.
      root: the folder, with `annotation/` (or `annotations/`) and others.
      paths: key of `layout.files` -> file, absolute or relative to the root,
        where it is not the usual one; '' for a relevance matrix or for
        'replaced_1ka' that shall not be read.

    Raises:
      ValueError: an unknown key.
    """
    self.layout = layout
    self.root = pathlib.Path(root)
    self._known = layout.files()
    self._own = dict(paths or {})
    unknown = sorted(set(self._own) - set(self._known))
    if unknown:
      raise ValueError(
        f'{layout.name}: unknown keys of paths {unknown}; known: '
        f'{sorted(self._known)}.'
      )

  def find(
    self,
    splits: Sequence[str],
    streams: Sequence[str],
    *,
    graphs: bool,
    vocabulary: bool,
  ) -> dict[str, pathlib.Path]:
    """Finds all files that are needed before any of them is opened.

    Relevance matrices may be absent, unless `paths` names them: not every
    measure needs them.

    Args:
      splits: of the dataset.
      streams: of features.
      graphs: whether role graphs are needed.
      vocabulary: whether the vocabulary is needed.

    Returns:
      Key of `layout.files`, or '<stream> <split>' -> path.

    Raises:
      MissingFiles: naming all that are not there.
    """
    found, missing = {}, []
    if not self.root.is_dir():
      missing.append(f'the folder {self.root}')
    for key in self._needed(splits, graphs, vocabulary):
      path = self.first(key)
      if path is not None:
        found[key] = path
      elif key in self._own or not key.startswith('relevance_'):
        missing.append(' or '.join(map(str, self._candidates(key))))
    for stream, split in itertools.product(streams, splits):
      path = self.root / self.layout.feature_path(stream, split)
      found[f'{stream} {split}'] = path
      if not path.is_file():
        missing.append(str(path))
    if missing:
      raise self._absent(missing)
    return found

  def _needed(self, splits, graphs, vocabulary) -> list[str]:
    keys = [f'names_{split}' for split in splits]
    single = list(self.layout.evaluated)
    if not single or 'train' in splits:
      keys.append('captions')
    if set(splits) - {'train'}:
      keys += single
    if vocabulary:
      keys += ['word2int', 'int2word']
    if graphs:
      keys.append('graphs')
    if 'train' in splits:
      keys.append('classes')
    if 'test' in splits:
      keys.append('narrations')
    keys += [f'relevance_{split}' for split in splits]
    left_out = [k for k in keys if self._own.get(k) == '' and _may_lack(k)]
    return [k for k in keys if k in self._known and k not in left_out]

  def first(self, key: str) -> pathlib.Path | None:
    """The first file of a key that is there."""
    return next((p for p in self._candidates(key) if p.is_file()), None)

  def _candidates(self, key):
    if key in self._own:
      return [self.root / self._own[key]]
    out = []
    for name in self._known.get(key, ()):
      out.append(self.root / name)
      if name.startswith('annotation/'):
        out.append(self.root / name.replace('annotation/', 'annotations/', 1))
    return out

  def _absent(self, missing):
    layout = self.layout
    return MissingFiles(
      f'{layout.name}: not found:\n    ' + '\n    '.join(missing) + '\n'
      f'  expected: {self.root}/ with annotation/{layout.annotation}/, '
      f'{layout.lists}/ and ordered_feature/{layout.features}/\n'
      f'  published: {layout.source}\n'
      '  next: put them there, or name them in the data of the config (root='
      "'<folder>', paths=dict(<key>='<file>')) with the keys "
      f'{", ".join(sorted(self._known))}; then\n'
      '    python -m vidret_jax.tools.prepare --config <your config> '
      f'--manual_dir <folder of {layout_lib.FOLDER}>'
    )


def _may_lack(key):
  return key.startswith('relevance_') or key == 'replaced_1ka'
