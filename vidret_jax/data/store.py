# SPDX-License-Identifier: Apache-2.0
"""Random access to prepared records, in memory or on disk."""

import json
import pathlib
import weakref

import numpy as np

from vidret_jax.data import records as records_lib

CACHES = ('ram', 'ram16', None)
# Views of one split share its records: items and queries of an evaluation
# would otherwise hold the same features twice.
_open = weakref.WeakValueDictionary()


class MissingRecords(FileNotFoundError):
  """Records that were never prepared, or only in part."""


class Records:
  """Records of one split.

  Attributes:
    where: folder and split, for errors.
    corpus: folder that video paths are relative to, or None.
    meta: `Columns`; without a cache they hold no features.
    caption_count: int64 [v].
  """

  def __init__(self, data, experts, text_dim, *, where, cache, corpus):
    self.where = where
    self.corpus = corpus
    self._data = data
    self._dims = experts
    self._text_dim = text_dim
    self._cached = cache is not None
    self.meta = records_lib.pack(
      _rows(data, where),
      experts,
      text_dim,
      where=where,
      dtype=np.float16 if cache == 'ram16' else np.float32,
      meta_only=not self._cached,
    )
    self.caption_count = np.diff(self.meta.first_caption)
    ids = self.meta.ids
    if len(set(ids)) < len(ids):
      seen = set()
      twice = next(i for i in ids if i in seen or seen.add(i))
      raise ValueError(
        f'{where}: video id {twice!r} occurs twice. Ids must be unique; '
        'correct the list and rebuild the records.'
      )
    if not ids:
      raise ValueError(f'{where}: no records. Rebuild them.')

  def read(self, index: np.ndarray, experts: bool = True):
    """Brings records into memory.

    Args:
      index: int64 [b], videos; -1 is padding.
      experts: whether the expert features are wanted.

    Returns:
      (columns, rows): rows int64 [b] point into the columns, -1 is padding.
    """
    if self._cached:
      return self.meta, index
    valid = index >= 0
    # A batch of padding alone still needs something to look up: record 0.
    wanted, place = np.unique(index[valid], return_inverse=True)
    wanted = wanted if len(wanted) else np.zeros(1, np.int64)
    columns = records_lib.pack(
      self._data.__getitems__(wanted.tolist()),
      self._dims if experts else {},
      self._text_dim,
      where=self.where,
      check=False,  # All records were checked when they were opened.
    )
    rows = np.full(len(index), -1, np.int64)
    rows[valid] = place
    return columns, rows


def _rows(data, where, step: int = 64):
  """All decoded records in order, read in batches."""
  for start in range(0, len(data), step):
    try:
      yield from data.__getitems__(
        list(range(start, min(start + step, len(data))))
      )
    except Exception as error:
      raise MissingRecords(
        f'{where}: records {start} and following cannot be read ({error}). '
        'The folder is damaged or half written: delete it and rebuild it with '
        'python -m vidret_jax.tools.prepare'
      ) from error


def open_records(
  directory: str,
  split: str,
  experts: dict[str, int],
  text_dim: int,
  cache: str | None,
  corpus: str | None = None,
) -> Records:
  """Opens a split of a prepared builder folder.

  Args:
    directory: `<records>/<dataset>/<config>/<version>`.
    split: name of a split.
    experts: name -> width of the experts wanted.
    text_dim: width of a token.
    cache: one of `CACHES`.
    corpus: folder that video paths are relative to.

  Raises:
    MissingRecords: the folder is absent or incomplete.
    ValueError: unknown split, cache or expert, another width, bad features.
  """
  if cache not in CACHES:
    raise ValueError(f'Unknown cache={cache!r}; choose from {CACHES}.')
  key = (
    *(str(directory), split, tuple(sorted(experts.items()))),
    *(text_dim, cache, corpus),
  )
  records = _open.get(key)
  if records is None:
    data, found, found_text = _data_source(directory, split)
    where = f'{directory} [{split}]'
    records_lib.check_widths(found, experts, found_text, text_dim, where)
    records = Records(
      data, experts, text_dim, where=where, cache=cache, corpus=corpus
    )
    _open[key] = records
  return records


def check_complete(directory: str) -> None:
  """Refuses a folder that a prepare command did not finish.

  Raises:
    MissingRecords: naming what is absent.
  """
  folder = pathlib.Path(directory)
  again = 'Rebuild it: python -m vidret_jax.tools.prepare'
  if not folder.is_dir():
    partial = sorted(folder.parent.glob(f'incomplete.*_{folder.name}'))
    found = f' Found an unfinished {partial[0]}.' if partial else ''
    raise MissingRecords(f'No records at {folder}.{found} {again}')
  for name in ('dataset_info.json', 'features.json'):
    if not (folder / name).is_file():
      raise MissingRecords(
        f'{folder} is half written: {name} is missing. Delete the folder. '
        f'{again}'
      )
  info = json.loads((folder / 'dataset_info.json').read_text())
  for split in info.get('splits', []):
    shards = [int(n) for n in split['shardLengths']]
    pattern = f'*-{split["name"]}.array_record-*-of-{len(shards):05d}'
    files = sorted(folder.glob(pattern))
    if len(files) != len(shards) or any(f.stat().st_size == 0 for f in files):
      raise MissingRecords(
        f'{folder} is half written: split {split["name"]!r} needs '
        f'{len(shards)} record files, found {len(files)}. Delete the folder. '
        f'{again}'
      )


def _data_source(directory, split):
  """(random access to a split, expert widths, token width)."""
  import tensorflow_datasets as tfds

  check_complete(directory)
  builder = tfds.builder_from_directory(str(directory))
  if split not in builder.info.splits:
    raise ValueError(
      f'{directory} has no split {split!r}, only '
      f'{sorted(builder.info.splits)}. Correct `split`.'
    )
  features = builder.info.features
  found = {name: f.shape[-1] for name, f in features['experts'].items()}
  data = builder.as_data_source(split=split)
  return data, found, features['text'].shape[-1]
