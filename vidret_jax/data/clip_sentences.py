# SPDX-License-Identifier: Apache-2.0
"""Makes the text features of moment retrieval: queries and subtitles.

As `clip_features`, of which this has the other half: one video at a time, all
input checked first, `report(done, total)` called while it works.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import (
  clip_features,
  clip_files,
  clip_pooling,
  subtitles,
  whole_files,
)

LENGTHS = '-lengths'  # Tokens of each sentence of a video.
_BATCH = 64  # Queries that are encoded together.


def subtitle_clips(
  tokens: clip_features.Path,
  lines: clip_features.Path,
  videos: clip_features.Path,
  out: clip_features.Path,
  *,
  kind: str = 'max',
  clip_seconds: float = 1.5,
  info: bool = False,
  omit_silent: bool = False,
  overwrite: bool = False,
  report: clip_features.Report = lambda done, total: None,
) -> clip_features.Made:
  """Token features of subtitles to clip features with "-mask".

  Args:
    tokens: HDF5, per video float [tokens, d] and "-lengths".
    lines: JSON lines with the times of the sentences.
    videos: HDF5 of the clips, which says how many a video has; a video
      without subtitles gets zero rows.
    out: file to be written.
    kind: 'max' or 'avg'.
    clip_seconds: length of a clip.
    info: also write the sentences of each clip to `<out>_sub_info.json`, which
      the original leaves as a cache.
    omit_silent: leave out videos without subtitles, as the original does,
      whose reader then fails at them.
    overwrite: replace `out`.
    report: called with (done, total).

  Raises:
    ValueError: tokens of a video without times, or a bad input.
  """
  clip_features.check_clip(clip_seconds)
  out = pathlib.Path(out)
  info_path = out.with_name(f'{out.stem}_sub_info.json')
  whole_files.refuse_existing(out, overwrite)
  if info:
    whole_files.refuse_existing(info_path, overwrite)
  made = clip_features.Made(out)
  times, table = {}, {}
  for name, said in subtitles.read_lines(lines):
    times[name] = subtitles.times(said)
    spoken = _spoken(times[name], clip_seconds, lines, name)
    if info:
      by_clip = {str(clip): which for clip, which in spoken.items()}
      table[name] = {'vid_name': name, 'sub': said, 'clip2sen': by_clip}
  with (
    clip_files.Rows(tokens, companion=LENGTHS, minimum=0) as words,
    clip_files.Rows(videos, companion=clip_features.MASK) as clips,
    whole_files.create_hdf5(out, overwrite) as target,
  ):
    absent = [name for name in words.names if name not in times]
    if absent:
      raise ValueError(
        f'{lines}: no subtitles of {absent[0]!r} and {len(absent) - 1} more '
        f'videos that {tokens} has tokens of. Give the file that the tokens '
        'were made of.'
      )
    fewer = []
    silent = [name for name in clips.names if name not in words]
    wanted = [n for n in clips.names if n in words or not omit_silent]
    for name in clip_features.counted(wanted, report):
      rows = np.zeros((clips.count(name), words.width), np.float32)
      mask = np.zeros(len(rows), np.float32)
      if name in words:
        found = words.read(name)
        lengths = words.lengths(name + LENGTHS, len(found))
        fewer += [name] * (len(lengths) != len(times[name]))
        spoken = _spoken(times[name], clip_seconds, lines, name)
        rows, mask = clip_pooling.pool_sentences(
          found, lengths, spoken, len(rows), kind
        )
      target.create_dataset(name, data=rows)
      target.create_dataset(name + clip_features.MASK, data=mask)
      made.add(rows)
    extra = [n for n in words.names if n not in clips]
  if info:
    whole_files.write_json(info_path, table, overwrite)
    made.notes.append(f'sentences of each clip in {info_path.name}')
  fate = 'are left out' if omit_silent else 'have zero rows'
  made.note(f'videos without subtitles {fate}', silent)
  made.note('videos with fewer or more sentences than subtitles', fewer)
  made.note(f'videos left out, as {clips.path.name} lacks them', extra)
  return made


def _spoken(times, clip_seconds, path, name):
  try:
    return clip_pooling.sentences_of_clips(times, clip_seconds)
  except ValueError as error:
    raise ValueError(f'{path}: video {name!r}: {error}') from None


def query_features(
  encoder: Any,
  annotations: Sequence[clip_features.Path],
  out: clip_features.Path,
  *,
  overwrite: bool = False,
  report: clip_features.Report = lambda done, total: None,
) -> clip_features.Made:
  """Token features of the queries of annotation files, by `desc_id`.

  Raises:
    ValueError: a query without a word, an id twice, or a bad file.
  """
  whole_files.refuse_existing(out, overwrite)
  made = clip_features.Made(pathlib.Path(out), 'queries')
  texts, places = {}, {}
  for path in annotations:
    for where, row in whole_files.read_lines(path, ('desc_id', 'desc')):
      key, text = row['desc_id'], row['desc']
      if type(key) not in (int, str) or not isinstance(text, str):
        raise ValueError(
          f'{where}: desc_id {str(key)[:40]!r}, desc {str(text)[:40]!r}; '
          'expected an integer and a string.'
        )
      key = clip_files.check_key(str(key), where)
      if key in texts:
        raise ValueError(
          f'{where}: desc_id {key} was there before, in {places[key]}. Give '
          'every query an id of its own, over all splits.'
        )
      texts[key], places[key] = text, where
  ids = list(texts)
  with whole_files.create_hdf5(out, overwrite) as target:
    for start in range(0, len(ids), _BATCH):
      keys = ids[start : start + _BATCH]
      try:
        found = encoder.queries([texts[key] for key in keys])
      except ValueError as error:
        bad = _first_bad(encoder, texts, keys)
        raise ValueError(f'{places[bad]}: desc_id {bad}: {error}') from None
      for key, rows in zip(keys, found, strict=True):
        target.create_dataset(key, data=rows)
        made.add(rows)
      report(made.names, len(ids))
  return made


def _first_bad(encoder, texts, keys):
  for key in keys:
    try:
      encoder.queries([texts[key]])
    except ValueError:
      return key
  return keys[0]


def subtitle_tokens(
  encoder: Any,
  lines: clip_features.Path,
  out: clip_features.Path,
  *,
  overwrite: bool = False,
  report: clip_features.Report = lambda done, total: None,
) -> clip_features.Made:
  """Token features of subtitles, with "-lengths"; see `subtitle_clips`."""
  whole_files.refuse_existing(out, overwrite)
  made = clip_features.Made(pathlib.Path(out))
  total = sum(1 for _ in subtitles.read_lines(lines))
  with whole_files.create_hdf5(out, overwrite) as target:
    for name, said in subtitles.read_lines(lines):
      parts = encoder.sentences([x['text'] for x in said])
      empty = np.zeros((0, encoder.width), np.float32)
      rows = np.concatenate([empty, *parts])
      lengths = np.array([len(x) for x in parts], np.int32)
      target.create_dataset(name, data=rows)
      target.create_dataset(name + LENGTHS, data=lengths)
      made.add(rows)
      report(made.names, total)
  return made


def subtitle_lines(
  folder: clip_features.Path,
  out: clip_features.Path,
  *,
  hours: bool = True,
  encoding: str | None = None,
  overwrite: bool = False,
  report: clip_features.Report = lambda done, total: None,
) -> clip_features.Made:
  """Subtitle files of a folder to JSON lines; see `subtitles.read`."""
  whole_files.refuse_existing(out, overwrite)
  made = clip_features.Made(pathlib.Path(out))
  files = subtitles.files_of(folder)

  def rows():
    for name, path in files.items():
      said = subtitles.read(path, hours=hours, encoding=encoding)
      made.names += 1
      made.rows += len(said)
      report(made.names, len(files))
      yield {'vid_name': name, 'sub': said}

  whole_files.write_lines(out, rows(), overwrite)
  return made
