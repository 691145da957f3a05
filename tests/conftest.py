# SPDX-License-Identifier: Apache-2.0
"""How programs are compiled in all tests.

What runs here is small: compiling it is most of the work, so little is
optimised, in this process and in those that tests start. What the arithmetic
means does not depend on it. The commands of the README run as they are
(`tests/readme/`); `JAX_DISABLE_MOST_OPTIMIZATIONS=0` optimises everything.
"""

import os

import pytest

os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
if os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] != '0':
  # Without optimisation the older emitter of fused loops is four times faster.
  os.environ['XLA_FLAGS'] = ' '.join(
    [os.environ.get('XLA_FLAGS', ''), '--xla_cpu_use_fusion_emitters=false']
  )


@pytest.fixture
def quick_compiler():
  """Little optimisation, also where all else is optimised."""
  import jax

  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture
def compilations():
  """A list that every compilation of a program makes longer."""
  import jax

  seen = []

  def listen(event, duration, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      seen.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield seen
  jax.monitoring.unregister_event_duration_listener(listen)
