# SPDX-License-Identifier: Apache-2.0
"""`tools.convert` and `tools.inspect` of ReLoCLNet's checkpoints and runs."""

import json
import shlex

import numpy as np
import pytest

from tests.convert import test_reloclnet as small
from vidret_jax import config_lib as cl
from vidret_jax.convert import reloclnet_files as files
from vidret_jax.convert import torch_write
from vidret_jax.tools import convert as tool
from vidret_jax.tools import inspect
from vidret_jax.train import defaults, workdir

pytestmark = pytest.mark.usefixtures('quick_compiler')

CONFIG = """
import ml_collections as mlc


def get_config(arg=None):
  c = mlc.ConfigDict()
  c.system = 'reloclnet'
  c.model = dict(
    variant='reloclnet', streams=('video', 'subtitle'), dim=384, heads=8,
    max_clips=128, max_words=30, kernel=5, dropout=0.1, input_dropout=0.1,
    init_std=0.02, margin=0.1, ranking='hinge', hard_start_epoch=20,
    hard_pool=20, span_start_epoch=0, steps_per_epoch=None,
    loss=dict(frame=0.03, video=0.03, span=0.01, neg_ctx=1.0, neg_q=1.0))
  data = dict(name='tvr_moments', context='video_sub_tef', max_clips=128,
              max_words=30, sampling='mean', clip_seconds=None)
  c.input = dict(data=dict(data, split='train'), batch_size=4)
  c.evals = dict(val=dict(type='moments', data=dict(data, split='val'),
                          search=dict(videos=100, alpha=20,
                                      end_offset=0)))
  c.optim = dict(name='adam', lr=0.1)
  c.schedule = [('.*', dict(decay='constant'))]
  c.total_epochs = 1
  return c
"""


@pytest.fixture
def config(tmp_path):
  (tmp_path / 'c.py').write_text(CONFIG)
  return str(tmp_path / 'c.py')


def run(config, source, target, *args):
  argv = ['--config', config, '--from', str(source), '--to', str(target)]
  return tool.main([*argv, *args])


def original(folder, name, opt=None, **options):
  """A run folder of the original, or a checkpoint alone."""
  folder.mkdir()
  small.save(folder, name, **options)
  if opt:
    (folder / 'opt.json').write_text(json.dumps(opt))
  return folder


def xml(*streams):
  """Flags of a config of XML."""
  return '--config.model.variant=xml', f'--config.model.streams={streams}'


def saved(folder):
  return json.loads((folder / 'config.json').read_text())


def test_a_run_folder_and_back(config, tmp_path, capsys):
  folder = original(
    tmp_path / 'original', small.PAIR, small.opt(), context='video_sub_tef'
  )
  target = tmp_path / 'run'
  assert run(config, folder, target, '--system', 'reloclnet') == 0
  out = capsys.readouterr().out
  assert '121 arrays converted' in out
  assert 'not named in the config: data.norm_video=False' in out
  made = saved(target)
  assert made['model']['dim'] == 8 and made['model']['span_start_epoch'] == 2
  assert made['model']['steps_per_epoch'] is None
  for data in (made['input']['data'], made['evals']['val']['data']):
    assert data['max_clips'] == 6 and data['clip_seconds'] == 1.5
  assert made['evals']['val']['search']['alpha'] == 30

  # The printed flags make the config of the run of the one that was given.
  words = shlex.split(out[out.index('python -m') :])
  flags = [w.removeprefix('--config.') for w in words if '--config.' in w]
  again = cl.load(config, flags, defaults.DEFAULTS)
  assert cl.to_dict(defaults.resolve(again)) == made

  # Training goes on in it: how long an epoch is was left to the data.
  with again.ignore_type():
    again.model.steps_per_epoch = 5
  workdir.check(again, str(target))

  back = tmp_path / 'back.ckpt'
  flags = [f'--config.{flag}' for flag in flags]
  assert run(config, target, back, *flags) == 0
  got, want = files.read(back), files.read(folder / 'model.ckpt')
  np.testing.assert_equal(got.state, want.state)
  assert list(got.state) == list(want.state) and got.config == want.config


def test_a_single_stream_of_xml(config, tmp_path):
  folder = original(tmp_path / 'original', 'xml_subtitle', context='sub_tef')
  target = tmp_path / 'run'
  assert run(config, folder / 'model.ckpt', target, *xml('subtitle')) == 0
  made = saved(target)
  assert made['model']['variant'] == 'xml'
  assert made['model']['streams'] == ['subtitle']
  assert made['model']['loss']['video'] == 0
  assert made['input']['data']['context'] == 'sub_tef'
  assert made['input']['data']['sampling'] == 'first'
  assert made['evals']['val']['search']['end_offset'] == 1


def test_what_was_asked_for_stays(config, tmp_path, capsys):
  folder = original(
    tmp_path / 'original',
    'xml_video',
    small.xml_opt(ctx_mode='video_tef'),
    context='video_tef',
  )
  target = tmp_path / 'run'
  flags = (*xml('video'), '--config.evals.val.search.alpha=7')
  assert run(config, folder, target, *flags) == 0
  assert saved(target)['evals']['val']['search']['alpha'] == 7
  assert '--config.evals.val.search.alpha=7' in capsys.readouterr().out
  other = tmp_path / 'other'
  flags = (*xml('video'), '--config.model.max_clips=9')
  assert run(config, folder, other, *flags) == 1
  assert 'model.max_clips: file 6, model 9' in capsys.readouterr().err
  assert not other.exists()


def test_configs_of_other_networks(config, tmp_path, capsys):
  """Its optimiser, say, names tensors that the other one has not."""
  folder = original(tmp_path / 'original', 'xml_video', context='video_tef')
  assert run(config, folder / 'model.ckpt', tmp_path / 'run') == 1
  assert 'take FILE.py:model=xml,ctx=video_tef' in capsys.readouterr().err
  torch_write.write(folder / 'state.pth', small.state_of('xml_video'))
  assert run(config, folder / 'state.pth', tmp_path / 'run') == 1
  assert 'ctx=video, or video_tef' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_errors(config, tmp_path, capsys):
  target = tmp_path / 'run'
  ce = {'ce.moe_fc.weight': np.ones((2, 2), np.float32)}
  torch_write.write(tmp_path / 'ce.pth', dict(state_dict=ce, arch='CENet'))
  (tmp_path / 'empty').mkdir()
  for source, told in (
    (tmp_path / 'ce.pth', "'state_dict', 'arch'"),
    (tmp_path / 'absent.ckpt', 'no such checkpoint'),
    (tmp_path / 'empty', 'no model.ckpt in it'),
  ):
    assert run(config, source, target) == 1
    assert told in capsys.readouterr().err
  assert not target.exists()


# -------------------------------------------------------------------- inspect


def test_what_is_in_a_checkpoint(tmp_path, capsys):
  folder = original(
    tmp_path / 'original', 'xml_video', context='video_tef', epoch=12
  )
  assert inspect.main([str(folder / 'model.ckpt')]) == 0
  text = capsys.readouterr().out
  assert 'model/video_encoder3.self.key.weight' in text
  assert '59 arrays' in text and 'epoch = 12' in text
  assert "model_cfg/ctx_mode = 'video_tef'" in text
  assert "model.variant = 'xml'" in text and 'model.heads = 2' in text
  assert "data.context = 'video_tef'" in text

  (folder / 'opt.json').write_text(json.dumps(small.opt()))
  assert inspect.main([str(folder / 'model.ckpt')]) == 0
  # Lines break where the path of the file ends.
  assert 'are not of one run' in ' '.join(capsys.readouterr().out.split())


def test_what_is_in_other_files(tmp_path, capsys):
  content = dict(state_dict={'a.b': np.ones((2, 3), np.int64)}, note='hello')
  torch_write.write(tmp_path / 'x.pth', content)
  assert inspect.main([str(tmp_path / 'x.pth')]) == 0
  text = capsys.readouterr().out
  assert 'state_dict/a.b' in text and '(2, 3)' in text and 'int64' in text
  assert "note = 'hello'" in text and 'ReLoCLNet' not in text


def test_files_that_cannot_be_read(tmp_path, capsys):
  (tmp_path / 'x.pth').write_bytes(b'PK\x03\x04junk')
  for name, told in (('x.pth', 'torch file'), ('no.pth', 'no such')):
    assert inspect.main([str(tmp_path / name)]) == 1
    assert told in capsys.readouterr().err
