# SPDX-License-Identifier: Apache-2.0
"""`python -m vidret_jax.tools.convert` of RANP, and of its run folders."""

import json

import jax
import numpy as np
import pytest

from tests.convert import test_ranp_config as configs
from tests.train import test_sizes
from vidret_jax.convert import ranp as convert
from vidret_jax.convert import ranp_config, torch_file, torch_write
from vidret_jax.models import ranp
from vidret_jax.tools import convert as tool
from vidret_jax.train import loop

pytestmark = pytest.mark.usefixtures('quick_compiler')
CONFIG = test_sizes.CONFIG


@pytest.fixture
def original(tmp_path):
  """A run folder of the original's baseline: two epochs, the first is best."""
  folder = tmp_path / 'original'
  for name in ('log', 'model'):
    (folder / name).mkdir(parents=True)
  upstream = configs.config('vse', margin=0.5, hard_topk=2)
  (folder / 'model.json').write_text(json.dumps(upstream))
  model = ranp.make(**ranp_config.model_config(upstream))
  shapes = convert.variable_shapes(model, {'params/video/map/kernel': (7, 8)})
  for epoch, rsum in enumerate((40.0, 30.0)):
    rng = np.random.default_rng(epoch)
    variables = jax.tree.map(
      lambda x, rng=rng: rng.normal(size=x.shape).astype(x.dtype), shapes
    )
    convert.save(folder / 'model' / f'epoch.{epoch}.th', variables, model)
    log = folder / 'log' / f'val.epoch.{epoch}.step.{epoch + 1}.json'
    log.write_text(json.dumps(dict(rsum=rsum, nDCG_avg=-rsum)))
  return folder


def run(source, target, *args):
  argv = ['--config', CONFIG, '--from', str(source), '--to', str(target)]
  return tool.main([*argv, *args])


@pytest.mark.parametrize('metric,epoch', [('rsum', 0), ('nDCG_avg', 1)])
def test_a_run_folder(original, tmp_path, capsys, metric, epoch):
  target = tmp_path / 'run'
  assert run(original, target, '--metric', metric, '--system', 'ranp') == 0
  out = capsys.readouterr().out
  assert f'epoch.{epoch}.th; evaluate it with' in out
  saved = json.loads((target / 'config.json').read_text())['model']
  assert saved['mining']['margin'] == 0.5 and saved['mining']['topk'] == 2
  assert saved['num_words'] == 9

  # The printed flags make the config of the run of the one that was given.
  flags = [w.strip("'") for w in out.split() if '--config.model' in w]
  flags = [f.removeprefix('--config.') for f in flags]
  config = test_sizes.config(*flags)
  loop.evaluate(config, str(target))
  assert json.loads(json.dumps(config.model.to_dict())) == saved

  assert run(target, tmp_path / 'back.th') == 0
  want = torch_file.read(original / 'model' / f'epoch.{epoch}.th')
  got = torch_file.read(tmp_path / 'back.th')
  for part in want:
    assert list(got[part]) == list(want[part])
    for name, value in want[part].items():
      np.testing.assert_array_equal(got[part][name], value, err_msg=name)


def test_a_single_file(original, tmp_path, capsys):
  """model.json beside it is compared, nothing is taken from it."""
  path = original / 'model' / 'epoch.1.th'
  assert run(path, tmp_path / 'run') == 0
  assert '--config.model' not in capsys.readouterr().out


def test_other_backbones(original, tmp_path, capsys):
  (original / 'model.json').write_text(json.dumps(configs.config('hgr')))
  assert run(original, tmp_path / 'run') == 1
  assert 'take FILE.py:backbone=hgr' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_another_metric(original, tmp_path, capsys):
  assert run(original, tmp_path / 'run', '--metric', 'mAP') == 1
  assert 'there are: rsum, nDCG_avg' in capsys.readouterr().err


def test_a_part_is_no_run(tmp_path, capsys):
  part = {'embedding.we.weight': np.ones((9, 5), np.float32)}
  torch_write.write(tmp_path / 'glove.th', dict(text_encoder=part))
  assert run(tmp_path / 'glove.th', tmp_path / 'run') == 1
  err = capsys.readouterr().err
  assert 'params/video/map/kernel' in err and 'init.torch' in err
  assert not (tmp_path / 'run').exists()
