# SPDX-License-Identifier: Apache-2.0
"""Relevance matrices against sets in Python, their files, EPIC's tables."""

import fractions
import pickle

import h5py
import numpy as np
import pytest

from vidret_jax.data import pickles
from vidret_jax.data.graphs import (
  annotate,
  epic_sentences,
  relevance,
  relevance_files,
  text_relevance,
)


def iou(a, b):
  a, b = set(a), set(b)
  return fractions.Fraction(len(a & b), max(1, len(a | b)))


def draw(rng, n, most=4, classes=7):
  return [
    rng.integers(0, classes, rng.integers(0, most + 1)).tolist()
    for _ in range(n)
  ]


@pytest.mark.parametrize('single', [False, True])
def test_matrix(single, monkeypatch):
  """Also when a block is a few rows, the last a smaller one."""
  rng = np.random.default_rng(0)
  monkeypatch.setattr(relevance, '_CELLS', 45)
  nouns, other_nouns = draw(rng, 11), draw(rng, 15)
  if single:
    verbs = rng.integers(0, 3, 11).tolist()
    other = rng.integers(0, 3, 15).tolist()
    part = int.__eq__
  else:
    verbs, other, part = draw(rng, 11), draw(rng, 15), iou
  done = []
  got = relevance.matrix(verbs, nouns, other, other_nouns, report=done.append)
  want = [
    [
      float((part(v, w) + iou(n, m)) / fractions.Fraction(2))
      for w, m in zip(other, other_nouns)
    ]
    for v, n in zip(verbs, nouns)
  ]
  np.testing.assert_allclose(
    got,
    want,
    rtol=0,
    atol=2e-16,  # Of the sum.
  )
  assert got.dtype == np.float64 and done == [3, 6, 9, 11]
  one = relevance.iou(nouns, other_nouns)
  np.testing.assert_array_equal(one[4, 5], float(iou(nouns[4], other_nouns[5])))


def test_empty_sets_and_sides():
  assert relevance.matrix([[]], [[]], [[]], [[]]).tolist() == [[0]]
  assert relevance.matrix([], [], [[1]], [[2]]).shape == (0, 1)
  assert relevance.matrix([[1]], [[2]], [], []).shape == (1, 0)
  numbers = np.array([3, 1])  # Integers of NumPy, and arrays as rows.
  rows = [np.array([1, 2]), np.array([], int)]
  got = relevance.matrix(numbers, rows, numbers, rows)
  assert got.tolist() == [[1, 0], [0, 0.5]]
  # Classes can be anything that is hashed.
  assert relevance.iou([['a', 'b']], [['b']]).tolist() == [[0.5]]


@pytest.mark.parametrize(
  'sides, message',
  [
    (([1, 2], [[], []], [[1]], [[]]), 'one verb class'),
    (([1, [2]], [[], []], [1], [[]]), 'one verb class'),
    (([1, 2], [[]], [1], [[]]), 'clips: verbs of 2, nouns of 1'),
    (([1], [[]], [1], []), 'captions: verbs of 1, nouns of 0'),
  ],
)
def test_matrix_refuses(sides, message):
  with pytest.raises(ValueError, match=message):
    relevance.matrix(*sides)


@pytest.mark.parametrize('suffix', relevance_files.SUFFIXES)
def test_files(suffix, tmp_path):
  rng = np.random.default_rng(0)
  want = rng.random((5, 3))
  path = tmp_path / 'new' / f'rel{suffix}'
  relevance_files.write(path, want)
  got = relevance_files.read(path, (5, 3))
  assert got.dtype == np.float64
  np.testing.assert_array_equal(got, want)
  assert isinstance(got, np.memmap) == (suffix != '.pkl')
  assert list(path.parent.iterdir()) == [path]
  with pytest.raises(ValueError, match='5 x 3, but the split has 6 clips'):
    relevance_files.read(path, (6, 3))
  # Rows as they are computed, and nothing when that fails.
  sides = [[1], [2]], [[], [3]]
  with relevance_files.create(tmp_path / f'b{suffix}', (2, 2)) as out:
    relevance.matrix(*sides, *sides, out=out)
  got = relevance_files.read(tmp_path / f'b{suffix}')
  np.testing.assert_array_equal(got, [[0.5, 0], [0, 1]])
  with pytest.raises(ZeroDivisionError):
    with relevance_files.create(tmp_path / f'c{suffix}', (2, 2)):
      raise ZeroDivisionError
  assert not list(tmp_path.glob('c*'))


def test_as_the_original_reads_them(tmp_path):
  want = np.eye(2)
  relevance_files.write(tmp_path / 'a.pkl', want)
  with open(tmp_path / 'a.pkl', 'rb') as file:
    np.testing.assert_array_equal(pickle.load(file), want)
  relevance_files.write(tmp_path / 'a.hdf5', want)
  with h5py.File(tmp_path / 'a.hdf5') as file:
    np.testing.assert_array_equal(file['rel_mat'][()], want)


def test_chunked_and_foreign_hdf5(tmp_path):
  want = np.random.default_rng(0).random((9, 4))
  for name, options in {
    'chunked': dict(chunks=(2, 2), compression='gzip'),
    'half': dict(dtype='<f4'),
    'big': dict(dtype='>f8'),
  }.items():
    with h5py.File(tmp_path / name, 'w') as file:
      file.create_dataset('rel_mat', data=want, **options)
    got = relevance_files.read(tmp_path / name, want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_bad_files(tmp_path):
  path = tmp_path / 'x'
  with pytest.raises(FileNotFoundError, match='tools.relevance'):
    relevance_files.read(path)
  with pytest.raises(ValueError, match='.hdf5'):
    relevance_files.write(tmp_path / 'x.txt', np.eye(2))

  def refuses(message, kind=ValueError):
    with pytest.raises(kind, match=message) as caught:
      relevance_files.read(path)
    assert str(path) in str(caught.value)

  for value in (np.zeros(3), np.zeros((2, 2), int), {'a': 1}):
    path.write_bytes(pickle.dumps(value))
    refuses('matrix')
  path.write_bytes(pickle.dumps(print))
  refuses('builtins.print', pickles.UnsafePickle)
  with h5py.File(path, 'w') as file:
    file['other'] = np.eye(2)
  refuses("no dataset 'rel_mat' .*'other'")
  with h5py.File(path, 'w') as file:
    file['rel_mat'] = h5py.ExternalLink('x.hdf5', 'rel_mat')
  refuses("'rel_mat'")
  relevance_files.write(tmp_path / 'x.hdf5', np.ones((50, 50)))
  whole = (tmp_path / 'x.hdf5').read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  refuses('again')
  np.save(tmp_path / 'x.npy', np.ones((50, 50)))
  path.write_bytes((tmp_path / 'x.npy').read_bytes()[:1000])
  refuses('damaged')
  # An object array is a pickle in disguise.
  with open(path, 'wb') as file:
    np.save(file, np.array([[print]], object), allow_pickle=True)
  refuses('damaged')


CLIPS = 'narration_id,narration,verb_class,all_noun_classes\n'


def clip_table(tmp_path, rows):
  path = tmp_path / 'clips.csv'
  path.write_text(CLIPS + '\n'.join(rows) + '\n')
  return path


def test_epic_sentences(tmp_path):
  path = clip_table(
    tmp_path,
    [
      *('a,cut it,3,"[1, 2]"', 'b,wash it,0,[1]', 'c,cut it,3,[1]'),
      # Its narration is taken, its action is not.
      *('d,wash it,0,[5]', 'e,wash it,0,"[5, 6]"', 'f,go,7,[]'),
    ],
  )
  clips = epic_sentences.read_clips(path)
  assert clips.verbs == [3, 0, 3, 0, 0, 7]
  assert clips.nouns == [[1, 2], [1], [1], [5], [5, 6], []]
  assert epic_sentences.sentence_table(clips) == [0, 1, 5, 3]
  table = tmp_path / 'sentences.csv'
  table.write_text('narration_id,narration\nc,cut it\nx,wash it\nb,wash it\n')
  rows = epic_sentences.read_sentences(table, clips)
  assert rows == [2, 1, 1]
  left, right = clips, clips.take(rows)
  got = relevance.matrix(left.verbs, left.nouns, right.verbs, right.nouns)
  np.testing.assert_array_equal(got[0], [0.75, 0.25, 0.25])
  np.testing.assert_array_equal(got[4], [0, 0.5, 0.5])


@pytest.mark.parametrize(
  'rows, message',
  [
    (['a,x,1'], ':2: too few'),
    (['a,x,1,[1]', 'b,x,one,[1]'], ':3: classes'),
    (['a,x,1,1;2'], ':2: classes'),
    (['a,x,1,[1]', 'a,y,1,[1]'], 'occurs twice'),
  ],
)
def test_bad_clip_tables(rows, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    epic_sentences.read_clips(clip_table(tmp_path, rows))


def test_bad_sentence_tables(tmp_path):
  clips = epic_sentences.read_clips(clip_table(tmp_path, ['a,x,1,[1]']))
  path = tmp_path / 's.csv'
  path.write_text('narration\ny\n')
  with pytest.raises(ValueError, match=":2: 'y' is a narration of no clip"):
    epic_sentences.read_sentences(path, clips)
  path.write_text('text\ny\n')
  with pytest.raises(ValueError, match="no column \\['narration'\\]"):
    epic_sentences.read_sentences(path, clips)


def test_words():
  captions = ['a man cuts the onion', 'the man runs', 'the']
  sets = text_relevance.word_sets(captions, {'a', 'the'})
  assert sets == [['man', 'cuts', 'onion'], ['man', 'runs'], []]
  got = relevance.iou(sets, sets)
  np.testing.assert_allclose(got, [[1, 1 / 4, 0], [1 / 4, 1, 0], [0, 0, 0]])
  words = [c.split() for c in captions]
  tags = [
    ['DET', 'NOUN', 'VERB', 'DET', 'NOUN'],
    ['DET', 'NOUN', 'VERB'],
    ['X'],
  ]
  verbs, nouns = (
    text_relevance.tagged_sets(words, tags, t) for t in ('VERB', 'NOUN')
  )
  assert verbs == [['cuts'], ['runs'], []]
  assert nouns == [['man', 'onion'], ['man'], []]
  got = relevance.matrix(verbs, nouns, verbs, nouns)
  np.testing.assert_allclose(got, [[1, 0.25, 0], [0.25, 1, 0], [0, 0, 0]])
  # Synonyms; unknown words get the size of the table, which may be taken.
  table = {'cuts': 2, 'slices': 2}
  got = text_relevance.class_sets(
    [['slices', 'runs'], ['cuts', 'jumps']], table
  )
  assert got == [[2, 2], [2, 3]]
  assert table == {'cuts': 2, 'slices': 2, 'runs': 2, 'jumps': 3}


def test_stop_words():
  pytest.importorskip('spacy')
  assert {'a', 'the', 'and'} <= annotate.stop_words()
