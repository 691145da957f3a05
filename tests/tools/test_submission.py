# SPDX-License-Identifier: Apache-2.0
"""A submission to EPIC-Kitchens-100: written, read back, and checked."""

import csv
import pickle
import re
import zipfile

import numpy as np
import pytest

from vidret_jax.tools import submission, submission_file

V, Q = 6, 4
NARRATIONS = ('take cup', 'wash cup', 'cut bread', 'take cup')


def write_tables(folder):
  clips = folder / 'clips.csv'
  with open(clips, 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(
      ['narration_id', 'narration', 'verb_class', 'all_noun_classes']
    )
    for i in range(V):
      table.writerow([f'P01_{i}', NARRATIONS[i % 3], i % 3, f'[{i}]'])
  sentences = folder / 'sentences.csv'
  with open(sentences, 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(['narration_id', 'narration'])
    table.writerows((f'P01_{i}', n) for i, n in enumerate(NARRATIONS))
  return ['--clips', str(clips), '--sentences', str(sentences)]


def write_scores(path, **changes):
  """Scores in another order than the tables have."""
  sims = np.random.default_rng(0).normal(size=(Q, V)).astype(np.float32)
  sims[3] = sims[0]  # One sentence twice.
  rows, columns = [2, 0, 1], [5, 3, 1, 0, 2, 4]
  arrays = dict(
    scores=sims[rows][:, columns],
    texts=np.array([NARRATIONS[i] for i in rows]),
    item_ids=np.array([f'P01_{i}' for i in columns]),
  )
  arrays |= changes
  np.savez(path, **{k: x for k, x in arrays.items() if x is not None})
  return sims


@pytest.mark.parametrize('name', ['s.pkl', 's.zip'])
def test_written_and_checked(tmp_path, capsys, name):
  tables = write_tables(tmp_path)
  sims = write_scores(tmp_path / 'p.npz')
  out = tmp_path / name
  made = ['--predictions', str(tmp_path / 'p.npz'), '--out', str(out), *tables]
  assert submission.main([*made, '--sls_pt', '1']) == 0
  said = capsys.readouterr().out
  assert '6 clips x 4 sentences' in said and '--unit_range' in said
  if name == 's.zip':
    with zipfile.ZipFile(out) as file:
      assert file.namelist() == ['test.pkl']
      content = file.read('test.pkl')
  else:
    content = out.read_bytes()
  assert content[:2] == b'\x80\x04' and b'numpy._core' not in content
  found = pickle.loads(content)
  assert found['version'] == '0.1'
  assert found['challenge'] == 'multi_instance_retrieval'
  assert [found[f'sls_{k}'] for k in ('pt', 'tl', 'td')] == [1, 3, 3]
  assert found['vis_ids'] == [f'P01_{i}' for i in range(V)]
  assert found['txt_ids'] == [f'P01_{i}' for i in range(Q)]
  np.testing.assert_array_equal(found['sim_mat'], sims.T)
  assert submission.main(['--check', str(out), *tables]) == 0
  assert submission.main(made) == 1
  assert 'is there already' in capsys.readouterr().err
  assert submission.main([*made, '--overwrite', '--unit_range']) == 0
  scaled = submission.read(out)['sim_mat']
  assert scaled.min() == 0 and scaled.max() == 1
  np.testing.assert_array_equal(scaled.argsort(1), sims.T.argsort(1))


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(scores=None), 'has no scores'),
    (dict(texts=np.array(['a'])), r'scores \[3, 6\] of 1 texts and 6 items'),
    (dict(texts=np.array(['a', 'b', 'c'])), "of 4 of the 4 sentences.*'take"),
    (dict(item_ids=np.array(list('abcdef'))), "6 of the 6 clips.*'P01_0'"),
    (dict(scores=np.full((3, 6), np.nan)), r'sim_mat\[0, 0\] is nan'),
  ],
)
def test_bad_scores_write_nothing(tmp_path, capsys, changes, message):
  tables = write_tables(tmp_path)
  write_scores(tmp_path / 'p.npz', **changes)
  out = tmp_path / 's.zip'
  given = ['--predictions', str(tmp_path / 'p.npz'), '--out', str(out)]
  assert submission.main([*given, *tables]) == 1
  err = capsys.readouterr().err
  assert re.search(message, err)
  assert not out.exists()


def valid():
  ids = [f'P01_{i}' for i in range(V)]
  official = submission_file.Tables(tuple(ids), tuple(ids[:Q]), NARRATIONS)
  sims = np.random.default_rng(0).random((V, Q), np.float32)
  return official, submission_file.make(official, sims, 2, 3, 3)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(version=0.2), "version is 0.2, expected '0.1'"),
    (dict(challenge='recognition'), "challenge is 'recognition'"),
    (dict(sls_tl=7), 'sls_tl is 7, expected .* from 0 to 5'),
    (dict(sls_td=True), 'sls_td is True'),
    (dict(sls_pt=None), r"no \['sls_pt'\]"),
    (dict(vis_ids=['P01_0']), 'vis_ids has 1 ids, the table has 6'),
    (dict(vis_ids='P01'), 'vis_ids is str'),
    (
      dict(txt_ids=['P01_0', 'P01_2', 'P01_1', 'P01_3']),
      r"txt_ids\[1\] is 'P01_2', the table has 'P01_1'",
    ),
    (
      dict(sim_mat=np.zeros((Q, V))),
      r'sim_mat is float64 \[4, 6\], .*\[6, 4\]',
    ),
    (dict(sim_mat=[[1], [2, 3]]), 'sim_mat'),
    (dict(sim_mat=np.full((V, Q), np.inf)), r'sim_mat\[0, 0\] is inf'),
  ],
)
def test_every_part_is_checked(changes, message):
  official, content = valid()
  assert submission_file.check(content, official, 'f') == ()
  content |= changes
  content = {k: x for k, x in content.items() if x is not None}
  with pytest.raises(ValueError, match=message):
    submission_file.check(content, official, 'f')


def test_version_may_be_a_number_and_notes_are_made():
  official, content = valid()
  content |= dict(version=0.1, extra=1, sim_mat=np.full((V, Q), 2.0).tolist())
  notes = submission_file.check(content, official, 'f')
  assert len(notes) == 3 and "'extra'" in notes[-1]


def test_hostile_files(tmp_path, capsys):
  tables = write_tables(tmp_path)

  class Evil:
    def __reduce__(self):
      return print, ('run',)

  (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(Evil()))
  with zipfile.ZipFile(tmp_path / 'other.zip', 'w') as file:
    file.writestr('../test.pkl', b'')
  (tmp_path / 'cut.pkl').write_bytes(b'\x80\x04')
  (tmp_path / 'list.pkl').write_bytes(pickle.dumps([1]))
  for name, message in (
    ('evil.pkl', 'asks for builtins.print'),
    ('other.zip', "expected 'test.pkl' alone"),
    ('cut.pkl', 'cannot be read as a pickle'),
    ('list.pkl', 'holds list'),
    ('absent.pkl', 'No such file'),
  ):
    assert submission.main(['--check', str(tmp_path / name), *tables]) == 1
    said = capsys.readouterr()
    assert message in said.err and 'run' not in said.out
