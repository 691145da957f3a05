# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of the `shapes` records. Imports TensorFlow: load it lazily."""

import contextlib
import io
import json
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import records, words
from vidret_jax.data.shapes import annotations, measure
from vidret_jax.data.shapes import script as script_lib


class Shapes(tfds.core.GeneratorBasedBuilder):
  """One record per clip of the corpus folder given as `manual_dir`."""

  VERSION = tfds.core.Version(script_lib.VERSION)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'The clips are made by `vidret_jax.data.shapes.prepare`.'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    span = {'start': np.float32, 'end': np.float32, 'text': text}
    sequence = tfds.features.Sequence
    extra = {
      'duration': np.float32,
      # Per caption: classes as JSON lists, role graph as JSON.
      'verb_classes': sequence(text),
      'noun_classes': sequence(text),
      'graphs': sequence(text),
      'moments': sequence({**span, 'kind': text, 'event': np.int32}),
      'subtitles': sequence(span),
      'overlays': sequence(span),
      'copy_source': text,
      'copy_edit': text,
      'copy_relation': text,
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='Short clips of acting shapes, made on this machine.',
      features=records.features(measure.DIMS, words.DIM, extra),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    rows = annotations.read(dl_manager.manual_dir)
    by_split = {}
    for row in rows:
      by_split.setdefault(row['split'], []).append(row)
    folder = pathlib.Path(dl_manager.manual_dir)
    return {
      split: self._generate_examples(folder, rows)
      for split, rows in by_split.items()
    }

  def _generate_examples(self, folder, rows):
    for i, row in enumerate(rows):
      yield i, record(folder, row)


def record(folder: pathlib.Path, row) -> dict:
  """The record of one annotation row; reads its measured experts."""
  with np.load(folder / 'experts' / f'{row["id"]}.npz') as file:
    experts = {name: file[name] for name in measure.DIMS}
  told = row['captions']
  tokens, lengths = words.embed_all(c['text'] for c in told)

  def dump(key):
    return [json.dumps(c[key]) for c in told]

  keep = ('start', 'end', 'text')
  return {
    'id': row['id'],
    'captions': [c['text'] for c in told],
    'text': tokens,
    'text_len': lengths,
    'experts': experts,
    'available': {name: len(x) > 0 for name, x in experts.items()},
    'video': row['video'],
    'duration': row['duration'],
    'verb_classes': dump('verb_classes'),
    'noun_classes': dump('noun_classes'),
    'graphs': dump('graph'),
    'moments': [
      {k: m[k] for k in (*keep, 'kind', 'event')} for m in row['moments']
    ],
    'subtitles': [{k: s[k] for k in keep} for s in row['subtitles']],
    'overlays': [{k: s[k] for k in keep} for s in row['overlays']],
    'copy_source': row['copy']['source'],
    'copy_edit': row['copy']['edit'],
    'copy_relation': row['copy']['relation'],
  }


def write(corpus: str | os.PathLike, data_dir: str | os.PathLike) -> None:
  """Writes the records of a corpus below `data_dir`."""
  tfds.disable_progress_bar()
  config = tfds.download.DownloadConfig(manual_dir=str(corpus))
  builder = Shapes(data_dir=str(data_dir), file_format='array_record')
  # TFDS tells of a download of unknown size; there is none.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_config=config)
