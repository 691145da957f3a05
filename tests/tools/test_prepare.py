"""`python -m vidret_jax.tools.prepare`, as a person runs it."""

import hashlib
import os
import pathlib
import subprocess
import sys

import pytest

from tests.data import packs
from vidret_jax import config_lib
from vidret_jax.data import msrvtt
from vidret_jax.tools import prepare

CONFIG = """
import ml_collections as mlc


def get_config(arg=None):
  experts = (('face', dict(dim=4)), ('audio', dict(dim=3, max_tokens=2)))
  text = dict(dim=8, max_tokens=4, encoder='openai', clusters=2)

  def data(split, **more):
    return dict(name='msrvtt', split=split, experts=experts, text=text, **more)

  c = mlc.ConfigDict()
  c.input = dict(data=data('full/train', text_dropout=0.1), batch_size=2)
  c.evals = dict(
    val=dict(type='retrieval', data=data('full/val', max_captions=1)),
    other=dict(type='retrieval', data=data('jsfusion/test', cache=None)),
  )
  return c
"""
REPO = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  file = tmp_path / 'small.py'
  file.write_text(CONFIG)
  return file


@pytest.fixture
def corpus(tmp_path):
  loaded = dict(
    experts=(('face', dict(dim=4)), ('audio', dict(dim=3, max_tokens=2))),
    text=dict(dim=8),
  )
  elsewhere = tmp_path / 'elsewhere'
  packs.write_pack('msrvtt', elsewhere, protocol='jsfusion', **loaded)
  # The second call writes the same features for more videos.
  return packs.write_pack(
    'msrvtt', elsewhere, videos=dict(train=6, val=4, test=4), **loaded
  )


def test_as_a_command(config, corpus):
  command = [sys.executable, '-m', 'vidret_jax.tools.prepare']
  command += ['--config', str(config), '--manual_dir', str(corpus)]
  done = subprocess.run(
    command, cwd=REPO, env=os.environ, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  lines = [s for s in done.stdout.splitlines() if s.startswith('msrvtt: ')]
  assert len(lines) == 2  # Two protocols; train and val share one.
  folders = [pathlib.Path(s.removeprefix('msrvtt: ')) for s in lines]
  assert folders[0].parts[-2].startswith('full-openai-2experts-')
  assert folders[1].parts[-2].startswith('jsfusion-openai-2experts-')

  text = dict(dim=8, max_tokens=4, encoder='openai', clusters=2)
  experts = (('face', dict(dim=4)), ('audio', dict(dim=3, max_tokens=2)))
  items = msrvtt.make(
    view='items', split='jsfusion/test', experts=experts, text=text
  )
  assert len(items) == 6
  before = {f: f.stat().st_mtime_ns for d in folders for f in d.iterdir()}
  assert prepare.main(command[3:]) == 0
  assert before == {f: f.stat().st_mtime_ns for f in before}


def test_overwrite_makes_each_folder_once(config, corpus, capsys):
  arguments = ['--config', str(config), '--manual_dir', str(corpus)]
  assert prepare.main(arguments) == 0
  folders = prepare.prepare(
    config_lib.load(str(config)),
    prepare.parse([*arguments, '--overwrite'])[0],
  )
  assert len(folders) == 2 and all(f.is_dir() for f in folders)
  assert not list(folders[0].parent.parent.glob('*/incomplete*'))


def test_errors_fit_a_screen(config, capsys):
  assert prepare.main(['--config', str(config)]) == 1
  shown = capsys.readouterr().err
  assert 'Traceback' not in shown
  assert len(shown.splitlines()) < 24
  for part in ('msrvtt', 'train_list_full.txt', '--manual_dir', 'sha1'):
    assert part in shown


def test_values_of_the_config_can_be_changed(config, capsys):
  arguments = ['--config', str(config), '--config.input.data.name=msrvt']
  assert prepare.main(arguments) == 1
  assert "did you mean 'msrvtt'" in capsys.readouterr().err


def test_archive(config, corpus, tmp_path, capsys):
  archive = tmp_path / 'pack.tar.gz'
  archive.write_bytes(b'some bytes')
  arguments = ['--config', str(config), '--manual_dir', str(corpus)]
  arguments += ['--archive', str(archive)]
  assert prepare.main(arguments) == 1
  shown = capsys.readouterr().err
  found = hashlib.sha1(b'some bytes').hexdigest()
  assert found in shown and msrvtt.LAYOUT.sha1 in shown
  assert prepare.main([*arguments, '--sha1', found]) == 0
  assert prepare.main([*arguments[:-1], 'none.tar']) == 1


def test_data_of_every_part():
  config = dict(
    input=dict(data=dict(name='a')), evals=dict(x={}, y=dict(data=1))
  )
  config['evals']['y']['data'] = dict(name='b')
  import ml_collections

  got = prepare.data_of(ml_collections.ConfigDict(config))
  assert got == [dict(name='a'), dict(name='b')]


def test_shapes(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'data'))
  file = tmp_path / 'shapes.py'
  file.write_text(
    'import ml_collections as mlc\n'
    'def get_config(arg=None):\n'
    '  counts = dict(train=2, val=1, test=2, copies=1)\n'
    "  data = dict(name='shapes', split='train', counts=counts)\n"
    '  return mlc.ConfigDict(dict(input=dict(data=data)))\n'
  )
  assert prepare.main(['--config', str(file)]) == 0
  (line,) = capsys.readouterr().out.splitlines()[-1:]
  assert line.startswith('shapes: ')
  assert list(pathlib.Path(line.removeprefix('shapes: ')).rglob('*.mp4'))
