# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.annotate`: what it writes, reuses and refuses."""

import json
import os
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.data.graphs import pipeline
from vidret_jax.convert import torch_file
from vidret_jax.data.graphs import (
  annotate,
  annotations,
  files,
  layout,
  published,
  tensors,
)
from vidret_jax.data.graphs import captions as captions_lib
from vidret_jax.tools import annotate as tool
from vidret_jax.tools import relevance as relevance_tool

REPO = pathlib.Path(__file__).resolve().parents[2]
CAPTIONS = {
  'video0.mp4': ['a man cuts the onion', 'the red ball'],
  'video1.mp4': ['the woman runs slowly', 'a man cuts the onion'],
  'video2.mp4': ['a zebra moves'],
}
SPACES = {'video0.mp4': ['a  zebra moves '], 'video1.mp4': ['the red ball']}
NAMES = {
  'sent2srl.json',
  'sent2rolegraph.json',
  'sent2rolegraph.augment.json',
  'word2int_msr-vtt.json',
  'int2word_msr-vtt.npy',
  'msrvtt_train.json',
  'verb_classes.json',
  'noun_classes.json',
}
TAGS = {
  'a man cuts the onion': ['DT', 'NN', 'VBZ', 'DT', 'NN'],
  'the red ball': {'tags': ['DT', 'JJ', 'NN'], 'chunks': [[0, 3]]},
  'the woman runs slowly': ['DT', 'NN', 'VBZ', 'RB'],
  'a zebra moves': ['DT', 'NN', 'VBZ'],
}
ROLES = {
  'a man cuts the onion': 'B-ARG0 I-ARG0 B-V B-ARG1 I-ARG1',
  'the red ball': None,
  'the woman runs slowly': 'I-ARG0 I-ARG0 B-V O',
  'a zebra moves': 'B-ARG0 I-ARG0 B-V',
}


@pytest.fixture
def root(tmp_path):
  """Captions, roles and parts of speech as files."""
  (tmp_path / 'captions.json').write_text(json.dumps(CAPTIONS))
  np.save(tmp_path / 'names.npy', ['video0.mp4', 'video1.mp4'])
  (tmp_path / 'parses.json').write_text(json.dumps(TAGS))
  roles = {
    c: {'words': c.split(), 'verbs': [{'tags': t.split()}] if t else []}
    for c, t in ROLES.items()
  }
  (tmp_path / 'roles.json').write_text(json.dumps(roles))
  return tmp_path


def arguments(root, *more):
  return [
    *('--captions', str(root / 'captions.json')),
    *('--out', str(root / 'annotation' / 'msr-vttRET')),
    *('--names', str(root / 'names.npy')),
    *more,
  ]


def from_files(root, *more):
  given = ('--srl', 'roles.json'), ('--parses', 'parses.json')
  return arguments(
    root, *(x for k, v in given for x in (k, str(root / v))), *more
  )


def load(root, name):
  path = root / 'annotation' / 'msr-vttRET' / name
  return json.loads(path.read_text())


def nodes(graph):
  return [(n['role'], n['spans']) for n in list(graph[0].values())[1:]]


def test_from_files(root, capsys):
  """Without any tagger here: what failed elsewhere is told and goes on."""
  assert tool.main(from_files(root)) == 0
  out = root / 'annotation' / 'msr-vttRET'
  assert {p.name for p in out.iterdir()} == NAMES
  plain = load(root, 'sent2rolegraph.json')
  assert set(plain) == set(ROLES) - {'the woman runs slowly'}
  graphs = load(root, 'sent2rolegraph.augment.json')
  assert {c: nodes(g) for c, g in graphs.items()} == {
    'a man cuts the onion': [('V', [2]), ('ARG0', [0, 1]), ('ARG1', [3, 4])],
    'the red ball': [('NOUN', [0, 1, 2])],
    'the woman runs slowly': [('NOUN', [1]), ('V', [2])],
    'a zebra moves': [('V', [2]), ('ARG0', [0, 1])],
  }
  shown = capsys.readouterr().out
  assert '1 captions: graph is the caption alone' in shown
  assert "'the woman runs slowly': the first tag is 'I-ARG0'" in shown

  # What data/ says about them.
  ids, words = files.vocabulary(
    out / 'word2int_msr-vtt.json', out / 'int2word_msr-vtt.npy'
  )
  assert 'zebra' not in ids and len(words) == 3 + 10
  for graph in graphs.values():
    tensors.graph(graph, max_words=30, num_verbs=4, num_nouns=6)
  verbs, nouns = (
    load(root, 'verb_classes.json'),
    load(root, 'noun_classes.json'),
  )
  assert list(verbs) == ['cuts', 'moves', 'runs']
  assert list(nouns) == ['man', 'onion', 'ball', 'woman', 'zebra']
  found = captions_lib.read_classes(
    out / 'msrvtt_train.json',
    {c: range(len(x)) for c, x in CAPTIONS.items()},
    by='rank',
  )
  assert found['video0.mp4'] == [([0], [0, 1]), ([], [nouns['ball']])]
  assert found['video2.mp4'] == [([1], [4])]  # Also of other splits.


def test_options(root):
  (root / 'table.json').write_text('{"man": 5, "onion": 5}')
  more = ('--min_count', '2', '--noun_classes', str(root / 'table.json'))
  assert tool.main(from_files(root, *more)) == 0
  assert set(load(root, 'word2int_msr-vtt.json')) == {
    *('<BOS>', '<EOS>', '<UNK>', 'a', 'cuts', 'man', 'onion', 'the')
  }
  database = load(root, 'msrvtt_train.json')['database']
  assert set(database) == {
    f'video{k}' for k in ('0_0', '0_1', '1_0', '1_1', '2_0')
  }
  assert database['video0_0']['annotations'] == [
    {'verb_class': [0], 'noun_classes': [5, 5]}
  ]
  out = root / 'annotation' / 'msr-vttRET'
  assert not (out / 'noun_classes.json').exists()


def test_glove(root):
  (root / 'glove.42B.300d.txt').write_text('man 1 2 3\nzebra 4 5 6\n')
  more = ('--glove', str(root / 'glove.42B.300d.txt'))
  assert tool.main(from_files(root, *more)) == 0
  found = torch_file.read(root / 'word_embeds.glove42b.th')
  table = np.asarray(found['text_encoder']['embedding.we.weight'])
  ids = load(root, 'word2int_msr-vtt.json')
  assert table.shape == (len(ids), 3) and table.dtype == np.float32
  assert table[ids['man']].tolist() == [1, 2, 3]
  rest = np.delete(table, ids['man'], 0)
  assert 0 < abs(rest).max() <= 3**-0.5


def test_as_a_command(root):
  command = [sys.executable, '-m', 'vidret_jax.tools.annotate']
  (root / 'glove.txt').write_text('man 1 2 3\n')
  done = subprocess.run(
    [*command, *from_files(root, '--glove', str(root / 'glove.txt'))],
    cwd=REPO,
    env=os.environ,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'reading word vectors' in done.stderr
  assert 'word_embeds.glove.th' in done.stdout


def test_with_a_pipeline(root, capsys):
  pytest.importorskip('spacy')
  model = pipeline.folder()
  assert tool.main(arguments(root, '--spacy', model)) == 0
  assert 'parsing captions' in capsys.readouterr().err
  graphs = load(root, 'sent2rolegraph.augment.json')
  assert nodes(graphs['a man cuts the onion']) == [
    *(('V', [2]), ('ARG0', [0, 1]), ('ARG1', [3, 4]))
  ]
  assert nodes(graphs['the red ball']) == [('NOUN', [0, 1, 2])]
  assert set(load(root, 'verb_classes.json')) == {'cut', 'run', 'move'}

  # Nothing is parsed twice: the pipeline is not even loaded.
  again = arguments(root, '--spacy', 'no such pipeline')
  before = load(root, 'sent2parse.json')
  assert tool.main(again) == 0
  # A new caption is; the tagger's roles go before what is there.
  captions = {**CAPTIONS, 'video3.mp4': ['the ball moves']}
  (root / 'captions.json').write_text(json.dumps(captions))
  assert tool.main(again) == 1
  more = ('--spacy', model, '--srl', str(root / 'roles.json'))
  assert tool.main(arguments(root, *more)) == 0
  parses = load(root, 'sent2parse.json')
  assert set(parses) - set(before) == {'the ball moves'}
  assert parses['the red ball'] == before['the red ball']
  graphs = load(root, 'sent2rolegraph.augment.json')
  assert nodes(graphs['the ball moves'])[0] == ('V', [2])
  assert 'the woman runs slowly' not in load(root, 'sent2rolegraph.json')
  # Unless nothing of it is wanted.
  assert tool.main(arguments(root, '--spacy', model, '--overwrite')) == 0
  assert 'the woman runs slowly' in load(root, 'sent2rolegraph.json')


def test_what_was_parsed_is_kept_when_it_is_stopped(tmp_path):
  pytest.importorskip('spacy')
  nlp = annotate.load(pipeline.folder())
  found, left = {}, ['a man', 'the ball', 'a woman runs']

  def stop(_):
    if len(found) == 2:
      raise KeyboardInterrupt

  path = tmp_path / 'parses.json'
  with pytest.raises(KeyboardInterrupt):
    annotations.add_parses(found, nlp, left, path, stop)
  assert annotations.read_parses([path]) == found
  assert list(found) == left[:2]


def test_charades_and_epic(root, capsys):
  """Keys of one caption each, and classes of the official table."""
  (root / 'captions.json').write_text(
    json.dumps({'AB_0': ['a zebra moves'], 'AB_1': ['the red ball']})
  )
  np.save(root / 'names.npy', ['AB'])
  args = from_files(root)
  args[3] = str(root / 'charadesRET')
  assert tool.main(args) == 0
  found = json.loads((root / 'charadesRET' / 'charades_train.json').read_text())
  assert list(found['database']) == ['AB_0', 'AB_1']
  for key, message in (('AB_00', 'two captions 0'), ('AB', '<clip>_<number>')):
    text = json.dumps({'AB_0': ['x'], key: ['y']})
    (root / 'captions.json').write_text(text)
    assert tool.main(args) == 1
    assert message in capsys.readouterr().err

  (root / 'captions.json').write_text('{"P01_1": ["a zebra moves"]}')
  np.save(root / 'names.npy', ['P01_1'])
  (root / 'epic.csv').write_text(
    'narration_id,narration,verb_class,all_noun_classes\n'
    'P01_1,a zebra moves,3,"[7, 1]"\n'
  )
  args = from_files(root)
  args[3] = str(root / 'epic100RET')
  for more, want in (
    ([], {'verb_class': 0, 'noun_classes': [0]}),
    (
      ['--epic', str(root / 'epic.csv')],
      {'verb_class': 3, 'noun_classes': [7, 1]},
    ),
  ):
    assert tool.main(args + more) == 0
    found = json.loads((root / 'epic100RET' / 'epic100_train.json').read_text())
    assert found['database'] == {'P01_1': {'annotations': [want]}}


def test_own_captions_are_read_as_a_published_dataset(root):
  """docs/own_captions.md, up to training."""
  base = root / 'RANP'
  out, lists = base / 'annotation' / 'msvdRET', base / 'public_split_msvd'
  streams = base / 'ordered_feature' / 'MSVD' / 'ViT'
  for folder in (out, lists, streams):
    folder.mkdir(parents=True)
  (out / 'ref_captions.json').write_text(json.dumps(CAPTIONS))
  for i, split in enumerate(('trn', 'val', 'tst')):
    np.save(lists / f'{split}_names.npy', [f'video{i}.mp4'])
    with h5py.File(streams / f'{split}_ft.hdf5', 'w') as file:
      file[f'video{i}.mp4'] = np.ones((3, 5), np.float32)
  args = from_files(root)
  args[1], args[3] = str(out / 'ref_captions.json'), str(out)
  args[5] = str(lists / 'trn_names.npy')
  assert tool.main(args) == 0
  for split, name in (('val', 'msvd_val'), ('tst', 'msvd_test')):
    sides = {
      'classes': out / 'msvd_train.json',
      'captions': out / 'ref_captions.json',
      'names': lists / f'{split}_names.npy',
      'out': out / f'{name}_relevance.pkl',
    }
    given = [str(x) for k, v in sides.items() for x in (f'--{k}', v)]
    assert relevance_tool.main(given) == 0
  found = published.Published(layout.MSVD, base)
  assert found.classes('video0.mp4') == [([0], [0, 1]), ([], [2])]
  # Of a clip with two captions, half of the classes of each.
  assert found.relevance('val')[0] == pytest.approx([5 / 12, 7 / 12])
  assert found.relevance('test').tolist() == [[1]]
  assert found.graph('the red ball')[0]['1']['role'] == 'NOUN'


def test_without_roles_and_tags(root, capsys):
  assert tool.main(arguments(root)) == 0
  shown = capsys.readouterr().out
  assert '4 captions: graph is the caption alone' in shown
  assert '4 captions: no classes' in shown and '--spacy' in shown
  graphs = load(root, 'sent2rolegraph.augment.json')
  assert all(not nodes(g) for g in graphs.values()) and len(graphs) == 4


def test_captions_with_more_spaces_than_one(root):
  """Of a file that only has the words."""
  (root / 'captions.json').write_text(json.dumps(SPACES))
  (root / 'roles.txt').write_text('a B-ARG0\nzebra I-ARG0\nmoves B-V\n')
  args = arguments(root, '--srl', str(root / 'roles.txt'))
  assert tool.main(args) == 0
  graphs = load(root, 'sent2rolegraph.augment.json')
  assert nodes(graphs['a  zebra moves ']) == [('V', [2]), ('ARG0', [0, 1])]


def test_roles_of_other_words(root, capsys):
  roles = {'a zebra moves': {'words': ['zebra'], 'verbs': []}}
  (root / 'roles.json').write_text(json.dumps(roles))
  assert tool.main(from_files(root)) == 0
  assert 'not those of the caption' in capsys.readouterr().out


@pytest.mark.parametrize(
  'change, parts',
  [
    (dict(captions={'v': 'a text'}), ('captions.json', "'v'", 'list')),
    (dict(captions={'v': ['a', ' ']}), ('captions.json', 'caption 1', "'v'")),
    (dict(captions={}), ('captions.json', 'no captions')),
    (dict(captions={'v': ['a']}), ('captions.json', "'video0.mp4'")),
    (dict(parses={'a': ['NN', 'NN']}), ('parses.json', "'a'", 'length 2')),
    (dict(args=('--out', 'x/other')), ('x/other', 'msr-vtt', '--layout')),
    (dict(args=('--srl', 'absent.json')), ('absent.json',)),
    (dict(args=('--spacy', 'absent')), ('absent', 'pip|download|pipeline')),
    (
      dict(args=('--verb_classes', 'captions.json')),
      ('captions.json', 'class'),
    ),
  ],
)
def test_errors_come_before_anything_is_written(
  change, parts, root, capsys, monkeypatch
):
  monkeypatch.chdir(root)
  for name in ('captions', 'parses'):
    if name in change:
      (root / f'{name}.json').write_text(json.dumps(change[name]))
  args = from_files(root)
  if '--spacy' in change.get('args', ()):
    args = arguments(root)
  assert tool.main([*args, *change.get('args', ())]) == 1
  shown = capsys.readouterr().err
  assert 'Traceback' not in shown and len(shown.splitlines()) < 5
  for part in parts:
    assert any(p in shown for p in part.split('|')), shown
  assert not (root / 'annotation').exists()
