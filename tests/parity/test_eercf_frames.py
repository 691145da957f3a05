# SPDX-License-Identifier: Apache-2.0
"""Which frames, their order, and every grey level of what is read."""

import json
import re

import numpy as np
import pytest

from vidret_jax.data.frames import files, select, transform

MEAN = np.float32((0.48145466, 0.4578275, 0.40821073))
STD = np.float32((0.26862954, 0.26130258, 0.27577711))
NORMALISED = 2e-6  # The golden README's tolerance.


def normalize(frames):
  """uint8 [..., R, R, 3] -> float32 [..., 3, R, R], as upstream's tensors."""
  found = (frames.astype(np.float32) / np.float32(255) - MEAN) / STD
  return np.moveaxis(found, -1, -3)


@pytest.fixture
def present(golden_root):
  def path(name):
    found = golden_root / 'eercf' / name
    if not found.exists():
      pytest.skip(f'{found} is absent')
    return found

  return path


@pytest.fixture
def arrays(present):
  def load(name):
    with np.load(present(name), allow_pickle=False) as found:
      return dict(found)

  return load


def test_selection(arrays):
  found = arrays('sampling.npz')
  cases = [re.fullmatch(r'mf(\d+)_slice(\d)_order(\d)_n', k) for k in found]
  cases = [m for m in cases if m]
  assert cases
  for case in cases:
    key = case[0].removesuffix('n')
    most, how, order = map(int, case.groups())
    for row, n in enumerate(found[key + 'n']):
      rng = np.random.default_rng(0)
      got = select.reduce(
        n, most, select.SELECTS[how], select.ORDERS[order], rng
      )
      want = found[key + 'idx'][row]
      mask = np.arange(most) < len(got)
      np.testing.assert_array_equal(mask, found[key + 'mask'][row] > 0)
      assert (want[len(got) :] == -1).all()
      want = want[: len(got)]
      # Upstream's shuffles come from another generator: the same frames.
      if select.ORDERS[order] == 'shuffled':
        got, want = np.sort(got), np.sort(want)
      np.testing.assert_array_equal(got, want, err_msg=f'{key} n={n}')


def test_long_folders(arrays):
  found = arrays('sampling.npz')
  cases = [re.fullmatch(r'folder(\d+)_idx', k) for k in found]
  cases = [m for m in cases if m]
  assert cases
  for case in cases:
    got = select.folder(int(case[1]))
    np.testing.assert_array_equal(got, found[case[0]], err_msg=case[0])


def test_order_of_names(present):
  found = json.loads(present('frame_name_sort.json').read_text())
  assert select.sort_names(found['given']) == found['sorted']


def test_transform(arrays, errors):
  found = arrays('preprocess.npz')
  names = [k.removesuffix('input') for k in found if k.endswith('_input')]
  assert names
  for name in names:
    pixels = found[name + 'input']
    mine = [k for k in found if k.startswith(name) and k != name + 'input']
    for key in mine:
      if side := re.fullmatch(r'out_(\d+)', key.removeprefix(name)):
        got = normalize(transform.resize(pixels, int(side[1])))
        errors.close(key, got, found[key], atol=NORMALISED)
    resized = [k for k in mine if '_resized_' in k]
    for key in resized:
      # Upstream's picture before the crop, cropped here.
      size = int(key.rsplit('_', 1)[1])
      height, width = found[key].shape[:2]
      top = int(round((height - size) / 2.0))
      left = int(round((width - size) / 2.0))
      want = found[key][top : top + size, left : left + size]
      errors.close(key, transform.resize(pixels, size), want, atol=0)
    if name + 'cropped_uint8' in found:
      want = found[name + 'cropped_uint8']
      got = transform.resize(pixels, want.shape[0])
      errors.close(name + 'cropped_uint8', got, want, atol=0)
      tensor = normalize(got)
      corner = found[name + 'out_corner']
      h, w = corner.shape[1:]
      errors.close(name + 'corner', tensor[:, :h, :w], corner, atol=NORMALISED)
      tensor = tensor.astype(np.float64)
      for what, value in dict(
        mean=tensor.mean((1, 2)), std=tensor.std((1, 2))
      ).items():
        wanted = found[f'{name}out_{what}']
        errors.close(name + what, value, wanted, atol=NORMALISED)


def test_raw_video(present, arrays, errors):
  found = arrays('rawvideo.npz')
  assert found
  for key, want in found.items():
    clip, rate, *span = re.fullmatch(
      r'(.+)_fr(\d+)_s(\w+)_e(\w+)', key
    ).groups()
    start, end = (None if x == 'None' else int(x) for x in span)
    got = files.read(
      present(f'video/{clip}.avi'),
      size=want.shape[-1],
      max_frames=len(want) + 1,
      framerate=int(rate),
      start=start,
      end=end,
    )
    errors.close(key, normalize(got), want, atol=NORMALISED)


def test_frame_folders(present, arrays, errors):
  """The clips of the MSR-VTT set, by the rows of its test list."""
  found = arrays('msrvtt_expected.npz')
  want, mask = found['test_video_uint8'], found['test_video_mask']
  lines = present('msrvtt/test.csv').read_text().splitlines()
  column = lines[0].split(',').index('video_id')
  ids = [line.split(',')[column] for line in lines[1:] if line.strip()]
  assert len(ids) == len(mask) or len(set(ids)) == len(want)
  _, first = np.unique(ids, return_index=True)
  ids, rows = np.array(ids)[np.sort(first)], np.sort(first)
  for i, (video, row) in enumerate(zip(ids, rows)):
    path = files.find(present('msrvtt/frames'), video)
    got = files.read(path, size=want.shape[2], max_frames=want.shape[1])
    assert len(got) == mask[row].sum()
    errors.close(video, got, want[i][: len(got)], atol=0)


def test_video_files(present, arrays, errors):
  """The clips of the MSVD set, one per caption."""
  found = arrays('msvd_expected.npz')
  pairs = json.loads(present('msvd_expected.json').read_text())['pairs']
  want, mask = found['video_uint8'], found['video_mask']
  index = files.Index(present('msvd/videos'))
  for i, (video, _) in enumerate(pairs):
    got = files.read(
      index.find(video), size=want.shape[2], max_frames=want.shape[1]
    )
    assert len(got) == mask[i].sum()
    errors.close(f'{i} {video}', got, want[i][: len(got)], atol=0)
