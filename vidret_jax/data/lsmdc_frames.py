# SPDX-License-Identifier: Apache-2.0
"""LSMDC as frames: 101,000 / 7,400 / 1,000 movie clips, one sentence each.

Six columns between tabs, without a header: clip id, start and end (aligned),
start and end (extracted), sentence. Upstream drops rows whose
clip is not on the disk; here such a clip is left out of training only.
"""

import functools

from vidret_jax.data.frames import captions, published, sets

_COLUMNS = 6


def read(split, paths, paraphrases) -> captions.Table:
  """The table of a split; see `published.Published`."""
  del paraphrases
  path = paths[split]
  rows = []
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    if not line.strip():
      continue
    try:
      text = line.decode('utf-8-sig')
    except UnicodeDecodeError:
      text = line.decode('latin-1')  # Never fails; the file names no encoding.
    cells = text.split('\t')
    if len(cells) != _COLUMNS or not cells[0].strip() or not cells[-1].strip():
      raise captions.BadAnnotation(
        f'{path}, line {number}: found {len(cells)} columns between tabs, '
        f'expected {_COLUMNS}: clip id, four times, sentence. Complete the '
        'line or remove it.'
      )
    rows.append((cells[0].strip(), cells[-1].strip()))
  return captions.table(rows, str(path))


PUBLISHED = published.Published(
  name='lsmdc_frames',
  folder='LSMDC',
  source='https://sites.google.com/site/describingmovies (licence needed)',
  files={
    'train': 'LSMDC16_annos_training.csv',
    'val': 'LSMDC16_annos_val.csv',
    'test': 'LSMDC16_challenge_1000_publictect.csv',
  },
  splits={split: (split,) for split in ('train', 'val', 'test')},
  read=read,
  clips=('videos',),
)

make = functools.partial(sets.make, PUBLISHED)
prepare = functools.partial(sets.prepare, PUBLISHED)
