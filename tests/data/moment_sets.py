# SPDX-License-Identifier: Apache-2.0
"""Writes tiny sets of videos with described moments, as they are published.

Names and formats are written out here, not taken from the package, so that
both can be wrong only in different ways. Query, clips and subtitles of a
moment share a pattern, so a model can learn to find it.
"""

from collections.abc import Mapping, Sequence
import json
import math
import pathlib

import h5py
import numpy as np

# Module -> (first part of file names, seconds of a clip).
DATASETS = {
  'tvr_moments': ('tvr', 1.5),
  'activitynet_moments': ('activitynet', 5.0),
  'charades_moments': ('charades', 3.0),
  'didemo_moments': ('didemo', 2.5),
  'folder_moments': ('', 1.5),
}
VIDEOS = {'train': 6, 'val': 4, 'test_public': 3, 'test_challenge': 2}
WIDTHS = {'resnet': 8, 'i3d': 6, 'subtitle': 5, 'query': 7}
_FAMILIES = {
  'resnet': 'resnet152_rgb_max',
  'i3d': 'i3d_rgb600_avg',
  'resnet_i3d': 'resnet152_rgb_max_i3d_rgb600_avg_cat',
}
_SHOWS = ('castle_', 'friends_', '', 'met_')
_WORDS = ('she', 'opens', 'a', 'door', 'and', 'laughs', 'at', 'him')
_TYPES = ('v', 't', 'vt')


def write(
  root,
  name: str = 'tvr_moments',
  *,
  videos: Mapping[str, int] | None = None,
  queries: int = 3,
  widths: Mapping[str, int] | None = None,
  clip_seconds: float | None = None,
  clips: Sequence[int] = (20, 7, 34, 12),
  annotators: int | None = None,
  hidden: Sequence[str] | None = None,
  seed: int = 0,
) -> pathlib.Path:
  """Writes what a config of a dataset reads.

  Args:
    root: folder that gets the files; what the dataset calls `root`.
    name: module of the dataset, one of `DATASETS`. For 'folder_moments' see
      `folder_paths`.
    videos: split -> how many; see `VIDEOS` for those left out. test_challenge
      has videos but no queries, as published.
    queries: per video.
    widths: of 'resnet', 'i3d', 'subtitle' and 'query'; see `WIDTHS`.
    clip_seconds: length of a clip; that of the dataset by default.
    clips: lengths of videos in clips, taken in turn.
    annotators: of a moment; 4 for DiDeMo, otherwise one, whose span is not in a
      list of its own.
    hidden: splits whose queries name neither video nor moment; of TVR
      'test_public' by default, of others none.
    seed: of everything.

  Returns:
    The root.
  """
  rng = np.random.default_rng(seed)
  root = pathlib.Path(root)
  root.mkdir(parents=True, exist_ok=True)
  prefix, usual = DATASETS[name]
  seconds = clip_seconds or usual
  sizes, widths = {**VIDEOS, **(videos or {})}, {**WIDTHS, **(widths or {})}
  if annotators is None:
    annotators = 4 if name == 'didemo_moments' else 1
  if hidden is None:
    hidden = ('test_public',) if name == 'tvr_moments' else ()
  durations = _durations(sizes, clips, seconds, rng)
  rows = _rows(durations, queries, seconds, annotators, rng)
  arrays = _features(durations, rows, widths, seconds, rng)
  for split, some in rows.items():
    known = ('desc', 'desc_id') if split in hidden else None
    lines = [{k: r[k] for k in known or r if k[0] != '_'} for r in some]
    file = root / _annotations(prefix, split)
    file.write_text('\n'.join(json.dumps(line) for line in lines))
  table = f'{prefix}_video2dur_idx.json' if prefix else 'durations.json'
  (root / table).write_text(json.dumps(durations))
  for key, path in _paths(prefix, seconds).items():
    _write(root / path, arrays[key])
  return root


def folder_paths(splits: Sequence[str] = ('train', 'val', 'test_public')):
  """`paths` of a folder that was written for 'folder_moments'."""
  return {
    **{f'annotations_{s}': _annotations('', s) for s in splits},
    'durations': 'durations.json',
    **{
      'video': 'video.h5',
      'subtitle': 'subtitles.h5',
      'query': 'queries.h5',
    },
  }


def _annotations(prefix, split):
  return f'{prefix}_{split}_release.jsonl' if prefix else f'{split}.jsonl'


def _paths(prefix, seconds) -> dict[str, str]:
  """Key of an array -> its file."""
  if not prefix:
    return {
      'resnet_i3d': 'video.h5',
      'subtitle': 'subtitles.h5',
      'query': 'queries.h5',
    }
  home, tail = f'{prefix}_feature_release', f'cl-{seconds:g}.h5'
  out = {
    key: f'{home}/video_feature/{prefix}_{family}_{tail}'
    for key, family in _FAMILIES.items()
  }
  text = f'{home}/bert_feature'
  start = f'{text}/sub_query/{prefix}'
  out['query'] = f'{start}_query_pretrained_w_sub_query.h5'
  out['subtitle'] = f'{start}_sub_pretrained_w_sub_query_max_{tail}'
  # Of another encoder, so the numbers differ.
  out['query_only'] = f'{text}/query_only/{prefix}_query_pretrained_w_query.h5'
  return out


def _durations(sizes, clips, seconds, rng):
  out, number = {}, 0
  for split in sorted(sizes):  # The published order is alphabetical, too.
    out[split] = {}
    for _ in range(sizes[split]):
      name = f'{_SHOWS[number % 4]}s01e{number:02d}_seg01_clip_{number:02d}'
      length = clips[number % len(clips)] - rng.uniform(0.1, 0.9)
      out[split][name] = [round(length * seconds, 2), number]
      number += 1
  return out


def _rows(durations, queries, seconds, annotators, rng):
  out, number = {}, 0
  for split in ('train', 'val', 'test_public'):
    out[split] = []
    for video, (duration, _) in durations[split].items():
      for _ in range(queries):
        length = min(rng.uniform(1.5, 6) * seconds, duration)
        start = rng.uniform(0, duration - length)
        ts = [round(start, 2), round(min(start + length, duration), 2)]
        if annotators > 1:
          step = min(seconds, ts[0])  # They disagree about the start.
          early = [round(ts[0] - step, 2), ts[1]]
          ts = [(ts, ts, early, early)[k % 4] for k in range(annotators)]
        words = ' '.join(rng.choice(_WORDS, int(rng.integers(2, 9))))
        out[split].append(
          dict(
            vid_name=video, duration=duration, ts=ts, desc=words + '. ',
            type=_TYPES[number % 3], desc_id=number,
          )
        )  # fmt: skip
        number += 1
    rng.shuffle(out[split])  # Rows are in no particular order.
  return out


def _features(durations, rows, widths, seconds, rng):
  """Key -> dataset -> array."""
  maps = {key: rng.normal(size=(16, width)) for key, width in widths.items()}
  arrays = {key: {} for key in ('resnet', 'i3d', 'resnet_i3d', 'subtitle')}
  arrays |= {'query': {}, 'query_only': {}}
  patterns = {}
  for some in durations.values():
    for video, (duration, _) in some.items():
      patterns[video] = rng.normal(
        scale=0.5, size=(math.ceil(duration / seconds), 16)
      )
  for some in rows.values():
    for row in some:
      ts = row['ts'][0] if isinstance(row['ts'][0], list) else row['ts']
      own = rng.normal(size=16)
      first, last = (int(t / seconds) for t in ts)
      patterns[row['vid_name']][first : last + 1] += own
      # Some queries have more tokens than a model takes, some one only.
      tokens = (37, 1, 5, 9)[row['desc_id'] % 4]
      for key, shift in (('query', 0.0), ('query_only', 0.5)):
        noise = rng.normal(scale=0.3, size=(tokens, widths['query']))
        told = own @ maps['query'] + noise + shift
        arrays[key][str(row['desc_id'])] = told
  for video, pattern in patterns.items():
    parts = []
    for key in ('resnet', 'i3d'):
      noise = rng.normal(scale=0.3, size=(len(pattern), widths[key]))
      arrays[key][video] = pattern @ maps[key] + noise
      length = np.linalg.norm(arrays[key][video], axis=1, keepdims=True)
      parts.append(arrays[key][video] / (length + 1e-5))
    arrays['resnet_i3d'][video] = np.concatenate(parts, axis=1)
    told = (rng.random(len(pattern)) < 0.7).astype(np.float32)
    arrays['subtitle'][video] = (pattern @ maps['subtitle']) * told[:, None]
    arrays['subtitle'][f'{video}-mask'] = told
  return arrays


def _write(path: pathlib.Path, arrays) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, 'w') as file:
    for key, value in arrays.items():
      file[key] = np.asarray(value, np.float32)
