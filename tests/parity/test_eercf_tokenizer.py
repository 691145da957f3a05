# SPDX-License-Identifier: Apache-2.0
"""Token ids, pieces, decoded text and rows, exactly as CLIP's tokenizer's."""

import json
import re

import numpy as np
import pytest

from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data import vocabulary as vocabulary_lib


@pytest.fixture(scope='module')
def folder(golden_root):
  for name in ('tokenizer_strings.json', 'tokenizer.npz'):
    if not (golden_root / 'eercf' / name).exists():
      pytest.skip(f'{golden_root / "eercf" / name} is absent')
  found = sorted((golden_root / 'eercf').glob('bpe_simple_vocab_16e6*'))
  if not found:
    pytest.skip(f'{golden_root / "eercf"}/bpe_simple_vocab_16e6* is absent')
  return golden_root / 'eercf'


@pytest.fixture(scope='module')
def golden(folder):
  said = json.loads((folder / 'tokenizer_strings.json').read_text())
  with np.load(folder / 'tokenizer.npz', allow_pickle=False) as arrays:
    return said, dict(arrays)


@pytest.fixture(scope='module')
def words(folder, golden):
  return tokenizer_lib.load(folder, golden[0]['vocab_size'])


def test_vocabulary(words, golden):
  said, _ = golden
  assert words.vocab_size == said['vocab_size']
  assert (words.start, words.end) == (said['sot'], said['eot'])


def test_ids(words, golden):
  said, arrays = golden
  for text, row, n in zip(said['strings'], arrays['ids'], arrays['lengths']):
    assert words.encode(text) == row[:n].tolist(), ascii(text)
    assert (row[n:] == -1).all()


def test_pieces(words, folder, golden):
  said, _ = golden
  ids = vocabulary_lib.read(folder).ids
  names = {i: token for token, i in ids.items()}
  for text, want in zip(said['strings'], said['bpe_tokens']):
    assert [names[i] for i in words.encode(text)] == want, ascii(text)


def test_decoded(words, golden):
  said, arrays = golden
  rows = zip(arrays['ids'], arrays['lengths'], said['decoded'])
  for row, n, want in rows:
    assert words.decode(row[:n]) == want


def test_rows(words, golden):
  said, arrays = golden
  strings = said['strings']
  widths = [re.fullmatch(r'dataset_ids_(\d+)', k) for k in arrays]
  widths = [int(m[1]) for m in widths if m]
  assert widths
  for width in widths:
    rows = words.rows(strings, width)
    np.testing.assert_array_equal(rows, arrays[f'dataset_ids_{width}'])
    valid = np.arange(width) < arrays['lengths'][:, None] + 2
    np.testing.assert_array_equal(valid, arrays[f'dataset_mask_{width}'] > 0)
    assert not arrays[f'dataset_segment_{width}'].any()


def test_public_tokenize(words, golden):
  said, arrays = golden
  names = [k for k in arrays if k.startswith('openai_tokenize_')]
  assert names
  for name in names:
    width = int(name.removeprefix('openai_tokenize_'))
    rows = words.rows(said['strings'], width)
    np.testing.assert_array_equal(rows, arrays[name])


def test_cut_rows_are_counted(folder, golden):
  said, arrays = golden
  words = tokenizer_lib.load(folder)
  words.rows(said['strings'], 12)
  assert words.truncated == (arrays['lengths'] > 10).sum()
