# SPDX-License-Identifier: Apache-2.0
"""MSVD as frames: 1,200 / 100 / 670 clips with up to 81 captions each.

Captions are the published `raw-captions.pkl` and validation has a list of its
own. (Upstream EERCF reads a private file and validates on the test list.)
"""

import functools

from vidret_jax.data import pickles
from vidret_jax.data.frames import captions, published, sets


def read(split, paths, paraphrases) -> captions.Table:
  """The table of a split; see `published.Published`."""
  del paraphrases
  path = paths['captions']
  ids = captions.read_ids(paths[split])
  said = pickles.load(path)
  if not isinstance(said, dict):
    raise captions.BadAnnotation(
      f'{path}: expected a dict of video id to captions, found '
      f'{type(said).__name__}. Fetch the file again.'
    )
  # Python 2 wrote bytes.
  said = {_text(key): value for key, value in said.items()}
  rows = []
  for video in ids:
    if video not in said:
      raise captions.BadAnnotation(
        f'{paths[split]}: video {video!r} has no caption in {path}. Fetch '
        'both again, or take the video off the list.'
      )
    if not isinstance(said[video], (list, tuple)):
      raise captions.BadAnnotation(
        f'{path}: the captions of video {video!r} are '
        f'{str(said[video])[:80]!r}; expected a list.'
      )
    rows += [(video, _sentence(path, video, c)) for c in said[video]]
  return captions.table(rows, f'{paths[split]} and {path}', ids=ids)


def _sentence(path, video, words) -> str:
  if isinstance(words, (str, bytes)):
    return _text(words)
  if isinstance(words, (list, tuple)) and all(
    isinstance(word, (str, bytes)) for word in words
  ):
    return ' '.join(map(_text, words))
  raise captions.BadAnnotation(
    f'{path}: a caption of video {video!r} is {str(words)[:80]!r}; expected a '
    'list of words.'
  )


def _text(value) -> str:
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)


PUBLISHED = published.Published(
  name='msvd_frames',
  folder='MSVD',
  source='https://github.com/ArrowLuo/CLIP4Clip (msvd_data.zip; videos: MSVD)',
  files={
    'captions': 'raw-captions.pkl',
    'train': 'train_list.txt',
    'val': 'val_list.txt',
    'test': 'test_list.txt',
  },
  splits={split: (split, 'captions') for split in ('train', 'val', 'test')},
  read=read,
  clips=('videos', 'YouTubeClips'),
)

make = functools.partial(sets.make, PUBLISHED)
prepare = functools.partial(sets.prepare, PUBLISHED)
