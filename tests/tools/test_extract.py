# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.extract`: frames and features of videos."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest

from tests.data.frames import pictures
from tests.tools import copies_run
from vidret_jax.convert import hap_vr as convert
from vidret_jax.convert import hap_vr_pca
from vidret_jax.data.copies import (
  feature_cache,
  feature_parts,
  video_frames,
  video_names,
)
from vidret_jax.models import hap_vr
from vidret_jax.tools import extract as tool

REPO = pathlib.Path(__file__).resolve().parents[2]
MODEL = dict(
  dim=8,
  backbone=dict(stages=(1, 1), kernels=(3, 2), width=4, dims=8),
  labeller=dict(width=8, layers=1, heads=2, image_size=32, patch=16),
)
CONFIG = f"""
import ml_collections as mlc

def get_config(arg=None):
  c = mlc.ConfigDict()
  c.system = 'hap_vr'
  c.model = {MODEL!r}
  c.input = dict(data=dict(name='vcdb'), batch_size=2)
  c.optim = dict(name='adam', lr=0.1)
  c.schedule = [('.*', dict(decay='constant'))]
  c.compile_cache = False
  return c
"""
SIZES = ['--resize', '36', '--crop', '32', '--batch_size', '4']
WEIGHTS = ('--resnet', '--pca', '--dino')
FRAMES = dict(a=5, b=4, c=3)  # At one per second.


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Videos, a file that is none, a config, and weights as others publish."""
  root = tmp_path_factory.mktemp('extract')
  (root / 'films/sub').mkdir(parents=True)
  pictures.write_video(root / 'films/sub/a.mp4', 23)
  pictures.write_video(root / 'films/b.mkv', 38, rate=10)
  pictures.write_video(root / 'films/c.avi', 3, rate=1)
  (root / 'films/bad.mp4').write_bytes(b'nothing' * 100)
  (root / 'config.py').write_text(CONFIG)
  model = hap_vr.make(**MODEL)
  variables = draw(convert.hap_vr_parts.shapes(model))
  for part in ('resnet', 'labeller'):
    convert.save_part(part, root / f'{part}.pth', variables, model)
  width = len(variables['params']['backbone']['pca']['mean'])
  seen = np.random.default_rng(1).normal(size=(4 * width, width))
  hap_vr_pca.write(root / 'pca.pth', hap_vr_pca.fit([seen]))
  return root


def draw(shapes):
  """Variables of some shapes by path; scales and variances are positive."""
  rng, flat = np.random.default_rng(0), {}
  for name, x in shapes.items():
    value = rng.normal(size=x.shape) * 0.3
    flat[name] = (np.abs(value) + 0.5 if x.ndim == 1 else value).astype('f4')
  return convert.rules_lib.unflatten(flat)


def regions(root, out, *more):
  """The command line for regions."""
  files = dict(resnet='resnet', pca='pca', dino='labeller')
  weights = [
    x for k, v in files.items() for x in (f'--{k}', str(root / f'{v}.pth'))
  ]
  return [
    *('--what', 'regions', '--videos', str(root / 'films')),
    *('--config', str(root / 'config.py'), '--out', str(out)),
    *(*SIZES, *weights, *more),
  ]


def frames(root, out, *more):
  return [
    *('--what', 'frames', '--videos', str(root / 'films')),
    *('--out', str(out), *more),
  ]


def read(path):
  found = {}

  def take(name, item):
    if isinstance(item, h5py.Dataset):
      found[name] = item[()]

  with h5py.File(path) as file:
    file.visititems(take)
  return found


# ------------------------------------------------------------------- frames


def test_frames(root, tmp_path, capsys):
  from vidret_jax.data import vcdb

  out, report = tmp_path / 'frames', tmp_path / 'report.json'
  assert tool.main(frames(root, out, '--report', str(report))) == 0
  said = capsys.readouterr().out
  assert '3 of 4 videos' in said and '1 could not be read' in said
  assert 'bad.mp4 is no video' in said
  told = json.loads(report.read_text())
  assert told['done'] == ['a', 'b', 'c'] and list(told['unreadable']) == ['bad']
  # The reader of the training data sees what the videos show.
  found = vcdb.Folders([out], resize=32)
  assert found.ids == ('a', 'b', 'c')
  for i, (name, count) in enumerate(FRAMES.items()):
    names = sorted(os.listdir(out / name))
    assert names == [f'{n:05d}.jpg' for n in range(count)]
    shown = pictures.numbers(found.read(i, np.arange(count)))
    path = next((root / 'films').glob(f'**/{name}.*'))
    expected = video_frames.read(path, resize=32, crop=32, min_frames=1)
    assert shown == pictures.numbers(expected)
  # Again: only what is not there.
  before = (out / 'a').stat().st_mtime_ns
  os.rename(out / 'b', tmp_path / 'b')
  (out / '.extract/left').mkdir()  # Of a run that was killed.
  assert tool.main(frames(root, out)) == 0
  assert (out / 'a').stat().st_mtime_ns == before
  assert sorted(os.listdir(out)) == ['.extract', 'a', 'b', 'c']
  assert not (out / '.extract/left').exists()
  capsys.readouterr()
  assert tool.main(frames(root, out, '--shorter_side', '16')) == 1
  assert 'shorter_side: None before, 16 now' in capsys.readouterr().err


def test_smaller_frames(root, tmp_path):
  out = tmp_path / 'frames'
  assert tool.main(frames(root, out, '--shorter_side', '16', '--fps', '2')) == 0
  from PIL import Image

  assert len(os.listdir(out / 'a')) == 9
  with Image.open(out / 'a/00008.jpg') as image:
    assert image.size == (24, 16)


def test_names(tmp_path):
  for name in ('x/a.b.mp4', 'y/a.b.mp4', 'y/a.c.avi'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  for names in ('stem', 'first_dot', 'file'):
    with pytest.raises(ValueError, match=r'x/a.b.mp4 and y/a.b.mp4 would both'):
      video_names.named(tmp_path, names)
  found, _ = video_names.named(tmp_path, 'path')
  assert list(found) == ['x__a.b.mp4', 'y__a.b.mp4', 'y__a.c.avi']
  (tmp_path / 'y/a.b.mp4').unlink()
  assert list(video_names.named(tmp_path)[0]) == ['a.b', 'a.c']
  with pytest.raises(ValueError, match='y/a.c.avi'):
    video_names.named(tmp_path, 'first_dot')
  with open(os.fsencode(tmp_path) + b'/\xff.mp4', 'wb'):
    pass
  found, bad = video_names.named(tmp_path)
  assert len(found) == 2 and list(bad) == [r"'\udcff.mp4'"]


def test_frames_of_different_ways_are_not_mixed(root, tmp_path, capsys):
  out = tmp_path / 'frames'
  assert tool.main(frames(root, out)) == 0
  before = sorted(out.iterdir())
  # By another name every video would be there twice.
  assert tool.main(frames(root, out, '--names', 'path')) == 1
  assert "names: 'stem' before, 'path' now" in capsys.readouterr().err
  shutil.rmtree(out / '.extract')
  assert tool.main(frames(root, out, '--fps', '2')) == 1
  assert 'nothing says how' in capsys.readouterr().err
  assert sorted(out.iterdir()) == [x for x in before if x.name != '.extract']


def test_nothing_can_be_read(root, tmp_path, capsys):
  (tmp_path / 'films').mkdir()
  (tmp_path / 'films/bad.mp4').write_bytes(b'nothing')
  assert tool.main(frames(tmp_path, tmp_path / 'frames')) == 1
  out, err = capsys.readouterr()
  assert '0 of 1 videos' in out and 'no video could be read' in err


# ------------------------------------------------------------------ regions


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
  """What one run without a break makes: {name: array}."""
  out = tmp_path_factory.mktemp('whole') / 'out.hdf5'
  assert tool.main(regions(root, out, '--labels', '--dtype', 'float32')) == 0
  return read(out)


def test_what_the_networks_see(root, whole, quick_compiler):
  model = hap_vr.make(**MODEL)
  trees = [
    convert.load_part(part, root / f'{part}.pth', model)[0]['params']
    for part in convert.PARTS
  ]
  backbone = trees[0]['backbone'] | trees[1]['backbone']
  assert sorted(whole) == sorted(
    f'{kind}/{name}' for kind in ('regions', 'labels') for name in FRAMES
  )
  clip = video_frames.read(
    root / 'films/sub/a.mp4', resize=36, crop=32, min_frames=1
  )
  for kind, network, params in (
    ('regions', model.backbone, backbone),
    ('labels', model.labeller, trees[2]['labeller']),
  ):
    expected = jax.jit(network.clone(parent=None).apply)(
      {'params': params}, clip
    )
    np.testing.assert_allclose(whole[f'{kind}/a'], expected, atol=1e-5)
  assert {n: len(whole[f'regions/{n}']) for n in FRAMES} == FRAMES


KILLED = """
import os, signal, sys
from vidret_jax.data.copies import feature_parts
from vidret_jax.tools import extract, extract_jobs

extract_jobs._PART_SECONDS = -1  # Every video its own part.
add = feature_parts.Part.add

def killed(self, name, features):
  add(self, name, features)
  if name == 'c':
    os.kill(os.getpid(), signal.SIGKILL)

feature_parts.Part.add = killed
extract.main(sys.argv[1:])
"""


def test_goes_on_after_a_kill(root, whole, tmp_path, capsys, monkeypatch):
  """Killed in the middle of a part: that one is lost, no other."""
  out = tmp_path / 'out.hdf5'
  command = regions(root, out, '--threads', '1')
  done = subprocess.run(
    [sys.executable, '-c', KILLED, *command],
    env={**os.environ, 'PYTHONPATH': str(REPO), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  assert not out.exists()
  parts = feature_parts.Parts(out)
  assert list(parts.folder.glob('*.partial'))
  first = set(parts.done().frames)
  assert first and 'c' not in first
  seen = []
  add = feature_parts.Part.add

  def watched(part, name, features):
    seen.append(name)
    add(part, name, features)

  monkeypatch.setattr(feature_parts.Part, 'add', watched)
  # Other settings first.
  assert tool.main([*command, '--fps', '2']) == 1
  assert 'fps: 1.0 before, 2.0 now' in capsys.readouterr().err
  assert tool.main(command) == 0
  assert sorted({*first, *seen}) == sorted(FRAMES) and not first & set(seen)
  assert os.listdir(tmp_path) == ['out.hdf5']
  found = read(out)
  assert sorted(found) == sorted(FRAMES)  # Without labels: flat.
  for name, rows in found.items():
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, whole[f'regions/{name}'], atol=1e-6)
  assert tool.main(command) == 1
  assert '--overwrite' in capsys.readouterr().err


def test_beam(root, whole, tmp_path, capsys):
  pytest.importorskip('apache_beam')
  out = tmp_path / 'out.hdf5'
  command = regions(root, out, '--labels', '--beam', 'DirectRunner')
  assert tool.main([*command, '--beam_group', '2']) == 0
  assert '1 could not be read' in capsys.readouterr().out
  assert feature_cache.make(path=out).ids == tuple(FRAMES)
  found = read(out)
  assert sorted(found) == sorted(whole)
  for name, rows in found.items():
    assert rows.dtype == np.float16
    np.testing.assert_allclose(rows, whole[name], atol=2e-3, rtol=1e-3)
  assert os.listdir(tmp_path) == ['out.hdf5']


@pytest.mark.parametrize(
  'more, part',
  [
    (['--videos', 'absent'], 'absent: no such folder'),
    (['--resnet', 'absent.pth'], 'absent.pth: no such file'),
    (['--config.system=ce'], "system 'ce'"),
    (['--batch_size', '0'], '--batch_size 0'),
    (['--crop', '16', '--labels'], 'labeller'),
  ],
)
def test_errors(root, more, part, tmp_path, capsys):
  assert tool.main([*regions(root, tmp_path / 'out.hdf5'), *more]) == 1
  assert part in capsys.readouterr().err
  assert not (tmp_path / 'out.hdf5').exists()


def test_no_weights(root, tmp_path, capsys):
  command = regions(root, tmp_path / 'out.hdf5')
  bare = [x for x in command if '.pth' not in x and x not in WEIGHTS]
  assert tool.main(bare) == 1
  assert 'no weights of resnet, pca. Name' in capsys.readouterr().err
  assert not os.listdir(tmp_path)


def test_one_run_at_a_time(tmp_path):
  parts = feature_parts.Parts(tmp_path / 'out.hdf5')
  with parts.begun({}):
    with pytest.raises(ValueError, match='another run'), parts.begun({}):
      pass
    with pytest.raises(ValueError, match="'x' have NaN"), parts.write() as part:
      part.add('x', {'regions': np.full((1, 1, 2), np.nan, np.float16)})
    assert not parts.done().frames and not list(parts.folder.glob('*.hdf5*'))
    (parts.folder / 'x.hdf5').write_bytes(b'no part')
    with pytest.raises(ValueError, match='x.hdf5: is damaged .*Remove it'):
      parts.done()


def test_of_a_run(root, tmp_path, capsys, quick_compiler):
  """Its own networks; one video has more frames than are allowed."""
  few = dict(dim=4, backbone=dict(stages=(1,), kernels=(4,), width=2, dims=4))
  model = copies_run.build(copies_run.config(**few))
  frozen = convert.hap_vr_parts.shapes(model)
  trained = convert.rules_lib.flatten(convert.variable_shapes(model))
  variables = draw(frozen | trained)
  copies_run.make(tmp_path / 'run', variables=variables, **few)
  out, report = tmp_path / 'out.hdf5', tmp_path / 'report.json'
  command = [
    *('--what', 'regions', '--videos', str(root / 'films')),
    *('--run', str(tmp_path / 'run'), '--out', str(out), *SIZES),
    *('--max_frames', '4', '--names', 'file', '--report', str(report)),
  ]
  assert tool.main(command) == 0
  assert 'sub/a.mp4 has 5 frames, more than 4' in capsys.readouterr().out
  assert json.loads(report.read_text())['done'] == ['b.mkv', 'c.avi']
  found = read(out)
  assert sorted(found) == ['b.mkv', 'c.avi']
  clip = video_frames.read(
    root / 'films/c.avi', resize=36, crop=32, min_frames=1
  )
  network = model.backbone.clone(parent=None)
  params = {'params': variables['params']['backbone']}
  np.testing.assert_allclose(
    found['c.avi'], jax.jit(network.apply)(params, clip), atol=1e-5
  )


@pytest.mark.parametrize(
  'more',
  [
    ['--max_frames', '0'],
    ['--crop', '40'],
    ['--quality', '100'],
    ['--fps', '0'],
  ],
)
def test_bad_options(root, more):
  with pytest.raises(SystemExit):
    tool.parse([*regions(root, 'out'), *more])
