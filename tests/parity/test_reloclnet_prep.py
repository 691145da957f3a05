# SPDX-License-Identifier: Apache-2.0
"""The tools that make features, against the original's.

They run as a person runs them, and every dataset of a golden file is compared.
"""

import json
import pathlib

import h5py
import pytest

from vidret_jax.tools import clip_features as tool

_SUMS = 1e-6  # May be added up in another order.


@pytest.fixture
def prep(golden_root):
  return golden_root / 'reloclnet' / 'prep'


@pytest.fixture
def videos(golden_root):
  data = golden_root / 'reloclnet' / 'tiny_tvr' / 'data'
  return data / 'tvr_feature_release' / 'video_feature'


def _there(*paths):
  for path in paths:
    if not path.is_file():
      pytest.skip(f'{path} is absent')
  return [str(path) for path in paths]


def _run(out, *arguments):
  assert tool.main([*map(str, arguments), '--out', str(out)]) == 0
  return out


def _same(errors, got, want, atol=0.0):
  """All datasets of two files, their names, shapes, types and numbers."""
  with h5py.File(got) as ours, h5py.File(want) as theirs:
    assert set(ours) == set(theirs)
    for key in theirs:
      assert ours[key].dtype == theirs[key].dtype, key
      errors.close(f'{want.name}/{key}', ours[key][()], theirs[key][()], atol)


@pytest.mark.parametrize('pool', ['max', 'avg'])
def test_frames_to_clips(prep, tmp_path, errors, pool):
  want = prep / f'clips_{pool}.h5'
  frames, _ = _there(prep / 'frames_3fps.h5', want)
  got = _run(tmp_path / 'out.h5', 'pool', frames, '--pool', pool)
  _same(errors, got, want, _SUMS if pool == 'avg' else 0.0)


def test_subtitles_to_clips(prep, tmp_path, errors):
  want, info = prep / 'sub_clips_max.h5', prep / 'sub_clips_max_sub_info.json'
  lines, tokens, clips, *_ = _there(
    *(prep / 'subtitles.jsonl', prep / 'sub_tokens.h5', prep / 'clips_max.h5'),
    *(want, info),
  )
  got = _run(
    tmp_path / 'sub_clips_max.h5',
    *('subtitles', tokens, '--lines', lines, '--videos', clips),
    *('--info', '--omit-silent'),
  )
  _same(errors, got, want)
  found = json.loads((tmp_path / info.name).read_text())
  assert found == json.loads(info.read_text())


def _files(folder):
  """Joined features, those of I3D before and after, and the other ones."""
  raw = sorted(folder.glob('raw_*.h5'))
  if not raw:
    pytest.skip(f'{folder}/raw_*.h5 is absent')
  (joined,) = folder.glob('*_cat_*.h5')
  rest = set(folder.glob('*.h5')) - {joined, *raw}
  (aligned,) = (p for p in rest if 'i3d' in p.name)
  (other,) = rest - {aligned}
  return joined, raw, aligned, other


def test_alignment_and_concatenation(videos, tmp_path, errors):
  joined, raw, aligned, images = _files(videos)
  got = _run(tmp_path / 'i3d.h5', 'align', *raw, '--like', images)
  _same(errors, got, aligned)
  _same(errors, _run(tmp_path / 'a.h5', 'join', images, aligned), joined, _SUMS)
  if len(raw) == 1:  # Joining aligns by itself.
    got = _run(tmp_path / 'b.h5', 'join', images, raw[0])
    _same(errors, got, joined, _SUMS)


def test_golden_files_are_all_compared(prep):
  _there(prep / 'clips_max.h5')
  known = {
    *('frames_3fps.h5', 'clips_max.h5', 'clips_avg.h5', 'sub_tokens.h5'),
    *('subtitles.jsonl', 'sub_clips_max.h5', 'sub_clips_max_sub_info.json'),
  }
  assert {p.name for p in pathlib.Path(prep).iterdir()} <= known
