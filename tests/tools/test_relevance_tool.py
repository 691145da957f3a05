# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.relevance`, as a person runs it."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidret_jax.data.graphs import relevance_files
from vidret_jax.tools import relevance as tool

REPO = pathlib.Path(__file__).resolve().parents[2]
CAPTIONS = {
  'b': ['a man cuts onions', 'he cuts', 'he is cutting an onion'],
  'a': ['he runs'],
  'other': ['nothing'],
}
# Verbs, nouns.
CLASSES = {
  'b_0': ([1], [2, 3]),
  'b_1': ([1], []),
  'b_2': ([1, 1, 4], [3]),
  'a_0': ([4], []),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('captions.json').write_text(json.dumps(CAPTIONS))
  database = {
    k: {'annotations': [{'verb_class': v, 'noun_classes': n}]}
    for k, (v, n) in CLASSES.items()
  }
  pathlib.Path('classes.json').write_text(json.dumps({'database': database}))
  np.save('names.npy', ['b', 'a'])
  pathlib.Path('clips.csv').write_text(
    'narration_id,narration,verb_class,all_noun_classes\n'
    'P1,cut it,3,"[1, 2]"\nP2,wash it,0,[1]\nP3,cut it,3,[2]\n'
  )
  pathlib.Path('sentences.csv').write_text(
    'narration_id,narration\nP2,wash it\nP1,cut it\n'
  )
  return tmp_path


FROM_CLASSES = [
  *('--classes', 'classes.json', '--captions', 'captions.json'),
  *('--names', 'names.npy', '--layout', 'msvd'),
]
# Clip b has verbs 1, 4 and nouns 2, 3.
WANT = [
  [(1 / 2 + 1) / 2, 1 / 4, (1 + 1 / 2) / 2, 1 / 4],
  [0, 0, 1 / 4, 1 / 2],
]


def test_from_classes_as_a_command(root):
  command = [sys.executable, '-m', 'vidret_jax.tools.relevance']
  done = subprocess.run(
    [*command, *FROM_CLASSES, '--out', 'rel.hdf5', '--expect', '2x4'],
    cwd=root,
    env={**os.environ, 'PYTHONPATH': str(REPO)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '2 clips x 4 captions' in done.stdout and '2/2' in done.stderr
  got = relevance_files.read('rel.hdf5')
  np.testing.assert_allclose(got, WANT, atol=1e-15)


@pytest.mark.parametrize('suffix', relevance_files.SUFFIXES)
def test_kinds_of_files(root, suffix, capsys):
  assert tool.main([*FROM_CLASSES, '--out', f'rel{suffix}']) == 0
  got = relevance_files.read(f'rel{suffix}', (2, 4))
  np.testing.assert_allclose(got, WANT, atol=1e-15)
  assert tool.main([*FROM_CLASSES, '--out', f'rel{suffix}']) == 1
  assert '--overwrite' in capsys.readouterr().err
  more = ['--overwrite', '--share', '0.5']
  assert tool.main([*FROM_CLASSES, '--out', f'rel{suffix}', *more]) == 0
  # Nouns 3 alone, of two in three captions; verbs 1 only.
  got = relevance_files.read(f'rel{suffix}')
  np.testing.assert_allclose(got[0], [3 / 4, 1 / 2, 3 / 4, 0], atol=1e-15)


def test_epic(root):
  arguments = ['--epic', 'clips.csv', '--out', 'rel.pkl']
  assert tool.main([*arguments, '--sentences', 'sentences.csv']) == 0
  np.testing.assert_array_equal(
    relevance_files.read('rel.pkl'), [[0.25, 1], [1, 0.25], [0, 0.75]]
  )
  # The sentence table is made: P3 is an action of its own.
  assert tool.main([*arguments, '--overwrite']) == 0
  np.testing.assert_array_equal(
    relevance_files.read('rel.pkl'),
    [[1, 0.25, 0.75], [0.25, 1, 0], [0.75, 0, 1]],
  )
  # Clips of a list and their own captions.
  np.save('names.npy', ['P3', 'P1'])
  more = ['--overwrite', '--names', 'names.npy']
  assert tool.main([*arguments, *more]) == 0
  np.testing.assert_array_equal(
    relevance_files.read('rel.pkl'), [[1, 0.75], [0.75, 1]]
  )


def test_from_words(root):
  pos = {
    'a man cuts onions': 'DET NOUN VERB NOUN',
    'he cuts': 'PRON VERB',
    'he is cutting an onion': 'PRON AUX VERB DET NOUN',
    'he runs': 'PRON VERB',
  }
  lemmas = {
    'a man cuts onions': 'a man cut onion',
    'he cuts': 'he cut',
    'he is cutting an onion': 'he be cut an onion',
    'he runs': 'he run',
  }
  parses = {
    c: {
      'tags': ['X'] * len(p.split()),
      'pos': p.split(),
      'lemmas': lemmas[c].split(),
    }
    for c, p in pos.items()
  }
  pathlib.Path('parses.json').write_text(json.dumps(parses))
  pathlib.Path('verbs.json').write_text('{"run": 0, "cut": 0}')
  sides = FROM_CLASSES[2:] + ['--parses', 'parses.json', '--out', 'rel.npy']

  def make(*more):
    assert tool.main([*sides, *more, '--overwrite']) == 0
    return relevance_files.read('rel.npy')

  # Verbs cuts, cutting; nouns man, onions, onion.
  want = [
    [(1 / 2 + 2 / 3) / 2, 1 / 4, (1 / 2 + 1 / 3) / 2, 0],
    [0, 0, 0, 1 / 2],
  ]
  np.testing.assert_allclose(make('--by', 'pos'), want, atol=1e-15)
  # Verbs cut; nouns man, onion.
  want = [[1, 1 / 2, 3 / 4, 0], [0, 0, 0, 1 / 2]]
  np.testing.assert_allclose(make('--by', 'syn'), want, atol=1e-15)
  want = [[1, 1 / 2, 3 / 4, 1 / 2], [1 / 2] * 4]
  got = make('--by', 'syn', '--verb_table', 'verbs.json')
  np.testing.assert_allclose(got, want, atol=1e-15)
  pytest.importorskip('spacy')
  # Left of the stop list: man cuts onions, cutting onion; runs.
  got = make('--by', 'bow')
  np.testing.assert_allclose(got[0], [3 / 5, 1 / 5, 2 / 5, 0], atol=1e-15)


@pytest.mark.parametrize(
  'arguments, parts',
  [
    ([*FROM_CLASSES, '--expect', '2x5'], ('2x4', '2x5')),
    (FROM_CLASSES[:-2], ('--layout', 'msvd')),
    ([*FROM_CLASSES, '--out', 'rel.txt'], ('rel.txt', '.hdf5')),
    ([*FROM_CLASSES, '--names', 'other.npy'], ('classes.json', "'other_0'")),
    ([*FROM_CLASSES, '--names', 'absent.npy'], ('absent.npy',)),
    (['--epic', 'clips.csv', '--names', 'names.npy'], ('clips.csv', "'b'")),
    (['--epic', 'sentences.csv'], ('sentences.csv', 'verb_class')),
    (
      [*FROM_CLASSES[2:], '--by', 'pos', '--parses', 'parses.json'],
      ('parses.json', 'tools.annotate'),
    ),
  ],
)
def test_errors(root, arguments, parts, capsys):
  np.save('other.npy', ['other'])
  pathlib.Path('parses.json').write_text('{}')
  assert tool.main(['--out', 'rel.npy', *arguments]) == 1
  shown = capsys.readouterr().err
  assert 'Traceback' not in shown
  assert all(part in shown for part in parts), shown
  assert not list(pathlib.Path().glob('rel*'))


@pytest.mark.parametrize(
  'arguments',
  [
    [],
    ['--classes', 'classes.json'],
    ['--by', 'pos', '--names', 'n', '--captions', 'c'],
    [*FROM_CLASSES, '--epic', 'clips.csv'],
  ],
)
def test_what_belongs_together(arguments):
  with pytest.raises(SystemExit):
    tool.parse_arguments(['--out', 'rel.npy', *arguments])
