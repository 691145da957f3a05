# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is kept, and what happens to damaged ones."""

import os
import shutil

import jax
import numpy as np
import optax
import pytest

from tests.train.tiny import data
from tests.train.tiny import model as tiny
from vidret_jax import sharding
from vidret_jax.train import ckpt
from vidret_jax.train import state as state_lib


def make(dim=8):
  model = tiny.make(dim=dim)
  tx = optax.chain(optax.clip(1.0), optax.adam(0.1))
  spec = data.make('pairs').spec
  state = state_lib.start(state_lib.init_fn(model, spec, 0)(), tx)
  place = sharding.replicated(sharding.make_mesh())
  state = jax.device_put(state, place)
  target = state_lib.with_sharding(
    state, [('.*', 'replicate')], sharding.make_mesh()
  )
  return state, target


def at(state, step):
  """A state that tells which step it is of."""
  return jax.tree.map(lambda x: x + np.asarray(step, x.dtype), state)


def equal(a, b):
  return all(
    jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))
  )


def write(folder, values, best='m'):
  """Saves steps 1, 2, ... with these metrics (None: not measured)."""
  state, target = make()
  c = ckpt.Checkpoints(str(folder), target, best)
  for i, value in enumerate(values):
    c.save(i + 1, at(state, i + 1), {} if value is None else {'m': value})
  c.close()
  return state, target


def test_keeps_the_two_latest_and_the_best(tmp_path):
  state, target = write(tmp_path, [1.0, 5.0, 2.0, None, 3.0, 1.0])
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  assert c.steps() == [2, 5, 6] and c.best_step() == 2
  assert equal(c.restore_newest(), at(state, 6))
  assert equal(c.restore(2), at(state, 2))
  c.close()


def test_ties_go_to_the_later_step_also_after_a_restart(tmp_path):
  state, target = write(tmp_path, [7.0, 7.0, 1.0])
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  assert c.best_step() == 2
  for step, value in ((4, 7.0), (5, 0.0), (6, 0.0)):
    c.save(step, at(state, step), {'m': value})
  c.wait()
  assert c.steps() == [4, 5, 6] and c.best_step() == 4
  c.close()


def test_without_a_metric_the_latest_stay(tmp_path):
  _, target = write(tmp_path, [None] * 4, best=None)
  c = ckpt.Checkpoints(str(tmp_path), target)
  assert c.steps() == [3, 4] and c.best_step() is None
  c.close()


def files(folder):
  return sorted(
    os.path.join(r, f)[len(str(folder)) + 1 :]
    for r, _, names in os.walk(folder)
    for f in names
  )


def harm(path, how):
  content = bytearray(open(path, 'rb').read())
  if how == 'cut':
    content = content[: len(content) // 2]
  elif how == 'empty':
    content = b''
  elif how == 'flip' and content:
    content[len(content) // 2] ^= 0x55
  if how == 'gone':
    os.remove(path)
  else:
    with open(path, 'wb') as f:
      f.write(bytes(content))


@pytest.mark.slow
@pytest.mark.parametrize('how', ['cut', 'empty', 'gone', 'flip'])
def test_no_damage_to_any_file_gives_a_wrong_state(tmp_path, how):
  """Harms each file of the newest checkpoint in turn.

  Some are not needed to restore; then the state must be the right one. Else
  the run falls back to the step before.
  """
  state, target = write(tmp_path / 'a', [1.0, 2.0])
  fell = 0
  names = files(tmp_path / 'a' / 'checkpoints' / '2')
  assert len(names) > 15
  for name in names:
    shutil.rmtree(tmp_path / 'b', ignore_errors=True)
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    harm(tmp_path / 'b' / 'checkpoints' / '2' / name, how)
    c = ckpt.Checkpoints(str(tmp_path / 'b'), target, 'm')
    got = c.restore_newest()
    c.close()
    if int(got.step) == 2:
      assert equal(got, at(state, 2)), name
    else:
      fell += 1
      assert equal(got, at(state, 1)), name
      assert (tmp_path / 'b' / 'damaged').is_dir(), name
  print(f'{how}: fell back for {fell} of {len(names)} files')
  assert fell >= 3


def test_all_damaged_starts_over_with_a_warning(tmp_path, caplog):
  _, target = write(tmp_path, [1.0, 2.0])
  for step in (1, 2):
    shutil.rmtree(tmp_path / 'checkpoints' / str(step) / 'variables')
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  assert c.restore_newest() is None
  assert 'falling back to checkpoint 1' in caplog.text
  assert 'falling back to the start of the run' in caplog.text
  assert sorted(os.listdir(tmp_path / 'damaged')) == ['1.0', '2.0']
  c.close()


def test_a_changed_metric_is_damage(tmp_path):
  state, target = write(tmp_path, [1.0, 2.0, 1.0, 1.0])
  path = tmp_path / 'checkpoints' / '3' / 'metrics' / 'metrics'
  path.write_text(path.read_text().replace('1.0', '9.0'))
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  assert c.steps() == [2, 4] and c.best_step() == 2
  c.close()


def test_the_same_step_is_written_again_after_damage(tmp_path):
  state, target = write(tmp_path, [1.0, 2.0])
  for _ in range(2):
    shutil.rmtree(tmp_path / 'checkpoints' / '2' / 'opt')
    c = ckpt.Checkpoints(str(tmp_path), target, 'm')
    assert int(c.restore_newest().step) == 1
    c.save(2, at(state, 2), {'m': 2.0})
    c.wait()
    assert c.best_step() == 2 and equal(c.restore(2), at(state, 2))
    c.close()
  assert sorted(os.listdir(tmp_path / 'damaged')) == ['2.0', '2.1']


def test_damaged_best_is_an_error_that_names_it(tmp_path):
  _, target = write(tmp_path, [9.0, 1.0, 1.0])
  shutil.rmtree(tmp_path / 'checkpoints' / '1' / 'variables')
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  with pytest.raises(ckpt.CheckpointError, match='checkpoints/1 is damaged'):
    c.restore(1)
  c.close()


def test_another_architecture_is_an_error_not_damage(tmp_path):
  write(tmp_path, [1.0])
  _, target = make(dim=9)
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  with pytest.raises(ValueError, match='another architecture') as e:
    c.restore_newest()
  assert 'params/text/kernel' in str(e.value)
  assert '[5, 8]' in str(e.value) and '[5, 9]' in str(e.value)
  assert len(str(e.value).splitlines()) < 20
  c.close()
  assert (tmp_path / 'checkpoints' / '1').is_dir()
  with pytest.raises(ValueError, match='another architecture'):
    ckpt.load_variables(str(tmp_path), target.variables, 'last')


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
  state, target = write(tmp_path, [1.0])
  torn = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp'
  (torn / 'variables').mkdir(parents=True)
  c = ckpt.Checkpoints(str(tmp_path), target, 'm')
  assert not torn.exists() and c.steps() == [1]
  c.save(2, at(state, 2), {})
  c.close()
  assert (tmp_path / 'checkpoints' / '2').is_dir()


def test_load_variables_of_another_run(tmp_path):
  state, target = write(tmp_path, [1.0, 5.0, 2.0])
  for select, step in (('best', 2), ('last', 3), (None, 3)):
    variables, found = ckpt.load_variables(
      str(tmp_path), target.variables, select
    )
    assert found == step
    assert equal(variables, at(state, step).variables)
  shutil.rmtree(tmp_path / 'checkpoints' / '3' / 'variables' / 'd')
  with pytest.raises(ckpt.CheckpointError, match='3 is damaged'):
    ckpt.load_variables(str(tmp_path), target.variables, 'last')
  with pytest.raises(FileNotFoundError, match='no checkpoint'):
    ckpt.load_variables(str(tmp_path / 'x'), target.variables)


def test_checksums_see_any_bit_and_any_order():
  x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
  base = state_lib.checksums({'x': x})['x']
  for other in (
    x[::-1],
    x[:, ::-1],
    x.T.reshape(4, 5),
    -x,
    np.where(np.arange(5) == 3, np.nextafter(x, 9), x),
  ):
    assert state_lib.checksums({'x': other.astype(np.float32)})['x'] != base
  for dtype in (np.int32, np.bool_, jax.numpy.bfloat16, np.uint8):
    y = jax.numpy.asarray(np.arange(6) % 2, dtype)
    assert (
      state_lib.checksums({'y': y})['y']
      != state_lib.checksums({'y': y[::-1]})['y']
    )
