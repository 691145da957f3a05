# SPDX-License-Identifier: Apache-2.0
"""Spans of one video on an axis of seconds, as SVG that scales with its box.

Places along the axis are percentages, heights are pixels, so that text and
lines keep their size at any width.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from vidret_jax.evaluators.report.markup import Markup, tag

LANE = 22  # Pixels of one span, bar and gap.
_BAR = 12
_AXIS = 20  # Pixels of ticks and their numbers.
_CURVES = 34
_LEAST = 0.6  # Percent of the axis that a bar is drawn wide, at least.
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


@dataclasses.dataclass(frozen=True)
class Bar:
  """A span to draw.

  Attributes:
    start: seconds.
    end: seconds.
    kind: 'truth' or 'found'.
    label: a few letters beside the bar.
  """

  start: float
  end: float
  kind: str
  label: str = ''


def finite(start: float, end: float) -> bool:
  """Whether a span can be drawn and played."""
  return 0 <= start < math.inf and 0 <= end < math.inf


def length(duration: float, bars: Sequence[Bar]) -> float:
  """Seconds from one end of the axis to the other: all that is drawn, > 0."""
  ends = [x for b in bars if finite(b.start, b.end) for x in (b.start, b.end)]
  return max([duration, *ends]) or 1.0


def ticks(seconds: float, most: int) -> list[float]:
  """Round places on an axis from 0 to `seconds`, at most `most` of them."""
  scale = 10.0 ** min(0, math.floor(math.log10(seconds)))
  steps = [s * scale for s in _STEPS]
  while seconds / steps[-1] >= most:
    steps.append(steps[-1] * 2)
  step = next(s for s in steps if seconds / s < most)
  return [i * step for i in range(int(seconds / step + 1e-9) + 1)]


def draw(
  duration: float, bars: Sequence[Bar], *, most_ticks: int = 6
) -> Markup:
  """The axis with a lane for each bar; spans of the truth cross all lanes.

  What lies beyond the end of the video is hatched. Bars carry `data-bar`, their
  number, by which the script of the page finds them.

  Args:
    duration: of the video in seconds; 0 if unknown.
    bars: in the order of the lanes.
    most_ticks: of the axis.
  """
  end = length(duration, bars)
  floor = LANE * len(bars)
  out = [tag('rect', width='100%', height=floor, cls='beyond')]
  if duration:
    wide = _percent(duration, end)
    out.append(tag('rect', width=wide, height=floor, cls='whole'))
  out += [_tick(at, end, floor) for at in ticks(end, most_ticks)]
  drawn = [(i, b) for i, b in enumerate(bars) if finite(b.start, b.end)]
  for _, bar in drawn:
    if bar.kind == 'truth':
      x, wide = _place(bar, end)
      out.append(tag('rect', x=x, width=wide, height=floor, cls='band'))
  for i, bar in drawn:
    out += _lane(i, bar, end)
  out.append(tag('line', x1=0, x2=0, y1=0, y2=floor, cls='head'))
  return tag(
    'svg',
    out,
    width='100%',
    height=floor + _AXIS,
    cls='lanes',
    aria_hidden='true',  # The list of spans beside it says the same.
  )


def curves(
  seconds: float, clip_seconds: float, start: np.ndarray, end: np.ndarray
) -> Markup:
  """Start and end probabilities along an axis of this length.

  Args:
    seconds: length of the axis, see `length`.
    clip_seconds: from one probability to the next.
    start: float [L].
    end: float [L].
  """
  top = max(_most(start), _most(end)) or 1.0
  lines = []
  for name, values in (('start', start), ('end', end)):
    shown = np.nan_to_num(np.asarray(values, np.float64)) / top
    at = clip_seconds * np.arange(len(shown)) / seconds
    points = ' '.join(
      f'{1000 * x:.1f},{30 - 28 * y:.2f}' for x, y in zip(at, shown) if x <= 1
    )
    lines.append(tag('polyline', points=points, cls=f'p-{name}'))
  return tag(
    'svg',
    lines,
    viewBox='0 0 1000 31',
    preserveAspectRatio='none',
    width='100%',
    height=_CURVES,
    cls='probabilities',
    role='img',
    aria_label=f'start and end probabilities, at most {top:.2g}',
  )


def _most(values):
  return float(np.nan_to_num(np.asarray(values, np.float64)).max(initial=0))


def _percent(value: float, end: float) -> str:
  return f'{100 * value / end:.2f}%'


def _place(bar: Bar, end: float) -> tuple[str, str]:
  """(x, width) of a bar; bars too short to be seen are drawn wider."""
  wide = max(100 * (bar.end - bar.start) / end, _LEAST)
  left = min(100 * bar.start / end, 100 - wide)
  return f'{left:.2f}%', f'{wide:.2f}%'


def _lane(number: int, bar: Bar, end: float) -> list[Markup]:
  x, wide = _place(bar, end)
  y = LANE * number + (LANE - _BAR) // 2
  out = [
    tag(
      'rect',
      x=x,
      y=y,
      width=wide,
      height=_BAR,
      rx=2,
      cls=f'span {bar.kind}',
      data_bar=number,
    )
  ]
  if bar.label:
    right = max(bar.start, bar.end) / end
    room = right < 0.85
    at = right if room else min(bar.start, bar.end) / end
    out.append(
      tag(
        'text',
        bar.label,
        x=f'{100 * at:.2f}%',
        dx=5 if room else -5,
        y=y + _BAR - 2,
        text_anchor='start' if room else 'end',
        cls=f'name {bar.kind}',
      )
    )
  return out


def _tick(at: float, end: float, floor: int) -> list[Markup]:
  x = _percent(at, end)
  near = at / end
  side = 'start' if near < 0.04 else 'end' if near > 0.96 else 'middle'
  return [
    tag('line', x1=x, x2=x, y1=0, y2=floor + 4, cls='grid'),
    tag(
      'text',
      f'{at:g}' + ('' if at else ' s'),
      x=x,
      y=floor + 16,
      text_anchor=side,
      cls='tick',
    ),
  ]
