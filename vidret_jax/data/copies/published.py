# SPDX-License-Identifier: Apache-2.0
"""Reads the annotations that HAP-VR has in its folder `data`, and our own."""

from collections.abc import Iterator, Mapping, Sized
import pathlib
from typing import Any

from absl import logging

from vidret_jax.data import bad_file, pickles, whole_files
from vidret_jax.data.copies import annotations as annotations_lib
from vidret_jax.data.copies import layout as layout_lib

# Entries per label of `fivr.pickle` of DnS. Its labels of 85 of 100 queries are
# others than those of `fivr_audio.pickle`.
_OLDER_NAME = 'fivr.pickle'
_OLDER = {'DS': 6132, 'CS': 1892, 'IS': 3580, 'DA': 322}


def read(
  layout: layout_lib.Layout, split: str, files: Mapping[str, pathlib.Path]
) -> annotations_lib.Annotations:
  """Reads the annotations of a split, whatever they are published as.

  Args:
    layout: of the collection.
    split: of `layout.splits`.
    files: see `Layout.find`.

  Raises:
    ValueError: naming file, key or line that is not as expected.
  """
  path = files[layout_lib.ANNOTATIONS]
  if layout.name == 'fivr':
    found = _fivr(path, split, files['easy'])
  elif layout.name == 'evve':
    found = _evve(path)
  elif layout.name == 'svd':
    found = _svd(path, files.get('unlabelled'))
  else:
    found = annotations_lib.read(path)
  # 5,000 videos of FIVR have the labels of all.
  if (layout.name, split) != ('fivr', '5k') and (outside := found.outside()):
    logging.warning(
      '%s: labels name %d videos that are not in the database, such as %r; '
      'nothing can find them.', path, len(outside), outside[0],
    )  # fmt: skip
  return found


def _fivr(path, split, easy):
  """`{'5k', '200k': {'queries', 'database'}, 'annotation': {query: labels}}`.

  As class `FIVR` of S2VS and HAP-VR (`datasets/fivr.py`) reads it.
  """
  found = _dict(pickles.load(path), path, 'the pickle', (split, 'annotation'))
  lists = _dict(found[split], path, repr(split), ('queries', 'database'))
  labels = _dict(found['annotation'], path, "'annotation'", ())
  counts = {
    label: sum(
      len(own[label])
      for own in labels.values()
      if isinstance(own, Mapping) and isinstance(own.get(label), Sized)
    )
    for label in _OLDER
  }
  if path.name == _OLDER_NAME or counts == _OLDER:
    logging.warning(
      '%s: these are the older labels of FIVR-200K that came with DnS. 85 of '
      '100 queries have others in fivr_audio.pickle of S2VS: figures cannot be '
      'compared with those of S2VS, HAP-VR or the dataset itself.', path,
    )  # fmt: skip
  return annotations_lib.build(
    f'{path}, {split}',
    protocol='fivr',
    queries=lists['queries'],
    database=lists['database'],
    labels=labels,
    easy=[name for _, (name,) in _lines(easy, 1, 'one video id')],
  )


def _evve(path):
  """`{'queries', 'database', 'annotation': {event: (queries, P, null)}}`.

  As class `EVVE` of S2VS and HAP-VR (`datasets/evve.py`) reads it; null sets
  are empty.
  """
  needed = ('queries', 'database', 'annotation')
  found = _dict(pickles.load(path), path, 'the pickle', needed)
  labels, events = {}, {}
  for event, sets in _dict(
    found['annotation'], path, "'annotation'", ()
  ).items():
    if not isinstance(sets, (tuple, list)) or len(sets) != 3:
      raise bad_file.BadFile(
        f'{path}: event {event!r} is {str(sets)[:60]!r}, expected three sets: '
        'queries, positives, null videos.'
      )
    events[event] = sets[0]
    if isinstance(sets[0], (set, frozenset, list, tuple)):
      ids = [query for query in sets[0] if isinstance(query, str)]
      labels.update({query: {'P': sets[1]} for query in ids})
  return annotations_lib.build(
    str(path),
    protocol='evve',
    queries=found['queries'],
    database=found['database'],
    labels=labels,
    events=events,
  )


def _svd(path, unlabelled):
  """Lines `query candidate label`, and one id a line.

  As class `SVD` of HAP-VR (`datasets/svd.py`) reads them: of two lines about
  one pair the later counts.
  """
  said, wanted = {}, "'query candidate label' with label 0 or 1"
  for where, (query, candidate, label) in _lines(path, 3, wanted):
    if label not in ('0', '1'):
      raise bad_file.BadFile(
        f'{where}: label {label[:20]!r}, expected {wanted}.'
      )
    before = said.setdefault(query, {}).get(candidate, label)
    if before != label:
      logging.warning('%s: label %s, but %s above.', where, label, before)
    said[query][candidate] = label
  others = ()
  if unlabelled:
    others = [name for _, (name,) in _lines(unlabelled, 1, 'one video id')]
  candidates = {video for own in said.values() for video in own}
  if both := sorted(candidates & set(others)):
    logging.warning(
      '%s: %d videos are labelled in %s, too, such as %r.',
      unlabelled, len(both), path, both[0],
    )  # fmt: skip
  return annotations_lib.build(
    str(path),
    protocol='svd',
    queries=list(said),
    database=candidates.union(others),
    labels={
      query: {
        name: [video for video, found in own.items() if found == label]
        for name, label in (('P', '1'), ('N', '0'))
      }
      for query, own in said.items()
    },
    unlabelled=others,
  )


def _lines(
  path: pathlib.Path, count: int, wanted: str
) -> Iterator[tuple[str, list[str]]]:
  """('file:line', words) of a text; blank lines are left out."""
  for number, line in enumerate(whole_files.text_lines(path), 1):
    words = line.split()
    if words and len(words) != count:
      raise bad_file.BadFile(
        f'{path}:{number}: {line.strip()[:80]!r}, expected {wanted}.'
      )
    if words:
      yield f'{path}:{number}', words


def _dict(value: Any, path, what, keys) -> Mapping[str, Any]:
  if not isinstance(value, Mapping) or any(key not in value for key in keys):
    found = list(value)[:8] if isinstance(value, Mapping) else type(value)
    raise bad_file.BadFile(
      f'{path}: {what} has {found}, expected a dict with {list(keys)}. Is it '
      'the right file?'
    )
  return value
