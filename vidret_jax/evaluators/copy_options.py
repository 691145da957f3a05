# SPDX-License-Identifier: Apache-2.0
"""Options of the evaluator of copies."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

SIMILARITIES = ('', 'json')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the evaluator of copies.

  Attributes:
    data: dataset by name; see `evaluators.base.make_source`.
    queries: a view to use instead of the one that `data` names.
    items: likewise.
    tasks: of FIVR: 'DSVR', 'CSVR', 'ISVR', 'DAVR'; none: the first three. EVVE
      and SVD have one each.
    audio: also DAVR, on the queries that have copies of their sound (FIVR).
    hard: also without the easy duplicates (FIVR).
    missing: 'ignore' leaves out right videos that are not there, as upstream;
      'penalise' counts them as misses, as the script of FIVR-200K.
    ties: which of two videos of equal score is first in the mAP of FIVR:
      'later' in the list of ids, as upstream, or 'earlier', as that script.
    curves: also precision at 21 levels of recall, written beside the report.
    search: options of the search, see `search.copies.Options`.
    shards: folder that keeps scores while a search runs, so that a killed one
      goes on; of one search with one checkpoint. None by default.
    similarities: 'json' writes all scores beside the report, see `copy_files`.
    similarities_top: so many videos of each query there; 0: all.
    num_samples: queries shown in the report, at most as many as there are.
    report_seed: of the draw of these queries.
    answers: videos shown of each of them.
    videos: how the report gets at clips: 'link' (hard, else symbolic), 'copy'
      or 'none'.
    title: of the report.
  """

  data: Mapping[str, Any] | None = None
  queries: Any = None
  items: Any = None
  tasks: Sequence[str] = ()
  audio: bool = False
  hard: bool = True
  missing: str = 'ignore'
  ties: str = 'later'
  curves: bool = False
  search: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shards: str = ''
  similarities: str = ''
  similarities_top: int = 0
  num_samples: int = 50
  report_seed: int = 0
  answers: int = 8
  videos: str = 'link'
  title: str = ''
