# SPDX-License-Identifier: Apache-2.0
"""What a ranking report shows: queries, the right clip, the top of the list."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.evaluators.report import asking, layout, static_page
from vidret_jax.evaluators.report import clips as clips_lib
from vidret_jax.evaluators.report import relevance as relevance_lib
from vidret_jax.metrics import ranks as ranks_lib
from vidret_jax.models.base import Retriever

VIDEOS = clips_lib.MODES


@dataclasses.dataclass(frozen=True)
class Card:
  """One clip beside one query.

  Attributes:
    id: of the item.
    sim: similarity to the query.
    place: one-based place in the list; None for the ground truth card.
    correct: whether it is the right one.
    captions: all captions of the clip.
    video: a playable file, or None.
    available: bool per expert, or None.
    shares: what each expert's weight becomes for this clip, or None.
    coarse: one-based rank by the first of two stages, or None.
    listed: whether the second stage scored it.
    relevance: in [0, 1], or None.
    levels: (name, similarity) of each level.
  """

  id: str
  sim: float
  place: int | None
  correct: bool
  captions: tuple[str, ...]
  video: str | None
  available: tuple[bool, ...] | None
  shares: tuple[float, ...] | None
  coarse: float | None = None
  listed: bool = True
  relevance: float | None = None
  levels: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
  """One query: its text, one-based rank, right clip, and the best ones.

  Attributes:
    right: how many clips are right.
    ndcg: fraction, or None.
    tie_rule: where clips of equal score stand.
  """

  id: str
  text: str
  rank: float
  truth: Card
  top: tuple[Card, ...]
  weights: tuple[float, ...] | None
  right: int = 1
  ndcg: float | None = None
  tie_rule: str = 'clips of equal score share their mean rank'


@dataclasses.dataclass(frozen=True)
class Page:
  """A whole report.

  Attributes:
    title: heading.
    facts: (label, value) pairs: sizes, availability rule, seed, options.
    table: direction -> metric -> value.
    ranks: direction -> zero-based ranks, all of them.
    candidates: direction -> how many candidates a query chooses from.
    experts: names, in the order of the cards' tuples.
    leaky: whether the numbers were made under the leaky rule.
    rows: the queries shown.
    stages: of a two-stage evaluation, see `stages.rows`; () otherwise.
    notes: sentences that belong to every number of the page.
  """

  title: str
  facts: tuple[tuple[str, str], ...]
  table: Mapping[str, Mapping[str, float]]
  ranks: Mapping[str, np.ndarray]
  candidates: Mapping[str, int]
  experts: tuple[str, ...]
  leaky: bool
  rows: tuple[Row, ...]
  stages: tuple[Any, ...] = ()
  notes: tuple[str, ...] = ()


def build(
  found: asking.Found,
  queries: source_lib.Source,
  items: source_lib.Source,
  truth: source_lib.GroundTruth,
  *,
  available: np.ndarray | None,
  text_ranks: np.ndarray,
  video_ranks: np.ndarray,
  model: Retriever,
  leaky: bool,
  title: str,
  facts: Sequence[tuple[str, str]] = (),
  table: Mapping[str, Mapping[str, float]] | None = None,
  coarse_ranks: np.ndarray | None = None,
  stages: Sequence[Any] = (),
  notes: Sequence[str] = (),
  relevance: relevance_lib.Relevance | None = None,
) -> Page:
  """Puts a page together.

  Args:
    found: see `asking.search`.
    queries: has `texts`.
    items: has `captions(i)` and `videos`.
    truth: which item answers which query.
    available: bool [v, m], or None.
    text_ranks: zero-based ranks of all queries.
    video_ranks: of all items.
    model: `expert_names` names the last axis of `available` and `weights`.
    leaky: whether to mark every number.
    title: of the page.
    facts: further (label, value) pairs.
    table: direction -> metric -> value; default: summaries of the ranks.
    coarse_ranks: zero-based ranks of all queries by the first of two stages.
    stages: see `stages.rows`.
    notes: see `Page`.
    relevance: where many clips answer a query; `truth` has the one to show.
  """
  experts = tuple(getattr(model, 'expert_names', ()))
  if available is not None and available.shape[1] != len(experts):
    experts, available = (), None
  rule = getattr(model, 'availability', None)
  # The share of an expert in one comparison is known for this rule only.
  shared = (
    rule == 'candidate'
    and getattr(model, 'missing', 'renormalise') == 'renormalise'
  )
  texts, videos = queries.texts, items.videos
  rows = []
  for n, query in enumerate(found.query.tolist()):
    right = int(truth.item_of_query[query])
    answers, more = {right}, {}
    if relevance is not None:
      answers = set(relevance.answers[query].tolist())
      more = dict(right=len(answers), tie_rule='of equal scores the first')
      if relevance.ndcg is not None:
        more['ndcg'] = float(relevance.ndcg[query])
    weights = None
    if found.weights is not None and len(experts) == found.weights.shape[1]:
      weights = found.weights[n]

    def card(
      item, sim, place, query=query, right=answers, weights=weights, **stage
    ):
      if relevance is not None:
        stage['relevance'] = relevance.of(query, item)
        stage['levels'] = relevance.scores(query, item)
      have = None if available is None else available[item]
      shares = None
      if shared and weights is not None and have is not None:
        shares = weights * have
        shares = shares / shares.sum() if shares.sum() > 0 else None
      return Card(
        id=items.ids[item],
        sim=float(sim),
        place=place,
        correct=item in right,
        captions=tuple(items.captions(item)),
        video=videos[item],
        available=None if have is None else tuple(have.tolist()),
        shares=None if shares is None else tuple(shares.tolist()),
        **stage,
      )

    before = [{}] * found.items.shape[1]
    truth_before = {}
    if found.coarse_place is not None:
      before = [dict(coarse=x) for x in found.coarse_place[n].tolist()]
      truth_before = dict(
        coarse=float(coarse_ranks[query]) + 1,
        listed=bool(found.own_listed[n]),
      )
    top = tuple(
      card(item, sim, place + 1, **before[place])
      for place, (item, sim) in enumerate(
        zip(found.items[n].tolist(), found.scores[n])
      )
      if item >= 0
    )
    rows.append(
      Row(
        id=queries.ids[query],
        text=texts[query],
        rank=float(text_ranks[query]) + 1,
        truth=card(right, found.own[n], None, **truth_before),
        top=top,
        weights=None if weights is None else tuple(weights.tolist()),
        **more,
      )
    )
  sizes = [
    ('queries', f'{len(queries):,}'),
    ('videos', f'{len(items):,}'),
    ('shown', f'{len(rows):,}'),
  ]
  if rule is not None:
    sizes.append(('availability rule', rule))
  return Page(
    title=title,
    facts=(*sizes, *facts),
    table=table
    or {
      't2v': ranks_lib.summary(text_ranks),
      'v2t': ranks_lib.summary(video_ranks),
    },
    ranks={'t2v': text_ranks, 'v2t': video_ranks},
    candidates={'t2v': len(items), 'v2t': len(queries)},
    experts=experts,
    leaky=leaky,
    rows=tuple(rows),
    stages=tuple(stages),
    notes=tuple(notes),
  )


def write(
  page: Page, folder: str | pathlib.Path, *, videos: str = 'link'
) -> pathlib.Path:
  """Writes `index.html`, `rankings.json` and the clips into a folder.

  Returns:
    The page's path.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  text = layout.render(page, clips_lib.Clips(folder, videos))
  path = folder / 'index.html'
  static_page.write(path, text)
  rows = [
    {
      'query': r.id,
      'text': r.text,
      'rank': r.rank,
      'truth': r.truth.id,
      'truth_sim': _or_null(r.truth.sim),
      **_coarse(r.truth),
      **_graded(r),
      'top': [
        {'id': c.id, 'sim': _or_null(c.sim), **_coarse(c), **_relevance(c)}
        for c in r.top
      ],
    }
    for r in page.rows
  ]
  table = {
    d: {k: _or_null(x) for k, x in row.items()} for d, row in page.table.items()
  }
  content = {
    'title': page.title,
    'facts': dict(page.facts),
    'leaky_2019': page.leaky,
    'table': table,
    'rows': rows,
  }
  static_page.write(
    folder / 'rankings.json', json.dumps(content, indent=1, allow_nan=False)
  )
  return path


def _coarse(card: Card) -> dict[str, float]:
  return {} if card.coarse is None else {'coarse_rank': card.coarse}


def _graded(row: Row) -> dict[str, Any]:
  if row.ndcg is None:
    return {}
  return {'nDCG': row.ndcg, 'right': row.right, **_relevance(row.truth)}


def _relevance(card: Card) -> dict[str, Any]:
  out = {} if card.relevance is None else {'relevance': card.relevance}
  return out | ({'levels': dict(card.levels)} if card.levels else {})


def _or_null(value: float) -> float | None:
  """JSON has no infinity."""
  return value if math.isfinite(value) else None
