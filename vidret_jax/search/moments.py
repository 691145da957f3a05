# SPDX-License-Identifier: Apache-2.0
"""Finds moments in a corpus: videos first, then spans in the best of them.

The evaluation of XML and ReLoCLNet (Lei et al., TVR, arXiv 2001.09099, section
5; Zhang et al., arXiv 2105.06247; upstream `method_tvr/inference.py`) has three
tasks: VR finds the video, SVMR the moment in the known video, VCMR both. Here
the corpus is encoded once; each query is compared clip by clip with the videos
on its list, and its own one, and spans are decoded on the devices. Only lists
leave them.
"""

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.models import base
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import moment_corpus as corpus_lib
from vidret_jax.search import moments_upstream
from vidret_jax.search.moment_blocks import Asked, Blocks
from vidret_jax.search.moment_programs import Options
from vidret_jax.search.programs import programs

TASKS = ('VCMR', 'SVMR', 'VR')
# Blocks of queries that the devices work on beside the one being prepared.
_AHEAD = 1


@dataclasses.dataclass(frozen=True)
class Found:
  """Answers to all queries, best first; what was not asked for is None.

  Attributes:
    videos: int32 [q, k], numbers of items; -1: none.
    video_scores: float32 [q, k], exp(alpha * score), or as imported.
    items: int32 [q, n] of moments in the corpus; -1: no row.
    spans: float32 [q, n, 2], seconds.
    scores: float32 [q, n]; 0: no row.
    own_spans: float32 [q, n, 2], moments in the query's own video.
    own_scores: float32 [q, n]; 0: no row.
  """

  videos: np.ndarray | None = None
  video_scores: np.ndarray | None = None
  items: np.ndarray | None = None
  spans: np.ndarray | None = None
  scores: np.ndarray | None = None
  own_spans: np.ndarray | None = None
  own_scores: np.ndarray | None = None


def check_model(model: base.Retriever) -> None:
  """Raises TypeError if a system finds no moments."""
  absent = [x for x in ('similarity', 'boundaries') if not hasattr(model, x)]
  if absent:
    raise TypeError(
      f'{type(model).__name__} has no method {absent[0]!r}: it ranks videos '
      "but finds no moments in them; the system 'reloclnet' does."
    )


def find(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: source_lib.Source,
  items: source_lib.Source | corpus_lib.Corpus,
  options: Options,
  *,
  own: np.ndarray | None = None,
  lists: tuple[np.ndarray, np.ndarray] | None = None,
  tasks: Sequence[str] = TASKS,
  query_block: int = 512,
  item_block: int = 64,
  bank_bytes: int = 2**30,
  watch: corpus_lib.Watch = corpus_lib.unwatched,
) -> Found:
  """Searches a corpus for all queries.

  Memory holds the bank, one block of scores, and query_block * (videos + 1)
  rows of clips, whatever the sizes of corpus and split.

  Args:
    model: has `similarity` and `boundaries`.
    mesh: the devices.
    variables: of the model.
    queries: what is asked.
    items: the videos, or what `moment_corpus.encode` made of them.
    options: see there.
    own: int [q], number of the video each query was written for; for SVMR.
    lists: videos of another engine in place of the first stage, best first:
      numbers int [q, k] (-1: none), and weights float [q, k] in place of
      exp(alpha * score). The first `options.videos` of each query count.
    tasks: of `TASKS`, what to find.
    query_block: queries at a time.
    item_block: videos at a time.
    bank_bytes: of embeddings that stay on the devices of a process.
    watch: shows progress.

  Returns:
    `Found`, the same on every host.

  Raises:
    NonFinite: a score without a rank.
    TypeError: the model finds no moments.
    ValueError: no queries, an unknown task, lists that do not fit.
  """
  check_model(model)
  _check(queries, tasks, own)
  if not isinstance(items, corpus_lib.Corpus):
    items = corpus_lib.encode(
      model,
      mesh,
      variables,
      items,
      block=item_block,
      bank_bytes=bank_bytes,
      watch=watch,
    )
  if lists is not None:
    lists = _checked(lists, len(queries), len(items.order), options.videos)
  wants = 'VCMR' in tasks, 'SVMR' in tasks
  blocks = Blocks(model, mesh, variables, items, options, wants)
  size = bank_lib.block_size(query_block, len(queries), mesh)
  stream = bank_lib.encode(
    programs(model, mesh).encode_query, variables, queries, size, mesh
  )
  parts, pending = [], collections.deque()
  for first, emb in watch(stream, -(-len(queries) // size), 'queries'):
    numbers = np.arange(first, min(first + size, len(queries)))
    found, none = {}, np.zeros((len(numbers), 0), np.int32)
    listed = none, none.astype(np.float32)
    if wants[0] or 'VR' in tasks:
      listed = (
        blocks.best(emb, numbers)
        if lists is None
        else tuple(x[numbers] for x in lists)
      )
      found = dict(zip(('videos', 'video_scores'), listed))
    if not any(wants):
      parts.append(found)
      continue
    if not wants[0]:
      listed = tuple(x[:, :0] for x in listed)
    mine = own[numbers, None].astype(np.int32) if wants[1] else none
    asked = Asked(numbers, size, *listed, mine)
    pending.append((found, asked, blocks.decode(emb, asked)))
    if len(pending) > _AHEAD:
      parts.append(_answer(blocks, items, options, *pending.popleft()))
  parts.extend(_answer(blocks, items, options, *x) for x in pending)
  return Found(**{k: np.concatenate([x[k] for x in parts]) for k in parts[0]})


def curves(
  model: base.Retriever,
  mesh: Mesh,
  variables: Any,
  queries: source_lib.Source,
  items: source_lib.Source,
  chosen: np.ndarray,
  own: np.ndarray,
  *,
  block: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
  """What `find` makes moments of, for a closer look at some queries.

  Args:
    model: has `similarity` and `boundaries`.
    mesh: the devices.
    variables: of the model.
    queries: what is asked.
    items: the videos.
    chosen: int [n], numbers of queries.
    own: int [n], the video of each.
    block: videos encoded at a time.

  Returns:
    Probabilities of start and of end, float32 [n, L] each.
  """
  some, place = np.unique(own, return_inverse=True)
  corpus = corpus_lib.encode(
    model, mesh, variables, corpus_lib.Part(items, some), block=block
  )
  blocks = Blocks(model, mesh, variables, corpus, Options(), (False, False))
  size = bank_lib.block_size(len(chosen), len(chosen), mesh)
  stream = bank_lib.encode(
    programs(model, mesh).encode_query,
    variables,
    bank_lib.Reordered(queries, chosen),
    size,
    mesh,
  )
  ((_, emb),) = stream
  return blocks.curves(emb, place)


def _answer(blocks, corpus, options, found, asked, out):
  """Fields of `Found` of one block of queries."""
  listed, own = blocks.answer(asked, out)

  def seconds(moments):
    clips = np.stack([moments.start, moments.end + options.end_offset], -1)
    clips = np.where(moments.score[..., None] > 0, clips, 0)
    return (clips * corpus.clip_seconds).astype(np.float32)

  part = np.s_[:, : options.keep]
  if listed is not None:
    videos = np.take_along_axis(asked.videos, listed.slot, 1)
    found |= dict(
      items=np.where(listed.score > 0, videos, -1)[part],
      spans=seconds(listed)[part],
      scores=listed.score[part],
    )
  if own is not None:
    spans, scores = seconds(own), own.score
    if options.nms is not None and options.nms_upstream:
      names = corpus.names[asked.own[:, 0]]
      spans, scores = _as_upstream(names, spans, scores, options)
    found |= dict(own_spans=spans[part], own_scores=scores[part])
  return found


def _as_upstream(names, spans, scores, options):
  """`moments_upstream.suppress` of every query: spans and scores."""
  kept_spans, kept_scores = np.zeros_like(spans), np.zeros_like(scores)
  for q, name in enumerate(names):
    real = np.flatnonzero(scores[q] > 0)
    rows = np.column_stack([np.full(len(real), name), spans[q, real]])
    stays = moments_upstream.suppress(rows, options.nms, options.keep)
    kept_spans[q, : len(stays)] = spans[q, real[stays]]
    kept_scores[q, : len(stays)] = scores[q, real[stays]]
  return kept_spans, kept_scores


def _check(queries, tasks, own):
  """Raises ValueError for a search that cannot be."""
  if not len(queries):
    raise ValueError('there are no queries to answer; is the split empty?')
  unknown = [t for t in tasks if t not in TASKS]
  if unknown or not tasks:
    raise ValueError(
      f'tasks {tuple(tasks)}: expected one or more of {", ".join(TASKS)}.'
    )
  if 'SVMR' in tasks and (own is None or np.min(own) < 0):
    raise ValueError(
      'SVMR looks for the moment in the video that a query was written for, '
      'and that is not known here; leave SVMR out of the tasks.'
    )


def _checked(lists, queries, items, videos):
  """(numbers, weights) of the first `videos` on every list."""
  numbers, weights = (np.asarray(x)[:, :videos] for x in lists)
  if numbers.shape != weights.shape or len(numbers) != queries:
    raise ValueError(
      f'lists of videos have shapes {numbers.shape} and {weights.shape}, '
      f'expected ({queries}, k): as many as there are queries.'
    )
  if numbers.size and numbers.max() >= items:
    raise ValueError(
      f'a list names video {numbers.max()} of a corpus of {items}.'
    )
  some = numbers >= 0
  if not (np.isfinite(weights) & (weights >= 0))[some].all():
    raise ValueError(
      'weights of listed videos must be finite and not negative; do their '
      'scores overflow exp(alpha * score)?'
    )
  weights = np.where(some, weights, 0).astype(np.float32)
  return numbers.astype(np.int32), weights
