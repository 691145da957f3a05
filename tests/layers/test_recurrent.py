# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers against PyTorch's on packed sentences."""

import itertools

import jax
import numpy as np
import pytest

from vidret_jax.layers.recurrent import Recurrent

LENGTHS = np.array([5, 1, 7, 0])


def problem(kind, layers, bidirectional, width=3, features=4):
  rng = np.random.default_rng(0)
  steps = LENGTHS.max() + 2
  x = rng.standard_normal((len(LENGTHS), steps, width)).astype(np.float32)
  mask = np.arange(steps) < LENGTHS[:, None]
  net = Recurrent(kind, features, layers, bidirectional)
  variables = net.init(jax.random.key(0), x, mask, train=False)
  # Biases begin as zeros: none may be mistaken for another.
  leaves, tree = jax.tree.flatten(variables)
  leaves = [rng.standard_normal(a.shape).astype(np.float32) for a in leaves]
  return net, jax.tree.unflatten(tree, leaves), x, mask


def torch_twin(net, variables, width):
  torch = pytest.importorskip('torch')
  kind = dict(gru=torch.nn.GRU, lstm=torch.nn.LSTM)[net.kind]
  twin = kind(
    width,
    net.features,
    net.layers,
    batch_first=True,
    bidirectional=net.bidirectional,
  )
  state = {}
  for k, (name, suffix) in itertools.product(
    range(net.layers), (('forward', ''), ('backward', '_reverse'))
  ):
    ours = variables['params'][f'layer_{k}'].get(name)
    if ours is None:
      continue
    for theirs, key in dict(
      weight_ih='input_kernel',
      weight_hh='hidden_kernel',
      bias_ih='input_bias',
      bias_hh='hidden_bias',
    ).items():
      value = torch.tensor(ours[key].T.copy())
      state[f'{theirs}_l{k}{suffix}'] = value
  twin.load_state_dict(state)
  return twin


@pytest.mark.parametrize(
  'kind, layers, bidirectional',
  [('gru', 1, True), ('gru', 2, False), ('lstm', 2, True)],
)
def test_packed_sentences(kind, layers, bidirectional):
  torch = pytest.importorskip('torch')
  net, variables, x, mask = problem(kind, layers, bidirectional)
  got = net.apply(variables, x, mask, train=False)
  twin = torch_twin(net, variables, x.shape[-1])
  for row, length in enumerate(LENGTHS):
    if length:
      with torch.no_grad():
        want, _ = twin(torch.tensor(x[row : row + 1, :length]))
      want = want.numpy().reshape(length, -1, net.features)
      np.testing.assert_allclose(got[row, :length], want, atol=2e-6)
    assert not np.any(got[row, length:])


@pytest.mark.parametrize('kind', ['gru', 'lstm'])
def test_gradients(kind):
  torch = pytest.importorskip('torch')
  net, variables, x, mask = problem(kind, 2, True)
  weight = np.random.default_rng(1).standard_normal((*x.shape[:2], 2, 4))
  weight = weight.astype(np.float32) * mask[..., None, None]

  def total(variables, x):
    return (net.apply(variables, x, mask, train=False) * weight).sum()

  got, of_x = jax.grad(total, argnums=(0, 1))(variables, x)
  twin, rows = torch_twin(net, variables, x.shape[-1]), torch.tensor(x)
  rows.requires_grad_()
  for row, length in enumerate(LENGTHS):
    if length:
      out, _ = twin(rows[row : row + 1, :length])
      out = out.reshape(length, -1, net.features)
      (out * torch.tensor(weight[row, :length])).sum().backward()
  np.testing.assert_allclose(of_x, rows.grad.numpy(), atol=2e-5)
  names = dict(
    weight_ih='input_kernel',
    weight_hh='hidden_kernel',
    bias_ih='input_bias',
    bias_hh='hidden_bias',
  )
  for key, value in twin.named_parameters():
    name, _, place = key.rpartition('_l')
    layer, _, back = place.partition('_')
    ours = got['params'][f'layer_{layer}']['backward' if back else 'forward']
    want = value.grad.numpy().T
    np.testing.assert_allclose(ours[names[name]], want, atol=5e-5)


@pytest.mark.parametrize('kind', ['gru', 'lstm'])
def test_padding_is_never_read(kind):
  net, variables, x, mask = problem(kind, 2, True)

  def total(variables, x):
    return (net.apply(variables, x, mask, train=False) ** 2).sum()

  changed = np.where(mask[..., None], x, np.float32(1e6))
  for a, b in zip(
    jax.tree.leaves(jax.grad(total)(variables, x)),
    jax.tree.leaves(jax.grad(total)(variables, changed)),
  ):
    np.testing.assert_array_equal(a, b)
  slope = jax.grad(total, argnums=1)(variables, x)
  assert not np.any(slope[~mask])
  assert np.all(np.any(slope[mask], axis=-1))


def test_longer_padding_changes_nothing():
  net, variables, x, mask = problem('gru', 1, True)
  short = net.apply(variables, x, mask, train=False)
  wide = net.apply(
    variables,
    np.pad(x, ((0, 0), (0, 3), (0, 0))),
    np.pad(mask, ((0, 0), (0, 3))),
    train=False,
  )
  np.testing.assert_array_equal(short, wide[:, : x.shape[1]])


def test_starts_orthogonal_and_an_lstm_remembers():
  net = Recurrent('lstm', 4)
  x, mask = np.zeros((1, 2, 3), np.float32), np.ones((1, 2), bool)
  layer = net.init(jax.random.key(1), x, mask, train=False)
  layer = layer['params']['layer_0']['forward']
  kernel = np.asarray(layer['hidden_kernel'])
  np.testing.assert_allclose(kernel @ kernel.T, np.eye(4), atol=1e-5)
  np.testing.assert_array_equal(
    layer['input_bias'], np.repeat([0, 1, 0, 0], 4).astype(np.float32)
  )
  assert not np.any(layer['hidden_bias'])


def test_dropout_between_layers_only():
  net, variables, x, mask = problem('gru', 2, True)
  dropped = net.copy(dropout=0.5)
  calm = net.apply(variables, x, mask, train=False)
  keys = [{'dropout': jax.random.key(k)} for k in range(2)]
  first, second = (
    dropped.apply(variables, x, mask, train=True, rngs=k) for k in keys
  )
  assert np.abs(first - second).max() > 1e-3
  np.testing.assert_array_equal(
    calm, dropped.apply(variables, x, mask, train=False)
  )
