# SPDX-License-Identifier: Apache-2.0
"""Gives freed memory back to the system.

The C library keeps what large short-lived arrays leave behind: blocks of
features, buffers of computations, the compiler's own memory. While a collection
streams through, these holes grow to several hundred MB.
"""

import ctypes
import functools
import sys


@functools.cache
def _malloc_trim():
  """glibc's function, or None where there is another C library."""
  if not sys.platform.startswith('linux'):
    return None
  return getattr(ctypes.CDLL(None), 'malloc_trim', None)


def give_back() -> bool:
  """Returns free memory of this process, if the C library knows how to.

  Takes a few milliseconds.

  Returns:
    Whether it was asked.
  """
  trim = _malloc_trim()
  if trim is None:
    return False
  trim(0)
  return True
