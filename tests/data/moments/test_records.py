# SPDX-License-Identifier: Apache-2.0
"""Published files -> records of moments, and what happens around them."""

import json
import shutil

import numpy as np
import pytest

from tests.data import moment_sets
from vidret_jax import config_lib
from vidret_jax.data import row_store, store, tvr_moments
from vidret_jax.data.moments import records
from vidret_jax.tools import prepare as prepare_tool


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path / 'data'


@pytest.fixture
def root(tmp_path):
  return moment_sets.write(tmp_path / 'root')


def prepare(root, split='val', **options):
  return tvr_moments.prepare(
    split=split, manual_dir=root, progress=False, **options
  )


def whole(view, split='val', **options):
  source = tvr_moments.make(view=view, split=split, **options)
  index = np.arange(len(source))
  return source, source.gather(index, index)


def stamp(folder):
  return sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())


def same(a, b, atol=0.0):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_allclose(a[key], b[key], rtol=0, atol=atol, err_msg=key)


def test_records_stand_on_their_own(root, data):
  folder = prepare(root)
  assert folder.is_relative_to(data / 'records' / 'moments')
  shutil.rmtree(root)
  for view in ('pairs', 'items', 'queries'):
    source, batch = whole(view)
    shapes = {k: (v.shape[1:], v.dtype) for k, v in batch.items()}
    assert shapes == dict(source.spec)
    assert len(source) == len(source.ids) and batch['_mask'].all()


def test_the_usual_place(data):
  """Of the files, where the config names no folder."""
  moment_sets.write(data / 'TVR')
  folder = tvr_moments.prepare(split='val', progress=False)
  whole('items')
  told = json.loads((folder / 'metadata.json').read_text())
  assert all(str(data / 'TVR') in name for name in told['files'])
  assert len(told['files']) == 5


def test_what_is_there_is_left_alone(root):
  folder = prepare(root)
  first = stamp(folder)
  assert prepare(root) == folder and stamp(folder) == first
  assert prepare(root, context='video_sub') == folder  # TEF is not stored.
  prepare(root, overwrite=True, keep=(folder,))
  assert stamp(folder) == first
  prepare(root, overwrite=True)
  assert stamp(folder) != first
  others = [
    prepare(root, context='video'),
    prepare(root, features='resnet'),
    prepare(root, sampling='first'),
    prepare(root, 'train'),
  ]
  assert len({folder, *others}) == 5
  file = root / 'tvr_val_release.jsonl'
  file.write_text(file.read_text() + '\n')
  with pytest.raises(ValueError, match=r'val_release.jsonl when it had \d+ b'):
    prepare(root)
  file.unlink()
  assert prepare(root) == folder
  (folder / records.TABLE).unlink()
  with pytest.raises(store.MissingRecords, match='half written: moments.json'):
    whole('items')


def test_records_that_were_not_made(root):
  with pytest.raises(store.MissingRecords) as error:
    tvr_moments.make(view='items', split='val', root=str(root))
  message = str(error.value)
  assert 'tvr_moments: no records for this config' in message
  assert f'{root} (which is there)' in message
  assert 'vidret_jax.tools.prepare --config' in message


def test_records_that_lack_some(root):
  folder = prepare(root)
  path = folder / records.TABLE
  told = json.loads(path.read_text())
  told['rows'].pop()
  path.write_text(json.dumps(told))
  with pytest.raises(store.MissingRecords, match=r'12 records for 11 queries'):
    whole('items')


def test_records_of_others(root):
  folder = prepare(root)
  path = folder / records.TABLE
  told = json.loads(path.read_text())
  told['videos'][0] = 'another'
  path.write_text(json.dumps(told))
  with pytest.raises(store.MissingRecords, match="expected 'another' with"):
    whole('items')


def test_caches(root):
  prepare(root)
  _, want = whole('pairs')
  same(whole('pairs', cache='ram')[1], want)
  same(whole('pairs', cache='ram16')[1], want, atol=1e-3)
  assert prepare(root, precision='float16')
  same(whole('pairs', precision='float16')[1], want, atol=1e-3)
  with pytest.raises(ValueError, match="Unknown cache='disk'"):
    whole('pairs', cache='disk')


def test_equal_views_share_their_rows(root):
  prepare(root)
  a, _ = whole('items', cache='ram')
  b, _ = whole('pairs', cache='ram')
  assert a._clips._rows is b._clips._rows
  c, _ = whole('queries', cache='ram')
  assert b._words is c._words
  d, _ = whole('items')
  assert a._clips._rows is not d._clips._rows


def test_a_video_is_read_once_per_batch(root, monkeypatch):
  prepare(root, 'train')
  asked = []
  rows = row_store.OnDisk.rows
  monkeypatch.setattr(
    row_store.OnDisk,
    'rows',
    lambda self, owners: asked.append(list(owners)) or rows(self, owners),
  )
  pairs = tvr_moments.make(view='pairs', split='train')
  index = np.asarray([*range(len(pairs)), -1, 0])
  pairs.gather(index, index)
  queries, videos = asked
  assert sorted(queries) == list(range(18))
  assert sorted(videos) == list(range(6))


def test_splits(root):
  folder = prepare(root, 'test')
  assert prepare(root, 'test_public') == folder
  with pytest.raises(FileNotFoundError, match='tvr_test_challenge_release'):
    prepare(root, 'test_challenge')
  lines = (root / 'tvr_test_public_release.jsonl').read_text()
  path = root / 'tvr_test_challenge_release.jsonl'
  path.write_text(lines)
  prepare(root, 'test_challenge')
  items, _ = whole('items', 'test_challenge')
  assert len(items) == 2
  with pytest.raises(ValueError, match=r"tvr_moments: unknown split='dev'"):
    prepare(root, 'dev')


@pytest.mark.parametrize(
  'option, message',
  [
    (dict(context='text'), "Unknown context='text'"),
    (dict(features='clip'), "unknown features='clip'; known: .*'resnet'"),
    (dict(sampling='last'), "Unknown sampling='last'"),
    (dict(precision='int8'), "Unknown precision='int8'"),
    (dict(max_clips=0), 'max_clips=0: expected 1 or more'),
    (dict(max_words=0), 'max_words=0: expected 1 or more'),
    (dict(clip_seconds=-1.0), 'clip_seconds=-1.0: expected a number above 0'),
    (dict(missing_subtitles='no'), "Unknown missing_subtitles='no'"),
    (dict(length_slack=-1), 'length_slack=-1: expected 0 clips or more'),
    (dict(span_slack=-1), 'span_slack=-1: expected 0 clips or more'),
  ],
)
def test_unknown_options(root, option, message):
  with pytest.raises(ValueError, match=message):
    prepare(root, **option)
  with pytest.raises(ValueError, match=message):
    tvr_moments.make(view='items', split='val', **option)
  with pytest.raises(ValueError, match="Unknown view='clips'"):
    tvr_moments.make(view='clips', split='val')


def test_tools_prepare(root, tmp_path, capsys):
  config = tmp_path / 'config.py'
  config.write_text(
    'import ml_collections as mlc\n'
    'def get_config(arg=None):\n'
    '  c = mlc.ConfigDict()\n'
    f'  data = dict(name="tvr_moments", root={str(root)!r}, cache="ram",\n'
    '    context="video_tef", features="own", length_slack=1,\n'
    '    paths=dict(video="tvr_feature_release/video_feature/"\n'
    '      "tvr_i3d_rgb600_avg_cl-1.5.h5"))\n'
    '  c.input = dict(data=dict(data, view="pairs", split="train"))\n'
    '  c.evals = dict(val=dict(data=dict(data, split="val")))\n'
    '  return c\n'
  )
  args, _ = prepare_tool.parse(['--config', str(config), '--overwrite'])
  folders = prepare_tool.prepare(config_lib.load(str(config), []), args)
  assert len(folders) == 2
  said = capsys.readouterr().out
  assert all(str(folder) in said for folder in folders)
  assert all((folder / records.TABLE).is_file() for folder in folders)
