# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus: real clips with sound, made on this machine.

See docs/shapes.md. Nothing is downloaded; the first use makes the files.
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

from vidret_jax.data import source as source_lib
from vidret_jax.data import words
from vidret_jax.data.shapes import corpus, script
from vidret_jax.data.shapes.corpus import prepare

SPLITS = script.SPLITS
# What a config says about this corpus; data and model read the same entries.
EXPERTS = (
  ('audio', {'dim': 64, 'max_tokens': 24, 'clusters': 8}),
  ('colour', {'dim': 128}),
  ('layout', {'dim': 72}),
  ('motion', {'dim': 96}),
  ('ocr', {'dim': words.DIM, 'max_tokens': 4, 'clusters': 4}),
  ('shape', {'dim': 84}),
  ('speech', {'dim': words.DIM, 'max_tokens': 20, 'clusters': 8}),
  ('texture', {'dim': 84}),
)
TEXT = {'dim': words.DIM, 'max_tokens': 40, 'clusters': 16, 'ghosts': 1}


def make(
  *,
  view: str,
  split: str,
  experts: Sequence[tuple[str, Mapping[str, Any]]] = EXPERTS,
  text: Mapping[str, Any] = TEXT,
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
  **options,
) -> source_lib.Source:
  """Opens a view of a split; makes the corpus first if it is absent.

  Args:
    view: 'pairs', 'items' or 'queries'.
    split: 'train', 'val', 'test', or 'copies' (edits of test videos).
    experts: (name, {dim, max_tokens}) pairs; see `EXPERTS`.
    text: {dim, max_tokens}; see `TEXT`.
    root: data folder; VIDRET_DATA_DIR or `data` by default.
    seed: of the corpus; see `corpus.prepare`, also for the next three.
    counts: videos per split.
    num_workers: processes that make clips.
    progress: shows a bar while they do.
    **options: of `vidret_jax.data.experts.make`.

  Raises:
    ValueError: an unknown split, or a corpus of another recipe.
  """
  if split not in SPLITS:
    raise ValueError(
      f'shapes has no split {split!r}; choose from {list(SPLITS)}.'
    )
  from vidret_jax.data import experts as experts_lib

  folder = prepare(
    root, seed=seed, counts=counts, num_workers=num_workers, progress=progress
  )
  return experts_lib.make(
    str(corpus.records_dir(root)),
    split,
    view=view,
    experts=experts,
    text=text,
    corpus=str(folder),
    **options,
  )
