# SPDX-License-Identifier: Apache-2.0
"""How a published feature pack is laid out, and what a config asks of it."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from vidret_jax.data import features

ROOTS = (
  'structured-symlinks',
  'high-quality/structured-symlinks',
  'symlinked-feats',
)


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one dataset's pack is laid out.

  Attributes:
    name: of the dataset in configs.
    folder: below the data folder.
    source: where the files are published.
    sha1: of the published archive.
    lists: protocol -> split -> list file.
    experts: name -> file.
    text_files: (encoder, split) -> groups of alternative file names; an entry
      is looked up in the first file of every group.
    captions: file of the raw captions.
    optional: splits that are left out when their list is absent.
    overrides: protocol -> name -> file.
    aggregation: changes of the visual experts' sampling.
    video_id: line of a list -> id.
    text_key: file that maps ids to the keys of the `openai` text files.
    slots: (protocol, split) -> 0, or a file id -> the one caption evaluated.
  """

  name: str
  folder: str
  source: str
  sha1: str
  lists: Mapping[str, Mapping[str, str]]
  experts: Mapping[str, str]
  text_files: Callable[[str, str], Sequence[Sequence[str]]]
  captions: str = 'raw-captions.pkl'
  optional: Sequence[str] = ()
  overrides: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )
  aggregation: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  video_id: Callable[[str], str] = str.strip
  text_key: str | None = None
  slots: Mapping[tuple[str, str], int | str] = dataclasses.field(
    default_factory=dict
  )

  def __hash__(self):
    return hash(self.name)


@dataclasses.dataclass(frozen=True)
class Request:
  """What a config asks of a pack.

  Attributes:
    protocol: key of `Layout.lists`.
    experts: (name, width, whether its length varies), in name order.
    encoder: text encoder.
    text_dim: width of a token.
    root: feature folder below the corpus folder; None tries `ROOTS`.
    training_file: replaces the list of the training split.
    text_files: replaces the text files.
    paths: (name, files) of experts with files of their own.
    aggregation: (name, changes of its sampling).
  """

  protocol: str
  experts: tuple[tuple[str, int, bool], ...]
  encoder: str
  text_dim: int
  root: str | None = None
  training_file: str | None = None
  text_files: tuple[str, ...] = ()
  paths: tuple[tuple[str, tuple[str, ...]], ...] = ()
  aggregation: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()


def expert_files(layout: Layout, request: Request, name: str) -> list[str]:
  """Files of an expert, relative to the feature folder.

  Raises:
    ValueError: an expert the dataset does not have.
  """
  own = dict(request.paths)
  special = {**layout.experts, **layout.overrides.get(request.protocol, {})}
  if name in own:
    return list(own[name])
  if name in special:
    return [special[name]]
  changes = dict(dict(request.aggregation).get(name, ()))
  if name in features.AGGREGATION or (name.count('.') == 2 and changes):
    options = {
      **features.AGGREGATION.get(name, {}),
      **layout.aggregation.get(name, {}),
      **changes,
    }
    return features.aggregated_files(name, options)
  known = sorted({*special, *features.AGGREGATION})
  raise ValueError(
    f'{layout.name}: unknown expert {name!r} in `experts`. Known here: '
    f'{known}. For features of your own add paths=((name, (file,)),) to the '
    'data of the config, with files relative to the feature folder.'
  )
