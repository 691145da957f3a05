# SPDX-License-Identifier: Apache-2.0
"""Writes tiny sets of videos in the form in which they are published.

Names and formats are written out here, not taken from the package, so that
both can be wrong only in different ways.
"""

from collections.abc import Mapping
import csv
import json
import pathlib
import pickle

import av
import numpy as np
from PIL import Image

from vidret_jax.data import tokenizer as tokenizer_lib

DATASETS = ('msrvtt', 'msvd', 'activitynet', 'didemo', 'lsmdc', 'vatex')
FOLDERS = {
  'msrvtt': 'MSRVTT',
  'msvd': 'MSVD',
  'activitynet': 'ActivityNet',
  'didemo': 'DiDeMo',
  'lsmdc': 'LSMDC',
  'vatex': 'VATEX',
}
# The splits a config may name, training first.
SPLITS = {
  'msrvtt': (
    *('train_9k', 'train_7k', 'test_1ka'),
    *('train_full', 'val_full', 'test_full'),
  ),
  'msvd': ('train', 'val', 'test'),
  'activitynet': ('train', 'val'),
  'didemo': ('train', 'val', 'test'),
  'lsmdc': ('train', 'val', 'test'),
  'vatex': ('train', 'val', 'test'),
}
FPS = 5
_WORDS = (
  'a man dog sings cooks plays runs the red guitar pan road in on'.split()
)


def video_ids(dataset: str, count: int) -> list[str]:
  """Ids as they look in a dataset."""
  make = {
    'msrvtt': 'video{}',
    'msvd': '-4wsuPCjDB{}_12_22',
    'activitynet': 'v_QOlSCBRmf{}',
    'didemo': '1001556{0}@N08_36550842{0}_d8b58466f{0}.mov',
    'lsmdc': '1004_Juno_00.00.0{0}.010-00.00.0{0}.900',
    'vatex': 'Ptf_2VRj-V{}_000122_000132',
  }[dataset]
  return [make.format(i) for i in range(count)]


def film(rng: np.random.Generator, count: int, size=(48, 36)) -> np.ndarray:
  """uint8 [n, h, w, 3] of smooth colours that move."""
  w, h = size
  y, x, t = np.mgrid[0:h, 0:w, 0:count].astype(np.float64)
  phase = rng.uniform(0, 6, (3, 3))
  waves = [
    np.sin(x / 6 * a + y / 5 * b + t * 0.7 + c) for a, b, c in phase.tolist()
  ]
  out = (np.stack(waves, -1) * 100 + 128).astype(np.uint8)
  return np.ascontiguousarray(np.moveaxis(out, 2, 0))


def write_video(path: pathlib.Path, frames: np.ndarray) -> None:
  """Writes an .avi (MJPEG) or .mp4 (H.264) by its suffix."""
  path.parent.mkdir(parents=True, exist_ok=True)
  motion_jpeg = path.suffix == '.avi'
  with av.open(str(path), 'w') as box:
    stream = box.add_stream('mjpeg' if motion_jpeg else 'libx264', rate=FPS)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuvj420p' if motion_jpeg else 'yuv420p'
    stream.thread_count = 1
    for image in frames:
      box.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
    box.mux(stream.encode())


def write_frames(folder: pathlib.Path, frames: np.ndarray) -> None:
  """Writes `<name>_<number>.jpg` files."""
  folder.mkdir(parents=True, exist_ok=True)
  for i, image in enumerate(frames):
    file = folder / f'{folder.name}_{i}.jpg'
    Image.fromarray(image).save(file, quality=90)


def write_csv(path: pathlib.Path, header, rows) -> None:
  """Writes a CSV with a header."""
  with path.open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)


def write_tokenizer(path: pathlib.Path, vocab_size: int = 530) -> pathlib.Path:
  """Writes a tokenizer of the words used here, and returns its path."""
  tokenizer_lib.train([' '.join(_WORDS)] * 3, path, vocab_size)
  return path


def write_set(
  dataset: str,
  root,
  *,
  videos: Mapping[str, int] | None = None,
  captions: int = 3,
  seed: int = 0,
  size: tuple[int, int] = (48, 36),
) -> pathlib.Path:
  """Writes what a config needs, in `<root>/<folder>`.

  Args:
    dataset: one of `DATASETS`.
    root: data folder, what $VIDRET_DATA_DIR names.
    videos: how many for 'train', 'val' and 'test'; 6, 3 and 4 by default.
    captions: per video; every fourth video has one fewer. LSMDC has one.
    seed: of frames and captions.
    size: (width, height) of the frames.

  Returns:
    The dataset's folder.
  """
  rng = np.random.default_rng(seed)
  folder = pathlib.Path(root) / FOLDERS[dataset]
  folder.mkdir(parents=True, exist_ok=True)
  sizes = {'train': 6, 'val': 3, 'test': 4} | dict(videos or {})
  ids = video_ids(dataset, sum(sizes.values()))
  splits, start = {}, 0
  for split in ('train', 'val', 'test'):
    splits[split] = ids[start : start + sizes[split]]
    start += sizes[split]
  told = {
    video: [
      ' '.join(rng.choice(_WORDS, rng.integers(3, 8)))
      for _ in range(max(captions - (i % 4 == 3), 1))
    ]
    for i, video in enumerate(ids)
  }
  for i, video in enumerate(ids):
    # Ten and more, so that numbers and letters sort differently.
    frames = film(rng, int(rng.integers(6, 16)), size)
    _write_clip(dataset, folder, video, i, frames)
  _ANNOTATIONS[dataset](folder, splits, told)
  return folder


def _write_clip(dataset, folder, video, i, frames) -> None:
  videos = folder / 'videos'
  suffix = ('.avi', '.mp4')[i % 2]
  if dataset in ('msrvtt', 'vatex'):
    write_frames(videos / 'frames' / video, frames)
  elif dataset == 'activitynet':
    name = video if i % 3 else video.removeprefix('v_')
    write_video(videos / f'{name}{suffix}', frames)
  elif dataset == 'didemo':
    name = video if i % 3 else video.removesuffix('.mov')
    write_video(videos / f'{name}.mp4', frames)
  else:  # LSMDC has a folder per film.
    write_video(videos / video.split('_')[0] / f'{video}{suffix}', frames)


def _msrvtt(folder, splits, told) -> None:
  names = {'train': 'train', 'val': 'validate', 'test': 'test'}
  every = [(names[s], video) for s, ids in splits.items() for video in ids]
  # Sentences of a video do not lie together in the published file.
  longest = max(len(said) for said in told.values())
  rows = [
    (video, said[slot])
    for slot in range(longest)
    for video, said in told.items()
    if slot < len(said)
  ]
  data = {
    'info': {'contributor': 'Microsoft MSM group'},
    'videos': [
      {'video_id': video, 'split': split, 'category': 9, 'id': i}
      for i, (split, video) in enumerate(every)
    ],
    'sentences': [
      {'caption': caption, 'video_id': video, 'sen_id': i}
      for i, (video, caption) in enumerate(rows)
    ],
  }
  (folder / 'MSRVTT_data.json').write_text(json.dumps(data))
  train = splits['train']
  nine = [[video] for video in reversed(train + splits['val'])]
  write_csv(folder / 'MSRVTT_train.9k.csv', ['video_id'], nine)
  write_csv(folder / 'MSRVTT_train.7k.csv', ['video_id'], [[v] for v in train])
  write_csv(
    folder / 'MSRVTT_JSFUSION_test.csv',
    ['key', 'vid_key', 'video_id', 'sentence'],
    [
      [f'ret{i}', video.replace('video', 'msr'), video, told[video][0]]
      for i, video in enumerate(splits['test'])
    ],
  )


def _lists(folder, splits) -> None:
  for split, ids in splits.items():
    (folder / f'{split}_list.txt').write_text('\n'.join(ids) + '\n')


def _msvd(folder, splits, told) -> None:
  _lists(folder, splits)
  words = {video: [c.split() for c in said] for video, said in told.items()}
  with open(folder / 'raw-captions.pkl', 'wb') as stream:
    pickle.dump(words, stream, protocol=2)


def _activitynet(folder, splits, told) -> None:
  for split, name in (('train', 'train'), ('val', 'val_1')):
    ids = splits[split]
    (folder / f'{split}_ids.json').write_text(json.dumps(ids))
    table = {
      video: {
        'duration': 1.4 + 0.5 * i,
        'timestamps': [[0.0, 1.0] for _ in told[video]],
        'sentences': [told[video][0], *(f' {c}.' for c in told[video][1:])],
      }
      for i, video in enumerate(ids)
    }
    (folder / f'{name}.json').write_text(json.dumps(table))


def _didemo(folder, splits, told) -> None:
  _lists(folder, splits)
  for split, ids in splits.items():
    rows = [
      {'annotation_id': i, 'video': v, 'description': c, 'times': [[0, 0]]}
      for v in ids
      for i, c in enumerate(told[v])
    ]
    (folder / f'{split}_data.json').write_text(json.dumps(rows))


def _lsmdc(folder, splits, told) -> None:
  names = {
    'train': 'LSMDC16_annos_training.csv',
    'val': 'LSMDC16_annos_val.csv',
    'test': 'LSMDC16_challenge_1000_publictect.csv',
  }
  for split, name in names.items():
    time = '\t'.join(['00.00.01.010', '00.00.01.900'] * 2)
    lines = [f'{video}\t{time}\t{told[video][0]}' for video in splits[split]]
    (folder / name).write_text('\n'.join(lines) + '\n')


def _vatex(folder, splits, told) -> None:
  for split, ids in splits.items():
    write_csv(
      folder / f'VATEX_{split}.csv',
      ['key', 'vid_key', 'video_id', 'sentence'],
      [
        [f'ret{i}', f'msr{i}', video, said]
        for video in ids
        for i, said in enumerate(told[video])
      ],
    )


_ANNOTATIONS = {
  'msrvtt': _msrvtt,
  'msvd': _msvd,
  'activitynet': _activitynet,
  'didemo': _didemo,
  'lsmdc': _lsmdc,
  'vatex': _vatex,
}
