# SPDX-License-Identifier: Apache-2.0
"""Files that hold a byte-pair vocabulary of CLIP's kind.

The published file lists merges only; its vocabulary follows from them
(`simple_tokenizer.py`, openai/CLIP): 256 byte symbols, the same 256 at the end
of a word, one token per merge, start, end.
"""

from collections.abc import Iterator
import dataclasses
import functools
import gzip
import json
import pathlib
import zlib

START = '<|startoftext|>'
END = '<|endoftext|>'
SIZE = 49408  # Of the published vocabulary.
_MERGES = SIZE - 512 - 2
_MAX_BYTES = 64 << 20  # The published files unpack to 3 MB.
_BPE_FILES = (
  'bpe_simple_vocab_16e6.txt.gz',
  'bpe_simple_vocab_16e6.txt',
)
_NEXT = (
  'give the bpe_simple_vocab_16e6.txt.gz that comes with CLIP, or the '
  "tokenizer.json (or vocab.json and merges.txt) of the model's own folder"
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Ids of all tokens, and the merges by rank."""

  ids: dict[str, int]
  merges: list[tuple[str, str]]


@functools.cache
def byte_symbols() -> dict[int, str]:
  """{byte: printable character}, in the order of the ids.

  Printable bytes stand for themselves; the others, ascending, for the code
  points from 256 (`bytes_to_unicode`).
  """
  own = [*range(33, 127), *range(161, 173), *range(174, 256)]
  rest = [b for b in range(256) if b not in own]
  table = {b: chr(b) for b in own}
  return table | {b: chr(256 + i) for i, b in enumerate(rest)}


def symbols() -> list[str]:
  """The first 512 tokens."""
  plain = list(byte_symbols().values())
  return plain + [f'{s}</w>' for s in plain]


def from_merges(merges: list[tuple[str, str]]) -> Vocabulary:
  """The vocabulary that follows from merges."""
  tokens = [*symbols(), *(a + b for a, b in merges), START, END]
  return Vocabulary({t: i for i, t in enumerate(tokens)}, merges)


def read(path: pathlib.Path, vocab_size: int | None = None) -> Vocabulary:
  """Reads any of the files that `tokenizer.load` names.

  Raises:
    ValueError: the file is missing, damaged, or of another vocabulary.
  """
  path = _locate(path)
  if path.name.endswith(('.txt', '.txt.gz')) and path.name != 'merges.txt':
    found = _read_bpe(path, vocab_size)
  elif path.name in ('merges.txt', 'vocab.json'):
    found = _read_pair(path)
  elif path.suffix == '.json':
    found = _read_json(path)
  else:
    raise ValueError(f'{path}: no tokenizer file by its name; {_NEXT}')
  _check(path, found, vocab_size)
  return found


def _locate(path):
  if path.is_file():
    return path
  if not path.is_dir():
    raise ValueError(f'{path}: no such tokenizer file; {_NEXT}')
  for name in (*_BPE_FILES, 'tokenizer.json', 'vocab.json', 'merges.txt'):
    if (path / name).is_file():
      return path / name
  others = sorted(path.glob('bpe_simple_vocab_16e6*.txt*'))
  if len(others) == 1:
    return others[0]
  raise ValueError(f'{path}: this folder holds no tokenizer file; {_NEXT}')


def _text(path):
  """The text of a file, unpacked; no more than _MAX_BYTES of it."""
  opened = gzip.open if path.suffix == '.gz' else open
  try:
    with opened(path, 'rb') as f:
      raw = f.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
      raise ValueError(
        f'{path}: more than {_MAX_BYTES >> 20} MiB, expected about 3; {_NEXT}'
      )
    return raw.decode('utf-8')
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
    raise ValueError(
      f'{path}: cannot be read as UTF-8 text ({e}); the file is damaged, fetch '
      'it again'
    ) from None


def _pairs(path, lines) -> Iterator[tuple[str, str]]:
  for number, line in lines:
    pair = tuple(line.split())
    if len(pair) != 2:
      raise ValueError(
        f'{path}:{number}: {line[:60]!r} is no merge, expected two symbols; '
        'the file is damaged, fetch it again'
      )
    yield pair


def _read_bpe(path, vocab_size):
  lines = _text(path).split('\n')
  if '#version' not in lines[0]:
    raise ValueError(
      f'{path}: begins with {lines[0][:60]!r}, expected a line with #version; '
      f'{_NEXT}'
    )
  wanted = _MERGES if vocab_size is None else vocab_size - 514
  lines = [(n, x) for n, x in enumerate(lines[1:], 2) if x.strip()][:_MERGES]
  if len(lines) != wanted:
    raise ValueError(
      f'{path}: {len(lines)} merges make a vocabulary of {len(lines) + 514}, '
      f'expected {wanted + 514}; the file is cut or of another model: {_NEXT}'
    )
  return from_merges(list(_pairs(path, lines)))


def _read_pair(path):
  merges, ids = path.with_name('merges.txt'), path.with_name('vocab.json')
  for file in (merges, ids):
    if not file.is_file():
      raise ValueError(f'{file}: absent, but {path.name} needs it; {_NEXT}')
  lines = enumerate(_text(merges).split('\n'), 1)
  kept = [(n, x) for n, x in lines if x.strip() and '#version' not in x]
  return Vocabulary(_json(ids), list(_pairs(merges, kept)))


def _read_json(path):
  model = _json(path).get('model')
  ids = model.get('vocab') if isinstance(model, dict) else None
  merges = model.get('merges') if isinstance(model, dict) else None
  if not isinstance(ids, dict) or not isinstance(merges, list):
    raise ValueError(
      f'{path}: expected model.vocab and model.merges of a BPE tokenizer; '
      f'{_NEXT}'
    )
  # Older files have 'a b', newer ones ['a', 'b'].
  lines = [
    (i, ' '.join(map(str, m)) if isinstance(m, list) else str(m))
    for i, m in enumerate(merges)
  ]
  return Vocabulary(ids, list(_pairs(f'{path} merges', lines)))


def _json(path):
  try:
    found = json.loads(_text(path))
  except (json.JSONDecodeError, RecursionError) as e:
    raise ValueError(
      f'{path}: no JSON ({e}); the file is damaged, fetch it again'
    ) from None
  if not isinstance(found, dict):
    raise ValueError(
      f'{path}: expected a JSON object, found {type(found).__name__}; {_NEXT}'
    )
  return found


def _check(path, found, vocab_size):
  """What the text tower and the tokenizer rely on."""
  ids = found.ids
  if vocab_size is not None and len(ids) != vocab_size:
    raise ValueError(
      f'{path}: a vocabulary of {len(ids)}, but the model has {vocab_size}; '
      f'{_NEXT}'
    )
  for token in (*symbols(), START, END):
    if token not in ids:
      raise ValueError(
        f'{path}: {token!r} is not in the vocabulary, so it is not of '
        f"CLIP's kind; {_NEXT}"
      )
  numbers = set(map(repr, ids.values()))
  if numbers != set(map(repr, range(len(ids)))):
    raise ValueError(
      f'{path}: the ids of its {len(ids)} tokens are not 0 to {len(ids) - 1}; '
      f'{_NEXT}'
    )
  if ids[END] != len(ids) - 1:
    raise ValueError(
      f'{path}: {END} has id {ids[END]}, expected the largest, '
      f'{len(ids) - 1}: the text tower finds the end of a row by that; {_NEXT}'
    )
  for a, b in found.merges:
    if not (a in ids and b in ids and a + b in ids):
      raise ValueError(
        f'{path}: the merge {a!r} {b!r} makes a token that is not in the '
        f'vocabulary; the files do not belong together: {_NEXT}'
      )
  alphabet = set(byte_symbols().values())
  odd = next((t for t in ids if not alphabet.issuperset(t)), None)
  if odd is not None:
    raise ValueError(
      f'{path}: the token {odd[:60]!r} is not made of byte symbols; {_NEXT}'
    )
