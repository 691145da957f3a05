# SPDX-License-Identifier: Apache-2.0
"""What a dataset is published as, and where its files are on this machine."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import pathlib

from vidret_jax.data.frames import captions as captions_lib
from vidret_jax.data.frames import files as files_lib
from vidret_jax.data.shapes import corpus


class MissingFiles(FileNotFoundError):
  """A dataset whose files are not on this machine."""


@dataclasses.dataclass(frozen=True)
class Published:
  """How one dataset is published.

  Attributes:
    name: of the dataset in configs.
    folder: below the data folder.
    source: where the files are published.
    files: key -> file name below that folder; `paths` overrides them.
    splits: split -> keys of the files it is read from.
    read: (split, key -> path, paraphrase files) -> table; raises
      `captions.BadAnnotation`.
    clips: folders of the clips; the first that exists is taken.
    stems: id -> names that its file may have, without suffix.
    paraphrased: whether the captions may have paraphrases.
  """

  name: str
  folder: str
  source: str
  files: Mapping[str, str]
  splits: Mapping[str, Sequence[str]]
  read: Callable[
    [str, Mapping[str, pathlib.Path], Sequence[pathlib.Path]],
    captions_lib.Table,
  ]
  clips: Sequence[str]
  stems: Callable[[str], Sequence[str]] = lambda video: [video]
  paraphrased: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the files of one split are.

  Attributes:
    published: what the dataset looks like.
    split: which part of it.
    root: folder of the dataset.
    clips: folder of the clips, if it is not one of the usual ones.
    paths: key -> file, where it is not the usual one.
    paraphrases: further caption files.
  """

  published: Published
  split: str
  root: pathlib.Path
  clips: str | None
  paths: Mapping[str, str]
  paraphrases: tuple[str, ...]

  def files(self) -> dict[str, pathlib.Path]:
    """Key -> annotation file of this split."""
    names = self.published.files
    return {
      key: self.root / self.paths.get(key, names[key])
      for key in self.published.splits[self.split]
    }

  def table(self) -> captions_lib.Table:
    """Videos and captions.

    Raises:
      MissingFiles: naming all files that are not there.
      captions.BadAnnotation: a file that does not say what it has to.
    """
    found = self.files()
    others = [self.root / name for name in self.paraphrases]
    absent = [p for p in [*found.values(), *others] if not p.is_file()]
    if absent:
      raise self._missing(f'no file {", ".join(map(str, absent))}')
    return self.published.read(self.split, found, others)

  def folder(self) -> pathlib.Path:
    """The folder of the clips.

    Raises:
      MissingFiles: it is not there.
    """
    names = [self.clips] if self.clips else self.published.clips
    tried = [self.root / name for name in names]
    for path in tried:
      if path.is_dir():
        return path
    raise self._missing(f'no folder of clips {", ".join(map(str, tried))}')

  def find(self, table: captions_lib.Table) -> list[pathlib.Path | None]:
    """Per video, its file or folder of frames, or None.

    Raises:
      MissingFiles: no video is there at all.
    """
    folder = self.folder()
    find = files_lib.Index(folder).find
    found = [
      next(filter(None, map(find, self.published.stems(video))), None)
      for video in table.ids
    ]
    if not any(found):
      raise self._missing(
        f'none of the {len(found)} videos of split {self.split!r} is in '
        f'{folder}, the first is {table.ids[0]!r}'
      )
    return found

  def _missing(self, what: str) -> MissingFiles:
    return MissingFiles(
      f'{self.published.name}: {what}.\n'
      f'  published: {self.published.source}\n'
      f'  next: put the files below {self.root}, or name them in the data of '
      "the config: root='<folder>', paths=dict(<key>='<file>') with the keys "
      f"{sorted(self.published.files)}, videos='<folder of the clips>'. See "
      'docs/data_formats.md, section Frames.'
    )


def place(
  published: Published,
  split: str,
  root: str | os.PathLike | None = None,
  videos: str | None = None,
  paths: Mapping[str, str] | Sequence[tuple[str, str]] = (),
  paraphrases: Sequence[str] = (),
) -> Place:
  """Where a config says the files are.

  Raises:
    ValueError: an unknown split or key of `paths`, or paraphrases where there
      are none.
  """
  if split not in published.splits:
    raise ValueError(
      f'{published.name}: unknown split={split!r}; known: '
      f'{list(published.splits)}.'
    )
  paths = dict(paths or {})
  unknown = sorted(set(paths) - set(published.files))
  if unknown:
    raise ValueError(
      f'{published.name}: unknown keys of paths {unknown}; known: '
      f'{sorted(published.files)}.'
    )
  if paraphrases and not published.paraphrased:
    raise ValueError(
      f'{published.name} has no paraphrases; take them out of its data.'
    )
  return Place(
    published,
    split,
    pathlib.Path(root) if root else corpus.data_root() / published.folder,
    videos,
    paths,
    tuple(paraphrases or ()),
  )
