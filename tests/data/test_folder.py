# SPDX-License-Identifier: Apache-2.0
"""All videos below a folder, whatever they are called."""

import os

import numpy as np
import pytest

from tests.tools import frame_run
from vidret_jax.data import folder
from vidret_jax.data.frames import files


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = frame_run.videos(tmp_path_factory.mktemp('films'))
  # A link to a folder that holds itself.
  (root / 'deep' / 'again').symlink_to(root)
  return root


def test_finds_videos_by_their_paths(root):
  want = sorted([*frame_run.films(), 'broken.mp4', 'empty.avi'])
  assert folder.find(root) == want
  assert list(folder.make(root=root).ids) == want
  assert list(folder.make(root=root, skip=want[1:]).ids) == want[:1]


def test_reads_frames_and_names_what_it_cannot(root):
  source = folder.make(root=root, max_frames=4, image_size=24)
  index = np.array([*range(len(source)), -1])
  batch = source.gather(index, np.zeros_like(index))
  readable = dict(zip((*source.ids, ''), batch['_mask'].tolist()))
  assert {k for k, ok in readable.items() if not ok} == {
    *('broken.mp4', 'empty.avi', '')
  }
  assert set(source.unreadable) == {'broken.mp4', 'empty.avi'}
  assert all(source.unreadable.values())
  assert set(batch) == set(source.spec)
  for key, (shape, dtype) in source.spec.items():
    assert batch[key].shape == (len(index), *shape)
    assert batch[key].dtype == dtype
  row = source.ids.index('film a.mp4')
  want = files.read(root / 'film a.mp4', size=24, max_frames=4)
  count = batch['frame_mask'][row].sum()
  assert count == len(want)
  np.testing.assert_array_equal(batch['frames'][row, :count], want)
  assert not batch['frames'][row, count:].any()


def test_only_files_below_the_folder_play(root):
  source = folder.make(root=root)
  assert source.videos == [os.path.join(root, name) for name in source.ids]
  assert source.captions(0) == []
  for name in ('../films/a.mp4', '/etc/passwd', 'a\0b', 'none.mp4', 'deep', ''):
    assert folder.path(root, name) is None
  assert folder.path(None, 'film a.mp4') is None


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(view='pairs'), 'no captions'),
    (dict(root='absent folder'), 'absent folder: no such folder'),
    (dict(frame_order='shuffled'), 'shuffled'),
    (dict(select='best'), 'best'),
    (dict(transform='best'), 'best'),
  ],
)
def test_bad_options_are_explained(root, options, message):
  with pytest.raises(ValueError, match=message):
    folder.make(**(dict(root=root) | options))
