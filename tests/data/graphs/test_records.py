# SPDX-License-Identifier: Apache-2.0
"""Published files -> records of clips with role graphs, and what goes wrong."""

import json
import shutil
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from tests.data import graph_sets
from vidret_jax.data import msrvtt_graphs, msvd_graphs, store
from vidret_jax.data.graphs import records, word_vectors
from vidret_jax.tools import prepare as prepare_tool


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path / 'data'


@pytest.fixture
def root(tmp_path):
  return graph_sets.write_root('msvd', tmp_path / 'root', widths=4)


def prepare(root, split='test', **options):
  return msvd_graphs.prepare(
    split=split, manual_dir=root, progress=False, **options
  )


def annotation(root):
  return root / 'annotation' / 'msvdRET'


def whole(view, split='test', **options):
  source = msvd_graphs.make(view=view, split=split, **options)
  index = np.arange(len(source))
  return source, source.gather(index, index)


def stamp(folder):
  return sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())


def test_records_stand_on_their_own(root, data):
  vectors = dict(words='vectors', graphs=False)
  folder = prepare(root, 'train')
  assert folder.is_relative_to(data / 'records' / 'graphs')
  assert prepare(root, 'train', **vectors) == folder  # Same features.
  prepare(root)
  shutil.rmtree(root)
  pairs, batch = whole('pairs', 'train')
  assert batch['verb_mask'].any() and batch['noun_classes'].any()
  _, batch = whole('pairs', 'train', **vectors)
  assert batch['word_vectors'].any()
  items, _ = whole('items')
  queries, _ = whole('queries')
  assert queries.ground_truth(items).graded.any()
  assert {p.name for p in folder.iterdir()} > {records.CAPTIONS}
  assert not list(folder.glob('*.part*'))


def test_what_is_there_is_left_alone(root):
  folder = prepare(root)
  first = stamp(folder)
  assert prepare(root) == folder and stamp(folder) == first
  prepare(root, overwrite=True, keep=(folder,))
  assert stamp(folder) == first
  prepare(root, overwrite=True)
  assert stamp(folder) != first
  others = [
    prepare(root, 'val'),
    prepare(root, max_frames=3),
    prepare(root, precision='float16'),
    prepare(root, streams=('Swin3D',)),
  ]
  assert len({folder, *others}) == 5
  file = annotation(root) / 'sent2rolegraph.augment.json'
  file.write_text(file.read_text() + ' ')
  with pytest.raises(ValueError, match=r'augment\.json when it had \d+ bytes'):
    prepare(root)
  file.unlink()
  assert prepare(root) == folder
  (folder / records.CAPTIONS).unlink()
  with pytest.raises(store.MissingRecords, match='half written: captions.json'):
    msvd_graphs.make(view='items', split='test')


def test_equal_views_share_their_features(root):
  prepare(root)
  a, _ = whole('items')
  b, _ = whole('pairs')
  assert a._clips is b._clips
  c, _ = whole('items', cache=None)
  assert c._clips is not a._clips


def test_graphs_are_taken_along_where_they_are(root):
  file = annotation(root) / 'sent2rolegraph.augment.json'
  said = file.read_bytes()
  file.unlink()
  with pytest.raises(FileNotFoundError, match='augment.json'):
    prepare(root)
  prepare(root, graphs=False)
  _, batch = whole('queries', graphs=False)
  assert batch['words'].any() and 'roles' not in batch
  with pytest.raises(ValueError, match='made without role graphs'):
    whole('queries')
  file.write_bytes(said)
  prepare(root, graphs=False, overwrite=True)
  _, batch = whole('queries')
  assert batch['roles'].any()


def broken_features(root):
  (path,) = root.glob('ordered_feature/*/ViT/tst*')
  with h5py.File(path, 'r+') as file:
    clip = list(file)[-1]
    file[clip][..., 0, 1] = np.nan


def large_features(root):
  (path,) = root.glob('ordered_feature/*/ViT/tst*')
  with h5py.File(path, 'r+') as file:
    file[list(file)[-1]][..., 0, 1] = 1e6


def broken_matrix(value):
  def change(root):
    path = annotation(root) / 'msvd_test_relevance.pkl'
    matrix = np.load(path, allow_pickle=True)
    matrix[1, 2] = value
    matrix.dump(path)

  return change


def other_matrix(root):
  path = annotation(root) / 'msvd_test_relevance.pkl'
  np.load(path, allow_pickle=True)[1:].dump(path)


def cut_vectors(root):
  path = root / graph_sets.WORD2VEC
  path.write_bytes(path.read_bytes()[:-2000])


def no_vectors(root):
  (root / graph_sets.WORD2VEC).unlink()


@pytest.mark.parametrize(
  'change, options, message',
  [
    (broken_features, {}, 'NaN or Inf'),
    (large_features, dict(precision='float16'), "row 0: .* 'float32'|float16"),
    (broken_matrix(1.5), {}, 'is 1.5, expected a number from 0 to 1'),
    (broken_matrix(np.nan), {}, 'is nan, expected a number from 0 to 1'),
    (other_matrix, {}, '3 x 11'),
    (cut_vectors, dict(words='vectors'), 'cannot hold'),
    (no_vectors, dict(words='vectors'), 'GoogleNews'),
    (lambda root: None, dict(words='letters'), "words='letters'"),
    (lambda root: None, dict(precision='int8'), "precision='int8'"),
    (lambda root: None, dict(paths=dict(nouns='x')), 'unknown keys of paths'),
  ],
)
def test_nothing_is_written_before_everything_is_checked(
  root, data, change, options, message
):
  change(root)
  with pytest.raises((ValueError, OSError), match=message):
    prepare(root, **options)
  assert not data.exists()
  with pytest.raises(store.MissingRecords, match=r'tools\.prepare'):
    msvd_graphs.make(view='items', split='test')


def test_an_interrupted_write_leaves_no_records(root):
  code = textwrap.dedent(f"""
    import os
    from vidret_jax.data import msvd_graphs
    from vidret_jax.data.graphs import features
    whole, count = features.select, []
    def select(*args):
      count.append(1)
      if len(count) == 6 + 3:  # All are checked, two written.
        os._exit(9)
      return whole(*args)
    features.select = select
    msvd_graphs.prepare(
      split='train', manual_dir={str(root)!r}, progress=False)
  """)
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert done.returncode == 9, done.stderr
  with pytest.raises(store.MissingRecords, match='found an unfinished'):
    msvd_graphs.make(view='items', split='train')
  folder = prepare(root, 'train')
  assert len(whole('items', 'train')[0]) == 6
  prepare(root, 'train', overwrite=True)
  assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_matrix_and_a_record_of_another_split_are_noticed(root):
  folder, other = prepare(root), prepare(root, 'val')
  shutil.copy(other / records.RELEVANCE, folder)
  with pytest.raises(ValueError, match='shape .* expected .*queries x clips'):
    whole('queries')
  shutil.copy(other / records.CAPTIONS, folder)
  with pytest.raises(store.MissingRecords, match='4 records for 3 clips'):
    whole('items')


def test_opening_needs_neither_hdf5_nor_a_look_at_the_features(root):
  folder = prepare(root)
  for file in folder.glob('*array_record*'):
    file.write_bytes(file.read_bytes()[:100])
  queries = msvd_graphs.make(view='queries', split='test', cache=None)
  assert len(queries) == 11


CONFIG = """
import ml_collections as mlc
def get_config(arg=None):
  data = dict(name='msrvtt_graphs', max_frames=4, max_words=8, cache=None,
              words='vectors', graphs=False)
  c = mlc.ConfigDict()
  c.input = dict(data=dict(data, split='train'))
  c.evals = dict(
    val=dict(data=dict(data, split='val')),
    test=dict(data=dict(data, split='test')),
  )
  return c
"""


def test_the_prepare_tool(tmp_path, capsys):
  root = graph_sets.write_root('msrvtt', tmp_path / 'elsewhere', widths=3)
  config = tmp_path / 'config.py'
  config.write_text(CONFIG)
  asked = ['--config', str(config), '--manual_dir', str(root)]
  assert prepare_tool.main(asked) == 0
  told = capsys.readouterr()
  assert told.out.count('msrvtt_graphs: ') == 3
  assert '6/6' in told.err  # The bar.
  options = dict(words='vectors', graphs=False, max_frames=4)
  pairs = msrvtt_graphs.make(view='pairs', split='train', **options)
  assert pairs.spec['features'][0] == (4, 6)
  assert prepare_tool.main([*asked, '--overwrite']) == 0
  capsys.readouterr()
  other = [*asked[:2], '--config.input.data.max_frames=5']
  assert prepare_tool.main(other) == 1
  shown = capsys.readouterr().err
  assert 'trn_names.npy' in shown and 'zenodo' in shown
  assert '--manual_dir' in shown and len(shown.splitlines()) < 30


def test_captions_beside_the_records_are_plain_json(root):
  folder = prepare(root, 'train')
  found = json.loads((folder / records.CAPTIONS).read_text())
  assert len(found['graphs']) == len(found['texts'])
  assert word_vectors.there(folder, graph_sets.WORD2VEC) is False
