# SPDX-License-Identifier: Apache-2.0
"""`.safetensors` files, through the library of that name."""

from collections.abc import Mapping
import os
import struct

# Registers bfloat16 with numpy, which the library asks for it by name.
import ml_dtypes  # noqa: F401
import numpy as np

from vidret_jax.convert.torch_file import TorchFileError


def is_one(path: str | os.PathLike) -> bool:
  """Whether a file begins as the format does: a length, and JSON."""
  with open(path, 'rb') as file:
    head = file.read(9)
  if len(head) < 9 or head[8:] != b'{':
    return False
  return struct.unpack('<Q', head[:8])[0] <= os.path.getsize(path)


def _library():
  try:
    import safetensors.numpy
  except ImportError:
    raise TorchFileError(
      'reading and writing .safetensors files needs the package safetensors: '
      'pip install safetensors; or take the pytorch_model.bin of the same '
      'model, which needs nothing.'
    ) from None
  return safetensors


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Arrays by name.

  Raises:
    TorchFileError: truncated or malformed, or the library is not installed.
  """
  library = _library()
  try:
    return library.numpy.load_file(os.fspath(path))
  except (library.SafetensorError, TypeError, ValueError) as error:
    raise TorchFileError(
      f'{path}: not a complete safetensors file ({error}). Compare its size '
      'with the published one and fetch it again.'
    ) from error


def write(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> None:
  """Writes arrays; the file appears whole or not at all."""
  library = _library()
  partial = f'{os.fspath(path)}.partial'
  arrays = {k: np.asarray(v, order='C') for k, v in state.items()}
  # Readers of Hugging Face ask which library the tensors are of.
  library.numpy.save_file(arrays, partial, metadata={'format': 'pt'})
  os.replace(partial, path)
