# SPDX-License-Identifier: Apache-2.0
"""The error of a file that does not say what it has to."""


class BadFile(ValueError):
  """A file that does not say what it has to."""
