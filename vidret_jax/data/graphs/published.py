# SPDX-License-Identifier: Apache-2.0
"""Opens one dataset below a root folder of the RANP release, and checks it.

Everything but the numbers of the features is read and checked at once; those
are read clip by clip.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any
import warnings

import numpy as np

from vidret_jax.data.graphs import captions as captions_lib
from vidret_jax.data.graphs import features as features_lib
from vidret_jax.data.graphs import files as files_lib
from vidret_jax.data.graphs import layout as layout_lib
from vidret_jax.data.graphs import places as places_lib
from vidret_jax.data.graphs import relevance_files
from vidret_jax.data.graphs import streams as streams_lib

MissingFiles = places_lib.MissingFiles  # What opening raises.
_ALIGN = {'shortest': features_lib.align, '1ka': features_lib.align_1ka}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What is searched with, and for.

  Attributes:
    texts: q captions in the order of the columns of the relevance matrix; a
      caption that several clips have, or one clip twice, is there as often.
    answers: per text, the numbers of the clips that have this very caption,
      ascending; some test sentences of EPIC-Kitchens-100 may have none.
    relevance: file of the matrix, if there is one.
    owners: per text its only clip, where the same caption of another clip is no
      answer (1k-A of MSR-VTT); otherwise None.
  """

  texts: tuple[str, ...]
  answers: tuple[np.ndarray, ...]
  relevance: pathlib.Path | None
  owners: tuple[int, ...] | None = None


class Published:
  """One dataset of a root folder.

  Attributes:
    layout: what the dataset looks like.
    names: split -> clips, in the order of the rows of relevance matrices.
    word2int: word -> id; all other words have id 2 (`tensors.UNKNOWN`).
    words: in order of their ids; its length is the size of the vocabulary.
    width: d, of the streams side by side.
    files: what they are for -> all files that were opened.
  """

  def __init__(
    self,
    layout: layout_lib.Layout,
    root: str | os.PathLike,
    *,
    splits: Sequence[str] = tuple(layout_lib.SPLITS),
    streams: Sequence[str] | None = None,
    paths: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    graphs: bool = True,
    vocabulary: bool = True,
  ):
    """Opens a dataset.

    Args:
      layout: which, see `layout`.
      root: folder of the release.
      splits: 'train', 'val', 'test' or some of them; files of the others are
        not looked at. Class annotations are read for 'train' only.
      streams: folders of features, laid side by side in this order; by default
        those of the layout.
      paths: see `places.Places`; '' as a relevance matrix reads none.
      graphs: whether role graphs are needed.
      vocabulary: whether the vocabulary is needed.

    Raises:
      places.MissingFiles: files that are not there, all of them.
      files.BadFile, pickles.UnsafePickle: a file that cannot be used.
      ValueError: an unknown option.
    """
    streams = tuple(layout.streams if streams is None else streams)
    _check_options(layout, splits, streams, graphs)
    self.layout = layout
    self._places = places_lib.Places(layout, root, paths)
    self._single = bool(layout.evaluated)
    self.files = self._places.find(
      splits, streams, graphs=graphs, vocabulary=vocabulary
    )
    self.names = {
      split: files_lib.strings(self.files[f'names_{split}'], 'clips')
      for split in splits
    }
    self.word2int, self.words = {}, ()
    if vocabulary:
      self.word2int, self.words = files_lib.vocabulary(
        self.files['word2int'], self.files['int2word']
      )
    self._slots = self._read_captions()
    self._narrations = None
    if 'narrations' in self.files:
      self._narrations = files_lib.narrations(self.files['narrations'])
    self._graphs = self._read_graphs() if graphs else None
    self._classes = {}
    if 'train' in splits:
      self._classes = captions_lib.read_classes(
        self.files['classes'],
        self._slots['train'],
        by=self.layout.classes_by,
        num_classes=self.layout.num_classes,
      )
    self._streams = {
      split: [
        streams_lib.Stream(self.files[f'{stream} {split}'], names)
        for stream in streams
      ]
      for split, names in self.names.items()
    }
    self.width = self._check_widths()

  def captions(self, name: str, split: str | None = None) -> tuple[str, ...]:
    """Captions of a clip, or the one that is evaluated (1k-A).

    Args:
      name: of the clip.
      split: that it is in; by default the first that has it. A clip in two
        splits can have its captions in two orders, see `captions.Captions`.
    """
    if split is None:
      split = next(s for s, clips in self._slots.items() if name in clips)
    return tuple(self._slots[split][name].values())

  def graph(self, caption: str) -> Any:
    """Role graph of a caption or test sentence; see `tensors.graph`.

    Raises:
      ValueError: opened without graphs.
    """
    if self._graphs is None:
      raise ValueError(
        f'{self.layout.name} was opened without role graphs: graphs=True asks '
        'for them.'
      )
    return self._graphs[caption]

  def classes(self, name: str) -> list[captions_lib.Classes]:
    """Per caption of a training clip, its (verb, noun) classes."""
    return self._classes[name]

  def features(self, split: str, name: str) -> np.ndarray:
    """Streams of a clip side by side.

    Returns:
      float32 [t, d].

    Raises:
      files.BadFile: they cannot be read, or are not finite.
    """
    parts = [stream.read(name) for stream in self._streams[split]]
    return _ALIGN[self.layout.alignment](parts)

  def evaluation(self, split: str) -> Evaluation:
    """Captions to search the clips of a split with, and their answers.

    The captions of all clips in order; of the test split of EPIC-Kitchens-100
    its table of sentences.
    """
    slots = self._slots[split].values()
    texts = [text for said in slots for text in said.values()]
    relevance = self.files.get(f'relevance_{split}')
    if self._single and split != 'train':
      own = tuple(range(len(texts)))
      answers = tuple(np.asarray([i]) for i in own)
      return Evaluation(tuple(texts), answers, relevance, own)
    owners = {}
    for i, said in enumerate(slots):
      for text in dict.fromkeys(said.values()):
        owners.setdefault(text, []).append(i)
    if split == 'test' and self._narrations is not None:
      texts = self._narrations
    answers = [owners.get(text, []) for text in texts]
    return Evaluation(
      tuple(texts), tuple(np.asarray(a, np.int64) for a in answers), relevance
    )

  def relevance(self, split: str) -> np.ndarray | None:
    """Relevance of the clips of a split for the captions it evaluates.

    Of Charades only the matrix of the test split is published, and upstream
    takes it for 'val' too. So does this, with a warning, if it fits.

    Returns:
      float [v, q], a memory map where the file allows it; None if there is no
      matrix.

    Raises:
      files.BadFile: it is damaged or of another shape; names both.
    """
    asked = self.evaluation(split)
    if asked.relevance is None:
      return None
    key = f'relevance_{split}'
    shape = len(self.names[split]), len(asked.texts)
    try:
      found = relevance_files.read(asked.relevance)
      if self._is_borrowed(split, asked.relevance):
        fits = found.shape == shape
        warnings.warn(
          f'{asked.relevance} is of the test split; '
          + ('it is taken for ' if fits else f'it does not fit {shape} of ')
          + f'{split!r}, which has none of its own. '
          + ('What is chosen by it is chosen on test clips. ' if fits else '')
          + f"Make one and name it with paths=dict({key}='<file>'), or set '' "
          'to do without.',
          stacklevel=2,
        )
        return found if fits else None
      return relevance_files.read(asked.relevance, shape)
    except ValueError as error:
      raise files_lib.BadFile(
        f'{self.layout.name}, split {split!r}: {error}. Name another file with '
        f"paths=dict({key}='<file>'), or none with ''."
      ) from None

  def _is_borrowed(self, split, path):
    return split == 'val' and path == self._places.first('relevance_test')

  def _read_captions(self) -> dict[str, dict[str, dict[int, str]]]:
    out = {}
    if 'captions' in self.files:
      captions = captions_lib.Captions(
        self.files['captions'], self.layout.captions_by
      )
    for split, names in self.names.items():
      if self._single and split != 'train':
        out[split] = captions_lib.only_captions(
          names, self.files['captions_1ka'], self.files.get('replaced_1ka')
        )
      else:
        out[split] = {
          name: captions.slots(name, in_order=split == 'train')
          for name in names
        }
    return out

  def _read_graphs(self) -> dict[str, Any]:
    wanted = {
      text: f'caption {slot} of clip {name!r} of split {split!r}'
      for split, clips in self._slots.items()
      for name, said in clips.items()
      for slot, text in said.items()
    }
    for i, text in enumerate(self._narrations or ()):
      wanted.setdefault(text, f'row {i} of {self.files["narrations"]}')
    return files_lib.role_graphs(self.files['graphs'], wanted)

  def _check_widths(self) -> int:
    first = {}
    for split, group in self._streams.items():
      for i, stream in enumerate(group):
        known = first.setdefault(i, stream)
        if stream.width != known.width:
          raise files_lib.BadFile(
            f'{stream.path}: features of width {stream.width} in split '
            f'{split!r}, expected {known.width} as in {known.path}. Extract '
            'both with the same network.'
          )
    return sum(stream.width for stream in first.values())


def _check_options(layout, splits, streams, graphs):
  unknown = sorted(set(splits) - set(layout_lib.SPLITS))
  if unknown or not splits:
    raise ValueError(
      f'{layout.name}: splits {unknown or "()"}; known: '
      f'{list(layout_lib.SPLITS)}.'
    )
  if graphs and not layout.graphs:
    raise ValueError(
      f'{layout.name}: this protocol has no role graphs; set graphs=False.'
    )
  if not streams or len(set(streams)) < len(streams):
    raise ValueError(
      f'{layout.name}: streams={streams}; expected folders of '
      f'ordered_feature/{layout.features}/, each once.'
    )
