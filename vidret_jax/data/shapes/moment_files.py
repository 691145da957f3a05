# SPDX-License-Identifier: Apache-2.0
"""The corpus as TVR lays a data set out: moments, durations, features.

In the folder `moments` of the corpus lie

  shapes_<split>_release.jsonl   desc_id, desc, vid_name, ts, type, duration
  shapes_video2dur_idx.json      split -> video -> [duration, number]
  video.h5                       what is seen, a row per quarter of a second
  subtitle.h5                    what is said in it, and `<video>-mask`
  query.h5                       a vector per word, by desc_id

so that it is read by what reads the published sets (arXiv 2001.09099,
https://github.com/jayleicn/TVRetrieval). It is made whole or not at all.
"""

import json
import os
import pathlib
import shutil

import h5py
import numpy as np

from vidret_jax.data import clip_pooling, words
from vidret_jax.data.frames import store
from vidret_jax.data.shapes import annotations, corpus, instants, pool, reading

SPLITS = ('train', 'val', 'test')
DURATIONS = 'shapes_video2dur_idx.json'
VIDEO, SUBTITLE, QUERY = 'video.h5', 'subtitle.h5', 'query.h5'
_WORKER = 'vidret_jax.data.shapes.instant_worker'


def annotation_file(split: str) -> str:
  """Name of the file of a split."""
  return f'shapes_{split}_release.jsonl'


def write(
  folder: pathlib.Path,
  *,
  num_workers: int | None = None,
  progress: bool = True,
) -> pathlib.Path:
  """Writes the files of a finished corpus unless they are there.

  A build that was killed is taken up again.

  Args:
    folder: of the corpus.
    num_workers: processes that measure; None: one per core.
    progress: shows a bar on standard error.

  Returns:
    The folder `moments` in it.

  Raises:
    RuntimeError: a clip cannot be measured.
  """
  final = folder / 'moments'
  with corpus.locked(folder.with_name(f'.{folder.name}.moments.lock')):
    if not final.is_dir():
      part = folder / 'moments.partial'
      (part / 'rows').mkdir(parents=True, exist_ok=True)
      rows = [r for r in annotations.read(folder) if r['split'] in SPLITS]
      _measure(part, [r['id'] for r in rows], num_workers, progress)
      _write_tables(part, rows)
      _write_features(part, rows)
      shutil.rmtree(part / 'rows')
      os.replace(part, final)
  return final


def _measure(part, names, num_workers, progress) -> None:
  """Has a file of rows made for every clip that has none."""
  todo = [n for n in names if not (part / 'rows' / f'{n}.npy').is_file()]
  with store.bar(len(names), 'shapes: measuring clips', progress) as advance:
    advance(len(names) - len(todo))
    pool.run(_WORKER, part, todo, num_workers, lambda: advance(1))


def _write_tables(part, rows) -> None:
  """Annotations of each split, and the durations of all videos."""
  number, durations = 0, {}
  for split in SPLITS:
    here = [r for r in rows if r['split'] == split]
    lines = []
    for row in here:
      for moment in row['moments']:
        lines.append(
          json.dumps(
            dict(
              desc_id=number,
              desc=moment['text'],
              vid_name=row['id'],
              ts=[moment['start'], moment['end']],
              type=moment['kind'],
              duration=row['duration'],
            )
          )
        )
        number += 1
    (part / annotation_file(split)).write_text('\n'.join(lines))
    start = sum(map(len, durations.values()))
    durations[split] = {
      row['id']: [row['duration'], start + i] for i, row in enumerate(here)
    }
  (part / DURATIONS).write_text(json.dumps(durations))


def _write_features(part, rows) -> None:
  """The three files of features, one for all splits each."""
  with (
    h5py.File(part / VIDEO, 'w') as video,
    h5py.File(part / SUBTITLE, 'w') as subtitle,
    h5py.File(part / QUERY, 'w') as query,
  ):
    number = 0
    for row in rows:
      name = row['id']
      seen = np.load(part / 'rows' / f'{name}.npy', allow_pickle=False)
      path = part.parent / 'subtitles' / f'{name}.srt'
      said, mask = spoken(reading.subtitle_lines(path), len(seen))
      video[name] = seen
      subtitle[name] = said
      subtitle[f'{name}-mask'] = mask
      for moment in row['moments']:
        query[str(number)] = words.embed(moment['text'])
        number += 1


def spoken(lines, count: int) -> tuple[np.ndarray, np.ndarray]:
  """What is said in each snippet: the maximum of its word vectors.

  Args:
    lines: (start, end, text) in seconds, in order of time.
    count: t, snippets of the video.

  Returns:
    float32 [t, words.DIM], zeros where nobody speaks; float32 [t], 1 where
    somebody does.
  """
  tokens, lengths = words.embed_all(text for _, _, text in lines)
  times = np.array([(start, end) for start, end, _ in lines])
  during = clip_pooling.sentences_of_clips(times, instants.SECONDS)
  return clip_pooling.pool_sentences(tokens, lengths, during, count)
