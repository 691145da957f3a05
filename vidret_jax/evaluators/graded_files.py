# SPDX-License-Identifier: Apache-2.0
"""Files of all scores of an evaluation: our own, and those of the original."""

from collections.abc import Mapping, Sequence
import csv
import pathlib

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.data import whole_files
from vidret_jax.evaluators import whole_scores
from vidret_jax.metrics import graded

# Upstream's names (HGR, `evaluation.eval_q2m` and `calc_recall`); 'i' asks with
# a caption, 'c' with a clip.
_RECALLS = dict(zip(graded.RECALLS, ('r1', 'r5', 'r10', 'medr', 'meanr')))
_SIDES = {'vt': 'v2t_{}', 'tv': 't2v_{}', 'avg': '{}_avg'}
_LEVELS = ('sentence', 'verb', 'noun')  # In upstream's order.


def write(
  path: pathlib.Path,
  scores: Mapping[str, np.ndarray],
  queries: source_lib.Source,
  item_ids: Sequence[str],
) -> None:
  """Writes `scores` float32 [q, v], `<level>` [q, v], ids and texts (npz).

  Args:
    path: replaced when the new file is complete.
    scores: see `whole_scores.collect`.
    queries: rows.
    item_ids: columns.
  """
  arrays = {
    'scores' if name == whole_scores.SCORE else name: x
    for name, x in scores.items()
  }
  with (
    whole_files.partial(path, overwrite=True) as draft,
    open(draft, 'wb') as file,
  ):
    np.savez(
      file,
      query_ids=np.array(queries.ids),
      texts=np.array(queries.texts),
      item_ids=np.array(item_ids),
      **arrays,
    )


def write_legacy(
  folder: pathlib.Path,
  stem: str,
  scores: Mapping[str, np.ndarray],
  texts: Sequence[str],
  item_ids: Sequence[str],
  results: Mapping[str, float],
) -> None:
  """Writes what the test of HGR and RANP writes below `pred/<set>`.

  Args:
    folder: of `<stem>.npy`, a pickled dict(vid_names, cap_names, scores) with
      scores [clips, captions], or [levels, clips, captions] of a model of
      levels, and of `scores.csv`.
    stem: of the file.
    scores: see `whole_scores.collect`.
    texts: captions, in the order of the queries.
    item_ids: names of the clips.
    results: see `metrics.graded.summary`.
  """
  by_level = all(name in scores for name in _LEVELS)
  if by_level:
    found = np.stack([scores[name].T for name in _LEVELS])
  else:
    found = np.ascontiguousarray(scores[whole_scores.SCORE].T)
  content = dict(
    vid_names=list(item_ids), cap_names=list(texts), scores=np.asarray(found)
  )
  path = folder / f'{stem}.npy'
  with (
    whole_files.partial(path, overwrite=True) as draft,
    open(draft, 'wb') as file,
  ):
    np.save(file, np.array(content, dtype=object))
  row = upstream_names(results)
  if by_level:  # HGR prints nDCG and mAP, and keeps them out of the table.
    row = {k: x for k, x in row.items() if '_' not in k}
  with whole_files.partial(folder / 'scores.csv', overwrite=True) as draft:
    with open(draft, 'w', newline='') as file:
      table = csv.writer(file, lineterminator='\n')
      table.writerow(row)
      # Two fields more than the header has, as upstream.
      values = [f'{x:.2f}' for x in row.values()]
      table.writerow(['predefined', path.name, *values])


def upstream_names(results: Mapping[str, float]) -> dict[str, float]:
  """Results as upstream's validation logs have them, in their order.

  Recalls are percent; nDCG and mAP are fractions, and absent without relevance.
  """
  out = {
    f'{side}{theirs}': results[f'{direction}_{ours}']
    for side, direction in (('i', 't2v'), ('c', 'v2t'))
    for ours, theirs in _RECALLS.items()
  }
  out['rsum'] = results['rsum']
  for metric in ('nDCG', 'mAP'):
    for side, name in _SIDES.items():
      if name.format(metric) in results:
        out[f'{metric}_{side}'] = results[name.format(metric)] / 100
  return out
