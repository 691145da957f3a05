# SPDX-License-Identifier: Apache-2.0
"""MSR-VTT as frames: 10,000 videos, 20 captions each.

train_9k, train_7k    the lists of 1k-A training; captions of MSRVTT_data.json
test_1ka              1,000 videos, one chosen caption each
train_full, val_full, test_full   6,513 / 497 / 2,990 by the file's own `split`

Files and formats: upstream `dataloaders/dataloader_msrvtt_retrieval.py`
(CLIP4Clip).
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib

from vidret_jax.data.frames import captions, published, sets

_FULL = {'train_full': 'train', 'val_full': 'validate', 'test_full': 'test'}


def read(
  split: str,
  paths: Mapping[str, pathlib.Path],
  paraphrases: Sequence[pathlib.Path],
) -> captions.Table:
  """The table of a split; see `published.Published`."""
  if split == 'test_1ka':
    return captions.from_csv(paths['test_1ka'])
  path = paths['data']
  data = captions.read_json(path, dict)
  rows = _sentences(path, data)
  where = str(path)
  if split in _FULL:
    ids = _videos(path, data, _FULL[split])
  else:
    where = f'{paths[split]} and {path}'
    numbered = [
      (line, video)
      for line, (video,) in captions.read_csv(paths[split], ['video_id'])
    ]
    ids = captions.unique(paths[split], numbered, column='video_id')
    told = {video for video, _ in rows}
    for line, video in numbered:
      if video not in told:
        raise captions.BadAnnotation(
          f"{paths[split]}, line {line}, column 'video_id': {video!r} has no "
          f'caption in {path}. The files do not belong together; fetch both '
          'again, or take the video off the list.'
        )
  return captions.table(
    rows,
    where,
    ids=ids,
    variants=[_paraphrase(other, path, rows) for other in paraphrases],
  )


def _sentences(path, data) -> list[tuple[str, str]]:
  sentences = captions.field(path, 'outermost object', data, 'sentences', list)
  out = []
  for i, row in enumerate(sentences):
    where = f'sentences[{i}]'
    out.append(
      (
        captions.field(path, where, row, 'video_id', str),
        captions.field(path, where, row, 'caption', str),
      )
    )
  return out


def _videos(path, data, wanted: str) -> list[str]:
  videos = captions.field(path, 'outermost object', data, 'videos', list)
  ids, seen = [], set()
  for i, row in enumerate(videos):
    where = f'videos[{i}]'
    split = captions.field(path, where, row, 'split', str)
    seen.add(split)
    if split == wanted:
      ids.append(captions.field(path, where, row, 'video_id', str))
  if not ids:
    raise captions.BadAnnotation(
      f'{path}, videos: none has split {wanted!r}; found {sorted(seen)}. '
      'Expected the file with train, validate and test videos.'
    )
  return captions.unique(path, enumerate(ids), unit=f'{wanted} video')


def _paraphrase(path, first, rows) -> list[str]:
  """Other captions of the same rows (upstream's --multi_data_path)."""
  other = _sentences(path, captions.read_json(path, dict))
  if [video for video, _ in other] != [video for video, _ in rows]:
    raise captions.BadAnnotation(
      f'{path}: its {len(other)} sentences are not of the same videos in the '
      f'same order as the {len(rows)} of {first}. Expected one paraphrase per '
      'sentence.'
    )
  return [caption for _, caption in other]


PUBLISHED = published.Published(
  name='msrvtt_frames',
  folder='MSRVTT',
  source=(
    'https://github.com/ArrowLuo/CLIP4Clip (msrvtt_data.zip; videos: MSR-VTT)'
  ),
  files={
    'data': 'MSRVTT_data.json',
    'train_9k': 'MSRVTT_train.9k.csv',
    'train_7k': 'MSRVTT_train.7k.csv',
    'test_1ka': 'MSRVTT_JSFUSION_test.csv',
  },
  splits={
    'train_9k': ('data', 'train_9k'),
    'train_7k': ('data', 'train_7k'),
    'test_1ka': ('test_1ka',),
    **dict.fromkeys(_FULL, ('data',)),
  },
  read=read,
  clips=('videos/frames', 'frames', 'videos/all', 'videos'),
  paraphrased=True,
)

make = functools.partial(sets.make, PUBLISHED)
prepare = functools.partial(sets.prepare, PUBLISHED)
