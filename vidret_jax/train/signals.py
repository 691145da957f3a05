# SPDX-License-Identifier: Apache-2.0
"""SIGTERM: finish the step, save, leave; on all processes at the same step."""

import signal

import jax
from jax.experimental import multihost_utils


class Stop:
  """Notices that the run has been asked to end.

  A run of one process handles SIGTERM itself. In a run of several, JAX's
  preemption service has the signal, tells the other processes and picks a
  step that none of them has passed.
  """

  def __init__(self):
    self._asked = False
    self._old = None
    if jax.process_count() == 1:
      try:
        self._old = signal.signal(signal.SIGTERM, self._ask)
      except ValueError:  # Not the main thread: whoever has it decides.
        pass

  def _ask(self, signum, frame):
    del signum, frame
    self._asked = True

  def requested(self, step):
    """Whether to stop after `step`; call it once after every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked

  def close(self):
    """Gives the signal back."""
    if self._old is not None:
      signal.signal(signal.SIGTERM, self._old)
