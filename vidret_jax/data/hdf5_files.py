# SPDX-License-Identifier: Apache-2.0
"""HDF5 files of strangers: plain datasets at the root, and nothing else."""

from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any

from vidret_jax.data import bad_file


@contextlib.contextmanager
def readable(path: pathlib.Path) -> Iterator[None]:
  """Turns the damage that HDF5 meets into an error that names the file.

  Raises:
    bad_file.BadFile: instead of what h5py raises.
  """
  try:
    yield
  except (OSError, RuntimeError, KeyError) as error:
    raise bad_file.BadFile(
      f'{path}: cannot be read as HDF5 ({str(error)[:200]}). Fetch it again.'
    ) from None


@contextlib.contextmanager
def open_file(path: pathlib.Path) -> Iterator[Any]:
  """An open HDF5 file.

  Raises:
    bad_file.BadFile: it is no HDF5.
  """
  with opened(path) as file:
    yield file


def opened(path: pathlib.Path) -> Any:
  """An HDF5 file that the caller closes.

  Raises:
    bad_file.BadFile: it is no HDF5.
  """
  import h5py

  with readable(path):
    return h5py.File(path, 'r')


def names(file: Any, path: pathlib.Path) -> tuple[str, ...]:
  """What is at the root of a file.

  Raises:
    bad_file.BadFile: it is damaged.
  """
  with readable(path):
    return tuple(file)


def dataset(file: Any, key: str, path: pathlib.Path) -> Any:
  """A dataset whose numbers lie in this very file.

  HDF5 can also point to other files, which a stranger's file must not.

  Raises:
    bad_file.BadFile: there is none.
  """
  import h5py

  with readable(path):
    link = file.get(key, getlink=True) if key in file else None
    if link is None:
      known = next(iter(file), None)
      raise bad_file.BadFile(
        f'{path}: no dataset {key!r} (the file has, for example, {known!r}). '
        'Fetch the file again, or take the clip off the list.'
      )
    found = file[key] if isinstance(link, h5py.HardLink) else None
    if (
      not isinstance(found, h5py.Dataset) or found.is_virtual or found.external
    ):
      raise bad_file.BadFile(
        f'{path}: {key!r} is not a plain dataset of this file. Write its '
        'numbers into the file.'
      )
    return found
