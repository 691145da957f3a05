# SPDX-License-Identifier: Apache-2.0
"""Options of the evaluator of moments."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from vidret_jax.data import source as source_lib
from vidret_jax.metrics import moments as metrics
from vidret_jax.search import moments as search

PREDICTIONS = ('', 'json')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the evaluator of moments.

  Attributes:
    data: dataset by name; see `evaluators.base.make_source`.
    queries: a source to use instead of the one that `data` names.
    items: likewise.
    tasks: of 'VCMR', 'SVMR' and 'VR'; SVMR is left out where the answers are
      hidden.
    search: options of the search, see `search.moment_programs.Options`.
    by_kind: also the numbers of each kind of query: 'v', 't' and 'vt'.
    thresholds: overlaps from which a moment is right.
    ks: of recall at k.
    query_block: queries searched at a time, all devices together.
    item_block: videos encoded and compared at a time.
    bank_bytes: embeddings of videos kept on the devices of a process; what is
      beyond goes to a temporary file.
    predictions: 'json' writes the file of the challenge beside the report.
    video_lists: a file of predictions whose VR lists are searched instead of
      the videos that the system finds itself.
    list_scores: what the scores of these lists are: 'similarity' counts as
      exp(alpha * score), as upstream has it; 'weight' counts as it is, which
      suits VR lists written here.
    num_samples: queries shown in the report, at most as many as there are.
    report_seed: of the draw of these queries.
    videos: how the report gets at clips: 'link' (hard, else symbolic), 'copy'
      or 'none'.
    title: of the report.
  """

  data: Mapping[str, Any] | None = None
  queries: source_lib.Source | None = None
  items: source_lib.Source | None = None
  tasks: Sequence[str] = search.TASKS
  search: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  by_kind: bool = True
  thresholds: Sequence[float] = metrics.THRESHOLDS
  ks: Sequence[int] = metrics.CUTOFFS
  query_block: int = 512
  item_block: int = 64
  bank_bytes: int = 2**30
  predictions: str = ''
  video_lists: str = ''
  list_scores: str = 'similarity'
  num_samples: int = 50
  report_seed: int = 0
  videos: str = 'link'
  title: str = ''
