# SPDX-License-Identifier: Apache-2.0
"""Which captions and which classes a clip has in the published JSON files."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import Any
import warnings

from vidret_jax.data.graphs import classes as classes_lib
from vidret_jax.data.graphs import files

# Of a caption: verb classes, noun classes.
Classes = tuple[list[int], list[int]]


class Captions:
  """Captions of clips, checked when asked for.

  With keys '<clip>_<slot>' (Charades) the key is cut at its last '_', so that
  a clip whose name is the beginning of another keeps to its own. Upstream's
  evaluation takes all keys that *start with* the name, in file order, and its
  training looks up '<clip>_<k>'.
  """

  def __init__(self, path: pathlib.Path, by: str = 'clip'):
    """Reads the file.

    Args:
      path: {clip: [caption, ...]}, or {'<clip>_<slot>': [caption]}.
      by: 'clip' or 'slot': what the keys are.

    Raises:
      files.BadFile: it is no such file.
    """
    self.path = path
    self._by = by
    self._found = files.json_object(path)
    self._slots = _by_clip(self._found) if by == 'slot' else {}

  def slots(self, clip: str, *, in_order: bool = False) -> dict[int, str]:
    """Captions of a clip.

    Args:
      clip: its name.
      in_order: of the slots; otherwise that of the file. They differ only
        where keys are '<clip>_<slot>' and somebody shuffled them.

    Returns:
      slot -> caption, at least one.

    Raises:
      files.BadFile: it has none, or one that cannot be used.
    """
    where = f'{self.path}: caption {{}} of clip {clip!r}'
    if self._by == 'clip':
      said = self._found.get(clip)
      if said is not None and not isinstance(said, list):
        raise files.BadFile(
          f'{self.path}: the captions of clip {clip!r} are {str(said)[:60]!r}, '
          'expected a list of strings.'
        )
      out = dict(enumerate(said or ()))
    else:
      keys = self._slots.get(clip, {})
      out = {}
      for slot in sorted(keys) if in_order else keys:
        value = self._found[keys[slot]]
        if not isinstance(value, list) or len(value) != 1:
          raise files.BadFile(
            f'{self.path}: key {keys[slot]!r} has {str(value)[:60]!r}, '
            'expected a list of one caption.'
          )
        out[slot] = value[0]
    if not out:
      raise files.BadFile(
        f'{self.path}: clip {clip!r} has no caption. Add one, or take the clip '
        'off the list.'
      )
    for slot, text in out.items():
      files.caption(text, where.format(slot))
    return out


def only_captions(
  names: Sequence[str], captions: pathlib.Path, replaced: pathlib.Path | None
) -> dict[str, dict[int, str]]:
  """The one caption per clip that the 1k-A split of MSR-VTT evaluates.

  Args:
    names: the clips.
    captions: {clip: [caption, ...]}, whose first counts.
    replaced: {clip without '.mp4': caption}, which counts instead.

  Returns:
    clip -> {0: caption}.

  Raises:
    files.BadFile: a clip is in neither, or has an empty caption.
  """
  instead = files.json_object(replaced) if replaced else {}
  firsts = Captions(captions)
  out = {}
  for name in names:
    key = name.removesuffix('.mp4')
    if key in instead:
      where = f'{replaced}: the caption of clip {key!r}'
      out[name] = {0: files.caption(instead[key], where)}
    else:
      out[name] = {0: firsts.slots(name)[0]}
  return out


def read_classes(
  path: pathlib.Path,
  captions: Mapping[str, Iterable[int]],
  *,
  by: str = 'slot',
  num_classes: tuple[int, int] | None = None,
) -> dict[str, list[Classes]]:
  """Classes of all captions of the training clips.

  Args:
    path: {'database': {key: {'annotations': [{'verb_class': ...,
      'noun_classes': ...}]}}}; further annotations are not looked at.
    captions: clip -> slots of its captions.
    by: what the keys are. 'clip': clips; all captions of one share its
      classes. 'slot': '<clip>_<slot>'. 'rank': the same without '.mp4', and
      the k-th caption has the k-th of the clip's keys in the order of their
      slots, as MSR-VTT's reader has it.
    num_classes: of verbs and nouns, where known.

  Returns:
    clip -> per caption, verb and noun classes with repetitions.

  Raises:
    files.BadFile: a caption without annotation, or classes that are none.
  """
  database = files.json_object(path).get('database')
  if not isinstance(database, dict):
    raise files.BadFile(
      f'{path}: no object {"database"!r} of annotations. Fetch the file again.'
    )
  keys = {} if by == 'clip' else _by_clip(database)
  limits = num_classes or (None, None)
  out = {}
  for clip, slots in captions.items():
    slots = list(slots)
    if by == 'clip':
      found = [clip] * len(slots)
    elif by == 'slot':
      found = [f'{clip}_{slot}' for slot in slots]
    else:
      known = keys.get(clip.removesuffix('.mp4'), {})
      found = [known[slot] for slot in sorted(known)]
      if len(found) > len(slots):
        warnings.warn(
          f'{path}: clip {clip!r} has {len(slots)} captions, but '
          f'{len(found)} annotations; the last ones are left out.',
          stacklevel=2,
        )
    out[clip] = []
    for i, slot in enumerate(slots):
      key = found[i] if i < len(found) else None
      if key is None or key not in database:
        key = key or f'{clip.removesuffix(".mp4")}_{slot}'
        raise files.BadFile(
          f'{path}: no annotation {key!r}, for caption {slot} of training clip '
          f'{clip!r}. Annotate it, or take the clip off the list.'
        )
      out[clip].append(_entry(path, key, database[key], limits))
  return out


def _entry(path, key, value, limits) -> Classes:
  try:
    first = value['annotations'][0]
    fields = first['verb_class'], first['noun_classes']
  except (KeyError, IndexError, TypeError):
    raise files.BadFile(
      f'{path}: the annotation {key!r} is {str(value)[:60]!r}, expected '
      "{'annotations': [{'verb_class': ..., 'noun_classes': ...}]}."
    ) from None
  out = []
  for what, field, limit in zip(('verb', 'noun'), fields, limits):
    try:
      out.append(classes_lib.parse(field, limit))
    except ValueError as error:
      raise files.BadFile(
        f'{path}: annotation {key!r}: {what} {error}. Correct the file.'
      ) from None
  return out[0], out[1]


def _by_clip(keys: Mapping[str, Any]) -> dict[str, dict[int, str]]:
  """{clip: {slot: key}} of keys '<clip>_<slot>', in their order."""
  out = {}
  for key in keys:
    clip, _, slot = key.rpartition('_')
    if slot.isdecimal() and len(slot) < 10:
      out.setdefault(clip, {}).setdefault(int(slot), key)
  return out
