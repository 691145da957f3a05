# SPDX-License-Identifier: Apache-2.0
"""Folders of frames: which are listed, what is read, what is refused."""

import numpy as np
from PIL import Image
import pytest

from tests.data import frame_folders
from vidret_jax.data import vcdb
from vidret_jax.data.frames import files

SMALL = dict(window=3, size=16, resize=24, num_threads=0)
SEEDS = np.arange(8)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('frames') / 'a'
  return frame_folders.write(folder, {'-b.c': 9, 'Zz': 1, 'x': 4})


def test_pairs_of_all_folders(root):
  source = vcdb.make(root=root, **SMALL)
  assert source.ids == ('-b.c', 'Zz', 'x')
  batch = source.gather(np.array([0, 1, 2, -1]), SEEDS[:4])
  assert batch['_mask'].tolist() == [True, True, True, False]
  assert batch['weak'].shape == (4, 3, 16, 16, 3)
  # The only frame of a video is repeated.
  np.testing.assert_array_equal(batch['weak'][1, 0], batch['weak'][1, 2])


def test_frames_are_resized_by_their_shorter_side(root):
  store = vcdb.Folders([root], resize=24)
  got = store.read(0, np.array([0, 5]))
  assert store.count(0) == 9 and got.shape == (2, 24, 32, 3)
  whole = vcdb.Folders([root], resize=36).read(0, np.array([5]))
  image = Image.open(root / '-b.c' / '00005.jpg')
  np.testing.assert_array_equal(whole[0], np.asarray(image))


def test_several_roots_and_a_part_of_them(root, tmp_path):
  other = frame_folders.write(tmp_path / 'b', {'x': 2, 'y': 2, 'w': 2})
  both = vcdb.make(root=f'{root}, {other}', **SMALL)
  want = [root / n for n in ('-b.c', 'Zz', 'x')]
  want += [other / n for n in ('w', 'x', 'y')]
  assert both.ids == tuple(map(str, sorted(want)))
  listed = vcdb.make(root=[root, other], **SMALL)
  assert listed.ids == both.ids
  half = vcdb.make(root=[root, other], percentage=0.5, **SMALL)
  assert half.ids == both.ids[:3]


def test_gaps_other_files_and_many_numbers(root, tmp_path):
  frame_folders.write(tmp_path, {'v': 11})
  folder = tmp_path / 'v'
  (folder / '00000.jpg').unlink()
  (folder / '00004.jpg').rename(folder / 'clip_100000.jpg')
  (folder / 'notes.txt').write_text('')
  (folder / '._00003.jpg').write_bytes(b'')
  store = vcdb.Folders([tmp_path], resize=36)
  assert store.ids == ('v',) and store.count(0) == 10
  last = store.read(0, np.array([9]))[0]
  want = np.asarray(Image.open(folder / 'clip_100000.jpg'))
  np.testing.assert_array_equal(last, want)


def test_bare_folders_are_left_out_and_told(root, tmp_path, caplog):
  frame_folders.write(tmp_path, {'v': 1})
  (tmp_path / 'bare').mkdir()
  (tmp_path / 'file.jpg').write_text('')
  assert vcdb.make(root=tmp_path, **SMALL).ids == ('v',)
  assert any('bare' in r.getMessage() for r in caplog.records)


def test_a_broken_frame_is_named(tmp_path, caplog):
  frame_folders.write(tmp_path, {'v': 1, 'w': 1})
  path = tmp_path / 'v' / '00000.jpg'
  path.write_bytes(path.read_bytes()[:200])
  batch = vcdb.make(root=tmp_path, **SMALL).gather(np.arange(2), SEEDS[:2])
  assert batch['_mask'].tolist() == [False, True]
  assert any(str(path) in r.getMessage() for r in caplog.records)
  strict = vcdb.make(root=tmp_path, unreadable='error', **SMALL)
  with pytest.raises(ValueError, match='00000.jpg'):
    strict.gather(np.arange(2), SEEDS[:2])


def test_frames_of_two_sizes_are_refused(tmp_path):
  frame_folders.write(tmp_path, {'v': 2})
  Image.new('RGB', (30, 30)).save(tmp_path / 'v' / '00001.jpg')
  store = vcdb.Folders([tmp_path], resize=24)
  with pytest.raises(files.UnreadableClip, match=r'00001.*24 x 24.*32 x 24'):
    store.read(0, np.arange(2))


def test_a_folder_emptied_while_training_is_masked(tmp_path):
  frame_folders.write(tmp_path, {'v': 1})
  source = vcdb.make(root=tmp_path, **SMALL)
  (tmp_path / 'v' / '00000.jpg').unlink()
  batch = source.gather(np.arange(1), SEEDS[:1])
  assert batch['_mask'].tolist() == [False]


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(percentage=0), 'percentage=0'),
    (dict(percentage=1.5), 'percentage=1.5'),
    (dict(percentage=0.1), 'leaves no video'),
    (dict(view='items'), "no view 'items'"),
    (dict(split='val'), "no split 'val'"),
    (dict(resize=0), 'resize=0'),
    (dict(transform='slow'), "transform='slow'"),
    (dict(root=''), 'no folder'),
  ],
)
def test_bad_options_are_refused(root, options, message):
  with pytest.raises(ValueError, match=message):
    vcdb.make(**{'root': root, **SMALL, **options})


def test_no_such_folder_and_no_frames(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match='absent: no such folder'):
    vcdb.make(root=tmp_path / 'absent', **SMALL)
  with pytest.raises(ValueError, match='no folder with frames'):
    vcdb.make(root=tmp_path, **SMALL)
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  with pytest.raises(ValueError, match='VCDB.frames: no such folder'):
    vcdb.make(**SMALL)


def test_frames_of_no_shape_are_refused(tmp_path):
  (tmp_path / 'v').mkdir()
  Image.new('RGB', (400, 4)).save(tmp_path / 'v' / '00000.jpg')
  with pytest.raises(files.UnreadableClip, match='400 x 4 pixels'):
    vcdb.Folders([tmp_path], resize=24).read(0, np.arange(1))
