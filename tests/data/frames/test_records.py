# SPDX-License-Identifier: Apache-2.0
"""Published files -> records of encoded frames -> the same clips."""

import json
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tests.data import frame_sets
from vidret_jax.data import (
  activitynet_frames,
  msrvtt_frames,
  msvd_frames,
  store,
)
from vidret_jax.data.frames import published
from vidret_jax.tools import prepare as prepare_tool

SMALL = dict(max_frames=4, image_size=20)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  return tmp_path


def items(data, split, **options):
  source = data.make(view='items', split=split, **{**SMALL, **options})
  index = np.arange(len(source))
  return source, source.gather(index, np.zeros_like(index))


def prepare(data, split, **options):
  given = {'image_size': SMALL['image_size'], 'progress': False, **options}
  return data.prepare(split=split, storage='records', **given)


@pytest.mark.parametrize('select', ['uniform', 'first', 'last'])
def test_folders_keep_their_bytes(root, select):
  folder = frame_sets.write_set('msrvtt', root)
  records = prepare(msrvtt_frames, 'test_1ka')
  assert records.is_relative_to(root / 'records' / 'frames')
  _, want = items(msrvtt_frames, 'test_1ka', select=select)
  shutil.rmtree(folder)  # Records stand on their own.
  source, got = items(
    msrvtt_frames, 'test_1ka', select=select, storage='records'
  )
  np.testing.assert_array_equal(got['frames'], want['frames'])
  np.testing.assert_array_equal(got['frame_mask'], want['frame_mask'])
  assert source.videos == [None] * len(source)


def test_all_that_the_views_read_is_in_the_records(root, tmp_path):
  folder = frame_sets.write_set('msrvtt', root)
  tokenizer = frame_sets.write_tokenizer(tmp_path / 'tokenizer.json')
  options = dict(tokenizer=tokenizer, max_words=8, **SMALL)
  make = msrvtt_frames.make
  views = [
    make(view=view, split='train_9k', **options)
    for view in ('pairs', 'queries')
  ]
  prepare(msrvtt_frames, 'train_9k')
  shutil.rmtree(folder)
  for want in views:
    view = type(want).__name__.lower()
    got = make(view=view, split='train_9k', storage='records', **options)
    assert got.ids == want.ids
    index = np.arange(len(got))
    if view == 'pairs':
      assert got.texts(index, index) == want.texts(index, index)
    else:
      assert got.texts == want.texts


@pytest.mark.parametrize('dataset', [msvd_frames, activitynet_frames])
def test_videos_are_stored_at_the_size_that_is_asked(root, dataset):
  frame_sets.write_set(dataset.__name__.split('.')[-1].split('_')[0], root)
  _, want = items(dataset, 'val')
  prepare(dataset, 'val', lossless=True)
  _, exact = items(dataset, 'val', lossless=True, storage='records')
  np.testing.assert_array_equal(exact['frames'], want['frames'])
  prepare(dataset, 'val')
  _, near = items(dataset, 'val', storage='records')
  np.testing.assert_array_equal(near['frame_mask'], want['frame_mask'])
  gap = np.abs(near['frames'].astype(int) - want['frames'])
  assert 0 < gap.max() < 40 and gap.mean() < 3
  # Larger than the frames are: they are stored as they are.
  prepare(dataset, 'val', lossless=True, store_size=500)
  source, whole = items(
    dataset, 'val', lossless=True, store_size=500, storage='records'
  )
  np.testing.assert_array_equal(whole['frames'], want['frames'])
  assert all(path.startswith(str(root)) for path in source.videos)


def test_long_folders_are_thinned_out_once(root):
  folder = frame_sets.write_set(
    'msrvtt', root, videos={'train': 1, 'val': 1, 'test': 1}
  )
  test = folder / 'videos' / 'frames' / 'video2'
  film = frame_sets.film(np.random.default_rng(0), 300, (20, 20))
  frame_sets.write_frames(test, film)
  _, want = items(msrvtt_frames, 'test_1ka', max_frames=7)
  records = prepare(msrvtt_frames, 'test_1ka')
  _, got = items(msrvtt_frames, 'test_1ka', max_frames=7, storage='records')
  np.testing.assert_array_equal(got['frames'], want['frames'])
  stored = sum(f.stat().st_size for f in records.glob('*array_record*'))
  assert stored < 0.6 * sum(f.stat().st_size for f in test.iterdir())


def test_records_keep_their_order_when_tfds_sorts_on_disk(root, monkeypatch):
  from tensorflow_datasets.core import shuffle

  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 1000)
  fullest = []
  monkeypatch.setattr(
    shuffle._Bucket,
    'del_file',
    lambda self, old=shuffle._Bucket.del_file: (
      fullest.append(len(self)),
      old(self),
    ),
  )
  frame_sets.write_set('msvd', root, videos={'train': 9})
  _, want = items(msvd_frames, 'train')
  prepare(msvd_frames, 'train', lossless=True)
  _, got = items(msvd_frames, 'train', lossless=True, storage='records')
  np.testing.assert_array_equal(got['frames'], want['frames'])
  assert max(fullest) == 1 and sum(fullest) == 9  # None holds everything.


def test_an_unreadable_video_has_no_frames_and_a_reason(root, caplog):
  folder = frame_sets.write_set('msvd', root)
  ids = (folder / 'test_list.txt').read_text().split()
  paths = {p.stem: p for p in (folder / 'videos').rglob('*.*')}
  paths[ids[1]].write_bytes(b'no video')
  paths[ids[2]].unlink()
  _, want = items(msvd_frames, 'test')
  with caplog.at_level('WARNING', logger='absl'):
    prepare(msvd_frames, 'test')
    assert ids[1] in caplog.text and ids[2] in caplog.text
  source, got = items(msvd_frames, 'test', storage='records')
  assert got['frame_mask'].any(1).tolist() == [True, False, False, True]
  np.testing.assert_array_equal(got['frame_mask'], want['frame_mask'])
  assert set(source.unreadable) == {ids[1], ids[2]}
  assert str(paths[ids[1]]) in source.unreadable[ids[1]]
  assert 'no file' in source.unreadable[ids[2]]


def test_what_is_there_is_left_alone(root):
  frame_sets.write_set('msvd', root)
  folder = prepare(msvd_frames, 'test')

  def stamp():
    return sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())

  first = stamp()
  assert prepare(msvd_frames, 'test') == folder and stamp() == first
  prepare(msvd_frames, 'test', overwrite=True, keep=(folder,))
  assert stamp() == first
  prepare(msvd_frames, 'test', overwrite=True)
  assert stamp() != first
  assert prepare(msvd_frames, 'val') != folder
  assert prepare(msvd_frames, 'test', framerate=2) != folder
  (root / 'MSVD' / 'test_list.txt').write_text('-4wsuPCjDB9_12_22')
  with pytest.raises(ValueError, match=r'test_list\.txt when it had \d+ bytes'):
    prepare(msvd_frames, 'test')
  (root / 'MSVD' / 'test_list.txt').unlink()
  assert prepare(msvd_frames, 'test') == folder
  (folder / 'features.json').unlink()
  with pytest.raises(store.MissingRecords, match='half written'):
    prepare(msvd_frames, 'test')


def test_an_interrupted_write_leaves_no_records(root):
  frame_sets.write_set('msvd', root)
  code = textwrap.dedent("""
    import os
    from vidret_jax.data import msvd_frames
    from vidret_jax.data.frames import encode
    whole, count = encode.frames, []
    def frames(*args):
      count.append(1)
      if len(count) == 3:
        os._exit(9)
      return whole(*args)
    encode.frames = frames
    msvd_frames.prepare(split='train', storage='records', progress=False)
  """)
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert done.returncode == 9, done.stderr
  with pytest.raises(store.MissingRecords, match=r'tools\.prepare'):
    msvd_frames.make(view='items', split='train', storage='records')
  folder = prepare(msvd_frames, 'train', image_size=224)
  assert len(json.loads((folder / 'metadata.json').read_text())['paths']) == 6
  source, batch = items(msvd_frames, 'train', image_size=224, storage='records')
  assert batch['frame_mask'].any(1).all() and len(source) == 6


def test_nothing_is_written_before_everything_is_checked(root):
  with pytest.raises(published.MissingFiles, match=r'raw-captions\.pkl'):
    prepare(msvd_frames, 'test')
  folder = frame_sets.write_set('msvd', root)
  shutil.rmtree(folder / 'videos')
  with pytest.raises(published.MissingFiles, match='no folder of clips'):
    prepare(msvd_frames, 'test')
  (folder / 'videos').mkdir()
  with pytest.raises(published.MissingFiles, match='none of the 4 videos'):
    prepare(msvd_frames, 'test')
  with pytest.raises(ValueError, match='framerate=0'):
    prepare(msvd_frames, 'test', framerate=0)
  with pytest.raises(ValueError, match="storage='tape'"):
    msvd_frames.prepare(split='test', storage='tape')
  assert not (root / 'records').exists()
  with pytest.raises(store.MissingRecords, match='which is there'):
    msvd_frames.make(view='items', split='test', storage='records')


CONFIG = """
import ml_collections as mlc
def get_config(arg=None):
  data = dict(name='msrvtt_frames', storage='records', max_frames=4,
              image_size=20, max_words=8, tokenizer='absent', root=None)
  c = mlc.ConfigDict()
  c.input = dict(data=dict(data, split='train_7k'))
  c.evals = dict(test=dict(data=dict(data, split='test_1ka')))
  return c
"""


def test_the_prepare_tool(root, tmp_path, capsys):
  folder = frame_sets.write_set('msrvtt', tmp_path / 'elsewhere')
  config = tmp_path / 'config.py'
  config.write_text(CONFIG)
  asked = ['--config', str(config), '--manual_dir', str(folder)]
  assert prepare_tool.main(asked) == 0
  told = capsys.readouterr()
  assert told.out.count('msrvtt_frames: ') == 2
  assert '6/6' in told.err  # The bar.
  source, batch = items(msrvtt_frames, 'train_7k', storage='records')
  assert len(source) == 6 and batch['frame_mask'].any(1).all()
  shutil.rmtree(root / 'records')
  assert prepare_tool.main(asked[:2]) == 1
  assert 'MSRVTT_data.json' in capsys.readouterr().err
