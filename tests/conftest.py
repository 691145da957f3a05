# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests."""

import pytest


@pytest.fixture
def quick_compiler():
  """Little optimisation: what runs here is small, compiling is the work."""
  import jax

  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
