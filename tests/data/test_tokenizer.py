# SPDX-License-Identifier: Apache-2.0
"""Cleaning, merging, rows, files that are not what they should be."""

import concurrent.futures
import gzip
import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data import vocabulary as vocabulary_lib

TEXTS = [
  'a man is cooking in the kitchen',
  'a woman is singing in the kitchen',
  'two men are walking and talking in the park',
  'the man is talking to the woman, and she is singing',
] * 3
SIZE = 550


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.json'
  tokenizer_lib.train(TEXTS, path, SIZE)
  return path


@pytest.fixture
def words(file):
  return tokenizer_lib.load(file)


def write_pair(folder, file):
  """The same vocabulary as vocab.json and merges.txt."""
  model = json.loads(file.read_text())['model']
  (folder / 'vocab.json').write_text(json.dumps(model['vocab']))
  merges = ['#version: 0.2', *(' '.join(m) for m in model['merges']), '']
  (folder / 'merges.txt').write_text('\n'.join(merges))


def write_bpe(path, file, lines=None):
  """The same as the published file has it."""
  merges = json.loads(file.read_text())['model']['merges']
  lines = lines or [' '.join(m) for m in merges]
  text = '\n'.join(['"bpe#version: 0.2', *lines, ''])
  opened = gzip.open if path.suffix == '.gz' else open
  with opened(path, 'wt', encoding='utf-8') as f:
    f.write(text)


def merge_by_hand(vocabulary, piece):
  """Ids of one piece, by the loop of the original."""
  rank = {pair: i for i, pair in enumerate(vocabulary.merges)}
  table = vocabulary_lib.byte_symbols()
  word = [table[b] for b in piece.encode()]
  word[-1] += '</w>'
  while len(word) > 1:
    pairs = list(zip(word, word[1:]))
    best = min(pairs, key=lambda p: rank.get(p, len(rank)))
    if best not in rank:
      break
    merged, i = [], 0
    while i < len(word):
      both = tuple(word[i : i + 2]) == best
      merged.append(''.join(best) if both else word[i])
      i += 2 if both else 1
    word = merged
  return [vocabulary.ids[t] for t in word]


@pytest.mark.parametrize(
  'text, want',
  [
    ('  A  man\tis\n cooking ', 'a man is cooking'),
    ('fish &amp;amp; chips', 'fish & chips'),
    ('cafÃ© â€œquotedâ€\x9d', 'café "quoted"'),
    ('\ud800 \x07bell', '\ufffd bell'),
    ('one\u3000two\xa0three\u2028', 'one two three'),
    ('', ''),
  ],
)
def test_clean(text, want):
  assert tokenizer_lib.clean(text) == want


def test_plain_text_takes_the_short_way_to_the_same_result():
  for text in ['  A b;c  d ', "it's <b> #1", '..', "''s 'LL", '`~^|{}']:
    assert tokenizer_lib.clean(text) == tokenizer_lib._repair(text)


@pytest.mark.parametrize(
  'piece', ['kitchen', 'singingtalking', 'aaaa', 'ththe', 'é日本', '!?..', 'x']
)
def test_merges_as_the_original_does(words, file, piece):
  vocabulary = vocabulary_lib.read(file)
  assert words.encode(piece) == merge_by_hand(vocabulary, piece)


def test_pieces(words, file):
  vocabulary = vocabulary_lib.read(file)
  want = ['it', "'s", 'a', '2', '0', 'nd', '-', 'rate', 'man', "'", 'n', '...']
  got = words.encode("It's a 20nd-rate man'n...")
  assert got == [i for p in want for i in merge_by_hand(vocabulary, p)]


def test_literals_are_one_token_where_they_are_a_piece(words):
  start, end = words.start, words.end
  assert words.encode('<|startoftext|>a<|EndOfText|>') == [
    *(start, words.encode('a')[0], end)
  ]
  # Behind other punctuation the splitting does not find it, so upstream.
  assert end not in words.encode('!<|endoftext|>')


def test_decodes_what_it_encodes(words):
  text = 'two men , talking 日本 😀 é'
  assert words.decode(words.encode(text)) == text + ' '
  assert words.decode(words.encode('é')[:1]) == '\ufffd'
  with pytest.raises(ValueError, match='token id 550'):
    words.decode([SIZE])


def test_rows(words):
  ids = words.encode(TEXTS[0])
  rows = words.rows([TEXTS[0], '', TEXTS[1]], len(ids) + 4)
  assert rows.dtype == np.int32 and rows.shape == (3, len(ids) + 4)
  assert rows[0].tolist() == [words.start, *ids, words.end, 0, 0]
  assert rows[1].tolist() == [words.start, words.end] + [0] * (len(ids) + 2)
  assert rows[0].argmax() == len(ids) + 1
  np.testing.assert_array_equal(rows[2], words.row(TEXTS[1], len(ids) + 4))
  assert words.truncated == 0
  assert words.rows([], 5).shape == (0, 5)


def test_cut_rows_end_in_the_end_token_and_are_counted(words, caplog):
  ids = words.encode(TEXTS[0])
  words.report('texts')
  row = words.row(TEXTS[0], len(ids) + 1)
  assert row.tolist() == [words.start, *ids[:-1], words.end]
  words.row(TEXTS[0], len(ids) + 2)
  assert words.truncated == 1
  with caplog.at_level(logging.WARNING, logger='absl'):
    words.report('texts', 2)
    words.report('texts', 2)
  assert caplog.text.count('texts: 1 of 2 texts are longer') == 1
  with pytest.raises(ValueError, match='max_words is 1'):
    words.row('a', 1)


def test_counts_in_threads(words):
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    rows = list(pool.map(lambda i: words.row(TEXTS[i % 4], 4), range(200)))
  assert words.truncated == 200
  np.testing.assert_array_equal(rows[0], rows[4])


def test_learns_the_same_in_another_process(file, tmp_path):
  again = tmp_path / 'again.json'
  code = (
    'import json, sys; from vidret_jax.data import tokenizer; '
    'tokenizer.train(json.load(sys.stdin), sys.argv[1], int(sys.argv[2]))'
  )
  subprocess.run(
    [sys.executable, '-c', code, str(again), str(SIZE)],
    input=json.dumps(TEXTS),
    text=True,
    check=True,
  )
  assert again.read_bytes() == file.read_bytes()


def test_learnt_vocabulary(words, file, tmp_path):
  assert words.vocab_size == SIZE
  assert (words.start, words.end) == (SIZE - 2, SIZE - 1)
  assert len(words.encode('kitchen')) == 1
  symbols = vocabulary_lib.symbols()
  assert list(vocabulary_lib.read(file).ids)[:512] == symbols
  few = tokenizer_lib.train(['ab ab'], tmp_path / 'few.json', 2000)
  assert few.vocab_size == 515
  with pytest.raises(ValueError, match='vocab_size is 513'):
    tokenizer_lib.train(TEXTS, tmp_path / 'none.json', 513)
  assert not (tmp_path / 'none.json').exists()


def test_every_kind_of_file_says_the_same(words, file, tmp_path):
  (tmp_path / 'pair').mkdir()
  write_pair(tmp_path / 'pair', file)
  paths = [file.parent, tmp_path / 'pair']
  paths += [tmp_path / 'pair' / n for n in ('merges.txt', 'vocab.json')]
  for name in ('bpe.txt', 'bpe.txt.gz'):
    write_bpe(tmp_path / name, file)
    paths.append(tmp_path / name)
  want = words.rows(TEXTS, 12)
  for path in paths:
    got = tokenizer_lib.load(path, SIZE)
    np.testing.assert_array_equal(got.rows(TEXTS, 12), want)


def test_older_tokenizer_files(words, file, tmp_path):
  content = json.loads(file.read_text())
  model = content['model']
  model['merges'] = [' '.join(m) for m in model['merges']]
  content['normalizer'] = None
  (tmp_path / 'tokenizer.json').write_text(json.dumps(content))
  got = tokenizer_lib.load(tmp_path)
  assert got.encode(TEXTS[0]) == words.encode(TEXTS[0])


def test_another_size(file, tmp_path):
  with pytest.raises(ValueError, match='of 550, but the model has 49408'):
    tokenizer_lib.load(file, 49408)
  write_bpe(tmp_path / 'bpe.txt', file)
  with pytest.raises(ValueError, match='of 550, expected 49408'):
    tokenizer_lib.load(tmp_path / 'bpe.txt')


def damaged(change):
  def write(tmp_path, file):
    content = json.loads(file.read_text())
    change(content['model'])
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(content))
    return path

  return write


def end_first(model):
  ids = model['vocab']
  ids['<|endoftext|>'], ids['!'] = ids['!'], ids['<|endoftext|>']


@pytest.mark.parametrize(
  'change, message',
  [
    (end_first, r'endoftext\|> has id 0, expected the largest, 549'),
    (lambda m: m['vocab'].pop('<|startoftext|>'), 'startoftext.*is not in'),
    (lambda m: m['vocab'].pop('in'), 'are not 0 to 548'),
    (lambda m: m['vocab'].update({'in': '1'}), 'are not 0 to 549'),
    (lambda m: m['merges'].append(['x', 'q']), "merge 'x' 'q' makes a token"),
    (lambda m: m['merges'].append(['x']), "'x' is no merge"),
    (lambda m: m['vocab'].update({'\u4e2d': 550}), 'expected the largest'),
    (lambda m: m.pop('merges'), 'expected model.vocab and model.merges'),
  ],
)
def test_refuses_another_vocabulary(change, message, file, tmp_path):
  path = damaged(change)(tmp_path, file)
  with pytest.raises(ValueError, match=message) as e:
    tokenizer_lib.load(path)
  assert str(path) in str(e.value)


def test_refuses_symbols_that_are_no_bytes(file, tmp_path):
  def change(model):
    ids = model['vocab']
    ids['\u4e2d'] = ids['in']
    del ids['in']
    model['merges'] = []

  with pytest.raises(ValueError, match='not made of byte symbols'):
    tokenizer_lib.load(damaged(change)(tmp_path, file))


_MERGES = b'#version\na b\n' * 99


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('bpe.txt.gz', b'no gzip', 'damaged'),
    # Without a time stamp: workers must collect tests of the same name.
    ('bpe.txt.gz', gzip.compress(_MERGES, mtime=0)[:-20], 'damaged'),
    ('bpe.txt', b'\xff\xfe', 'damaged'),
    ('bpe.txt', b'a b\n', 'expected a line with #version'),
    ('tokenizer.json', b'{"model":', 'no JSON'),
    ('tokenizer.json', b'[' * 100_000, 'no JSON'),
    ('tokenizer.json', b'[]', 'expected a JSON object'),
    ('merges.txt', b'#version: 0.2\n', 'vocab.json: absent'),
    ('words.bin', b'', 'no tokenizer file by its name'),
  ],
)
def test_refuses_damaged_files(name, content, message, tmp_path):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message) as e:
    tokenizer_lib.load(tmp_path / name)
  assert str(tmp_path) in str(e.value)


def test_names_the_line_that_is_no_merge(file, tmp_path):
  write_bpe(tmp_path / 'bpe.txt', file, ['a b', 'a b c'])
  with pytest.raises(ValueError, match=r"bpe.txt:3: 'a b c' is no merge"):
    tokenizer_lib.load(tmp_path / 'bpe.txt', 516)


def test_refuses_what_unpacks_to_too_much(tmp_path):
  path = tmp_path / 'bpe.txt.gz'
  with gzip.open(path, 'wb', compresslevel=1) as f:
    for _ in range(65):
      f.write(bytes(1 << 20))
  with pytest.raises(ValueError, match='more than 64 MiB'):
    tokenizer_lib.load(path)


def test_says_what_to_fetch(tmp_path):
  for path in (tmp_path, tmp_path / 'absent.json'):
    with pytest.raises(ValueError, match='give the bpe_simple_vocab') as e:
      tokenizer_lib.load(path)
    assert str(path) in str(e.value)
