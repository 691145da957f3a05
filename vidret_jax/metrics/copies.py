# SPDX-License-Identifier: Apache-2.0
"""Retrieval (mAP) and detection (micro-AP) of copies: FIVR, EVVE, SVD.

Average precision (AP) is the sum over the right items of the precision at their
places, divided by the number of right items. mAP is its mean over queries; uAP
is one AP over the pairs of all queries, which asks for scores that compare
between queries. What the three protocols do not share:

FIVR  (Kordopatis-Zilos et al., arXiv 1809.04094) Tasks differ by which labels
      are right. A query without a right item is left out of the mean. `_h` is
      without the easy duplicates. Equal scores: the item of HIGHER number
      first.
EVVE  (Revaud et al., CVPR 2013) The sum is by trapezoids: the mean of the
      precision just before and at the item. A query without a right item
      counts 0; the mean is over queries, not over events. Equal scores: the
      item of LOWER number first.
SVD   (Jiang et al., ICCV 2019) Only the labelled items of a query and those
      without any label compete. Equal scores are ONE step, as in scikit-learn's
      `average_precision_score`. A query without a right item counts 0.

uAP is the sum by rectangles everywhere, equal scores by falling number of the
pair, rows one behind the other; in SVD the labelled pairs of a query, in their
order, come before the others and so rank behind them. All this is as in the
evaluation of S2VS and HAP-VR (`datasets`, `evaluate` of FIVR, EVVE and SVD),
whose numpy sort leaves open what is fixed here: the order of equal scores. A
query among the items does not compete for itself.

A score of NaN means that there is none. Videos that are not there lower the
number of candidates and of right items (`missing='ignore'`, upstream);
'penalise' counts all right items of the database, as the evaluation script of
FIVR-200K does. A video that IS there but has no score, because a search left it
out, is a right item that is never found, either way. Queries that are not there
are left out. Numbers are fractions; those of `summary` are percent.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vidret_jax.metrics import copy_places, copy_precision
from vidret_jax.metrics import ranks as ranks_lib

# Label -> bit. 'P' is right in EVVE and SVD, 'N' is labelled and wrong.
BITS = dict(ND=1, DS=2, CS=4, IS=8, DA=16, P=1, N=2)
# Labels that are right, by task.
TASKS = dict(
  DSVR=('ND', 'DS'),
  CSVR=('ND', 'DS', 'CS'),
  ISVR=('ND', 'DS', 'CS', 'IS'),
  DAVR=('DA',),
)
VISUAL = ('DSVR', 'CSVR', 'ISVR')
AUDIO = 'DAVR'  # Asked of the queries that have its label, and only of them.
HARD = '_h'
MISSING = ('ignore', 'penalise')
TIES = ('later', 'earlier')

Truth = copy_precision.Truth
There = copy_precision.There
Task = copy_precision.Task


def there(scores: np.ndarray) -> There:
  """Videos with any score at all."""
  known = ~np.isnan(scores)
  return There(known.any(1), known.any(0))


def fivr(
  scores: np.ndarray,
  truth: Truth,
  *,
  tasks: Sequence[str] = VISUAL,
  hard: bool = True,
  missing: str = 'ignore',
  ties: str = 'later',
  found: There | None = None,
  curve: bool = False,
) -> dict[str, Task]:
  """FIVR; every row of scores is sorted once for all tasks.

  Args:
    scores: float [q, n], higher is nearer, NaN where there is none. float32 is
      fast; wider ones are compared as they are.
    truth: the annotations.
    tasks: of `TASKS`.
    hard: also without the easy duplicates, where there is such a list.
    missing: 'ignore' or 'penalise', see above.
    ties: whether of equal scores the 'later' item stands first in the mAP, as
      above, or the 'earlier' one, as in the evaluation script of FIVR-200K.
    found: videos that could be scored; default: those with any score.
    curve: also the interpolated precision.

  Returns:
    {'DSVR': Task, 'DSVR_h': Task, ...}.

  Raises:
    ValueError: options or shapes that make no sense.
  """
  for task in tasks:
    ranks_lib.check_option('tasks', task, tuple(TASKS))
  ranks_lib.check_option('ties', ties, TIES)
  found = _check(scores, truth, missing, found)
  audible = found.queries & _has_audio(truth)
  variants = {'': None}
  if hard and truth.easy is not None:
    variants[HARD] = truth.easy
  wanted = [
    (task, suffix, audible if task == AUDIO else found.queries, without)
    for task in tasks
    for suffix, without in variants.items()
  ]
  # Tasks on the same rows and items share a field.
  fields = {
    (id(rows), suffix): copy_places.Field(rows, without)
    for _, suffix, rows, without in wanted
  }
  pairs = copy_precision.Pairs(
    *(scores, truth, found, np.ones(scores.shape[1], bool)),
    *(list(fields.values()), missing),
  )
  places = dict(zip(fields, pairs.places))
  out = {}
  for task, suffix, rows, without in wanted:
    right = pairs.labelled(sum(BITS[name] for name in TASKS[task]))
    if without is not None:
      right &= ~without[truth.item]
    here = places[id(rows), suffix]
    place = getattr(here, ties)
    judged = pairs.judge(right, rows, here, place, empty=np.nan)
    if curve:
      judged = judged._replace(curve=pairs.curve(right, rows, here, without))
    out[task + suffix] = judged
  return out


def evve(
  scores: np.ndarray,
  truth: Truth,
  *,
  missing: str = 'ignore',
  found: There | None = None,
  curve: bool = False,
) -> dict[str, Task]:
  """EVVE: {'EVVE': Task}; arguments as of `fivr`, `by_event` splits it."""
  found = _check(scores, truth, missing, found)
  task = _one(
    *(scores, truth, found, np.ones(scores.shape[1], bool), missing, curve),
    *('earlier', copy_precision.trapezoids),
  )
  return {'EVVE': task}


def svd(
  scores: np.ndarray,
  truth: Truth,
  *,
  missing: str = 'ignore',
  found: There | None = None,
  curve: bool = False,
) -> dict[str, Task]:
  """SVD: {'SVD': Task}; arguments as of `fivr`.

  Without `Truth.unlabelled` only what is labelled for a query competes, which
  is upstream's version 'labeled'.
  """
  found = _check(scores, truth, missing, found)
  items = truth.unlabelled
  if items is None:
    items = np.zeros(scores.shape[1], bool)
  task = _one(
    *(scores, truth, found, items, missing, curve),
    *('later', copy_precision.steps),
  )
  return {'SVD': task}


def by_event(task: Task, events: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Mean AP of the queries of each event that are there, fractions.

  Args:
    task: of `evve`.
    events: name -> int [k], rows of its queries. 0 if none of them is there.
  """
  return {
    name: task._replace(ap=task.ap[rows]).mean for name, rows in events.items()
  }


def summary(tasks: Mapping[str, Task]) -> dict[str, float]:
  """Percent, under upstream's names.

  Returns:
    DSVR and DSVD (mAP and uAP), and so on, with `_h` behind them; EVVE_mAP and
    EVVE_uAP; SVD_mAP and SVD_uAP, which upstream calls mAP and uAP.
  """
  out = {}
  for name, task in tasks.items():
    mean, pooled = names(name)
    out[mean], out[pooled] = 100 * task.mean, 100 * task.uap
  return out


def names(task: str) -> tuple[str, str]:
  """Names of the mAP and the uAP of a task: 'DSVR_h' -> 'DSVR_h', 'DSVD_h'."""
  stem, mark, rest = task.partition('_')
  if stem in TASKS:
    return task, f'{stem[:-1]}D{mark}{rest}'
  return f'{task}_mAP', f'{task}_uAP'


def _one(scores, truth, found, items, missing, curve, ties, precision):
  """The only task of a protocol, in which all labels 'P' are right."""
  fields = [copy_places.Field(found.queries)]
  pairs = copy_precision.Pairs(scores, truth, found, items, fields, missing)
  (here,) = pairs.places
  right = pairs.labelled(BITS['P'])
  task = pairs.judge(
    right,
    found.queries,
    here,
    getattr(here, ties),
    precision,
    empty=0.0,
  )
  if curve:
    task = task._replace(curve=pairs.curve(right, found.queries, here))
  return task


def _has_audio(truth):
  """bool [q], queries that have the label of the audio task."""
  if truth.asked is not None:
    return (truth.asked & BITS['DA']) > 0
  out = np.zeros(len(truth.own), bool)
  out[truth.query[(truth.label & BITS['DA']) > 0]] = True
  return out


def _check(scores, truth, missing, found):
  """`There`, if everything fits."""
  ranks_lib.check_option('missing', missing, MISSING)
  if scores.ndim != 2 or len(truth.own) != scores.shape[0]:
    raise ValueError(
      f'scores {list(scores.shape)}, expected [{len(truth.own)}, items].'
    )
  q, n = scores.shape
  inside = (truth.query >= 0) & (truth.query < q)
  inside &= (truth.item >= 0) & (truth.item < n)
  if not inside.all() or (np.diff(truth.query * n + truth.item) <= 0).any():
    raise ValueError(
      f'annotated pairs: expected distinct ones of {q} queries and {n} items, '
      'sorted by query and item.'
    )
  for name, size in (('asked', q), ('easy', n), ('unlabelled', n)):
    values = getattr(truth, name)
    if values is not None and values.shape != (size,):
      raise ValueError(f'{name} {list(values.shape)}, expected [{size}].')
  found = found or there(scores)
  if found.queries.shape != (q,) or found.items.shape != (n,):
    raise ValueError(
      f'found: {list(found.queries.shape)} and {list(found.items.shape)}, '
      f'expected [{q}] and [{n}].'
    )
  return found
