# SPDX-License-Identifier: Apache-2.0
"""Writes the features of a collection as TFDS records, shard by shard.

A shard is written under another name and renamed when it is whole, so a run
that was killed goes on where it was; shards are made by threads, or by the
workers of an Apache Beam runner that see both folders. Records that TFDS writes
itself take twice their space on the way and start anew after a kill, which
406 GB are too much for.

Imports TensorFlow: load it lazily.
"""

from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
import dataclasses
import json
import pathlib
import shutil

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from vidret_jax.data import record_folder, row_builder, whole_files
from vidret_jax.data.copies import checksums, records, regions
from vidret_jax.data.frames import store as frames_store

_PLAN = 'plan.json'  # In the unfinished folder: what its shards are of.
_OPTIONS = 'group_size:1,uncompressed'  # Features hardly get smaller.


@dataclasses.dataclass(frozen=True)
class Job:
  """One shard.

  Attributes:
    source: file of features, with the lengths of the shard's videos, in order.
    precision: of the features.
    path: of the shard.
  """

  source: regions.File
  precision: str
  path: pathlib.Path

  @property
  def note(self) -> pathlib.Path:
    """Says that the shard is whole: {'count', 'bytes', 'crc32'}."""
    return self.path.with_name(f'{self.path.name}.json')

  @property
  def done(self) -> bool:
    return self.note.is_file() and self.path.is_file()


def write(
  ask: records.Request,
  contents: Callable[[], records.Contents],
  *,
  shard_bytes: int,
  overwrite: bool = False,
  verify: bool = False,
  keep: Sequence[pathlib.Path] = (),
  num_threads: int | None = None,
  beam_runner: str | None = None,
  beam_options: Sequence[str] = (),
  progress: bool = True,
) -> pathlib.Path:
  """Writes records unless they are there.

  Args:
    ask: what.
    contents: opens the published files; not called for records that are there.
    shard_bytes: of a shard at most, unless one video has more.
    overwrite: makes records anew.
    verify: compares the checksums of records that are there.
    keep: folders that `overwrite` must leave.
    num_threads: that write shards; None takes one per core.
    beam_runner: name of an Apache Beam runner that writes them instead.
    beam_options: '--name=value' of that runner.
    progress: shows a bar.

  Returns:
    The folder of the records.

  Raises:
    FileNotFoundError, ValueError: whatever is wrong with the files. Shards that
      were finished by then are kept for the next call.
  """
  folder = ask.folder
  if record_folder.is_written(folder, overwrite=overwrite, keep=keep):
    if verify:
      checksums.verify(folder, records.CONTENTS)
    return folder
  found = contents()
  draft = folder.with_name(f'incomplete.shards_{folder.name}')
  jobs = plan(ask, found, draft, shard_bytes)
  _take_up(draft, ask, found, shard_bytes)
  label = f'{ask.collection} {ask.split}: writing shards'
  waiting = [job for job in jobs if not job.done]
  if done := len(jobs) - len(waiting):
    logging.info('%s: going on after %d of %d', label, done, len(jobs))
  with frames_store.bar(len(jobs), label, progress) as advance:
    advance(done)
    if beam_runner:
      _beam(waiting, beam_runner, beam_options)
      advance(len(waiting))
    else:
      for _ in _threads(waiting, num_threads):
        advance(1)
  _finish(draft, ask, found, jobs)
  draft.replace(folder)
  for name in (_PLAN, *(job.note.name for job in jobs)):
    (folder / name).unlink()  # Not before: a kill must find them.
  return folder


def plan(
  ask: records.Request,
  found: records.Contents,
  folder: pathlib.Path,
  shard_bytes: int,
) -> list[Job]:
  """Cuts the videos into shards, in the order of their ids."""
  shapes = found.shapes
  frame = shapes.regions * shapes.dim * np.dtype(ask.precision).itemsize
  groups, used = [], shard_bytes
  for name, frames in shapes.lengths.items():
    if used + frames * frame > shard_bytes:
      groups.append([])
      used = 0
    groups[-1].append(name)
    used += frames * frame
  start = f'{records.NAME}-{records.SPLIT}.array_record'

  def part(names):  # Jobs travel: each has the lengths of its own videos.
    lengths = {name: shapes.lengths[name] for name in names}
    return dataclasses.replace(shapes, lengths=lengths)

  return [
    Job(
      regions.File(found.features, part(names)),
      ask.precision,
      folder / f'{start}-{i:05d}-of-{len(groups):05d}',
    )
    for i, names in enumerate(groups)
  ]


def write_shard(job: Job) -> None:
  """Writes one shard and its note.

  Raises:
    ValueError: features that are damaged, not finite or too large.
  """
  from array_record.python import array_record_module

  shapes = job.source.shapes
  features = _features(shapes, job.precision)
  size = 0
  with whole_files.partial(job.path, overwrite=True) as part:
    writer = array_record_module.ArrayRecordWriter(str(part), _OPTIONS)
    try:
      for name in shapes.lengths:
        found = job.source.read(name)
        rows = row_builder.as_stored(
          found.reshape(-1, shapes.dim),
          shapes.dim,
          job.precision,
          f'{job.source.path}, video {name!r}, frames x regions',
        )
        record = features.serialize_example(
          {'id': name, 'regions': rows.reshape(found.shape)}
        )
        writer.write(record)
        size += len(record)
    finally:
      writer.close()
    note = {
      'count': len(shapes.lengths),
      'bytes': size,
      'crc32': checksums.crc32(part),
    }
  whole_files.write_json(job.note, note, overwrite=True)


def _features(shapes: regions.Shapes, precision: str):
  return tfds.features.FeaturesDict(
    {
      'id': tfds.features.Text(),
      'regions': tfds.features.Tensor(
        shape=(None, shapes.regions, shapes.dim),
        dtype=np.dtype(precision),
        encoding=tfds.features.Encoding.BYTES,
      ),
    }
  )


def _take_up(draft, ask, found, shard_bytes) -> None:
  """Keeps what an earlier run left of the same plan, deletes anything else."""
  wanted = {
    'request': dataclasses.asdict(ask),
    'sources': dict(found.sources),
    'shard_bytes': shard_bytes,
    'videos': len(found.shapes.lengths),
  }
  wanted = json.loads(json.dumps(wanted))
  note = draft / _PLAN
  try:
    same = whole_files.read_json(note, dict) == wanted
  except (ValueError, OSError):
    same = False
  if not same:
    if draft.exists():
      shutil.rmtree(draft)
    whole_files.write_json(note, wanted)


def _threads(jobs: Sequence[Job], count: int | None) -> Iterable[None]:
  count = max(frames_store.cores() if count is None else count, 1)
  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    waiting = [pool.submit(write_shard, job) for job in jobs]
    try:
      for future in concurrent.futures.as_completed(waiting):
        yield future.result()
    finally:
      # After an error, shards that were not begun must not be.
      pool.shutdown(wait=False, cancel_futures=True)


def _beam(jobs: Sequence[Job], runner: str, given: Sequence[str]) -> None:
  import apache_beam as beam
  from apache_beam.options import pipeline_options

  # Without options Beam would read those of our own command line.
  options = pipeline_options.PipelineOptions(list(given))
  with beam.Pipeline(runner=runner, options=options) as pipeline:
    _ = (
      pipeline
      | beam.Create(list(jobs))
      | beam.Reshuffle()
      | beam.Map(write_shard)
    )
  if absent := [job.path.name for job in jobs if not job.done]:
    raise RuntimeError(
      f'{jobs[0].path.parent}: {runner} did not write {absent[0]} '
      f'({len(absent)} shards). Its workers must see this folder and '
      f'{jobs[0].source.path}.'
    )


def _finish(draft, ask, found, jobs) -> None:
  """Writes what makes TFDS records of shards."""
  notes = {job.path.name: whole_files.read_json(job.note, dict) for job in jobs}
  template = tfds.core.ShardedFileTemplate(
    data_dir=draft,
    dataset_name=records.NAME,
    split=records.SPLIT,
    filetype_suffix='array_record',
  )
  tfds.folder_dataset.write_metadata(
    data_dir=draft,
    features=_features(found.shapes, ask.precision),
    version=records.VERSION,
    split_infos=[
      tfds.core.SplitInfo(
        name=records.SPLIT,
        shard_lengths=[note['count'] for note in notes.values()],
        num_bytes=sum(note['bytes'] for note in notes.values()),
        filename_template=template,
      )
    ],
    check_data=False,
    metadata=tfds.core.MetadataDict(
      request=dataclasses.asdict(ask),
      files={name: size for name, (size, _) in found.sources.items()},
    ),
  )
  found.save(draft, shards=notes)
