# SPDX-License-Identifier: Apache-2.0
"""Small drawings of the report, as SVG whose colours come from the style."""

from collections.abc import Sequence

import numpy as np

from vidret_jax.evaluators.report.markup import Markup, tag
from vidret_jax.metrics import ranks as ranks_lib

_W, _H, _LEFT, _BOTTOM, _TOP = 340, 170, 34, 24, 10


def recall_curves(
  ranks: dict[str, np.ndarray], candidates: dict[str, int]
) -> Markup:
  """Recall in percent against the cutoff, on a logarithmic axis.

  Args:
    ranks: direction -> zero-based ranks.
    candidates: direction -> how many it chooses from.
  """
  most = max([*candidates.values(), 2])
  lines = []
  for direction, values in ranks.items():
    n = candidates[direction]
    cutoffs = np.unique(np.geomspace(1, n, 60).round().astype(int))
    shown = {'curve': ranks_lib.recall_curve(values, cutoffs)}
    if direction == 't2v':  # One right answer: blind guesses find k of n.
      shown['chance'] = 100 * cutoffs / n
    for kind, percent in shown.items():
      lines.append(
        (f'{kind} {direction}', np.log(cutoffs) / np.log(most), percent)
      )
  ticks = [k for d in range(7) for k in (10**d, 5 * 10**d) if k <= most]
  return percents(
    lines,
    [(np.log(k) / np.log(most), f'{k}') for k in ticks],
    'recall in percent against the cutoff k',
  )


def percents(
  lines: Sequence[tuple[str, np.ndarray, np.ndarray]],
  ticks: Sequence[tuple[float, str]],
  label: str,
) -> Markup:
  """Lines in a frame from 0 to 100 percent.

  Args:
    lines: (classes, places across in [0, 1], percent).
    ticks: (place across, text).
    label: what is shown, for those who cannot see it.
  """
  right = _W - 8

  def x(part):
    return _LEFT + (right - _LEFT) * np.asarray(part)

  def y(percent):
    return _H - _BOTTOM - (_H - _BOTTOM - _TOP) * np.asarray(percent) / 100

  marks = []
  for percent in (0, 50, 100):
    at = float(y(percent))
    marks += [
      tag(
        'line', x1=_LEFT, x2=right, y1=f'{at:.1f}', y2=f'{at:.1f}', cls='grid'
      ),
      tag(
        'text',
        str(percent),
        x=_LEFT - 6,
        y=f'{at + 4:.1f}',
        cls='tick',
        text_anchor='end',
      ),
    ]
  for part, text in ticks:
    at = f'{x(part):.1f}'
    marks.append(
      tag('text', text, x=at, y=_H - 8, cls='tick', text_anchor='middle')
    )
    marks.append(
      tag('line', x1=at, x2=at, y1=_TOP, y2=_H - _BOTTOM, cls='grid')
    )
  for classes, across, percent in lines:
    points = ' '.join(f'{a:.1f},{b:.1f}' for a, b in zip(x(across), y(percent)))
    marks.append(tag('polyline', points=points, cls=classes))
  return tag(
    'svg',
    marks,
    viewBox=f'0 0 {_W} {_H}',
    cls='curves',
    role='img',
    aria_label=label,
  )


def strip(shares: Sequence[float], colours: Sequence[int]) -> Markup:
  """One bar cut into shares; `colours` are numbers of the palette."""
  parts, at = [], 0.0
  for share, colour in zip(shares, colours):
    parts.append(
      tag(
        'rect',
        x=f'{100 * at:.2f}',
        y='0',
        height='6',
        width=f'{100 * share:.2f}',
        cls=f'c{colour}',
      )
    )
    at += share
  return tag(
    'svg',
    parts,
    viewBox='0 0 100 6',
    preserveAspectRatio='none',
    cls='strip',
    aria_hidden='true',
  )


def bar(share: float, colour: int) -> Markup:
  """A bar from the left; `share` of the full width."""
  return tag(
    'svg',
    tag('rect', x='0', y='0', height='6', width='100', cls='rail'),
    tag(
      'rect',
      x='0',
      y='0',
      height='6',
      width=f'{100 * share:.2f}',
      cls=f'c{colour}',
    ),
    viewBox='0 0 100 6',
    preserveAspectRatio='none',
    cls='bar',
    aria_hidden='true',
  )
