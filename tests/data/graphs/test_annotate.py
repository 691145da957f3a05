# SPDX-License-Identifier: Apache-2.0
"""Parses by a real pipeline, roles by rules, vocabulary, classes, vectors."""

import collections
import json

import numpy as np
import pytest

from tests.data.graphs import pipeline
from vidret_jax.data.graphs import annotate, dependencies, lexicon, srl


@pytest.fixture(scope='module')
def nlp():
  pytest.importorskip('spacy')
  return annotate.load(pipeline.folder())


def test_pipeline(nlp):
  captions = ['a man cuts the red onion in the kitchen', 'the ball', 'man']
  done = []
  found = dict(annotate.parse(nlp, captions, done.append))
  assert list(found) == captions and done == [1, 1, 1]
  parse = found[captions[0]]
  assert parse.words == captions[0].split()
  assert parse.tags == ['DT', 'NN', 'VBZ', 'DT', 'JJ', 'NN', 'IN', 'DT', 'NN']
  assert parse.chunks == [[0, 2], [3, 6], [7, 9]]
  assert parse.heads == [1, 2, 2, 5, 5, 2, 2, 8, 6]
  assert lexicon.verbs(parse) == ['cut']
  assert lexicon.nouns(parse) == ['man', 'onion', 'kitchen']
  graph = srl.graph(dependencies.roles(parse))
  assert [(n['role'], n['words']) for n in graph[0].values()][1:] == [
    ('V', ['cuts']),
    ('ARG0', ['a', 'man']),
    ('ARG1', ['the', 'red', 'onion']),
    ('ARGM-LOC', ['in', 'the', 'kitchen']),
  ]
  again = json.loads(json.dumps(parse.to_json()))
  assert annotate.from_json(captions[0], again) == parse


def test_words_are_those_of_the_caption(nlp):
  """The pipeline's own tokenizer would split these."""
  caption = "don't cut, the man's ball."
  ((_, parse),) = annotate.parse(nlp, [caption])
  assert parse.words == caption.split()


def test_load_refuses(tmp_path):
  spacy = pytest.importorskip('spacy')
  with pytest.raises(ValueError, match='no spaCy pipeline.*download'):
    annotate.load(str(tmp_path / 'none'))
  spacy.blank('en').to_disk(tmp_path / 'blank')
  with pytest.raises(ValueError, match=r"without \['parser', 'tagger'\]"):
    annotate.load(str(tmp_path / 'blank'))


def parse(*rows):
  """A parse of 'word tag dependency head [lemma]'."""
  cells = [row.split() for row in rows]
  words, tags, deps, heads = zip(*(c[:4] for c in cells))
  return annotate.Parse(
    words=list(words),
    tags=list(tags),
    pos=[annotate.coarse(t) for t in tags],
    lemmas=[c[4] if len(c) > 4 else c[0] for c in cells],
    deps=list(deps),
    heads=list(map(int, heads)),
    chunks=[],
  )


def told(found):
  """'word/tag ...' of each predicate, without O."""
  rows = dependencies.roles(found)
  return [
    ' '.join(f'{w}/{t}' for w, t in zip(rows['words'], v['tags']) if t != 'O')
    for v in rows['verbs']
  ]


CASES = {
  'passive, agent, modal, negation': (
    parse(
      *('balls NNS nsubjpass 4', 'can MD aux 4', 'not RB neg 4'),
      *('be VB auxpass 4', 'thrown VBN ROOT 4', 'by IN agent 4'),
      *('men NNS pobj 5', 'today NN npadvmod 4', '. . punct 4'),
    ),
    [
      'balls/B-ARG1 can/B-ARGM-MOD not/B-ARGM-NEG thrown/B-V by/B-ARG0 '
      'men/I-ARG0 today/B-ARGM-TMP'
    ],
  ),
  'particle, two objects': (
    parse(
      *('he PRP nsubj 1', 'hands VBZ ROOT 1 hand', 'over RP prt 1'),
      *('her PRP dative 1', 'balls NNS dobj 1'),
    ),
    ['he/B-ARG0 hands/B-V over/I-V her/B-ARG2 balls/B-ARG1'],
  ),
  'shared subject': (
    parse(
      *('he PRP nsubj 1', 'sits VBZ ROOT 1 sit', 'and CC cc 1'),
      *('runs VBZ conj 1 run', 'home NN npadvmod 3'),
    ),
    ['he/B-ARG0 sits/B-V', 'he/B-ARG0 runs/B-V home/B-ARGM-DIR'],
  ),
  'shared passive subject': (
    parse(
      *('it PRP nsubjpass 2', 'is VBZ auxpass 2', 'cut VBN ROOT 2'),
      *('and CC cc 2', 'eaten VBN conj 2 eat'),
    ),
    ['it/B-ARG1 cut/B-V', 'it/B-ARG1 eaten/B-V'],
  ),
  'a noun with a participle': (
    parse(
      *('a DT det 1', 'man NN ROOT 1', 'cutting VBG acl 1 cut'),
      *('ham NN dobj 2', 'cut VBN acl 3'),
    ),
    [
      'a/B-ARG0 man/I-ARG0 cutting/B-V ham/B-ARG1 cut/I-ARG1',
      'ham/B-ARG1 cut/B-V',
    ],
  ),
  'a relative clause': (
    parse(
      *('a DT det 1', 'man NN ROOT 1', 'who WP nsubj 3'),
      *('runs VBZ relcl 1 run', 'slowly RB advmod 3'),
    ),
    ['a/B-ARG0 man/I-ARG0 who/B-R-ARG0 runs/B-V slowly/B-ARGM-MNR'],
  ),
  'purpose and time': (
    parse(
      *('use VB ROOT 0', 'it PRP dobj 0', 'to TO aux 3', 'cut VB advcl 0'),
      *('while IN mark 6', 'you PRP nsubj 6', 'sit VBP advcl 0'),
    ),
    [
      'use/B-V it/B-ARG1 to/B-ARGM-PRP cut/I-ARGM-PRP while/B-ARGM-TMP '
      'you/I-ARGM-TMP sit/I-ARGM-TMP',
      'cut/B-V',
      'you/B-ARG0 sit/B-V',
    ],
  ),
  'prepositions and adverbs': (
    parse(
      *('go VB ROOT 0', 'then RB advmod 0', 'away RB advmod 0'),
      *('there RB advmod 0', 'too RB advmod 0', 'to IN prep 0'),
      *('it PRP pobj 5', 'with IN prep 0', 'it PRP pobj 7'),
      *('for IN prep 0', 'it PRP pobj 9', 'about IN prep 0', 'it PRP pobj 11'),
    ),
    [
      'go/B-V then/B-ARGM-TMP away/B-ARGM-DIR there/B-ARGM-LOC too/B-ARGM-ADV '
      'to/B-ARGM-DIR it/I-ARGM-DIR with/B-ARGM-MNR it/I-ARGM-MNR '
      'for/B-ARGM-PRP it/I-ARGM-PRP about/B-ARGM-ADV it/I-ARGM-ADV'
    ],
  ),
  'Universal Dependencies': (
    parse(
      *('it NN nsubj:pass 2', 'is VBZ aux:pass 2', 'cut VBN root 2'),
      *('by IN case 4', 'him PRP obl 2', 'in IN case 6', 'bed NN obl 2'),
    ),
    ['it/B-ARG1 cut/B-V by/B-ARG0 him/I-ARG0 in/B-ARGM-LOC bed/I-ARGM-LOC'],
  ),
  'a verb taken for a noun': (
    parse('dogs NNS nsubj 1', 'runs NNS ROOT 1 run'),
    ['dogs/B-ARG0 runs/B-V'],
  ),
  'an object around the verb': (
    parse('what WP dobj 1', 'cut VB ROOT 1', 'a NN dep 0'),
    ['what/B-ARG1 cut/B-V a/B-C-ARG1'],
  ),
  'no verb': (parse('a DT det 1', 'ball NN ROOT 1'), []),
}


@pytest.mark.parametrize('name', CASES)
def test_roles(name):
  found, want = CASES[name]
  assert told(found) == want
  srl.graph(dependencies.roles(found))


def test_a_list_of_tags_is_a_parse():
  found = annotate.from_json('Men cut', ['NNS', 'VBP'])
  assert found.lemmas == ['men', 'cut'] and found.pos == ['NOUN', 'VERB']
  assert lexicon.nouns(found) == ['men'] and lexicon.verbs(found) == ['cut']


@pytest.mark.parametrize(
  'value, message',
  [
    ('NN VB', 'expected fine tags'),
    (['NN'], 'tags of length 1, expected 2'),
    (['NN', 3], 'tags are not'),
    ({'tags': ['NN', 'VB'], 'lemmas': ['a']}, 'lemmas of length 1'),
    ({'tags': ['NN', 'VB'], 'heads': [0, 2]}, 'a head outside'),
    ({'tags': ['NN', 'VB'], 'heads': [0, True]}, 'heads are not'),
    ({'tags': ['NN', 'VB'], 'chunks': [[0, 3]]}, 'noun phrase'),
    ({'tags': ['NN', 'VB'], 'chunks': [3]}, 'noun phrase'),
    ({}, 'expected fine tags'),
  ],
)
def test_bad_parses(value, message):
  with pytest.raises(ValueError, match=message) as caught:
    annotate.from_json('men cut', value)
  assert 'men cut' in str(caught.value)


def test_auxiliaries_are_no_verbs():
  found = CASES['passive, agent, modal, negation'][0]
  assert lexicon.verbs(found) == ['thrown']


def test_vocabulary():
  captions = ['b a a', 'a c', 'Ä b <UNK>']
  ids, words = lexicon.vocabulary(captions)
  assert words.tolist() == ['<BOS>', '<EOS>', '<UNK>', 'a', 'b', 'c', 'Ä']
  assert words.dtype.kind == 'U'
  assert ids == {w: i for i, w in enumerate(words.tolist())}
  ids, words = lexicon.vocabulary(captions, min_count=2)
  assert words.tolist()[3:] == ['a', 'b']


def test_class_table():
  rows = [['cut', 'run'], ['run'], ['eat', 'cut', 'eat'], ['see']]
  table = lexicon.class_table(rows)
  assert list(table.items()) == [('cut', 0), ('eat', 1), ('run', 2), ('see', 3)]
  table = lexicon.class_table(rows, min_count=2)
  assert lexicon.classes(['run', 'see', 'run', 'cut'], table) == [2, 2, 0]


GLOVE = 'cup 1 2 3 4\n. . . 9 9 9 9\nball -0.5 1e-3 0 7\nball 0 0 0 0\n'


@pytest.mark.parametrize('header', ['', '4 4\n'])
def test_word_vectors(header, tmp_path):
  path = tmp_path / 'glove.txt'
  path.write_text(header + GLOVE)
  words = ['<BOS>', '<EOS>', '<UNK>', 'ball', 'cup', 'zebra']
  done = []
  table, unknown = lexicon.word_vectors(path, words, report=done.append)
  assert sum(done) == path.stat().st_size
  assert table.dtype == np.float32 and table.shape == (6, 4)
  np.testing.assert_array_equal(
    table[3:5], np.array([[-0.5, 1e-3, 0, 7], [1, 2, 3, 4]], np.float32)
  )
  assert unknown == ['<BOS>', '<EOS>', '<UNK>', 'zebra']
  again, _ = lexicon.word_vectors(path, words)
  other, _ = lexicon.word_vectors(path, words, seed=1)
  np.testing.assert_array_equal(table, again)
  assert (table[[0, 1, 2, 5]] != other[[0, 1, 2, 5]]).all()


def test_unknown_words_are_drawn_as_the_model_draws(tmp_path):
  path = tmp_path / 'glove.txt'
  path.write_text('a ' + ' '.join('5' * 100) + '\n')
  table, _ = lexicon.word_vectors(path, [f'w{i}' for i in range(200)])
  assert abs(table).max() <= 0.1 and abs(table).max() > 0.0999
  assert abs(table.mean()) < 1e-3
  assert abs(table.std() - 0.1 / np.sqrt(3)) < 1e-3
  assert collections.Counter(table.ravel().tolist()).most_common(1)[0][1] < 5


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'empty'),
    ('cup\n', ':1: 0 numbers'),
    ('cup 1 2\nball 1\n', ':2: 1 numbers, expected 2'),
    ('cup 1 2\nball 1 x\n', ':2: could not convert'),
    ('cup 1 nan\n', ':1: a number that is not finite'),
  ],
)
def test_bad_word_vectors(text, message, tmp_path):
  path = tmp_path / 'glove.txt'
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as caught:
    lexicon.word_vectors(path, ['cup', 'ball'])
  assert str(path) in str(caught.value)
