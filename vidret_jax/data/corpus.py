# SPDX-License-Identifier: Apache-2.0
"""Reads a published feature pack: lists, captions, text and experts.

What one dataset does differently is in its `Layout`; everything is checked
before the first record is written.
"""

from collections.abc import Sequence
import pathlib
from typing import Any
import warnings

import numpy as np

from vidret_jax.data import containers, features
from vidret_jax.data.layout import ROOTS, Layout, Request, expert_files


class MissingCorpus(FileNotFoundError):
  """A dataset whose files are not on this machine."""


class Corpus:
  """An open pack.

  Attributes:
    ids: split -> video ids.
    files: paths of all files that were opened.
  """

  def __init__(self, layout: Layout, request: Request, folder: str):
    self.layout = layout
    self.request = request
    self.folder = pathlib.Path(folder)
    own_text = bool(request.text_files)
    names = [name for name, _, _ in request.experts]
    relative = {n: expert_files(layout, request, n) for n in names}
    if not self.folder.is_dir():
      raise self._absent(f'the folder {self.folder} does not exist')
    self._places = self._find_places()
    self.ids = self._read_lists()
    # Every path is resolved before the first big file is opened.
    paths = {
      name: [self._find(f, f'expert {name!r}') for f in files]
      for name, files in relative.items()
    }
    texts = {split: self._text_paths(split) for split in self.ids}
    captions = self._find(layout.captions, 'captions')
    key_file = None
    if layout.text_key and request.encoder == 'openai' and not own_text:
      key_file = self._find(layout.text_key, 'keys of the text features')
    slots = {split: self._slot_path(split) for split in self.ids}
    self.files = [captions, *(p for split in texts.values() for p in split)]
    self.files += [p for group in paths.values() for p in group]
    self.files += [p for p in (key_file, *slots.values()) if p]
    self.files = sorted(set(self.files))
    opened = {p: containers.open_features(p) for p in self.files}
    self._captions = (captions, opened[captions])
    self._text = {
      split: [(p, opened[p]) for p in group] for split, group in texts.items()
    }
    self._key = opened[key_file] if key_file else None
    self._slots = {s: (p, opened[p]) for s, p in slots.items() if p}
    self._experts = {
      name: [(p, opened[p]) for p in group] for name, group in paths.items()
    }
    self._odd_captions = 0

  def _absent(self, why: str) -> MissingCorpus:
    layout = self.layout
    wanted = sorted(set(layout.lists[self.request.protocol].values()))
    return MissingCorpus(
      f'{layout.name}: {why}.\n'
      f'  expected: {self.folder}/{self.request.root or ROOTS[0]}/ with '
      f'{", ".join(wanted)}, {layout.captions} and the features\n'
      f'  published: {layout.source}\n'
      f'  sha1 of the archive: {layout.sha1}\n'
      '  next: unpack it there, or name another folder:\n'
      '    python -m vidret_jax.tools.prepare --config <your config> '
      f'--manual_dir <folder of {layout.folder}>'
    )

  def _find_places(self) -> list[pathlib.Path]:
    roots = [self.request.root] if self.request.root else ROOTS
    places = [self.folder / root for root in roots]
    there = [place for place in places if place.is_dir()]
    if not there and self.request.root:
      raise self._absent(f'it has no feature folder {self.request.root!r}')
    # Never two packs at once: their features differ under the same names.
    return [*there[:1], self.folder]

  def _find(self, names: str | Sequence[str], what: str) -> pathlib.Path:
    names = [names] if isinstance(names, str) else list(names)
    what = f'{self.layout.name}, {what}'
    try:
      return features.resolve(self._places, names, what)
    except features.MissingFile as error:
      raise features.MissingFile(
        f'{error}\n  published: {self.layout.source}\n  next: put it there, '
        'set `root` to another feature folder, or name it with `paths`'
      ) from None

  def _read_lists(self) -> dict[str, list[str]]:
    out = {}
    for split, name in self.layout.lists[self.request.protocol].items():
      if split == 'train' and self.request.training_file:
        name = self.request.training_file
      places = [place / name for place in self._places]
      file = next((p for p in places if p.is_file()), None)
      if file is None:
        if split in self.layout.optional:
          continue
        tried = ', '.join(str(p) for p in places)
        raise self._absent(f'the list of split {split!r} is not at {tried}')
      lines = file.read_text(encoding='utf-8').splitlines()
      ids = [self.layout.video_id(line) for line in lines if line.strip()]
      if not ids:
        raise ValueError(f'{file}: no video ids. Fetch the list again.')
      seen = set()
      for video in ids:
        if video in seen:
          raise ValueError(
            f'{file}: video id {video!r} occurs twice; expected each once. '
            'Remove one of the lines.'
          )
        seen.add(video)
      out[split] = ids
    return out

  def _text_paths(self, split: str) -> list[pathlib.Path]:
    if self.request.text_files:
      groups = [[name] for name in self.request.text_files]
    else:
      groups = self.layout.text_files(self.request.encoder, split)
    what = f'text features of {self.request.encoder!r}'
    return [self._find(group, what) for group in groups]

  def _slot_path(self, split: str) -> pathlib.Path | None:
    slot = self.layout.slots.get((self.request.protocol, split))
    if not isinstance(slot, str):
      return None
    try:
      return features.resolve(self._places, [slot], 'caption index')
    except features.MissingFile as error:
      # One published pack misspells the name.
      found = [
        p for place in self._places for p in place.glob('*caption_idx*.p*k*')
      ]
      if len(found) == 1:
        return found[0]
      raise features.MissingFile(
        f'{error}\n{self.layout.name}: this split evaluates one chosen caption '
        'per video and needs the index of the choice (dict id -> int). It is '
        'not in every published archive; take it from the other one, or '
        'evaluate another split.'
      ) from None

  def record(self, split: str, video: str) -> dict[str, Any]:
    """One checked record.

    Returns:
      dict as `vidret_jax.data.records.features` describes it, with
      `query_slots`.

    Raises:
      ValueError: a file that misses the video, or features or captions that
        must not be used.
    """
    tokens = self._tokens(split, video)
    captions = self._raw_captions(video, len(tokens))
    out = {
      'id': video,
      'captions': captions,
      'text': np.concatenate(tokens),
      'text_len': np.asarray([len(t) for t in tokens], np.int32),
      'experts': {},
      'available': {},
      'video': f'videos/{video}.mp4',
      'query_slots': self._query_slots(split, video, len(tokens)),
    }
    for name, dim, variable in self.request.experts:
      value = self._expert(name, dim, variable, video)
      out['available'][name] = value is not None
      missing = np.zeros((0, dim), np.float32)
      out['experts'][name] = missing if value is None else value
    return out

  def _tokens(self, split: str, video: str) -> list[np.ndarray]:
    key = video
    if self._key is not None:
      if video not in self._key:
        raise ValueError(
          f'{self.layout.text_key}: no key for video {video!r}. Fetch the '
          'file again, or take the video off the list.'
        )
      key = self._key[video]
    path, value = containers.look_up(self._text[split], key)
    if containers.is_missing(value) or len(value) == 0:
      raise ValueError(
        f'{path}: video {video!r} has no captions; expected at least one. Add '
        'one, or take the video off the list.'
      )
    tokens = []
    for slot, caption in enumerate(value):
      rows = features.rows(
        caption,
        self.request.text_dim,
        variable=True,
        path=path,
        video=video,
        key=f'text.dim, caption {slot}',
      )
      if rows is None or len(rows) == 0:
        raise ValueError(
          f'{path}: caption {slot} of video {video!r} is empty; expected at '
          'least one token. Remove the caption from this file and from '
          f'{self.layout.captions}, or take the video off the list.'
        )
      tokens.append(rows)
    return tokens

  def _raw_captions(self, video: str, count: int) -> list[str]:
    path, container = self._captions
    _, value = containers.look_up([(path, container)], video)
    out = []
    for slot, caption in enumerate(value):
      text = caption if isinstance(caption, str) else ' '.join(caption)
      if not text.strip():
        raise ValueError(
          f'{path}: caption {slot} of video {video!r} is empty; expected at '
          'least one token. Remove it here and from the text features.'
        )
      out.append(text)
    if len(out) != count:
      if not self._odd_captions:
        warnings.warn(
          f'{path}: video {video!r} has {len(out)} captions, but {count} of '
          'them have text features. Captions are only shown, never trained '
          'on; reports may show the wrong one.',
          stacklevel=2,
        )
      self._odd_captions += 1
      out = (out + [''] * count)[:count]
    return out

  def _query_slots(self, split: str, video: str, count: int) -> np.ndarray:
    slot = self.layout.slots.get((self.request.protocol, split))
    if slot is None:
      return np.zeros(0, np.int32)
    path = self.layout.captions
    if isinstance(slot, str):
      path, slot = containers.look_up([self._slots[split]], video)
    if not 0 <= int(slot) < count:
      raise ValueError(
        f'{path}: caption {slot} of video {video!r} is to be evaluated, but it '
        f'has {count}. Correct the index.'
      )
    return np.asarray([int(slot)], np.int32)

  def _expert(self, name, dim, variable, video) -> np.ndarray | None:
    files = self._experts[name]
    if len(files) == 1:
      path, value = containers.look_up(files, video)
      return features.rows(
        value, dim, variable=variable, path=path, video=video, key=name
      )
    # Several aggregates over time lie in files of their own.
    parts = [containers.look_up([file], video)[1] for file in files]
    if any(containers.is_missing(part) for part in parts):
      return None
    joined = np.concatenate([np.atleast_2d(part) for part in parts], axis=1)
    paths = ' + '.join(str(path) for path, _ in files)
    return features.rows(
      joined, dim, variable=variable, path=paths, video=video, key=name
    )
