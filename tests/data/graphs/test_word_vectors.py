# SPDX-License-Identifier: Apache-2.0
"""Tables of word vectors, whole and damaged."""

import struct

import numpy as np
import pytest

from tests.data import graph_sets
from vidret_jax.data import store
from vidret_jax.data.graphs import word_vectors

RNG = np.random.default_rng(0)
TABLE = {
  word: RNG.normal(size=5).astype(np.float32)
  for word in ('cat', 'Straße', '</s>', 'dog', 'a_b', '日本')
}


@pytest.fixture
def path(tmp_path):
  file = tmp_path / 'table.bin'
  graph_sets.write_word2vec(file, TABLE)
  return file


def test_only_the_words_that_are_wanted(path):
  words, rows = word_vectors.read(path, {'dog', '日本', 'Straße', 'Dog', 'x'})
  assert words == ['Straße', 'dog', '日本']
  np.testing.assert_array_equal(rows, [TABLE[word] for word in words])
  words, rows = word_vectors.read(path, ())
  assert words == [] and rows.shape == (0, 5)


def test_without_newlines_and_with_words_of_other_encodings(tmp_path):
  file = tmp_path / 'table.bin'
  rows = struct.pack('<2f', 1, 2), struct.pack('<2f', 3, 4)
  file.write_bytes(
    b'4 2\n\xff\xfe ' + rows[1] + b'cat ' + rows[0] + b'dog ' + rows[1]
    + b'cat ' + rows[1]
  )  # fmt: skip
  words, found = word_vectors.read(file, ['dog', 'cat'])
  assert words == ['cat', 'dog']  # Of two the first counts.
  np.testing.assert_array_equal(found, [[1, 2], [3, 4]])


def test_numbers_may_look_like_spaces_and_newlines(tmp_path):
  row = np.frombuffer(b'\n   ' * 3, np.float32)
  file = tmp_path / 'table.bin'
  graph_sets.write_word2vec(file, {'a': row, 'b': row})
  words, found = word_vectors.read(file, ['b'])
  assert words == ['b']
  np.testing.assert_array_equal(found, [row])


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'begins with b.., expected "<count> <dim>"'),
    (b'cat 0.1 0.2\n', 'no word2vec file in binary form'),
    (b'\x1f\x8b' + b'\0' * 90, 'no word2vec file in binary form'),
    (b'-1 2\n', 'no word2vec file'),
    (b'1 2', 'no word2vec file'),
    (b'0 2\n', '0 words of width 2'),
    (b'1 0\n', '1 words of width 0'),
    (b'1 99999999\n', 'a width up to'),
    (b'9999999999 300\ncat ', 'cannot hold the 9999999999 words'),
    (b'1 1\n' + b'a' * 5000, 'word 0 of 1, byte 4: .* found no space'),
    (b'2 1\ncat 1234doghouse 12', 'word 1 of 2, .* end of the file'),
    (b'1 1\ncat 12345678901234', '10 bytes after the last of 1 words'),
    (b'1 1\ncat ' + struct.pack('<f', np.nan), "word 'cat': .* NaN or Inf"),
  ],
)
def test_damaged_tables(tmp_path, content, message):
  file = tmp_path / 'table.bin'
  file.write_bytes(content)
  with pytest.raises(word_vectors.BadWordVectors, match=message) as error:
    word_vectors.read(file, ['cat'])
  assert str(file) in str(error.value)


def test_every_cut_is_noticed(path, tmp_path):
  whole = path.read_bytes()
  file = tmp_path / 'cut.bin'
  # The very last byte is a newline that may be absent.
  for size in range(len(whole) - 1):
    file.write_bytes(whole[:size])
    with pytest.raises(word_vectors.BadWordVectors):
      word_vectors.read(file, TABLE)
  file.write_bytes(whole[:-1])
  assert len(word_vectors.read(file, TABLE)[0]) == len(TABLE)


def test_what_is_kept(path, tmp_path):
  folder = tmp_path / 'records'
  folder.mkdir()
  with pytest.raises(store.MissingRecords, match=r'tools\.prepare'):
    word_vectors.load(folder, path)
  with pytest.raises(word_vectors.BadWordVectors, match='none of the 2 words'):
    word_vectors.take(path, ['x y', 'y'])
  with pytest.raises(FileNotFoundError, match='GoogleNews'):
    word_vectors.take(tmp_path / 'absent.bin', ['a'])
  found = word_vectors.take(path, ['a dog', 'dog Straße x'])
  word_vectors.save(folder, path, *found)
  assert word_vectors.there(folder, path)
  assert not word_vectors.there(folder, tmp_path / 'other.bin')
  assert len(list(folder.iterdir())) == 1
  rows, vectors = word_vectors.load(folder, path)
  assert rows == {'Straße': 0, 'dog': 1}
  np.testing.assert_array_equal(vectors, [TABLE['Straße'], TABLE['dog']])
