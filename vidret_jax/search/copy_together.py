# SPDX-License-Identifier: Apache-2.0
"""Errors of a search in several processes: all of them stop, with the reason.

A process that fails alone leaves the others waiting for it, until the service
that joins them gives up after minutes and ends them without a word.
"""

from collections.abc import Callable
import logging
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

Out = TypeVar('Out')

_MOST = 2000  # Bytes of a message that the others are told.


class OthersFailed(ValueError):
  """Another process failed; the message has its error."""


def together(what: str, call: Callable[[], Out]) -> Out:
  """Calls a function, and waits until all processes have.

  Args:
    what: is done; names the step in messages.
    call: does it; must not wait for other processes.

  Returns:
    What `call` does.

  Raises:
    OthersFailed: `call` failed in other processes only.
    Exception: its own error, else. It is logged before the others are done.
  """
  if jax.process_count() == 1:
    return call()
  out, error, text = None, None, b''
  try:
    out = call()
  except Exception as e:  # Whatever it is, the others must know.
    error, text = e, f'{type(e).__name__}: {e}'.encode()[:_MOST]
    logging.getLogger(__name__).error(
      'process %d failed at %s and waits for the others: %s',
      jax.process_index(),
      what,
      e,
    )
  told = np.zeros(_MOST, np.uint8)
  told[: len(text)] = np.frombuffer(text, np.uint8)
  every = multihost_utils.process_allgather(told)
  if error is not None:
    raise error
  for process, line in enumerate(every):
    if line.any():
      said = bytes(line).rstrip(b'\0').decode(errors='replace')
      raise OthersFailed(f'process {process} failed at {what}: {said}')
  return out
