# SPDX-License-Identifier: Apache-2.0
"""Virtual devices for processes that tests start."""

import os


def flags(count):
  """The value of XLA_FLAGS for so many CPU devices, else as here."""
  more = f'--xla_force_host_platform_device_count={count}'
  return f'{os.environ.get("XLA_FLAGS", "")} {more}'
