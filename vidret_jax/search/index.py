# SPDX-License-Identifier: Apache-2.0
"""An index of two levels in a folder: search what was encoded long ago.

The first stage keeps 2 KB of an item in memory, the second reads the items of
the short lists from disk: a hundred thousand videos need 205 MB and 61 GB.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax import sharding
from vidret_jax.models import base
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import index_files as files_lib
from vidret_jax.search import row_layout as layout_lib
from vidret_jax.search import rows as rows_lib
from vidret_jax.search import two_stage
from vidret_jax.search.index_files import BadIndex

# Items whose coarse part is scored at a time.
_BLOCK = 2**14


@dataclasses.dataclass(frozen=True)
class Answers:
  """The best items of every query, best first.

  Attributes:
    numbers: int32 [q, k], places in `Index.ids`.
    scores: float32 [q, k], of the last stage that was asked.
    coarse: float32 [q, k], scores of the first stage.
    coarse_rank: int [q, k], one-based places in the order of the first stage.
    seconds: of each stage.
  """

  numbers: np.ndarray
  scores: np.ndarray
  coarse: np.ndarray
  coarse_rank: np.ndarray
  seconds: dict[str, float]


class Index:
  """Embeddings of items with their ids, in a folder; see `index_files`.

  Attributes:
    folder: where it is.
    ids: of the items.
    recipe: what the embeddings depend on besides the weights.
    fingerprint: of the weights.
    about: notes of the maker; nothing is compared with them.
  """

  def __init__(self, folder: str | os.PathLike):
    """Opens an index, which `create` made.

    Raises:
      FileNotFoundError: there is none.
      BadIndex: it is damaged; says which file, and what to do.
    """
    self.folder = pathlib.Path(folder)
    self._meta = meta = files_lib.read_meta(folder)
    self._layouts = files_lib.layouts(meta)
    self.ids = files_lib.read_ids(folder, meta)
    self._checks = files_lib.read_checks(folder, meta)
    self.recipe: dict[str, Any] = meta['recipe']
    self.fingerprint: str = meta['fingerprint']
    self.about: dict[str, Any] = meta['about']
    self._known = set(self.ids)
    self._opened: rows_lib.RowFile | None = None
    self._bank: tuple[Mesh, bank_lib.Bank] | None = None
    self._lock = None

  def __len__(self) -> int:
    return self._meta['rows']

  def __contains__(self, name: str) -> bool:
    return name in self._known

  @classmethod
  def create(
    cls,
    folder: str | os.PathLike,
    *,
    coarse: Sequence[str] | None,
    recipe: Mapping[str, Any],
    fingerprint: str,
    dtype: str | None = 'float16',
    about: Mapping[str, Any] | None = None,
    files: Mapping[str, str | os.PathLike] | None = None,
  ) -> 'Index':
    """Makes an index without items.

    Args:
      folder: new, or empty.
      coarse: `model.COARSE`; None: there is one stage only.
      recipe: JSON values that the embeddings of items depend on.
      fingerprint: of the weights.
      dtype: of the floats that only the second stage reads; None: as they come.
      about: further JSON values.
      files: name -> file to copy into the index.

    Raises:
      FileExistsError: the folder holds something.
    """
    layout_lib.check_dtype(dtype)
    meta = dict(
      coarse=None if coarse is None else list(coarse),
      dtype=dtype,
      recipe=dict(recipe),
      fingerprint=fingerprint,
      about=dict(about or {}),
    )
    files_lib.create(folder, meta, files or {})
    return cls(folder)

  @classmethod
  def load(cls, folder: str | os.PathLike) -> 'Index':
    """Opens an index; see `__init__`."""
    return cls(folder)

  def path(self, name: str) -> pathlib.Path:
    """Of a file that the maker added.

    Raises:
      BadIndex: it is not there.
    """
    path = self.folder / name
    if not path.is_file():
      raise files_lib.damaged(self.folder, name, 'it is absent')
    return path

  def require(self, *, recipe: Mapping[str, Any], fingerprint: str) -> None:
    """Checks that queries or further items would fit the items in here.

    Raises:
      BadIndex: other weights or another recipe; names what differs.
    """
    files_lib.compare(self.folder, self._meta, recipe, fingerprint)

  def note(self, **about: Any) -> None:
    """Changes notes of the maker, at once."""
    self._take_lock()
    self.about = {**self.about, **about}
    self._meta = {**self._meta, 'about': self.about}
    files_lib.write_meta(self.folder, self._meta)

  def close(self) -> None:
    """Lets others add to the index, and closes its files."""
    for file in (self._lock, self._opened):
      if file is not None:
        file.close()
    self._lock = self._opened = None

  # ---------------------------------------------------------------------- add

  def add(self, ids: Sequence[str], emb: Mapping[str, Any]) -> None:
    """Adds items; they are on disk, and found, when this returns.

    Args:
      ids: n new names.
      emb: embeddings of the items, arrays [n, ...].

    Raises:
      BadIndex: another process adds to it, or did since it was opened.
      ValueError: an id that is there already, or an embedding that is not
        finite or has another shape than those before.
      OSError: the disk is full; the index is as it was.
    """
    self._take_lock()
    again = [x for i, x in enumerate(ids) if x in self or x in ids[:i]]
    if again:
      raise ValueError(f'{again[0]!r} is in the index {self.folder} already.')
    both, leaves = self._prepare(ids, sharding.fetch(dict(emb)))
    try:
      meta, checks = files_lib.append(
        self.folder, self._meta, ids, both, leaves
      )
    except OSError as e:
      need = len(ids) * sum(layout.row_bytes for layout in both) / 2**20
      raise OSError(
        e.errno,
        f'{e.strerror}: {len(ids)} more items need {need:,.0f} MiB in '
        f'{self.folder}. What it had before is complete; make room, then run '
        'the same command again',
      ) from e
    self._meta, self._layouts = meta, both
    self.ids += list(ids)
    self._known.update(ids)
    self._checks = np.concatenate([self._checks, checks])
    self._bank = None
    if self._opened is not None:
      self._opened.close()
      self._opened = None

  def _take_lock(self):
    if self._lock is not None:
      return
    lock = files_lib.lock(self.folder)
    if files_lib.read_meta(self.folder) != self._meta:
      lock.close()
      raise BadIndex(
        f'{self.folder} has changed since it was opened; try again.'
      )
    self._lock = lock

  def _prepare(self, ids, emb):
    """Layouts of both stages, and their checked leaves in the types kept."""
    coarse = self._meta['coarse']
    first, _ = two_stage.split(emb, coarse)
    # The second stage may read what the first one does, and needs it exact.
    second = {} if coarse is None else emb
    both = self._layouts or (
      layout_lib.layout_of(first),
      layout_lib.layout_of(second, self._meta['dtype'], coarse or ()),
    )
    leaves = tuple(
      layout_lib.kept_leaves(layout, part, ids)
      for layout, part in zip(both, (first, second))
    )
    return both, leaves

  # -------------------------------------------------------------------- query

  def query(
    self,
    model: base.Retriever,
    mesh: Mesh,
    variables: Any,
    queries: Any,
    k: int,
    *,
    shortlist: int = 50,
    coarse_only: bool = False,
  ) -> Answers:
    """The best k items of every query.

    Args:
      model: scores the pairs.
      mesh: the devices.
      variables: of the model; see `require`.
      queries: embeddings of queries, rows over the devices.
      k: how many; fewer come back if there are fewer items.
      shortlist: candidates of the first stage that the second one orders, at
        least k.
      coarse_only: leaves the order to the first stage.

    Raises:
      BadIndex: what is read is damaged.
    """
    if k < 1 or shortlist < 1:
      raise ValueError(f'k={k}, shortlist={shortlist}: expected at least 1.')
    second = not coarse_only and self._meta['coarse'] is not None
    n = min(max(k, shortlist) if second else k, len(self))
    rows = len(jax.tree.leaves(queries)[0])
    if not n:
      none, number = np.zeros((rows, 0), np.float32), np.zeros((rows, 0), int)
      return Answers(number, none, none, number, {})
    bank = self._coarse(mesh)
    began = time.monotonic()
    coarse, numbers = two_stage.shortlist(
      model, mesh, variables, queries, bank, n
    )
    seconds = {'shortlist': time.monotonic() - began}
    scores, place = coarse, np.tile(np.arange(n), (rows, 1))
    if second:
      began = time.monotonic()
      try:
        scores = two_stage.fine_scores(
          model, mesh, variables, queries, self._fine(), numbers
        )
      except rows_lib.DamagedRows as e:
        raise files_lib.damaged(self.folder, files_lib.FINE, str(e)) from e
      seconds['fine'] = time.monotonic() - began
      place = np.lexsort((numbers, -scores), axis=-1)
    place = place[:, :k]
    return Answers(
      *(np.take_along_axis(x, place, -1) for x in (numbers, scores, coarse)),
      coarse_rank=place + 1,
      seconds=seconds,
    )

  def take(self, rows: np.ndarray) -> dict[str, Any]:
    """What the second stage has of items, by place in `ids`.

    Returns:
      The dict of arrays [n, ...], in the types kept. Safe in several threads.

    Raises:
      BadIndex: what is read is damaged.
    """
    try:
      return self._fine().take(rows)
    except rows_lib.DamagedRows as e:
      raise files_lib.damaged(self.folder, files_lib.FINE, str(e)) from e

  def _coarse(self, mesh: Mesh) -> bank_lib.Bank:
    """What the first stage reads, on the devices."""
    if self._bank is None or self._bank[0] != mesh:
      layout, where = self._layouts[0], sharding.replicated(mesh)
      rows = len(self)
      size = min(_BLOCK, 2 ** (rows - 1).bit_length())
      size = bank_lib.round_up(size, mesh)
      bank = bank_lib.Bank(size, rows, where, 2**62)
      for data in files_lib.stream(
        self.folder, files_lib.COARSE, self._meta, size * layout.row_bytes
      ):
        bank.append(
          jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(where, x),
            layout_lib.unpack(data, layout, size),
          )
        )
      self._bank = mesh, bank
    return self._bank[1]

  def _fine(self) -> rows_lib.RowFile:
    if self._opened is None:
      file = open(self.folder / files_lib.FINE, 'rb', buffering=0)
      self._opened = rows_lib.RowFile(
        file, self._layouts[1], len(self), self._checks
      )
    return self._opened
