# SPDX-License-Identifier: Apache-2.0
"""Where the files of a collection are.

Features are those of the MeVer group; annotations have the names that they have
in the folder `data` of HAP-VR (https://github.com/yafeng19/HAP-VR).
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib

FEATURES, ANNOTATIONS = 'features', 'annotations'


class MissingFiles(FileNotFoundError):
  """A collection whose files are not on this machine."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """One collection.

  Attributes:
    name: of its module, in configs.
    folder: below the data folder.
    splits: split -> key of `paths` -> names below the root that the file may
      have; none: `paths` has to name it.
    source: where the files are published.
    sha1: of the published archive.
  """

  name: str
  folder: str
  splits: Mapping[str, Mapping[str, tuple[str, ...]]]
  source: str
  sha1: str = 'unknown: none is published'

  def __hash__(self):
    return hash(self.name)

  def split_of(self, split: str | None) -> str:
    """The split that a config means; None where there is only one.

    Raises:
      ValueError: there is none of this name.
    """
    if split is None and len(self.splits) == 1:
      return next(iter(self.splits))
    if split not in self.splits:
      raise ValueError(
        f'{self.name}: unknown split={split!r}; known: {sorted(self.splits)}.'
      )
    return split

  def find(
    self, split: str, root: str | os.PathLike, paths: Mapping[str, str]
  ) -> dict[str, pathlib.Path]:
    """Finds all files of a split before any of them is opened.

    Args:
      split: key of `splits`.
      root: folder of the files.
      paths: key -> file, absolute or relative to the root, where it is not the
        usual one.

    Returns:
      key -> file.

    Raises:
      MissingFiles: naming all that are not there.
      ValueError: an unknown key.
    """
    root, known = pathlib.Path(root), self.splits[split]
    if unknown := sorted(set(paths) - set(known)):
      raise ValueError(
        f'{self.name}, split {split!r}: unknown keys of paths {unknown}; '
        f'known: {sorted(known)}.'
      )
    found, missing = {}, []
    if not root.is_dir():
      missing.append(f'the folder {root}')
    for key, names in known.items():
      names = (paths[key],) if paths.get(key) else names
      places = [root / name for name in names]
      path = next((place for place in places if place.is_file()), None)
      if path is not None:
        found[key] = path
        continue
      named = ' or '.join(map(str, places))
      missing.append(named or f'a file for {key}: name it in paths')
    if missing:
      raise MissingFiles(
        f'{self.name}: not found:\n    ' + '\n    '.join(missing) + '\n'
        f'  published: {self.source}\n'
        '  next: put them there, or name them in the data of the config '
        "(root='<folder>', paths=dict(<key>='<file>')) with the keys "
        f'{", ".join(known)}.'
      )
    return found


_S2VS = 'https://github.com/gkordo/s2vs (data/)'
_DNS = 'https://github.com/mever-team/distill-and-select (data/)'
_MEVER = 'the feature files that the README of DnS links to'


def _fivr(*features):
  return {
    FEATURES: features,
    # DnS has an older fivr.pickle with other labels: only if it is named.
    ANNOTATIONS: ('fivr_audio.pickle', 'data/fivr_audio.pickle'),
    'easy': ('fivr_easy_duplicates.txt', 'data/fivr_easy_duplicates.txt'),
  }


FIVR = Layout(
  name='fivr',
  folder='FIVR',
  splits={
    '5k': _fivr('fivr_5k.hdf5', 'fivr_200k.hdf5'),
    '200k': _fivr('fivr_200k.hdf5'),
  },
  source=(
    f'{_MEVER} (fivr_5k.hdf5, 8.7 GB; fivr_200k.hdf5, 406 GB); {_S2VS} for '
    'fivr_audio.pickle and fivr_easy_duplicates.txt'
  ),
)
EVVE = Layout(
  name='evve',
  folder='EVVE',
  splits={
    'all': {
      FEATURES: ('evve.hdf5',),
      ANNOTATIONS: ('evve.pickle', 'data/evve.pickle'),
    }
  },
  source=f'{_MEVER} (evve.hdf5, 9 GB); {_DNS} for evve.pickle',
)
_SVD = {
  FEATURES: ('svd.hdf5',),
  ANNOTATIONS: ('test_groundtruth', 'data/test_groundtruth'),
}
SVD = Layout(
  name='svd',
  folder='SVD',
  splits={
    'labeled': _SVD,
    # Neither S2VS nor HAP-VR has this list; it comes with the dataset.
    'all': {
      **_SVD,
      'unlabelled': ('unlabeled-data-id', 'data/unlabeled-data-id'),
    },
  },
  source=(
    f'{_MEVER} (svd.hdf5, 150 GB); {_DNS} for test_groundtruth; '
    'https://svdbase.github.io for unlabeled-data-id'
  ),
)
FOLDER = Layout(
  name='folder_copies',
  folder='.',
  splits={'all': {FEATURES: (), ANNOTATIONS: ()}},
  source='yours: docs/data_formats.md says how they look',
)
