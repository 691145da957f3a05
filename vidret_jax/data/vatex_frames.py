# SPDX-License-Identifier: Apache-2.0
"""VATEX as frames: clips of ten seconds with ten captions each.

No reader of VATEX was published with EERCF; its authors wrote the captions
as a CSV in the form of MSR-VTT's with ten adjacent rows per video. Any CSV with
the columns `video_id` and `sentence` will do, with any number of rows per
video, so this module also serves data of your own.
"""

import functools

from vidret_jax.data.frames import captions, published, sets


def read(split, paths, paraphrases) -> captions.Table:
  """The table of a split; see `published.Published`."""
  del paraphrases
  return captions.from_csv(paths[split])


PUBLISHED = published.Published(
  name='vatex_frames',
  folder='VATEX',
  source='https://eric-xw.github.io/vatex-website (captions as JSON)',
  files={
    'train': 'VATEX_train.csv',
    'val': 'VATEX_val.csv',
    'test': 'VATEX_test.csv',
  },
  splits={split: (split,) for split in ('train', 'val', 'test')},
  read=read,
  clips=('videos/frames', 'frames', 'videos'),
)

make = functools.partial(sets.make, PUBLISHED)
prepare = functools.partial(sets.prepare, PUBLISHED)
