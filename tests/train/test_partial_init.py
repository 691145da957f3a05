# SPDX-License-Identifier: Apache-2.0
"""Starting from a file that has only a part of the model."""

import logging

import jax
import numpy as np
import pytest

from tests.train.test_sizes import config
from vidret_jax.convert import ranp as convert
from vidret_jax.convert import rules, torch_write
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import ranp
from vidret_jax.train import ckpt, loop
from vidret_jax.train import run as run_lib

pytestmark = pytest.mark.usefixtures('quick_compiler')
WORDS = 'params/text/embedding'


def start(path=None, *overrides, **kw):
  """A fresh run: (leaves by path, where they come from)."""
  run = run_lib.Run(config(*overrides, *_from(path)))
  variables, source = run.fresh(run.shapes(), **kw)
  flat = rules.flatten(variables)
  return {k: np.asarray(v) for k, v in flat.items()}, source


def _from(path):
  return [] if path is None else [f'init.torch={path}']


@pytest.fixture
def words(tmp_path):
  """(a file of word vectors alone, the vectors)."""
  table = np.random.default_rng(3).normal(size=(9, 5)).astype(np.float32)
  part = {'embedding.we.weight': table, 'made.by': np.ones(2, np.float32)}
  torch_write.write(tmp_path / 'glove.th', dict(text_encoder=part))
  return tmp_path / 'glove.th', table


@pytest.fixture
def said(caplog):
  caplog.set_level(logging.INFO, logger='absl')
  return lambda level: '\n'.join(
    r.getMessage() for r in caplog.records if r.levelname == level
  )


def test_the_rest_is_drawn(words, said):
  path, table = words
  got, source = start(path)
  drawn, _ = start()
  np.testing.assert_array_equal(got.pop(WORDS), table)
  assert (drawn.pop(WORDS) != table).any()
  for name, value in drawn.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)
  other, _ = start(path, 'seed=1')
  np.testing.assert_array_equal(other[WORDS], table)
  name = 'params/video/map/kernel'
  assert (other[name] != got[name]).any()
  assert source == f'{path} (1 of {len(drawn) + 1} arrays)'
  loud = said('WARNING')
  for name in (WORDS, *drawn, 'DRAWN from seed 0', 'text_encoder.made.by'):
    assert name in loud
  assert 'params/video/map/bias  absent from the file' in said('INFO')


def test_places_and_types(words):
  """Of taken and of drawn arrays: those that the config gives them."""
  run = run_lib.Run(config(*_from(words[0])))
  target = run.shapes()
  variables, _ = run.fresh(target)
  jax.tree.map(
    lambda x, t: x.sharding == t.sharding or 1 / 0, variables, target
  )
  jax.tree.map(lambda x, t: x.dtype == t.dtype or 1 / 0, variables, target)


def test_a_member_of_the_family(tmp_path, said):
  """HGR's words for the baseline: what has a place is taken."""
  model = ranp.make(backbone='hgr', num_words=9, dim=8, word_dim=5)
  width = {'params/video/level_0/kernel': (3, 8)}
  ones = jax.tree.map(
    lambda x: np.ones(x.shape, x.dtype), convert.variable_shapes(model, width)
  )
  path = tmp_path / 'epoch.49.th'
  convert.save(path, ones, model)
  got, _ = start(path)
  for name, value in got.items():
    assert (value == 1).all() == name.startswith('params/text'), name
  assert 'model.backbone' in said('INFO')
  assert 'video_encoder.level_embeds.0.weight' in said('WARNING')


def test_training_starts_and_resumes(words, tmp_path, said):
  path, table = words
  c = config(*_from(path), 'optim.lr=0.0')
  loop.train(c, str(tmp_path / 'run'))
  target = run_lib.Run(c).shapes()
  found, _ = ckpt.load_variables(str(tmp_path / 'run'), target, 'last')
  want, _ = start(path)
  for name, value in rules.flatten(found).items():
    np.testing.assert_array_equal(value, want[name], err_msg=name)
  # Its own checkpoint comes first.
  path.unlink()
  loop.train(config(*_from(path), 'optim.lr=0.0'), str(tmp_path / 'run'))


def test_evaluation_needs_all(words, tmp_path):
  c = config(*_from(words[0]))
  with pytest.raises(CheckpointMismatch, match='params/video/map/kernel'):
    loop.evaluate(c, str(tmp_path / 'run'))


def test_a_whole_file_is_no_warning(tmp_path, said):
  run = run_lib.Run(config())
  variables, _ = run.fresh(run.shapes())
  convert.save(tmp_path / 'a.th', jax.device_get(variables), run.model)
  got, source = start(tmp_path / 'a.th', 'seed=5', whole=True)
  for name, value in rules.flatten(variables).items():
    np.testing.assert_array_equal(got[name], value)
  assert source == str(tmp_path / 'a.th') and not said('WARNING')


@pytest.mark.parametrize(
  'shape,message',
  [
    ((9, 6), 'model.word_dim: file 6, model 5'),
    ((8, 5), 'model.num_words: file 8, model 9'),
  ],
)
def test_another_shape(tmp_path, shape, message):
  part = {'embedding.we.weight': np.ones(shape, np.float32)}
  torch_write.write(tmp_path / 'x.th', dict(text_encoder=part))
  with pytest.raises(CheckpointMismatch, match=message):
    start(tmp_path / 'x.th')


def test_nothing_fits(tmp_path):
  part = {'embedding.weight': np.ones((9, 5), np.float32)}
  torch_write.write(tmp_path / 'x.th', dict(text_encoder=part))
  with pytest.raises(CheckpointMismatch, match='Nothing in the file'):
    start(tmp_path / 'x.th')


def test_features_of_another_width(tmp_path):
  run = run_lib.Run(config())
  variables, _ = run.fresh(run.shapes())
  convert.save(tmp_path / 'a.th', jax.device_get(variables), run.model)
  with pytest.raises(ValueError, match=r'video/map/kernel: has \[\[7, 8\]'):
    start(tmp_path / 'a.th', 'input.data.width=6')
