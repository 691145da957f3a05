# SPDX-License-Identifier: Apache-2.0
"""Options of the two-stage evaluator, and which of them go together."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import base
from vidret_jax.evaluators.report import clips
from vidret_jax.metrics import caption_ranks
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever

MODES = ('native', 'upstream')
V2T = ('from_t2v', 'per_video_topk')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the two-stage evaluator.

  Attributes:
    data: dataset by name, see `evaluators.base.make_source`.
    queries: a source to use instead of the one that `data` names.
    items: likewise.
    k: candidates per query; 0 for all.
    mode: 'native' or 'upstream', see `two_stage`.
    v2t: how videos get candidates. 'from_t2v' (upstream): the texts that have
      the video among theirs. 'per_video_topk': its own k nearest texts; native
      mode only.
    captions: 'best_caption' or 'max_pool', see `metrics.ranks`; native mode.
    ties: 'mean', 'best' or 'worst' place of equal scores; native mode.
    form: 'captions' (upstream for MSR-VTT and MSVD) or 'square' (its other
      sets), see `metrics.caption_ranks`; upstream mode.
    both_passes: whether the first pass of re-ranking is done where it changes
      nothing but the set of candidates; upstream mode.
    dual_softmax: temperature; the metrics under `dual_softmax_` then weigh
      scores by a softmax over all queries, which no search can. None: without.
    query_block: queries encoded and scored at a time, all devices together.
    item_block: items encoded and scored at a time.
    bank_bytes: what the first stage reads and the queries, kept on the devices
      of a process; what is beyond goes to a temporary file.
    fine_bytes: likewise for what the second stage reads.
    fine_dtype: type in which the second stage's floats are kept: 'float16',
      'bfloat16' or None, as they come.
    sim_matrix: file that gets the coarse matrix (upstream's `sim_matrix.npy`)
      in each run; '' for none; upstream mode.
    count_costs: report operations and bytes of each stage.
    num_samples: queries shown in the report.
    report_seed: of the draw of these queries.
    videos: how the report gets at clips: 'link', 'copy' or 'none'.
    title: of the report.
  """

  data: Mapping[str, Any] | None = None
  queries: source_lib.Source | None = None
  items: source_lib.Source | None = None
  k: int = 50
  mode: str = 'native'
  v2t: str = 'from_t2v'
  captions: str = 'best_caption'
  ties: str = 'mean'
  form: str = 'captions'
  both_passes: bool = True
  dual_softmax: float | None = None
  query_block: int = 256
  item_block: int = 64
  bank_bytes: int = 3 * 2**25
  fine_bytes: int = 2**31
  fine_dtype: str | None = None
  sim_matrix: str = ''
  count_costs: bool = True
  num_samples: int = 50
  report_seed: int = 0
  videos: str = 'link'
  title: str = ''


def check(o: Options, model: Retriever) -> None:
  """Raises ValueError for options that mean nothing, alone or together."""
  for name, known in (
    ('mode', MODES),
    ('v2t', V2T),
    ('captions', ranks_lib.V2T),
    ('ties', ranks_lib.TIES),
    ('form', caption_ranks.FORMS),
    ('videos', clips.MODES),
  ):
    ranks_lib.check_option(name, getattr(o, name), known)
  if base.is_leaky(model):
    raise ValueError(
      "the evaluator 'two_stage' has no way to mark numbers made under "
      "availability='legacy_2019'; use 'retrieval'."
    )
  if o.k < 0:
    raise ValueError(f'k={o.k}: expected 0 (all items) or more.')
  if o.dual_softmax is not None and not o.dual_softmax > 0:
    raise ValueError(
      f'dual_softmax={o.dual_softmax}: expected a positive temperature.'
    )
  if o.mode == 'upstream':
    if not hasattr(model, 'levels'):
      raise ValueError(
        f"mode='upstream' re-ranks by levels, which {type(model).__name__} "
        "does not have; use mode='native'."
      )
    other = _changed(o, v2t='from_t2v', captions='best_caption', ties='mean')
    reason = "mode='native' only; upstream's metrics have no such choice"
  else:
    other = _changed(o, form='captions', sim_matrix='')
    reason = "mode='upstream' only, which keeps whole matrices"
  if other:
    raise ValueError(f'{other}={getattr(o, other)!r} is for {reason}.')


def _changed(o: Options, **defaults: Any) -> str:
  """The first option that is not as given here, or ''."""
  return next((n for n, x in defaults.items() if getattr(o, n) != x), '')
