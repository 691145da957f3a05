# SPDX-License-Identifier: Apache-2.0
"""What a file of the original authors holds, without running what is in it."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from vidret_jax.convert import reloclnet_files, torch_file

# Dicts in dicts; a pickle can make one that contains itself.
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Content:
  """Of a file.

  Attributes:
    arrays: (shape, type) by 'key/key'.
    values: whatever is no array, likewise; objects of foreign classes are
      `torch_file.Bag`s.
    system: whose it is, where the file tells more than its arrays, or ''.
    told: options of a config that it tells, by part.
    note: why it tells none, or ''.
  """

  arrays: dict[str, tuple[tuple[int, ...], np.dtype]]
  values: dict[str, Any]
  system: str = ''
  told: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  note: str = ''


def read(path: str) -> Content:
  """Reads a file of PyTorch.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
  """
  arrays, values = {}, {}
  for name, value in _walk(torch_file.read(path)):
    if isinstance(value, np.ndarray):
      arrays[name] = value.shape, value.dtype
    else:
      values[name] = value
  try:
    checkpoint = reloclnet_files.read(path)
  except ValueError:
    return Content(arrays, values)
  told, note = {}, ''
  try:
    told = reloclnet_files.describe(path, checkpoint)
  except ValueError as error:
    note = str(error)
  return Content(arrays, values, 'ReLoCLNet or XML', told, note)


def _walk(node: Any, prefix: str = '', depth: int = 0) -> Iterator:
  """(name, value) of what is in dicts."""
  if not isinstance(node, Mapping) or depth > _DEEPEST:
    yield prefix or 'content', node
    return
  for key, value in node.items():
    name = f'{prefix}/{key}' if prefix else str(key)
    yield from _walk(value, name, depth + 1)
