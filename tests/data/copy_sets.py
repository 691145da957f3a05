# SPDX-License-Identifier: Apache-2.0
"""Writes tiny collections of copies, as they are published.

Names and formats are written out here, not taken from the package, so that
both can be wrong only in different ways. Relatives of a query have frames of
it, the more alike the nearer they are, so that a network can rank them.
"""

from collections.abc import Sequence
import json
import pathlib
import pickle

import h5py
import numpy as np

NAMES = ('fivr', 'evve', 'svd', 'folder_copies')
# Relation -> (share of the query's frames, noise beside them).
_RELATIVES = {
  'ND': (1.0, 0.3),
  'DS': (0.6, 0.6),
  'CS': (0.5, 0.9),
  'IS': (0.4, 1.2),
  'DA': (0.0, 0.0),
}
_DTYPES = ('float32', 'float32', 'float16', 'float64')


def write(
  root,
  name: str = 'fivr',
  *,
  queries: int = 4,
  copies: int = 2,
  others: int = 5,
  frames: Sequence[int] = (12, 5, 18, 9, 1),
  regions: int = 9,
  dim: int = 12,
  missing: int = 2,
  mixed: bool = True,
  seed: int = 0,
) -> pathlib.Path:
  """Writes what a config of a collection reads.

  Args:
    root: folder that gets the files; what the collection calls `root`.
    name: module of the collection, one of `NAMES`. For 'folder_copies' see
      `folder_paths`.
    queries: how many. Of FIVR-5K the first half of them, at least one.
    copies: relatives of a kind per query.
    others: videos that are related to no query.
    frames: lengths of videos, taken in turn; relatives are at least as long as
      the part of the query that they have.
    regions: of a frame.
    dim: width.
    missing: videos of the lists that are not in the file of features: the last
      of the others, and the last relative of the first query.
    mixed: floats of three kinds, and a video without an axis of regions.
    seed: of everything.

  Returns:
    The root.
  """
  rng = np.random.default_rng(seed)
  root = pathlib.Path(root)
  root.mkdir(parents=True, exist_ok=True)
  ids = _ids(name, rng)
  features, families = {}, {}
  for i in range(queries):
    query = next(ids)
    features[query] = _unit(rng, frames[i % len(frames)], regions, dim)
    families[query] = {}
    for relation in _relations(name):
      some = [next(ids) for _ in range(copies)]
      families[query][relation] = some
      for k, video in enumerate(some):
        features[video] = _relative(
          features[query], relation, frames[(i + k + 1) % len(frames)], rng
        )
  rest = [next(ids) for _ in range(others)]
  for k, video in enumerate(rest):
    features[video] = _unit(rng, frames[k % len(frames)], regions, dim)
  first = next(iter(families.values()))
  last = next(reversed(first.values()))[-1]
  absent = {*rest[len(rest) - missing + 1 :], last} if missing else set()
  arrays = {v: x for v, x in features.items() if v not in absent}
  {'fivr': _fivr, 'evve': _evve, 'svd': _svd, 'folder_copies': _folder}[name](
    root, families, rest, arrays, mixed
  )
  return root


def folder_paths() -> dict[str, str]:
  """`paths` of a folder that was written for 'folder_copies'."""
  return {'features': 'features.hdf5', 'annotations': 'annotations.json'}


def write_hdf5(path, arrays, mixed: bool = False) -> None:
  """One dataset per video; see `write`."""
  with h5py.File(path, 'w') as file:
    for i, (video, value) in enumerate(arrays.items()):
      dtype = _DTYPES[i % 4] if mixed else 'float32'
      if mixed and i == len(arrays) - 1:
        value = value.mean(axis=1)
        value = value / np.linalg.norm(value, axis=-1, keepdims=True)
      file[video] = value.astype(dtype)


def _relations(name):
  return {'evve': ('DS',), 'svd': ('ND', 'DA')}.get(name, tuple(_RELATIVES))


def _ids(name, rng):
  number = 0
  letters = list('abcdefghijkLMNOPQRSTUVWXYZ0123456789_')
  while True:
    if name == 'svd':
      yield f'65{rng.integers(10**15):015d}{number:02d}.mp4'
    else:
      # Some ids of YouTube begin with a dash.
      start = '-' if number % 5 == 3 else 'v'
      yield start + ''.join(rng.choice(letters, 8)) + f'{number:02d}'
    number += 1


def _unit(rng, *shape):
  value = rng.normal(size=shape)
  return value / np.linalg.norm(value, axis=-1, keepdims=True)


def _relative(query, relation, frames, rng):
  share, noise = _RELATIVES[relation]
  own = query[: int(round(share * len(query)))]
  rest = _unit(rng, max(frames - len(own), 1), *query.shape[1:])
  value = np.concatenate([own + noise * _unit(rng, *own.shape), rest])
  return value / np.linalg.norm(value, axis=-1, keepdims=True)


def _all(families):
  return [v for own in families.values() for some in own.values() for v in some]


def _dump(path, value) -> None:
  with open(path, 'wb') as stream:
    pickle.dump(value, stream)


def _fivr(root, families, rest, arrays, mixed):
  queries, videos = list(families), [*families, *_all(families), *rest]
  few = queries[: max(len(queries) // 2, 1)]
  part = [*few[:1], *_all({q: families[q] for q in few}), *rest]
  value = {
    '5k': {'queries': few, 'database': set(part)},
    '200k': {'queries': queries, 'database': set(videos)},
    'annotation': {},
  }
  for i, (query, own) in enumerate(families.items()):
    # Not every query has every label, and a video may have two.
    kept = {k: list(v) for k, v in own.items() if i % 2 == 0 or k != 'CS'}
    kept['IS'] = [*kept['IS'], kept['DS'][0]]
    value['annotation'][query] = kept
  _dump(root / 'fivr_audio.pickle', value)
  easy = [own['ND'][0] for own in families.values()]
  (root / 'fivr_easy_duplicates.txt').write_text('\n'.join(easy) + '\n')
  write_hdf5(root / 'fivr_200k.hdf5', arrays, mixed)
  wanted = {*few, *part}
  some = {v: x for v, x in arrays.items() if v in wanted}
  write_hdf5(root / 'fivr_5k.hdf5', some, mixed)


def _evve(root, families, rest, arrays, mixed):
  queries = list(families)
  events = {}
  for i in range(0, len(queries), 2):
    own = queries[i : i + 2]
    positives = set(_all({q: families[q] for q in own}))
    events[f'event {i // 2}'] = (set(own), positives, set())
  database = [*_all(families), *rest]
  value = {'queries': queries, 'database': database, 'annotation': events}
  _dump(root / 'evve.pickle', value)
  write_hdf5(root / 'evve.hdf5', arrays, mixed)


def _svd(root, families, rest, arrays, mixed):
  lines = [
    f'{query} {video} {int(relation == "ND")}\n'
    for query, own in families.items()
    for relation, some in own.items()
    for video in some
  ]
  (root / 'test_groundtruth').write_text(''.join(lines))
  (root / 'unlabeled-data-id').write_text('\n'.join(rest) + '\n')
  write_hdf5(root / 'svd.hdf5', arrays, mixed)


def _folder(root, families, rest, arrays, mixed):
  value = {
    'protocol': 'fivr',
    'queries': list(families),
    'database': [*_all(families), *rest],
    'labels': families,
  }
  (root / 'annotations.json').write_text(json.dumps(value))
  write_hdf5(root / 'features.hdf5', arrays, mixed)
