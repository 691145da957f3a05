# SPDX-License-Identifier: Apache-2.0
"""Starting from several files, each with a part of the model."""

import functools
import logging

import numpy as np
import pytest

from tests.train.tiny import command
from vidret_jax import config_lib as cl
from vidret_jax.convert import hap_vr as convert
from vidret_jax.convert import hap_vr_parts, rules, torch_file
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.tools import convert as tool
from vidret_jax.train import ckpt, defaults, initial
from vidret_jax.train import run as run_lib

pytestmark = pytest.mark.usefixtures('quick_compiler')
CONFIG = str(command.ROOT / 'tests/train/tiny/frozen.py')
RNG = np.random.default_rng(0)


def config(*overrides, arg=''):
  out = cl.load(f'{CONFIG}:{arg}', overrides, defaults.DEFAULTS)
  return defaults.resolve(out)


def named(files, *names):
  return [
    f'init.{"torch" if n == "torch" else f"parts.{n}"}={files[n]}'
    for n in names
  ]


@pytest.fixture(scope='module')
def run():
  """The parts of a run on frames, with a model of all networks."""
  return run_lib.Run(config())


@pytest.fixture(scope='module')
def files(run, tmp_path_factory):
  """(one file for each network by its name, all their arrays by leaf)."""
  folder = tmp_path_factory.mktemp('files')
  shapes = rules.flatten(run.variables)
  flat = {
    k: RNG.uniform(0.5, 1, x.shape).astype('f') for k, x in shapes.items()
  }
  kernel = flat['params/backbone/pca/kernel']
  kernel[:] = kernel[:, np.argsort(np.linalg.norm(kernel, axis=0))]
  paths = {name: folder / f'{name}.pth' for name in ('torch', *convert.PARTS)}
  variables = rules.unflatten(flat)
  convert.save(paths['torch'], variables, run.model)
  for name in convert.PARTS:
    convert.save_part(name, paths[name], variables, run.model)
  # As they read them: a whitening is not stored as it is.
  pca, _ = convert.load_part('pca', paths['pca'], run.model)
  return paths, {**flat, **rules.flatten(pca)}


@functools.cache
def drawn_by(run):
  """All variables from the seed; compiled once for all tests."""
  return run._draw(run.shapes())


def fresh(run, *overrides, **kw):
  """(leaves, where they come from) of a start of the run."""
  drawn = []

  def draw(target):
    drawn.append(target)
    return drawn_by(run)

  variables, about, _ = initial.fresh(
    config(*overrides), run.model, run.shapes(), draw, **kw
  )
  flat = {k: np.asarray(v) for k, v in rules.flatten(variables).items()}
  return flat, about, bool(drawn)


def equal(got, want):
  assert set(got) == set(want)
  for name, value in want.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_the_tree_is_the_converters(run):
  """That of training is what the tables know."""
  leaves = rules.flatten(convert.variable_shapes(run.model))
  leaves |= hap_vr_parts.shapes(run.model)
  found = {k: (x.shape, x.dtype) for k, x in leaves.items()}
  want = rules.flatten(run.variables)
  assert found == {k: (x.shape, x.dtype) for k, x in want.items()}


def test_all_files(run, files):
  paths, flat = files
  every = named(paths, 'torch', *convert.PARTS)
  got, about, drawn = fresh(run, *every, whole=True)
  equal(got, flat)
  assert not drawn
  assert all(str(path) in about for path in paths.values())


def test_the_similarity_network_from_scratch(run, files, caplog):
  paths, flat = files
  caplog.set_level(logging.WARNING, logger='absl')
  got, about, drawn = fresh(run, *named(paths, 'resnet', 'pca'))
  assert drawn and f'of {len(flat)} arrays' in about
  given = {k for k in flat if k.startswith('params/backbone/')}
  equal({k: got[k] for k in given}, {k: flat[k] for k in given})
  rest = rules.flatten(drawn_by(run))
  for name in set(flat) - given:
    np.testing.assert_array_equal(got[name], rest[name], err_msg=name)
  assert 'init.parts.labeller=FILE' in caplog.text


def test_a_part_is_missing(run, files):
  paths, _ = files
  with pytest.raises(CheckpointMismatch, match='lacks') as error:
    fresh(run, *named(paths, 'torch', 'resnet', 'labeller'), whole=True)
  assert '--config.init.parts.pca=FILE' in str(error.value)
  assert 'init.parts.resnet' not in str(error.value)


def test_parts_that_have_to_be_named(run, files):
  """Nobody trains for a day on a ResNet of random weights by mistake."""
  paths, _ = files
  with pytest.raises(cl.ConfigError, match='resnet=FILE\n.*pca=F.*\n.*labell'):
    run.check_init()
  check = functools.partial(initial.check_parts, target=run.variables)
  with pytest.raises(cl.ConfigError, match='labeller=FILE') as error:
    check(config(*named(paths, 'torch', 'resnet', 'pca')))
  assert 'resnet' not in str(error.value)
  check(config(*named(paths, *convert.PARTS)))
  check(config(*(f'init.parts.{name}=' for name in convert.PARTS)))
  check(config('init.run=runs/other'))
  # What is fitted, or what the model does not have, waits for nothing.
  fitting = config(*named(paths, 'resnet', 'labeller'))
  with fitting.unlocked(), fitting.ignore_type():
    fitting.init.fit.pca = 1
  check(fitting)
  initial.check_parts(config(), {'params': {'comparator': {}}})


def test_no_such_file_or_part(run, files, tmp_path):
  absent = f'init.parts.pca={tmp_path / "none.pth"}'
  with pytest.raises(FileNotFoundError, match='init.parts.pca='):
    fresh(run, absent)
  other = config()
  with other.unlocked():
    other.init.parts.tokenizer = str(files[0]['pca'])
  with pytest.raises(CheckpointMismatch, match='resnet, pca, labeller'):
    initial.convert(other, run.model)
  other.lock()


def test_two_files_with_the_same_arrays(run, files, monkeypatch):
  """A part that a whole file has, too: which one is meant?"""
  paths, _ = files
  monkeypatch.setitem(convert.PARTS, 'copy', convert.PARTS['pca'])
  other = config(*named(paths, 'pca'))
  with other.unlocked():
    other.init.parts.update(labeller=str(paths['pca']))
  monkeypatch.setattr(
    convert,
    'load_part',
    lambda name, path, model: hap_vr_parts.load('pca', path, model),
  )
  with pytest.raises(cl.ConfigError, match='another file has'):
    initial.convert(other, run.model)


def test_another_system_has_no_parts(files):
  other = config(*named(files[0], 'pca'))
  with other.unlocked():
    other.system = 'ce'
  with pytest.raises(cl.ConfigError, match='load_part'):
    initial.convert(other, None)


# ------------------------------------------------- runs, there and back again


@pytest.fixture(scope='module')
def plain_run(files, tmp_path_factory):
  """A run without frozen networks, made of the checkpoint."""
  folder = tmp_path_factory.mktemp('runs') / 'plain'
  argv = ['--config', f'{CONFIG}:frozen=0', '--from', str(files[0]['torch'])]
  assert not tool.main([*argv, '--to', str(folder)])
  return folder


def test_a_checkpoint_becomes_a_run(files, plain_run, tmp_path, capsys):
  """With what it tells of the model; and the file again."""
  paths, _ = files
  back = tmp_path / 'back.pth'
  argv = ['--config', f'{CONFIG}:frozen=0', '--from', str(plain_run)]
  assert not tool.main([*argv, '--to', str(back)]), capsys.readouterr().err
  got, want = (torch_file.read(p) for p in (back, paths['torch']))
  equal(got.pop('model'), want.pop('model'))
  assert got == want


def test_with_frozen_networks(files, run, tmp_path, capsys):
  paths, flat = files
  argv = ['--config', CONFIG, '--from', str(paths['torch'])]
  argv += ['--to', str(tmp_path / 'run')]
  assert tool.main(argv)
  assert '--config.init.parts.labeller=FILE' in capsys.readouterr().err
  parts = [f'--config.{a}' for a in named(paths, *convert.PARTS)]
  assert not tool.main([*argv, *parts]), capsys.readouterr().err
  variables, step = ckpt.load_variables(tmp_path / 'run', run.shapes())
  equal({k: np.asarray(v) for k, v in rules.flatten(variables).items()}, flat)
  # Such a run gives all of another one, of which files replace a part.
  got, about, drawn = fresh(run, f'init.run={tmp_path / "run"}')
  equal(got, flat)
  assert not drawn and about.startswith('step 0 of')


def test_what_is_given_is_not_fitted_anew(files, tmp_path):
  paths, flat = files
  every = [f'--config.{a}' for a in named(paths, *convert.PARTS)]
  argv = ['--config', CONFIG, '--from', str(paths['torch']), *every]
  assert not tool.main([*argv, '--to', str(tmp_path / 'run')])
  for given in (
    [f'init.run={tmp_path / "run"}'],
    named(paths, 'torch', *convert.PARTS),
  ):
    other = config(*given)
    with other.unlocked(), other.ignore_type():
      other.init.fit.pca = 1
    again = run_lib.Run(other)
    variables, _ = again.fresh(again.shapes(), whole=True)
    equal({k: np.asarray(v) for k, v in rules.flatten(variables).items()}, flat)


def test_a_run_gives_the_rest(run, files, plain_run):
  """Weights trained on features, and files of what makes features."""
  paths, flat = files
  from_run = f'init.run={plain_run}'
  got, about, drawn = fresh(run, from_run, *named(paths, *convert.PARTS))
  equal(got, flat)
  assert not drawn and str(plain_run) in about and 'init.parts' in about
  with pytest.raises(ValueError, match='labeller'):
    fresh(run, from_run, *named(paths, 'resnet', 'pca'))
