# SPDX-License-Identifier: Apache-2.0
"""Every `.pth` file: read, converted, converted back, written, read again."""

import numpy as np
import pytest

from tests.parity import goldens
from vidret_jax.convert import ce as convert
from vidret_jax.convert import ce_config, rules, torch_file
from vidret_jax.models import ce


def open_checkpoint(root, path):
  """(raw object, model) of any checkpoint in the folder."""
  raw = torch_file.read(path)
  state = convert.state_dict(raw)
  if convert.is_moee(state):
    # The file does not hold the padded lengths; any will do here.
    return raw, ce.make(
      **ce_config.moee_config(state, text_tokens=5, audio_tokens=5)
    )
  config, text_dim = goldens.upstream_config(root, path.parent)
  return raw, ce.make(**ce_config.model_config(config, text_dim=text_dim))


def test_both_ways(checkpoint, golden_root, tmp_path, errors):
  root = golden_root / 'ce'
  path = root / checkpoint
  if not path.exists():
    pytest.skip(f'{path} is absent')
  raw, model = open_checkpoint(root, path)
  state = convert.state_dict(raw)
  variables, report = convert.load(path, model)
  assert {row[0] for row in report.rows} | set(report.ignored) == set(state)
  moee = convert.is_moee(state)
  back = convert.to_torch(variables, model, moee=moee)
  assert list(back) == [k for k in state if k not in report.ignored]
  convert.save(tmp_path / 'back.pth', variables, model, moee=moee)
  written = convert.state_dict(torch_file.read(tmp_path / 'back.pth'))
  for key, value in back.items():
    assert value.dtype == state[key].dtype, key
    np.testing.assert_array_equal(value, state[key], err_msg=key)
    errors.close(key, written[key], state[key], 0)
  check_config(golden_root / 'ce', path, raw)
  check_optimizer(raw, model)


def check_config(root, path, raw):
  """The pickled config describes the network of the config.json beside it."""
  inside = ce_config.stored_config(raw)
  if inside is not None:
    config, text_dim = goldens.upstream_config(root, path.parent)
    assert ce_config.model_config(
      inside, text_dim=text_dim
    ) == ce_config.model_config(config, text_dim=text_dim)


def check_optimizer(raw, model):
  """Optimiser slots, where there are any, fit the parameters they belong to."""
  shapes = rules.flatten(convert.variable_shapes(model)['params'])
  for name, tree in convert.optimizer_slots(raw, model).items():
    for leaf, value in rules.flatten(tree).items():
      assert value.shape in ((), shapes[leaf].shape), (name, leaf)
      assert np.isfinite(value).all(), (name, leaf)
