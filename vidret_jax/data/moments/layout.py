# SPDX-License-Identifier: Apache-2.0
"""Where the files of a dataset of moments are, and how they are read.

TVR lies as in `data/` of ReLoCLNet (https://github.com/26hzhang/ReLoCLNet) and
TVRetrieval. For the other datasets no features were published; their files have
the same names, after the name of the dataset.
"""

from collections.abc import Mapping
import dataclasses

SPLITS = ('train', 'val', 'test_public', 'test_challenge')
_ALIASES = {'test': 'test_public'}  # As the README of ReLoCLNet has it.
# What batches hold of a video. Upstream looks for parts of the name, too.
CONTEXTS = (
  *('video', 'sub', 'video_sub'),
  *('tef', 'video_tef', 'sub_tef', 'video_sub_tef'),
)


@dataclasses.dataclass(frozen=True)
class Family:
  """Video features of one kind.

  Attributes:
    stem: of the file's name, between dataset and clip length.
    normalise: whether rows are made unit vectors on reading. The file that
      joins ResNet and I3D has both halves normalised already.
  """

  stem: str
  normalise: bool = True


FAMILIES = {
  'resnet_i3d': Family('resnet152_rgb_max_i3d_rgb600_avg_cat', False),
  'resnet': Family('resnet152_rgb_max'),
  'i3d': Family('i3d_rgb600_avg'),
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """One dataset.

  Attributes:
    name: in configs.
    prefix: of the names of its files; '' where `paths` names each of them.
    folder: below the data folder.
    clip_seconds: length of a clip: option `clip_length` upstream.
    source: where the files are published.
    families: name -> video features; the first is the default.
    sha1: of the published archive.
    records: folder above that of records; '': `<data folder>/records`.
  """

  name: str
  prefix: str
  folder: str
  clip_seconds: float
  source: str
  families: Mapping[str, Family] = dataclasses.field(
    default_factory=lambda: FAMILIES
  )
  sha1: str = 'unknown: none is published'
  records: str = ''

  def __hash__(self):
    return hash(self.name)

  def files(
    self, features: str, text: str, clip_seconds: float
  ) -> dict[str, tuple[str, ...]]:
    """Key of `paths` -> names below the root that the file may have.

    Args:
      features: key of `families`, or a name of the user's own.
      text: 'sub_query' or 'query_only': what the encoder of queries was
        tuned on.
      clip_seconds: length of a clip.
    """
    p = self.prefix
    if not p:
      return {key: () for key in KEYS}
    home, tail = f'{p}_feature_release', f'cl-{clip_seconds:g}.h5'
    out = {f'annotations_{s}': (f'{p}_{s}_release.jsonl',) for s in SPLITS}
    out['annotations_test_public'] += (f'{p}_test_release.jsonl',)
    out['durations'] = (f'{p}_video2dur_idx.json',)
    own = self.families.get(features)
    video = f'{home}/video_feature/{p}_{own.stem}_{tail}' if own else None
    out['video'] = (video,) if video else ()
    bert = f'{home}/bert_feature'
    tuned = {'sub_query': 'w_sub_query', 'query_only': 'w_query'}[text]
    out['query'] = (f'{bert}/{text}/{p}_query_pretrained_{tuned}.h5',)
    out['subtitle'] = (
      f'{bert}/sub_query/{p}_sub_pretrained_w_sub_query_max_{tail}',
    )
    return out


KEYS = (
  *(f'annotations_{split}' for split in SPLITS),
  *('durations', 'video', 'subtitle', 'query'),
)


def canonical(split: str) -> str:
  """One name for splits that have several."""
  return _ALIASES.get(split, split)


def split_of(name: str) -> str:
  """The split that a config means.

  Raises:
    ValueError: there is none.
  """
  name = canonical(name)
  if name not in SPLITS:
    raise ValueError(
      f"unknown split={name!r}; known: {list(SPLITS)}, and 'test' for "
      "'test_public'."
    )
  return name


def key_of(name: str) -> str:
  """The key of `paths` that a config means."""
  start = 'annotations_'
  if name.startswith(start):
    return start + canonical(name.removeprefix(start))
  return name


_MADE = (
  'annotations as the dataset has them, converted by python -m '
  'vidret_jax.tools.moment_annotations; no features were published: '
  'docs/own_moments.md says how they are made'
)
TVR = Layout(
  name='tvr_moments',
  prefix='tvr',
  folder='TVR',
  clip_seconds=1.5,
  source=(
    'https://github.com/jayleicn/TVRetrieval (annotations, durations; features '
    'as tvr_feature_release.tar.gz, 33 GB)'
  ),
)
ACTIVITYNET = Layout(
  'activitynet_moments', 'activitynet', 'ActivityNetCaptions', 5.0, _MADE
)
CHARADES = Layout('charades_moments', 'charades', 'CharadesSTA', 3.0, _MADE)
DIDEMO = Layout('didemo_moments', 'didemo', 'DiDeMo', 2.5, _MADE)
FOLDER = Layout(
  name='folder_moments',
  prefix='',
  folder='.',
  clip_seconds=1.5,
  source='yours: docs/own_moments.md says how they are made',
  families={'own': Family('')},
)
