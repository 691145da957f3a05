# SPDX-License-Identifier: Apache-2.0
"""XLA traces of a range of steps, for TensorBoard or Perfetto."""

import os
import re

from absl import logging
import jax


def parse(text):
  """'10:20' -> (10, 20): trace from step 10 up to, not including, 20."""
  if not text:
    return None
  match = re.fullmatch(r'(\d+):(\d+)', text)
  if not match or int(match[1]) >= int(match[2]):
    raise ValueError(f'--profile={text}: expected START:STOP, START < STOP')
  return int(match[1]), int(match[2])


class Trace:
  """Starts and stops the profiler at the asked steps.

  Args:
    workdir: the trace goes to `<workdir>/profile`.
    steps: (start, stop) or None.
    first: the step at which this process starts.
    total: the step at which the run ends.
  """

  def __init__(self, workdir, steps, first, total):
    self._folder = os.path.join(workdir, 'profile')
    start, stop = steps or (0, 0)
    self._start, self._stop = max(start, first), min(stop, total)
    self._on = False
    if steps and self._start >= self._stop:
      logging.warning(
        '--profile=%d:%d: no such steps between %d and %d',
        start,
        stop,
        first,
        total,
      )

  def before(self, step, state):
    """Call before the update that follows `step` updates."""
    if step == self._start < self._stop:
      # Updates that are still under way are none of the asked ones.
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._folder)
      self._on = True

  def after(self, step, state):
    """Call when `step` updates have been given to the devices."""
    if self._on and step == self._stop:
      jax.block_until_ready(state)
      self.close()

  def close(self):
    """Ends a trace that is under way."""
    if self._on:
      jax.profiler.stop_trace()
      self._on = False
      logging.info('wrote a trace to %s', self._folder)
