# SPDX-License-Identifier: Apache-2.0
"""Retrieval in two stages: a cheap score finds candidates, a dear one sorts.

'native' does what a search does: items are encoded once, each query is compared
with all of them by `score`, and with its k best ones by `fine`. Candidates come
first, in the order of their fine scores, then all others by their coarse ones.
'upstream' repeats EERCF's evaluation number by number (Tian et al., AAAI 2024;
upstream `eval_epoch`): all pairs at all levels, two passes of re-ranking, and
its two kinds of metrics.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from vidret_jax.evaluators import (
  all_pairs,
  base,
  collecting,
  costs,
  counting,
  dual_softmax,
  listing,
  reporting,
)
from vidret_jax.evaluators import two_stage_options as options_lib
from vidret_jax.evaluators.report import ranking_page, stages
from vidret_jax.metrics import caption_ranks
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever
from vidret_jax.search import store as store_lib


class Evaluator:
  """Ranks all items for all queries and back, in two stages.

  Attributes:
    caveats: sentences to print with every number.
    ranks: zero-based ranks of the last `run`, or None.
    coarse_ranks: those by the first stage alone.
    costs: of one query, see `evaluators.costs`.
    matrices: of the last `run` in upstream mode, or None.
  """

  def __init__(self, model: Retriever, mesh: Mesh, **options: Any):
    """Opens the data; see `two_stage_options.Options`.

    Raises:
      ValueError: an unknown option or value, or options that exclude each
        other.
      FileNotFoundError: the dataset is not there; says how to prepare it.
    """
    o = self._options = base.parse_options(
      options_lib.Options, options, 'two_stage'
    )
    options_lib.check(o, model)
    self._queries, self._items = reporting.open_views(
      o.data, o.queries, o.items, 'two_stage'
    )
    self._truth = self._queries.ground_truth(self._items)
    self._model, self._mesh = model, mesh
    self._k = o.k or len(self._items)
    self.caveats: tuple[str, ...] = ()
    self.ranks: counting.Ranks | None = None
    self.coarse_ranks: counting.Ranks | None = None
    self.costs: costs.Costs | None = None
    self.matrices: all_pairs.Upstream | None = None
    self._results: dict[str, float] = {}
    self._ranked = reporting.Seen()  # The variables that gave `ranks`.

  def run(self, variables: Any) -> dict[str, float]:
    """Evaluates both directions.

    Args:
      variables: of the model, as `model.apply` takes them.

    Returns:
      `t2v_<metric>` and `v2t_<metric>`, the same under `coarse_` for the first
      stage alone, `t2v_shortlisted`, the percentage of queries whose item is
      among the candidates (native mode), `t2v_rsum` (R@1 + R@5 + R@10, to
      select weights by), and the cost per query of each stage. Metrics are
      those of `metrics.ranks.summary` or, in upstream mode, of
      `metrics.caption_ranks.summary`.

    Raises:
      non_finite.NonFiniteScore: a score without a rank.
    """
    native = self._options.mode == 'native'
    items = self._collect(variables, whole=not native)
    ways = self._run_native if native else self._run_upstream
    results = ways(variables, items)
    if self._options.count_costs:
      self.costs = self._measure(variables)
      results |= self.costs.results()
    self._results = results
    self._ranked.set(variables)
    return results

  def report(
    self,
    variables: Any,
    folder: str | pathlib.Path,
    *,
    queries: Sequence[str] | None = None,
  ) -> pathlib.Path:
    """Writes `index.html` with ranked clips, before and after re-ranking.

    The numbers on the page are those of the last `run` if it had the same
    variables; otherwise `run` comes first.

    Args:
      variables: of the model.
      folder: made if needed; in runs of several processes the first one writes.
      queries: ids to show; default: `num_samples` drawn with `report_seed`.

    Returns:
      The page.
    """
    if not self._ranked.same(variables):
      self.run(variables)
    o, folder = self._options, pathlib.Path(folder)
    chosen = reporting.choose(
      self._queries, queries, o.num_samples, o.report_seed
    )
    if self.matrices is not None:
      found = stages.of_matrices(
        self.matrices.coarse,
        self.matrices.final,
        chosen,
        self._truth.item_of_query,
        self._k,
      )
    else:
      found = stages.search(
        self._model,
        self._mesh,
        variables,
        self._collect(variables, whole=False),
        self._queries,
        chosen,
        self._truth.item_of_query,
        o.query_block,
        self._k,
      )
    page = ranking_page.build(
      found,
      self._queries,
      self._items,
      self._truth,
      available=None,
      text_ranks=self.ranks.text,
      video_ranks=self.ranks.video,
      model=self._model,
      leaky=False,
      title=o.title or reporting.data_name(o.data),
      facts=self._facts(drawn=queries is None),
      table=stages.table(self._results),
      coarse_ranks=self.coarse_ranks.text,
      stages=stages.rows(self._results, self.costs, self._k, len(self._items)),
      notes=self.caveats,
    )
    path = folder / 'index.html'
    if jax.process_index() == 0:
      path = ranking_page.write(page, folder, videos=o.videos)
    return path

  def _collect(self, variables: Any, whole: bool) -> collecting.Collection:
    """Encodes the items; `whole` keeps all that `levels` reads in the bank."""
    o = self._options
    store = None
    if not whole:
      store = store_lib.FineStore(
        len(self._items),
        self._mesh,
        o.fine_bytes,
        dtype=o.fine_dtype,
        exact=self._model.COARSE or (),
      )
    items = collecting.collect(
      self._model,
      self._mesh,
      variables,
      self._items,
      block=o.item_block,
      bank_bytes=o.fine_bytes if whole else o.bank_bytes,
      store=store,
      whole=whole,
    )
    self.caveats = collecting.caveats(self._items, items)
    return items

  def _run_native(self, variables, items):
    o = self._options
    ranked = self._rank(self._model, variables, items)
    self.ranks, self.coarse_ranks = ranked.final, ranked.coarse
    results = _summaries('', ranked.final)
    results['t2v_rsum'] = sum(
      results[f't2v_R@{n}'] for n in caption_ranks.CUTOFFS
    )
    results['t2v_shortlisted'] = float(100 * ranked.listed.mean())
    results |= _summaries('coarse_', ranked.coarse)
    if o.dual_softmax is not None:
      weighed = dual_softmax.weigh(
        self._model,
        self._mesh,
        variables,
        items,
        ranked.asked,
        o.dual_softmax,
        o.bank_bytes,
      )
      results |= _summaries(
        'dual_softmax_', self._rank(weighed[0], variables, weighed[1]).final
      )
    return results

  def _rank(self, model, variables, items):
    o = self._options
    counter = counting.Counter(
      model,
      self._mesh,
      query_block=o.query_block,
      bank_bytes=o.bank_bytes,
      v2t=o.captions,
      ties=o.ties,
    )
    return listing.rank(
      counter,
      model,
      self._mesh,
      variables,
      items,
      self._queries,
      self._truth.item_of_query,
      self._k,
      item_k=self._k if o.v2t == 'per_video_topk' else 0,
      bank_bytes=o.bank_bytes,
    )

  def _run_upstream(self, variables, items):
    o, item_of_query = self._options, self._truth.item_of_query
    levels = all_pairs.score(
      self._model,
      self._mesh,
      variables,
      self._queries,
      items,
      all_pairs.levels_of(self._model),
      o.query_block,
    )
    found = self.matrices = all_pairs.evaluate(
      levels,
      item_of_query,
      items.unreadable,
      o.k,
      self._model,
      o.both_passes,
    )
    matrices = {'': found.final, 'coarse_': found.coarse}
    if o.dual_softmax is not None:
      matrices['dual_softmax_'] = found.dual_softmax(o.k, o.dual_softmax)
    results = all_pairs.results(matrices, item_of_query, o.form)
    self.ranks, self.coarse_ranks = (
      all_pairs.ranks(x, item_of_query) for x in (found.final, found.coarse)
    )
    if o.sim_matrix and jax.process_index() == 0:
      path = pathlib.Path(o.sim_matrix)
      path.parent.mkdir(parents=True, exist_ok=True)
      with open(path, 'wb') as f:
        np.save(f, found.coarse)
    return results

  def _measure(self, variables: Any) -> costs.Costs:
    query, item = (
      costs.embedding(self._model, variables, source.spec, method)
      for source, method in (
        (self._queries, 'encode_query'),
        (self._items, 'encode_item'),
      )
    )
    total = len(self._items)
    return costs.measure(
      self._model,
      variables,
      query,
      item,
      total,
      min(self._k, total),
    )

  def _facts(self, drawn: bool) -> list[tuple[str, str]]:
    """What a reader of the report must know about the numbers."""
    o = self._options
    facts = [
      ('system', type(self._model).__name__),
      ('candidates per query', f'{min(self._k, len(self._items)):,}'),
      ('evaluation', o.mode),
    ]
    if drawn:
      facts.append(('sample seed', str(o.report_seed)))
    facts.append(('v2t', o.v2t))
    if o.mode == 'native':
      facts += [('captions', o.captions), ('ties', o.ties)]
    else:
      facts.append(('metric form', o.form))
    if o.fine_dtype:
      facts.append(('fine embeddings', o.fine_dtype))
    return facts


def _summaries(prefix: str, ranks: counting.Ranks) -> dict[str, float]:
  return {
    f'{prefix}{direction}_{name}': value
    for direction, values in (('t2v', ranks.text), ('v2t', ranks.video))
    for name, value in ranks_lib.summary(values).items()
  }
