# SPDX-License-Identifier: Apache-2.0
"""PCA whitening of region vectors: fitted, read and written.

The file of ViSiL, `pca_resnet50_vcdb_1M.pth`, holds the mean, the eigenvalues
of the covariance and its eigenvectors in columns; upstream (`model/layers/`
`pca.py`) scales and sorts them when it starts.
"""

from collections.abc import Iterable
import dataclasses
import os
import zipfile

import numpy as np

from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import hap_vr_files, torch_write
from vidret_jax.convert.rules import CheckpointMismatch

_NAMES = ('mean', 'd', 'V')
# Added to eigenvalues by upstream.
_EPS = 1e-7


@dataclasses.dataclass(frozen=True)
class Pca:
  """What a file holds.

  Attributes:
    mean: [c].
    values: [e] eigenvalues, in any order.
    vectors: [c, e] eigenvectors, in columns.
  """

  mean: np.ndarray
  values: np.ndarray
  vectors: np.ndarray

  def kernel(self, dims: int) -> np.ndarray:
    """[c, dims] that whitens: the largest eigenvalues first.

    Raises:
      ValueError: there are not so many, or not all are positive.
    """
    if dims > len(self.values):
      raise ValueError(
        f'{dims} dimensions are wanted of {len(self.values)} eigenvectors; '
        'set model.backbone.dims to what the file has.'
      )
    best = np.argsort(-self.values, kind='stable')[:dims]
    values = self.values[best]
    if not np.isfinite(values).all() or values.min() <= -_EPS:
      raise ValueError(
        f'eigenvalue {values.min()} among the {dims} largest: the features '
        'that it was fitted to have fewer dimensions. Set model.backbone.dims '
        'lower, or fit it to more features.'
      )
    kernel = self.vectors[:, best] / np.sqrt(values + _EPS)
    return kernel.astype(np.float32)


def fit(features: Iterable[np.ndarray]) -> Pca:
  """Fits a whitening to region vectors.

  Args:
    features: blocks [..., c] of one width; each is looked at once, and only
      their sums [c] and [c, c] are kept.

  Returns:
    All c eigenvalues (of the covariance with n - 1), largest first.

  Raises:
    ValueError: fewer than two vectors, another width, or not finite.
  """
  count, total, products = 0, None, None
  for block in features:
    x = np.asarray(block)
    x = x.reshape(-1, x.shape[-1]).astype(np.float64)
    if not np.isfinite(x).all():
      raise ValueError('features to fit a PCA to are not finite.')
    if total is None:
      # Sums around about the mean do not lose digits.
      shift = x.mean(0) if len(x) else np.zeros(x.shape[-1])
      total, products = np.zeros(len(shift)), np.zeros((len(shift),) * 2)
    if x.shape[1] != len(total):
      raise ValueError(
        f'features of {len(total)} and of {x.shape[1]} dimensions: expected '
        'one width.'
      )
    x -= shift
    count, total = count + len(x), total + x.sum(0)
    products += x.T @ x
  if count < 2:
    raise ValueError(f'{count} vectors to fit a PCA to, expected two or more.')
  mean = total / count
  covariance = (products - count * np.outer(mean, mean)) / (count - 1)
  values, vectors = np.linalg.eigh(covariance)
  values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
  # Signs mean nothing; the largest entry of each is positive, everywhere.
  signs = vectors[np.abs(vectors).argmax(0), np.arange(len(values))]
  vectors = vectors * np.where(signs < 0, -1, 1)
  return Pca(*(a.astype(np.float32) for a in (shift + mean, values, vectors)))


def of_kernel(mean: np.ndarray, kernel: np.ndarray) -> Pca:
  """The other way: eigenvalues and unit vectors of a whitening [c, dims].

  Readers sort by eigenvalues, so these are made to fall where rounding makes
  two equal.

  Raises:
    ValueError: the columns are in no such order.
  """
  kernel = np.asarray(kernel, np.float64)
  norm = np.linalg.norm(kernel, axis=0)
  exact = (norm**-2 - _EPS).astype(np.float32)
  values = exact.copy()
  for i in range(1, len(values)):
    values[i] = min(values[i], np.nextafter(values[i - 1], np.float32(-1)))
  if not np.allclose(values, exact, rtol=1e-4, atol=_EPS):
    raise ValueError(
      'the columns of a whitening must be in order, the direction of the '
      'largest variance first; these are not those of a PCA.'
    )
  vectors = (kernel / norm).astype(np.float32)
  return Pca(np.asarray(mean, np.float32), values, vectors)


def read(path: str | os.PathLike) -> Pca:
  """Reads a file of ViSiL's layout, or the same arrays in an npz file (DnS).

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: no PCA in it.
  """
  source = os.fspath(path)
  if source.endswith('.npz') and os.path.isfile(path):
    state = _npz(source)
  else:
    state = hap_vr_files.read_state(path, 'a PCA file of ViSiL', ())
  shapes = {k: tuple(v.shape) for k, v in state.items()}
  mean, values, vectors = (shapes.get(name, ()) for name in _NAMES)
  if not mean or vectors != (*mean, *values) or len(vectors) != 2:
    raise CheckpointMismatch(
      f'{source}: expected mean [c], d [e] and V [c, e] of a PCA, found '
      f'{dict(list(shapes.items())[:6])}.'
    )
  # Products of half precision would lose what the file has.
  wide = {
    k: v.astype(np.promote_types(v.dtype, 'f4')) for k, v in state.items()
  }
  return Pca(wide['mean'].astype(np.float32), wide['d'], wide['V'])


def _npz(source):
  try:
    with np.load(source, allow_pickle=False) as arrays:
      state = {name: arrays[name] for name in _NAMES if name in arrays}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise CheckpointMismatch(
      f'{source}: no whole npz file ({error}). Fetch it again.'
    ) from error
  clip_convert.check_numbers(state, source)
  return state


def write(path: str | os.PathLike, pca: Pca) -> None:
  """Writes a file that `read` and upstream load."""
  arrays = (pca.mean, pca.values, pca.vectors)
  torch_write.write(path, dict(zip(_NAMES, arrays)))
