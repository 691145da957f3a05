# SPDX-License-Identifier: Apache-2.0
"""The code in docs/adding_a_paper.md does what the page says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.readme import markdown
from vidret_jax.train import defaults


@pytest.fixture(scope='module')
def code():
  text = (markdown.ROOT / 'docs' / 'adding_a_paper.md').read_text()
  return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def test_the_system_learns_and_ranks(code):
  space = {'__name__': 'new'}
  exec(code[0], space)
  model = space['make'](dim=8)
  rng = np.random.default_rng(0)
  video = rng.normal(size=(6, 5)).astype(np.float32)
  batch = {
    'text': jnp.asarray(video[:, ::-1]),
    'video': jnp.asarray(video),
    '_mask': jnp.ones(6, bool),
  }

  def loss(variables):
    return model.apply(variables, batch, step=0, train=True, method='loss')[0]

  variables = model.init(
    jax.random.key(0), batch, step=0, train=False, method='loss'
  )
  first = loss(variables)
  slope = jax.jit(jax.grad(loss))
  for _ in range(200):
    grads = slope(variables)
    variables = jax.tree.map(lambda x, g: x - 0.05 * g, variables, grads)
  assert loss(variables) < 0.2 * first
  q = model.apply(variables, batch, method='encode_query')
  v = model.apply(variables, batch, method='encode_item')
  sim = model.apply(variables, q, v, method='score')
  assert np.array_equal(np.argmax(sim, axis=1), np.arange(6))
  again = model.apply(
    variables,
    q,
    jax.tree.map(lambda x: jnp.stack([x] * 6), v),
    method='rescore',
  )['score']
  np.testing.assert_allclose(again, sim, rtol=1e-5, atol=1e-5)


def test_the_config_is_complete(code):
  space = {'__name__': 'new_dataset'}
  exec(code[1], space)
  defaults.resolve(space['get_config']('seed=1'))
