# SPDX-License-Identifier: Apache-2.0
"""Vectors of words from a file in the binary format of word2vec.

`<count> <dim>\\n`, then per word its bytes, a space and dim little-endian
float32 numbers; a newline may precede the next word. The 3.6 GB of
GoogleNews-vectors-negative300.bin are walked through once, by `prepare`, which
keeps the vectors of words that occur.
"""

from collections.abc import Collection, Iterable, Sequence
import hashlib
import mmap
import os
import pathlib

import numpy as np

from vidret_jax.data import store as records_store

_MAX_HEADER, _MAX_WORD, _MAX_DIM = 64, 4096, 1 << 16


class BadWordVectors(ValueError):
  """A file that does not hold what its format says."""


def read(
  path: str | os.PathLike, wanted: Collection[str]
) -> tuple[list[str], np.ndarray]:
  """Reads the vectors of some words; of a word that is there twice the first.

  Costs one pass over the file, a few seconds per million words once it is in
  the disk cache, and no memory but for the result.

  Args:
    path: the file.
    wanted: words, as they are spelt there.

  Returns:
    Words that were found, in the file's order, and float32 [n, dim].

  Raises:
    BadWordVectors: no header, an impossible one, a file that ends too early or
      goes on too long, or numbers that are not finite.
  """
  left = {word.encode('utf-8') for word in wanted}
  words, rows = [], []
  with open(path, 'rb') as stream:
    count, dim = _header(path, stream.readline(_MAX_HEADER))
    size, at = os.fstat(stream.fileno()).st_size, stream.tell()
    # Before anything is believed: every word takes a letter, a space, a row.
    if size - at < count * (4 * dim + 2):
      raise BadWordVectors(
        f'{path}: {size} bytes cannot hold the {count} words of width {dim} '
        'that its header promises. The download was cut; fetch it again.'
      )
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
      for number in range(count):
        space = whole.find(b' ', at, at + _MAX_WORD)
        end = space + 1 + 4 * dim
        if space < 0 or end > size:
          raise BadWordVectors(
            f'{path}, word {number} of {count}, byte {at}: expected a word, a '
            f'space and {dim} numbers, found '
            + ('no space' if space < 0 else 'the end of the file')
            + '. The file is damaged; fetch it again.'
          )
        word = whole[at:space].lstrip(b'\n')
        if word in left:
          left.discard(word)
          row = np.frombuffer(whole[space + 1 : end], '<f4')
          if not np.isfinite(row).all():
            raise BadWordVectors(
              f'{path}, word {word.decode()!r}: its vector holds NaN or Inf. '
              'The file is damaged; fetch it again.'
            )
          words.append(word.decode('utf-8'))
          rows.append(row)
        at = end
      rest = whole[at : at + 2]
  if rest.strip(b'\n'):
    raise BadWordVectors(
      f'{path}: {size - at} bytes after the last of {count} words of width '
      f'{dim}. The header belongs to another file; fetch it again.'
    )
  return words, np.asarray(rows, np.float32).reshape(len(rows), dim)


def _header(path, line: bytes) -> tuple[int, int]:
  parts = line.split()
  if (
    len(parts) != 2
    or not line.endswith(b'\n')
    or not all(part.isdigit() for part in parts)
  ):
    raise BadWordVectors(
      f'{path}: begins with {line[:40]!r}, expected "<count> <dim>" and a new '
      'line. It is no word2vec file in binary form (the text form and .gz are '
      'not read: unpack or convert it).'
    )
  count, dim = map(int, parts)
  if not 0 < dim <= _MAX_DIM or count < 1:
    raise BadWordVectors(
      f'{path}: its header says {count} words of width {dim}; expected at '
      f'least one word and a width up to {_MAX_DIM}.'
    )
  return count, dim


def take(
  path: str | os.PathLike, texts: Iterable[str]
) -> tuple[list[str], np.ndarray]:
  """Reads the vectors of all words of captions; see `read`.

  Raises:
    FileNotFoundError: no such file.
    BadWordVectors: see `read`, or none of the words is in it.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
      f"{path}: no such file. words='vectors' needs a word2vec table in binary "
      'form, GoogleNews-vectors-negative300.bin for the published numbers; put '
      "it there or name it with word_vectors='<file>' in the data of the "
      'config.'
    )
  wanted = {word for text in texts for word in text.split()}
  words, vectors = read(path, wanted)
  if not words:
    raise BadWordVectors(
      f'{path}: none of the {len(wanted)} words of the captions is in it. It '
      'is a table of another language or spelling; name another.'
    )
  return words, vectors


def _file(folder: pathlib.Path, path) -> pathlib.Path:
  digest = hashlib.sha1(str(path).encode()).hexdigest()[:8]
  return folder / f'word_vectors-{digest}.npz'


def there(folder: pathlib.Path, path: str | os.PathLike) -> bool:
  """Whether finished records have what was taken from a file of vectors."""
  return _file(folder, path).is_file()


def save(
  folder: pathlib.Path,
  path: str | os.PathLike,
  words: Sequence[str],
  vectors: np.ndarray,
) -> None:
  """Puts words and float32 [n, dim] beside finished records.

  Args:
    folder: of the records.
    path: what the config calls the file that they are from.
    words: spelt as in captions.
    vectors: of the words.
  """
  target = _file(folder, path)
  draft = target.with_suffix('.part.npz')
  # As bytes: numpy's own text drops what looks like padding.
  text = np.frombuffer('\n'.join(words).encode('utf-8'), np.uint8)
  np.savez(draft, words=text, vectors=vectors)
  os.replace(draft, target)


def load(
  folder: pathlib.Path, path: str | os.PathLike
) -> tuple[dict[str, int], np.ndarray]:
  """What `save` saved: (word -> row, float32 [n, dim]).

  Raises:
    MissingRecords: prepare was not run with these vectors.
  """
  target = _file(folder, path)
  if not target.is_file():
    raise records_store.MissingRecords(
      f'{folder} has no vectors of {path}; expected {target.name}.\n'
      '  next: python -m vidret_jax.tools.prepare --config <your config>'
    )
  with np.load(target, allow_pickle=False) as found:
    words = found['words'].tobytes().decode('utf-8').split('\n')
    vectors = found['vectors']
  return {word: i for i, word in enumerate(words)}, vectors
