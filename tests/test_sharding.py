# SPDX-License-Identifier: Apache-2.0
"""Mesh, rules and batches, on 8 virtual devices in a process of their own."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.train.tiny import command
from vidret_jax import sharding

EIGHT = """
import jax, jax.numpy as jnp, numpy as np, pytest
from vidret_jax import sharding as s

def fails(words, f, *args):
  with pytest.raises(ValueError) as e:
    f(*args)
  assert all(w in str(e.value) for w in words), str(e.value)

assert jax.device_count() == 8
mesh = s.make_mesh([('data', -1)])
assert dict(mesh.shape) == {'data': 8}
two = s.make_mesh([('data', 2), ('model', -1)])
assert dict(two.shape) == {'data': 2, 'model': 4}
fails(['data=3', '8 devices'], s.make_mesh, [('data', 3)])
fails(["'data'"], s.make_mesh, [('model', 8)])
fails(['at most one'], s.make_mesh, [('data', -1), ('model', -1)])

# Rules: the first that matches the whole name decides; all leaves covered.
spec = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
tree = {'params': {'wide': {'kernel': spec(256, 1024), 'bias': spec(1024)},
                   'odd': spec(3, 5)}, 'count': spec()}
where = lambda rules, m=mesh: jax.tree.map(
  lambda x: x.spec, s.tree_sharding(tree, rules, m))
P = jax.sharding.PartitionSpec
got = where([('.*', 'fsdp')])
assert got['params']['wide']['kernel'] == P(None, 'data'), got
assert got['params']['wide']['bias'] == P(), 'small arrays stay whole'
assert got['params']['odd'] == P() and got['count'] == P()
got = where([('.*kernel', (None, 'model')), ('count', ('data',)),
             ('.*', 'replicate')], two)
assert got['params']['wide']['kernel'] == P(None, 'model')
assert got['params']['wide']['bias'] == P() and got['count'] == P()
fails(['params/odd', 'no sharding rule'], where,
      [('.*wide.*', 'fsdp'), ('count', 'fsdp')])
fails(['params/odd', "('data',)", '(3, 5)'], where,
      [('.*odd', ('data',)), ('.*', 'fsdp')])
fails(['replicat'], where, [('.*', 'replicat')])
fails(['pipe'], where, [('.*kernel', ('pipe',)), ('.*', 'replicate')])

# The towers of a CLIP: every matrix is split, and little else is left.
w, t = 768, 512
clip = {'conv1': spec(32, 32, 3, w), 'in_proj': spec(w, 3 * w),
        'out_proj': spec(w, w), 'c_fc': spec(w, 4 * w),
        'c_proj': spec(4 * w, w), 'proj': spec(w, t),
        'text_in_proj': spec(t, 3 * t), 'text_out_proj': spec(t, t),
        'token_embedding': spec(49408, t), 'projection': spec(t, t),
        'ln': spec(w), 'bias': spec(3 * w), 'positions': spec(77, t),
        'logit_scale': spec()}
got = jax.tree.map(
  lambda x: x.spec, s.tree_sharding(clip, [('.*', 'fsdp')], mesh))
whole = {k for k, v in got.items() if v == P()}
assert whole == {'ln', 'bias', 'positions', 'logit_scale'}, whole
assert got['conv1'] == P(None, None, None, 'data')

# Batches: rows in order, over devices; the in-batch product just works.
x = np.arange(32, dtype=np.float32).reshape(16, 2)
batch = s.put_batch({'x': x, 'deep': {'y': x[:, 0]}}, mesh)
assert batch['x'].sharding.spec == P('data')
assert len(batch['x'].addressable_shards) == 8
np.testing.assert_array_equal(s.fetch(batch)['deep']['y'], x[:, 0])
sim = jax.jit(lambda b: b['x'] @ b['x'].T)(batch)
np.testing.assert_allclose(s.fetch(sim), x @ x.T)
s.check_batch_size(16, mesh, 2)
fails(['12', '8 devices', '=8 or 16'], s.check_batch_size, 12, mesh)
fails(['8', '2 accum_steps', '=16'], s.check_batch_size, 8, mesh, 2)
fails(['0'], s.check_batch_size, 0, mesh)
"""


def test_mesh_rules_and_batches_on_eight_devices():
  done = subprocess.run(
    [sys.executable, '-c', EIGHT],
    cwd=command.ROOT,
    text=True,
    env=command.environment(8),
    capture_output=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr


def test_fetch_takes_numpy_and_jax_alike():
  mesh = sharding.make_mesh()
  tree = dict(a=np.ones(3), b=jax.numpy.ones(2), c=4)
  got = sharding.fetch(tree)
  assert all(isinstance(x, (np.ndarray, np.generic)) for x in got.values())
  assert sharding.replicated(mesh).is_fully_replicated


@pytest.mark.parametrize(
  'given, missing',
  [
    (dict(VIDRET_COORDINATOR='h:1'), 'VIDRET_NUM_PROCESSES'),
    (
      dict(VIDRET_PROCESS_ID='0', VIDRET_NUM_PROCESSES='2'),
      'VIDRET_COORDINATOR',
    ),
  ],
)
def test_half_a_launcher_environment_is_an_error(given, missing):
  with pytest.raises(ValueError, match=missing):
    sharding.start_processes(given)


def test_without_a_launcher_there_is_one_process():
  assert not sharding.start_processes({})
