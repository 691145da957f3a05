# SPDX-License-Identifier: Apache-2.0
"""Tests of convert/rules.py."""

import jax
import numpy as np
import pytest

from vidret_jax.convert import rules
from vidret_jax.convert.rules import CheckpointMismatch, Rule

TABLE = (
  Rule('emb.clusters2', 'params/pool/centres', rules.LEADING_ONE),
  *rules.linear('fc', 'out'),
  *rules.batch_norm('bn', 'norm'),
)
SHAPES = {
  'params': {
    'pool': {'centres': (4, 2)},
    'out': {'kernel': (4, 3), 'bias': (3,)},
    'norm': {'scale': (3,), 'bias': (3,)},
  },
  'batch_stats': {'norm': {'mean': (3,), 'var': (3,), 'count': ()}},
}
EXPECTED = jax.tree.map(
  lambda s: jax.ShapeDtypeStruct(s, np.int32 if s == () else np.float32),
  SHAPES,
  is_leaf=lambda s: isinstance(s, tuple),
)


@pytest.fixture
def state():
  rng = np.random.default_rng(0)
  shapes = {
    'emb.clusters2': (1, 4, 2),
    'fc.weight': (3, 4),
    'fc.bias': (3,),
    **{
      f'bn.{n}': (3,) for n in ('weight', 'bias', 'running_mean', 'running_var')
    },
  }
  out = {k: rng.normal(size=s).astype('f') for k, s in shapes.items()}
  return {**out, 'bn.num_batches_tracked': np.array(9, np.int64)}


def test_both_ways(state):
  variables, report = rules.to_flax(state, TABLE, EXPECTED)
  np.testing.assert_array_equal(
    variables['params']['out']['kernel'], state['fc.weight'].T
  )
  assert variables['batch_stats']['norm']['count'].dtype == np.int32
  assert report.parameters == 8 + 12 + 3 + 6
  assert 'fc.weight' in report.table() and '29 trainable' in report.table()
  back = rules.to_torch(variables, TABLE)
  assert list(back) == [r.key for r in TABLE]
  for key, value in state.items():
    assert back[key].dtype == value.dtype and back[key].shape == value.shape
    np.testing.assert_array_equal(back[key], value)


def test_prefix_of_several_devices(state):
  many = {f'module.{k}': v for k, v in state.items()}
  variables, _ = rules.to_flax(many, TABLE, EXPECTED)
  np.testing.assert_array_equal(
    variables['params']['out']['bias'], state['fc.bias']
  )


def test_files_without_a_batch_counter(state):
  del state['bn.num_batches_tracked']
  variables, report = rules.to_flax(state, TABLE, EXPECTED)
  assert variables['batch_stats']['norm']['count'] == 0
  assert report.filled == ('batch_stats/norm/count',)
  assert 'absent from the file' in report.table()


def test_ignored_keys(state):
  state['old.layer.weight'] = np.zeros(3)
  _, report = rules.to_flax(state, TABLE, EXPECTED, ignore=(r'old\.',))
  assert report.ignored == ('old.layer.weight',)


def test_one_error_lists_everything_that_is_wrong(state):
  del state['fc.bias']
  state['extra.weight'] = np.zeros(2)
  state['fc.weight'] = np.zeros((3, 5), 'f')
  with pytest.raises(CheckpointMismatch) as error:
    rules.to_flax(state, TABLE, EXPECTED, source='x.pth')
  text = str(error.value)
  assert text.startswith('x.pth: checkpoint of another architecture')
  assert 'lacks (1):\n  fc.bias' in text
  assert 'no use for (1):\n  extra.weight' in text
  assert 'fc.weight (3, 5), model (3, 4)' in text


def test_long_lists_fit_a_screen(state):
  state.update({f'extra.{i}': np.zeros(1) for i in range(300)})
  with pytest.raises(CheckpointMismatch, match='and 288 more') as error:
    rules.to_flax(state, TABLE, EXPECTED)
  assert str(error.value).count('\n') < 40


def test_a_table_must_cover_the_model(state):
  with pytest.raises(CheckpointMismatch, match='leaves without a rule'):
    rules.to_flax(state, TABLE[1:], EXPECTED)
  with pytest.raises(CheckpointMismatch, match='leaves missing'):
    rules.to_torch({'params': {}}, TABLE)
