# SPDX-License-Identifier: Apache-2.0
"""Published files that contradict each other, or were made to do harm."""

import json
import logging

import h5py
import numpy as np
import pytest

from tests.data import moment_sets
from vidret_jax.data import tvr_moments

VIDEO = 'video_feature/tvr_resnet152_rgb_max_i3d_rgb600_avg_cat_cl-1.5.h5'
SUBTITLE = 'sub_query/tvr_sub_pretrained_w_sub_query_max_cl-1.5.h5'
QUERY = 'sub_query/tvr_query_pretrained_w_sub_query.h5'


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


def file_of(root, name):
  (path,) = root.rglob(name.rpartition('/')[2])
  return path


def videos(root, split='val'):
  return json.loads((root / 'tvr_video2dur_idx.json').read_text())[split]


def queries(root, split='val'):
  text = (root / f'tvr_{split}_release.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def second(root):
  """The second video of the split."""
  return list(videos(root))[1]


def change(root, name, key, value):
  """Replaces a dataset by an array, by what `value` makes of it, or by none."""
  with h5py.File(file_of(root, name), 'r+') as file:
    before = file[key][()]
    del file[key]
    after = value(before) if callable(value) else value
    if after is not None:
      file[key] = after


def first_query(root):
  return str(queries(root)[0]['desc_id'])


def missing(name, key):
  return lambda root: change(root, name, key(root), None)


def replaced(name, key, value):
  return lambda root: change(root, name, key(root), value)


def with_nan(x):
  x = x.copy()
  x[2, 1] = np.nan
  return x


def soft_link(root):
  with h5py.File(file_of(root, VIDEO), 'r+') as file:
    names = list(videos(root))
    del file[names[1]]
    file[names[1]] = h5py.SoftLink(f'/{names[0]}')


def external_link(root):
  other = root / 'other.h5'
  name = second(root)
  with h5py.File(file_of(root, VIDEO), 'r+') as file:
    with h5py.File(other, 'w') as secret:
      secret[name] = file[name][()]
    del file[name]
    file[name] = h5py.ExternalLink(str(other), f'/{name}')


def external_storage(root):
  name, path = second(root), root / 'numbers.bin'
  with h5py.File(file_of(root, VIDEO), 'r+') as file:
    value = file[name][()]
    path.write_bytes(value.tobytes())
    del file[name]
    file.create_dataset(
      name, value.shape, value.dtype, external=[(str(path), 0, value.nbytes)]
    )


def virtual(root):
  name, names = second(root), list(videos(root))
  with h5py.File(file_of(root, VIDEO), 'r+') as file:
    shape = file[name].shape
    layout = h5py.VirtualLayout(shape, np.float32)
    layout[:] = h5py.VirtualSource('elsewhere.h5', names[0], shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def group(root):
  with h5py.File(file_of(root, VIDEO), 'r+') as file:
    del file[second(root)]
    file.create_group(second(root))


def truncated(root):
  path = file_of(root, VIDEO)
  path.write_bytes(path.read_bytes()[:-2000])


def damaged(signature):
  """A file one of whose inner tables has lost its first letter."""

  def damage(root):
    path = file_of(root, QUERY)
    assert signature in path.read_bytes()
    lost = b'X' + signature[1:]
    path.write_bytes(path.read_bytes().replace(signature, lost, 1))

  return damage


def no_hdf5(root):
  file_of(root, SUBTITLE).write_bytes(b'a page that says not found')


def unknown_video(root):
  path = root / 'tvr_video2dur_idx.json'
  told = json.loads(path.read_text())
  del told['val'][queries(root)[0]['vid_name']]
  path.write_text(json.dumps(told))


def no_split(root):
  path = root / 'tvr_video2dur_idx.json'
  told = json.loads(path.read_text())
  del told['val']
  path.write_text(json.dumps(told))


def outside(root):
  rows = queries(root)
  rows[1]['ts'] = [1, rows[1]['duration'] + 1.6]
  text = '\n'.join(map(json.dumps, rows))
  (root / 'tvr_val_release.jsonl').write_text(text)


def cut(x):
  return x[:-3]


BROKEN = {
  'no video': (
    missing(VIDEO, second),
    r'cat_cl-1.5.h5: no dataset .*, the key of a video; 1 of 4 are missing',
  ),
  'no subtitle': (
    missing(SUBTITLE, second),
    r"_max_cl-1.5.h5: no dataset .* 1 of 4 .*missing_subtitles='zeros'",
  ),
  'no query': (
    missing(QUERY, first_query),
    r'w_sub_query.h5: no dataset .*, the key of a query; 1 of 12',
  ),
  'no query tokens': (
    replaced(QUERY, first_query, np.zeros((0, 7), np.float32)),
    r'float32 \[0, 7\], expected floats \[rows, width\] with at least 1',
  ),
  'no clips': (
    replaced(VIDEO, second, np.zeros((0, 14), np.float32)),
    r'float32 \[0, 14\], expected floats',
  ),
  'a vector': (
    replaced(VIDEO, second, np.zeros(14, np.float32)),
    r'float32 \[14\], expected floats',
  ),
  'integers': (
    replaced(VIDEO, second, lambda x: x.astype(np.int32)),
    r'int32 \[\d+, 14\], expected floats',
  ),
  'texts': (
    replaced(SUBTITLE, second, 'hello'),
    r'object \[\], expected floats',
  ),
  'other width': (
    replaced(VIDEO, second, lambda x: x[:, :-1]),
    r'has width 13, expected 14|has width 14, expected 13',
  ),
  'other width of a query': (
    replaced(QUERY, first_query, lambda x: x[:, :-1]),
    r'has width 6, expected 7|has width 7, expected 6',
  ),
  'not finite': (replaced(VIDEO, second, with_nan), r'NaN or Inf in row 2'),
  'subtitles not finite': (
    replaced(SUBTITLE, second, with_nan),
    r'_max_cl-1.5.h5: NaN or Inf in row 2',
  ),
  'too short': (
    lambda root: [
      change(root, name, second(root), cut) for name in (VIDEO, SUBTITLE)
    ],
    r'cat_cl-1.5.h5: video .* has \d+ rows, expected \d+, give or take 2: it '
    r'lasts .* length_slack=',
  ),
  'other subtitles': (
    replaced(SUBTITLE, second, lambda x: x[:-1]),
    r'_max_cl-1.5.h5: video .* has \d+ rows, but \d+ in .*cat_cl-1.5.h5',
  ),
  'soft link': (soft_link, r'is not a plain dataset of this file'),
  'external link': (external_link, r'is not a plain dataset of this file'),
  'external storage': (external_storage, r'is not a plain dataset'),
  'virtual dataset': (virtual, r'is not a plain dataset of this file'),
  'group': (group, r'is not a plain dataset of this file'),
  'truncated': (truncated, r'cat_cl-1.5.h5: cannot be read as HDF5'),
  'damaged heap': (damaged(b'HEAP'), r'w_sub_query.h5: cannot be read as H'),
  'damaged tree': (damaged(b'TREE'), r'w_sub_query.h5: cannot be read as H'),
  'damaged nodes': (damaged(b'SNOD'), r'w_sub_query.h5: cannot be read as H'),
  'no HDF5': (no_hdf5, r'_max_cl-1.5.h5: cannot be read as HDF5'),
  'unknown video': (
    unknown_video,
    r'val_release.jsonl:1: video .* is not among the 3 of this split in .*idx',
  ),
  'no videos': (
    no_split,
    r"idx.json: no videos of split 'val', found \['test_challenge', ",
  ),
  'outside': (
    outside,
    r'val_release.jsonl:2: the moment ends at .* span_slack=<clips>',
  ),
}


@pytest.mark.parametrize('case', BROKEN)
def test_refused_before_anything_is_written(root, data, case):
  damage, message = BROKEN[case]
  damage(root)
  with pytest.raises(ValueError, match=message):
    prepare(root)
  assert not list(data.rglob('*moments*'))


def test_absent_files_are_named_together(root):
  for name in (VIDEO, QUERY):
    file_of(root, name).unlink()
  with pytest.raises(FileNotFoundError) as error:
    prepare(root)
  message = str(error.value)
  assert VIDEO in message and QUERY in message and SUBTITLE not in message
  assert 'paths=dict(' in message and 'published: https' in message
  with pytest.raises(FileNotFoundError, match='the folder .*nowhere'):
    prepare(root / 'nowhere')
  with pytest.raises(ValueError, match=r"unknown keys of paths \['videos'\]"):
    prepare(root, paths=dict(videos='x.h5'))


def test_files_elsewhere(root, tmp_path):
  other = tmp_path / 'elsewhere.h5'
  file_of(root, VIDEO).rename(other)
  durations = root / 'tvr_video2dur_idx.json'
  durations.rename(root / 'lengths.json')
  paths = (('video', str(other)), ('durations', 'lengths.json'))
  prepare(root, paths=paths)
  prepare(root, paths=dict(paths), features='mine')


def make(view, split='val', **options):
  source = tvr_moments.make(view=view, split=split, **options)
  index = np.arange(len(source))
  return source.gather(index, index)


def test_what_is_not_asked_for_does_not_matter(root):
  """Splits, streams and companions that are damaged or absent."""
  change(root, VIDEO, list(videos(root, 'train'))[0], with_nan)
  change(root, SUBTITLE, f'{second(root)}-mask', None)
  prepare(root)
  file_of(root, SUBTITLE).unlink()
  prepare(root, context='video_tef')
  file_of(root, VIDEO).unlink()
  prepare(root, context='video', features='i3d')


def test_missing_subtitles_as_zeros(root, caplog):
  change(root, SUBTITLE, second(root), None)
  options = dict(missing_subtitles='zeros', context='video_sub')
  with caplog.at_level(logging.WARNING):
    prepare(root, **options)
  assert '1 of 4 videos have no subtitles' in caplog.text
  batch = make('items', **options)
  assert not batch['subtitle'][1].any() and batch['video'][1].any()
  assert batch['subtitle'][[0, 2, 3]].any(axis=(1, 2)).all()
  for name in videos(root):
    if name != second(root):
      change(root, SUBTITLE, name, None)
  with pytest.raises(ValueError, match='subtitles of none of the 4 videos'):
    prepare(root, overwrite=True, **options)
  options['context'] = 'sub'  # Nothing would be left of such a video.
  with pytest.raises(ValueError, match='no dataset'):
    prepare(root, **options)


def test_clips_without_speech_are_fine(root):
  change(root, SUBTITLE, second(root), np.zeros_like)
  prepare(root)
  batch = make('items')
  assert not batch['subtitle'][1, :, :-2].any()
  assert batch['clip_mask'][1].any()


def test_slack(root, caplog):
  outside(root)
  for name in (VIDEO, SUBTITLE):
    change(root, name, second(root), cut)
  with caplog.at_level(logging.WARNING):
    prepare(root, length_slack=3, span_slack=2)
  assert '1 of 12 moments end beyond their video' in caplog.text
  pairs = make('pairs')
  counts = pairs['clip_mask'].sum(1)
  assert (pairs['span'] < counts[:, None]).all()
  rows = queries(root)
  truth = tvr_moments.make(view='queries', split='val').rows
  assert list(truth) == rows


def test_a_longer_file_than_its_video_is_kept(root):
  """One row more than the duration tells, as the published files have."""
  for name in (VIDEO, SUBTITLE):
    change(root, name, second(root), lambda x: np.concatenate([x, x[:1]]))
  prepare(root)
  seconds = videos(root)[second(root)][0]
  count = make('items')['clip_mask'][1].sum()
  assert count == int(np.ceil(seconds / 1.5)) + 1


def test_half_precision_that_cannot_hold_the_numbers(root, data):
  change(root, VIDEO, second(root), lambda x: x * 1e7)
  with pytest.raises(ValueError, match="use precision='float32'"):
    prepare(root, precision='float16')
  assert not list(data.rglob('*moments*'))
  prepare(root)
