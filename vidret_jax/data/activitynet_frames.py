# SPDX-License-Identifier: Apache-2.0
"""ActivityNet Captions as frames: 10,009 / 4,917 videos, one paragraph each.

The sentences of a video are joined, and the clip is second 0 to the end of
the annotated duration. There is no test split: `val` is the published val_1.
"""

import functools
import math

from vidret_jax.data.frames import captions, published, sets


def read(split, paths, paraphrases) -> captions.Table:
  """The table of a split; see `published.Published`."""
  del paraphrases
  list_path, path = paths[f'{split}_ids'], paths[split]
  ids = captions.read_json(list_path, list)
  told = captions.read_json(path, dict)
  rows, spans = [], {}
  for number, video in enumerate(ids):
    if not isinstance(video, str):
      raise captions.BadAnnotation(
        f'{list_path}, [{number}]: found {str(video)[:80]!r}, expected an id.'
      )
    where = f'video {video!r}'
    row = captions.field(path, 'outermost object', told, video, dict)
    seconds = captions.field(path, where, row, 'duration', (int, float))
    if not 0 < seconds < math.inf:
      raise captions.BadAnnotation(
        f"{path}, {where}, key 'duration': found {seconds}, expected seconds."
      )
    said = captions.field(path, where, row, 'sentences', list)
    if not all(isinstance(s, str) for s in said):
      raise captions.BadAnnotation(
        f"{path}, {where}, key 'sentences': expected a list of strings."
      )
    spans[video] = (0, math.ceil(seconds))
    rows.append((video, ' '.join(said)))
  ids = captions.unique(list_path, enumerate(ids), unit='entry')
  return captions.table(rows, f'{list_path} and {path}', ids=ids, spans=spans)


def stems(video: str) -> list[str]:
  """File names of a video: with `v_` as EERCF has them, or without."""
  return [video, video.removeprefix('v_')]


PUBLISHED = published.Published(
  name='activitynet_frames',
  folder='ActivityNet',
  source='https://github.com/ArrowLuo/CLIP4Clip (ActivityNet Captions)',
  files={
    'train_ids': 'train_ids.json',
    'val_ids': 'val_ids.json',
    'train': 'train.json',
    'val': 'val_1.json',
  },
  splits={split: (f'{split}_ids', split) for split in ('train', 'val')},
  read=read,
  clips=('videos', 'Activity_Videos'),
  stems=stems,
)

make = functools.partial(sets.make, PUBLISHED)
prepare = functools.partial(sets.prepare, PUBLISHED)
