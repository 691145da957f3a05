# SPDX-License-Identifier: Apache-2.0
"""Video in video: who is pasted where, pixels, links and labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.data.augment import crops
from vidret_jax.ops import video_in_video as viv

pytestmark = pytest.mark.usefixtures('quick_compiler')
plan = jax.jit(viv.plan, static_argnums=(1, 2))


def drawn(n, seed=0, use=None):
  rng = np.random.default_rng(seed)
  mix = rng.random((n, 5)).astype(np.float32)
  mix[:, 0] = rng.random(n) < 0.5 if use is None else use
  mix[:, 2] = 0.3 + 0.4 * mix[:, 2]
  return mix


def test_hosts_are_others_and_all_of_them():
  mix = np.tile(drawn(5, use=1), (41, 1, 1))
  # 1 itself comes of rounding.
  mix[:, :, 1] = np.linspace(0, 1, 41)[:, None]
  hosts = jax.jit(jax.vmap(lambda mix: viv.plan(mix, 8, 8).host))(mix)
  step = np.minimum(np.floor(mix[:, :, 1] * 4), 3)
  np.testing.assert_array_equal(hosts, (np.arange(5) + 1 + step) % 5)
  for i in range(5):
    assert set(np.asarray(hosts)[:, i].tolist()) == set(range(5)) - {i}


def test_boxes():
  mix = drawn(200, use=1)
  mix[0, 2:] = 0.3, 0, 0
  mix[1, 2:] = 0.3, 0.99999, 0.99999
  how = plan(mix, 40, 60)
  for (top, bottom, left, right), row in zip(np.asarray(how.box), mix):
    for size, start, end, centre in (
      (40, top, bottom, row[3]),
      (60, left, right, row[4]),
    ):
      half = int(size * np.sqrt(1 - row[2])) // 2
      middle = int(centre * size)
      assert start == max(middle - half, 0)
      assert end == min(middle + half, size)


def test_rows_that_do_not_count_are_left_alone():
  mix = drawn(4, use=1)
  mix[:, 1] = 0  # The next one.
  mask = jnp.array([True, True, False, True])
  how = plan(mix, 8, 8, mask=mask)
  assert np.asarray(how.use).tolist() == [True, False, False, True]
  assert np.asarray(how.host).tolist() == [1, 1, 2, 0]
  alone = plan(mix[:1], 8, 8)
  assert not np.asarray(alone.use).any()


def test_a_bad_shape_is_refused():
  with pytest.raises(ValueError, match=r'\(3, 4\)'):
    viv.plan(jnp.zeros((3, 4)), 8, 8)


@pytest.fixture(scope='module')
def problem():
  rng = np.random.default_rng(0)
  clips = rng.integers(0, 256, (6, 2, 24, 30, 3), dtype=np.uint8)
  mix = drawn(6, seed=3)
  mix[0, 0], mix[1, 0] = 1, 0
  return clips, mix


@pytest.mark.parametrize('antialias', [False, True])
def test_pixels(problem, antialias):
  """Against a resize written in another way, one donor after another."""
  clips, mix = problem

  @jax.jit
  def paste(clips, mix):
    how = viv.plan(mix, 24, 30)
    return how, viv.composite(clips, how, antialias=antialias)

  how, got = paste(jnp.asarray(clips), jnp.asarray(mix))
  got = np.asarray(got).astype(int)
  for i in range(len(clips)):
    want = clips[i]
    if how.use[i]:
      want = clips[int(how.host[i])].copy()
      top, bottom, left, right = map(int, how.box[i])
      for t in range(want.shape[0]):
        want[t, top:bottom, left:right] = _shrunk(
          clips[i, t], bottom - top, right - left, antialias
        )
    gap = np.abs(got[i] - want)
    assert gap.max() <= 1 and (gap > 0).mean() < 0.01
    if not how.use[i]:
      assert not gap.any()
  assert np.asarray(how.use)[:2].tolist() == [True, False]


def _shrunk(frame, height, width, antialias):
  """Resizes one side at a time, in float64."""
  out = frame.astype(np.float64)
  for axis, size in ((0, height), (1, width)):
    index, weights = crops._taps(out.shape[axis], size, antialias)
    shape = (-1,) + (1,) * (2 - axis)
    out = sum(
      np.take(out, i, axis=axis) * w.reshape(shape)
      for i, w in zip(index, weights)
    )
  return np.rint(out)


def test_an_empty_box_leaves_the_host():
  clips = np.arange(2 * 12, dtype=np.uint8).reshape(2, 1, 2, 2, 3)
  mix = np.array([[1, 0, 0.7, 0.5, 0.5], [0] * 5], np.float32)
  got = jax.jit(
    lambda clips, mix: viv.composite(clips, viv.plan(mix, 2, 2), antialias=True)
  )(clips, mix)
  np.testing.assert_array_equal(got[0], clips[1])


def test_labels():
  @jax.jit
  def run(mix):
    how = viv.plan(mix, 8, 8)
    return how, viv.links(how), viv.label_matrix(viv.links(how))

  how, shown, got = jax.device_get(run(drawn(7, seed=1)))
  shows = [{i, int(how.host[i])} for i in range(7)]
  for i in range(7):
    assert set(np.flatnonzero(shown[i]).tolist()) == shows[i]
  rows = [{i} for i in range(7)] + shows
  want = [[bool(a & b) for b in rows] for a in rows]
  np.testing.assert_array_equal(got, want)
  assert max(map(len, shows)) == 2 and min(map(len, shows)) == 1
