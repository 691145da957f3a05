# SPDX-License-Identifier: Apache-2.0
"""Role graphs by hand: each rule, the files of taggers, what fails."""

import json

import pytest

from vidret_jax.data.graphs import files, srl


def roles(words, *predicates):
  return {
    'words': words.split(),
    'verbs': [{'tags': tags.split()} for tags in predicates],
  }


def nodes(graph):
  return [(n['role'], n['spans']) for n in list(graph[0].values())[1:]]


def test_graph():
  got = srl.graph(roles('a man cuts it', 'B-ARG0 I-ARG0 B-V B-ARG1', 'O O O O'))
  assert got == [
    {
      'ROOT': {
        'role': 'ROOT',
        'spans': [0, 1, 2, 3],
        'words': ['a', 'man', 'cuts', 'it'],
      },
      '1': {'role': 'V', 'spans': [2], 'words': ['cuts']},
      '2': {'role': 'ARG0', 'spans': [0, 1], 'words': ['a', 'man']},
      '3': {'role': 'ARG1', 'spans': [3], 'words': ['it']},
    },
    [['1', '2', 'ARG0'], ['1', '3', 'ARG1']],
  ]


@pytest.mark.parametrize(
  'tags, want',
  [
    # Only a verb; no verb; a verb in two places.
    ('B-V O O', []),
    ('B-ARG0 O B-ARG1', []),
    ('B-V B-ARG1 B-V', []),
    # A verb of two words.
    ('B-V I-V B-ARG1', [('V', [0, 1]), ('ARG1', [2])]),
    # I- of another role, and after O, begins a group.
    ('B-V I-ARG1 I-ARG2', [('V', [0]), ('ARG1', [1]), ('ARG2', [2])]),
    ('B-V O I-ARG2', [('V', [0]), ('ARG2', [2])]),
    # The same role twice; B- ends a group.
    ('B-ARG1 B-V B-ARG1', [('V', [1]), ('ARG1', [0]), ('ARG1', [2])]),
    ('B-V B-ARG1 B-ARG1', [('V', [0]), ('ARG1', [1]), ('ARG1', [2])]),
    # Roles that only go on or refer are roles of their own.
    ('B-V B-C-V B-R-ARG0', [('V', [0]), ('C-V', [1]), ('R-ARG0', [2])]),
    # Tags of the kind BIOES.
    ('S-V B-ARG1 E-ARG1', [('V', [0]), ('ARG1', [1, 2])]),
  ],
)
def test_groups(tags, want):
  assert nodes(srl.graph(roles('x y z', tags))) == want


def test_shared_nodes():
  """One argument of two verbs; a span in two roles; a predicate twice."""
  got = srl.graph(
    roles(
      *('dogs run bark', 'B-ARG0 B-V O', 'B-ARG0 O B-V'),
      *('B-ARG1 O B-V', 'B-ARG1 B-V O'),
    )
  )
  assert nodes(got) == [('V', [1]), ('ARG0', [0]), ('V', [2])]
  assert got[1] == [['1', '2', 'ARG0'], ['3', '2', 'ARG0']]
  got = srl.graph(roles('dogs run bark', 'B-ARG0 B-V O', 'B-ARG1 O B-V'))
  assert nodes(got)[1::2] == [('ARG0', [0]), ('ARG1', [0])]


@pytest.mark.parametrize(
  'found, message',
  [
    (roles('a b', 'I-ARG0 B-V'), "first tag is 'I-ARG0'"),
    (roles('a b', 'B-V'), 'length 1'),
    (roles('a b', 'B-V ARG1'), "'ARG1' is no BIO tag"),
    (roles('a b', 'B-V B-'), "'B-' is no BIO tag"),
    (roles('', ''), 'one BIO tag per word'),
    ({'words': ['a']}, "\\['words'\\]"),
    ({'words': ['a'], 'verbs': [{'tags': [1]}]}, 'predicate 0'),
    ({'words': ['a'], 'verbs': [7]}, 'length int'),
    (['a'], 'found list'),
    (None, 'found NoneType'),
  ],
)
def test_failures_are_told(found, message):
  good = roles('a b', 'B-ARG0 B-V')
  with pytest.raises(srl.BadSrl, match=message):
    srl.graph(found)
  made, failed = srl.graphs({'good': good, 'bad': found})
  assert list(made) == ['good'] and list(failed) == ['bad']


def test_a_failure_in_any_predicate_is_one_of_the_caption():
  """Also in one that would not be kept, as in the original."""
  _, failed = srl.graphs({'x': roles('a b', 'B-ARG0 B-V', 'I-ARG0 O')})
  assert list(failed) == ['x']


def test_augment():
  root = srl.root(['the', 'cup', 'shining'])
  got = srl.augment(root, ['DT', 'NN', 'VBG'], [[0, 2]])
  assert nodes(got) == [('NOUN', [0, 1]), ('V', [2])] and got[1] == []
  got = srl.augment(root, ['DT', 'NNS', 'VBG'], None)
  assert nodes(got) == [('NOUN', [1]), ('V', [2])]
  assert list(root[0]) == ['ROOT']
  whole = srl.graph(roles('a b', 'B-ARG0 B-V'))
  assert srl.augment(whole, ['NN', 'NN'], None) is whole


@pytest.mark.parametrize(
  'tags, chunks',
  [(['NN'], None), (['NN', 'NN'], [[1, 3]]), (['NN'] * 2, [[1, 1]])],
)
def test_augment_refuses(tags, chunks):
  with pytest.raises(srl.BadSrl):
    srl.augment(srl.root(['a', 'b']), tags, chunks)


def test_files_of_taggers(tmp_path):
  """The same roles in all three kinds of file."""
  want = roles('a man cuts', 'B-ARG0 I-ARG0 B-V')
  other = roles('red ball')
  whole = tmp_path / 'a.json'
  whole.write_text(json.dumps({'a man cuts': want, 'red ball': other}))
  lines = tmp_path / 'a.jsonl'
  named = {**want, 'sentence': 'a man cuts'}
  lines.write_text(f'{json.dumps(named)}\n\n{json.dumps(other)}\n')
  columns = tmp_path / 'a.conll'
  columns.write_text('\na B-ARG0\nman I-ARG0\ncuts B-V\n\n\nred\nball\n')
  for path in (whole, lines, columns):
    found = srl.read(path)
    assert list(found) == ['a man cuts', 'red ball'], path
    made, failed = srl.graphs(found)
    assert not failed
    assert nodes(made['a man cuts']) == [('V', [2]), ('ARG0', [0, 1])]
    assert nodes(made['red ball']) == []


@pytest.mark.parametrize(
  'name, text, message',
  [
    ('a.json', '{', 'JSON'),
    ('a.json', '[]', 'object'),
    ('a.jsonl', '{}\n', ':1: expected'),
    ('a.jsonl', '{"words": ["a"], "verbs": []}\nx', ':2: no JSON'),
    ('a.txt', 'a B-V\nb\n', ':2: 1 columns'),
    ('a.txt', b'\xff\xfe B-V\n', 'UTF-8'),
  ],
)
def test_bad_files(name, text, message, tmp_path):
  path = tmp_path / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError, match=message) as caught:
    srl.read(path)
  assert str(path) in str(caught.value)
  assert name != 'a.json' or isinstance(caught.value, files.BadFile)
