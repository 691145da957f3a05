# SPDX-License-Identifier: Apache-2.0
"""The fused kernels, interpreted on a CPU, against their plain form."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import devices
from vidret_jax.ops import chamfer, chamfer_kernel, chamfer_tiles

REPO = pathlib.Path(__file__).resolve().parents[2]
BACKENDS = ('tpu', 'gpu')


def draw(q_shape, v_shape, dtype='float32'):
  rng = np.random.default_rng(0)
  return (jnp.asarray(rng.normal(size=s), dtype) for s in (q_shape, v_shape))


@pytest.fixture
def small_tiles(monkeypatch):
  """Several tiles each way, the last ones incomplete."""
  monkeypatch.setattr(chamfer_tiles, '_TPU_TILE', 8)
  monkeypatch.setattr(chamfer_tiles, '_GPU_TILE', 32)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
  'q_shape, v_shape, k',
  [
    ((11, 4, 16), (3, 7, 3, 16), 1),
    ((2, 9, 1, 20), (5, 7, 4, 20), 3),
    ((1, 1, 4), (1, 1, 1, 4), 1),
    ((17, 1, 130), (1, 17, 2, 130), 2),
  ],
)
def test_equals_the_plain_form(backend, q_shape, v_shape, k, small_tiles):
  q, v = draw(q_shape, v_shape)
  batch = q if q.ndim == 4 else q[None]
  expected = chamfer.frame_similarity(batch, v, k=k)
  found = chamfer_kernel.frame_similarity(q, v, k, backend=backend)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(
    found, expected if q.ndim == 4 else expected[0], atol=2e-5
  )


@pytest.mark.parametrize(
  'backend, dtype',
  [('tpu', 'bfloat16'), ('tpu', 'float16'), ('gpu', 'float16')],
)
def test_short_numbers_long_sums(backend, dtype):
  """What 16 bits hold is multiplied and added in 32."""
  q, v = draw((4, 2, 160), (2, 5, 2, 160), dtype)
  expected = chamfer.frame_similarity(
    q[None].astype('float32'), v.astype('float32'), k=2
  )[0]
  found = chamfer_kernel.frame_similarity(q, v, 2, backend=backend)
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
  'backend, platform, sign',
  [('tpu', 'tpu', 'tpu_custom_call'), ('gpu', 'cuda', 'triton')],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_lowers_for_devices_that_are_not_here(backend, platform, sign, dtype):
  def call(q, v):
    return chamfer_kernel.frame_similarity(
      q, v, 2, backend=backend, interpret=False
    )

  q = jax.ShapeDtypeStruct((97, 9, 512), dtype)
  v = jax.ShapeDtypeStruct((33, 50, 9, 512), dtype)
  lowered = jax.jit(call).trace(q, v).lower(lowering_platforms=(platform,))
  assert sign in lowered.as_text()


def test_split_over_devices():
  """Each device its own videos, without any exchange."""
  devices.run(4, __file__)


def split():
  """In another process, which has four devices."""
  kind = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((4,), ('data',), axis_types=kind)
  spec = jax.sharding.PartitionSpec('data')
  q, v = draw((2, 3, 2, 8), (8, 3, 2, 8))
  expected = chamfer.frame_similarity(q, v)
  v = jax.device_put(v, jax.sharding.NamedSharding(mesh, spec))

  def in_turn(q, v):
    return jax.lax.map(lambda one: chamfer_kernel.frame_similarity(one, v), q)

  program = jax.jit(in_turn).lower(q, v).compile()
  found = program(q, v)
  assert found.sharding.spec == jax.sharding.PartitionSpec(None, 'data')
  text = program.as_text()
  assert not any(
    word in text for word in ('all-gather', 'all-reduce', 'all-to-all')
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_choice(caplog):
  q, v = draw((4, 3, 8), (2, 5, 3, 8))
  assert not chamfer_kernel.chosen('auto', q, v)
  assert not chamfer_kernel.chosen('einsum', q, v)
  assert chamfer_kernel.chosen('pallas', q, v)
  with pytest.raises(ValueError, match="'cuda': expected one of"):
    chamfer_kernel.chosen('cuda', q, v)
  # Four of three regions cannot be compiled.
  assert not chamfer_kernel._works('gpu', 3, (3, 8), 'float32', 4)
  assert 'the fused kernel is not used on this gpu' in caplog.text


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_auto_takes_what_works(dtype):
  assert chamfer_kernel._works('gpu', 3, (2, 8), dtype, 2)


def test_auto_refuses_wrong_numbers(caplog, monkeypatch):
  on_gpu = chamfer_tiles.on_gpu

  def nearly(*args):
    return on_gpu(*args).at[-1, -1].add(0.1)  # A cell at the edge.

  monkeypatch.setattr(chamfer_tiles, 'on_gpu', nearly)
  assert not chamfer_kernel._works('gpu', 2, (3, 8), 'float32', 1)
  assert 'its numbers are off by up to 0.1' in caplog.text


def test_precisions_that_a_tpu_has_not():
  def call(q, v):
    return chamfer_kernel.frame_similarity(
      q, v, backend='tpu', interpret=False, precision='high'
    )

  q, v = draw((16, 9, 128), (2, 16, 9, 128))
  lowered = jax.jit(call).trace(q, v).lower(lowering_platforms=('tpu',))
  assert 'tpu_custom_call' in lowered.as_text()


def test_vmap():
  q, v = draw((2, 3, 2, 8), (3, 2, 2, 8))
  found = jax.vmap(chamfer_kernel.frame_similarity, (0, None))(q, v)
  np.testing.assert_allclose(found, chamfer.frame_similarity(q, v), atol=1e-5)


def test_no_frames():
  q, v = draw((0, 3, 8), (2, 5, 3, 8))
  assert chamfer_kernel.frame_similarity(q, v).shape == (2, 0, 5)


@pytest.mark.parametrize(
  'q, v, k, part',
  [
    ((4, 3, 8), (5, 3, 8), 1, 'expected'),
    ((4, 3, 8), (2, 5, 3, 7), 1, r'\(2, 5, 3, 7\)'),
    ((4, 3, 8), (2, 5, 3, 8), 4, 'k=4: expected 1 to 3'),
    ((4, 3, 8), (2, 5, 3, 8), 0, 'k=0'),
  ],
)
def test_errors(q, v, k, part):
  q, v = draw(q, v)
  with pytest.raises(ValueError, match=part):
    chamfer_kernel.frame_similarity(q, v, k)
  with pytest.raises(ValueError, match='int8'):
    chamfer_kernel.frame_similarity(
      jnp.zeros((4, 3, 8), 'int8'), jnp.zeros((2, 5, 3, 8), 'int8')
    )


if __name__ == '__main__':
  split()
