# SPDX-License-Identifier: Apache-2.0
"""DiDeMo as frames: 8,395 / 1,065 / 1,004 videos, one paragraph each.

All descriptions of a video are joined in file order, and the clip is second 0
to 31. Ids of the lists end in the name of the uploaded file,
`.mov` or `.avi`, where the file on disk may have been converted; EERCF finds
`<id>.mp4`, CLIP4Clip `<id>` itself, this module both and `<id's stem>.<any>`.
"""

import functools
import pathlib

from vidret_jax.data.frames import captions, published, sets

SPAN = (0, 31)


def _stem(video: str) -> str:
  """An id without the suffix of a video file or the dot that is left of it."""
  name = pathlib.PurePath(video)
  known = ('.mov', '.mp4', '.avi', '.m4v', '.mpg', '.3gp', '.wmv', '.mkv')
  if name.suffix.lower() in known or video.endswith('.'):
    return video[: video.rindex('.')]
  return video


def read(split, paths, paraphrases) -> captions.Table:
  """The table of a split; see `published.Published`."""
  del paraphrases
  list_path, path = paths[f'{split}_list'], paths[f'{split}_data']
  ids = captions.read_ids(list_path)
  told, by_stem = {}, {}
  for i, row in enumerate(captions.read_json(path, list)):
    video = captions.field(path, f'[{i}]', row, 'video', str)
    said = captions.field(path, f'[{i}]', row, 'description', str)
    told.setdefault(video, []).append(said)
    by_stem.setdefault(_stem(video), video)
  rows = []
  for video in ids:
    found = video if video in told else by_stem.get(_stem(video))
    if found is None:
      raise captions.BadAnnotation(
        f'{list_path}: video {video!r} has no description in {path}. Fetch '
        'both again, or take the video off the list.'
      )
    rows.append((video, ' '.join(told[found])))
  return captions.table(
    rows,
    f'{list_path} and {path}',
    ids=ids,
    spans=dict.fromkeys(ids, SPAN),
  )


def stems(video: str) -> list[str]:
  """File names that a video may have, without their last suffix."""
  return [video, _stem(video)]


_SPLITS = ('train', 'val', 'test')
PUBLISHED = published.Published(
  name='didemo_frames',
  folder='DiDeMo',
  source='https://github.com/LisaAnne/LocalizingMoments (DiDeMo)',
  files={
    **{f'{split}_list': f'{split}_list.txt' for split in _SPLITS},
    **{f'{split}_data': f'{split}_data.json' for split in _SPLITS},
  },
  splits={split: (f'{split}_list', f'{split}_data') for split in _SPLITS},
  read=read,
  clips=('videos',),
  stems=stems,
)

make = functools.partial(sets.make, PUBLISHED)
prepare = functools.partial(sets.prepare, PUBLISHED)
