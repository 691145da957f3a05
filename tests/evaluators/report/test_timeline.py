# SPDX-License-Identifier: Apache-2.0
"""Timelines: everything is where its seconds say, whatever the seconds are."""

import itertools
import math

import numpy as np
import pytest

from tests.evaluators import page_reader
from vidret_jax.evaluators.report import timeline

Bar = timeline.Bar


def tree(tmp_path, markup):
  path = tmp_path / 'drawing.html'
  path.write_text(markup, 'utf-8')
  return page_reader.parse(path)


def percent(node, name):
  assert node.attributes[name].endswith('%')
  return float(node.attributes[name][:-1])


def test_bars_stand_at_their_seconds(tmp_path):
  bars = [Bar(10, 30, 'truth', 'true'), Bar(20, 25, 'found', '#1')]
  root = tree(tmp_path, timeline.draw(50, bars))
  spans = root.find('rect', 'span')
  assert [s.attributes['data-bar'] for s in spans] == ['0', '1']
  assert [(percent(s, 'x'), percent(s, 'width')) for s in spans] == [
    (20, 40),
    (40, 10),
  ]
  tops = [float(s.attributes['y']) for s in spans]
  assert tops[1] - tops[0] == timeline.LANE
  (band,) = root.find('rect', 'band')
  assert (percent(band, 'x'), percent(band, 'width')) == (20, 40)
  assert [t.text for t in root.find('text', 'name')] == ['true', '#1']
  (whole,) = root.find('rect', 'whole')
  assert percent(whole, 'width') == 100


def test_what_lies_beyond_the_video_is_told_apart(tmp_path):
  root = tree(tmp_path, timeline.draw(40, [Bar(30, 50, 'found')]))
  assert percent(root.find('rect', 'whole')[0], 'width') == 80
  assert percent(root.find('rect', 'span')[0], 'width') == 40
  assert root.find('rect', 'beyond')


def test_labels_stay_inside(tmp_path):
  bars = [Bar(1, 5, 'found', 'left'), Bar(90, 100, 'found', 'right')]
  texts = tree(tmp_path, timeline.draw(100, bars)).find('text', 'name')
  sides = [t.attributes['text-anchor'] for t in texts]
  assert sides == ['start', 'end']
  assert [percent(t, 'x') for t in texts] == [5, 90]


@pytest.mark.parametrize(
  'start, end', [(5, 5), (9.999, 10), (10, 10), (0, 0), (7, 3)]
)
def test_spans_without_length_can_be_seen(tmp_path, start, end):
  root = tree(tmp_path, timeline.draw(10, [Bar(start, end, 'found')]))
  (span,) = root.find('rect', 'span')
  wide, left = percent(span, 'width'), percent(span, 'x')
  assert wide > 0 and 0 <= left and left + wide <= 100 + 1e-6


@pytest.mark.parametrize(
  'start, end', [(math.nan, 1), (0, math.inf), (-2, 1), (0, math.nan)]
)
def test_spans_that_are_none_leave_their_lane_empty(tmp_path, start, end):
  bars = [Bar(start, end, 'found', 'x'), Bar(1, 2, 'truth')]
  root = tree(tmp_path, timeline.draw(4, bars))
  assert [s.attributes['data-bar'] for s in root.find('rect', 'span')] == ['1']
  assert timeline.length(4, bars) == 4
  for node in root.walk():
    assert not any('nan' in str(x) for x in node.attributes.values())


def test_an_unknown_duration_is_no_reason_to_fail(tmp_path):
  assert timeline.length(0, []) == 1
  assert timeline.length(0, [Bar(3, 6, 'found')]) == 6
  root = tree(tmp_path, timeline.draw(0, [Bar(3, 6, 'found')]))
  assert not root.find('rect', 'whole')
  assert percent(root.find('rect', 'span')[0], 'x') == 50


def test_ticks_are_round_few_and_even():
  for seconds, most in itertools.product(
    (1e-3, 0.4, 1, 3.5, 9.99, 60, 76.4, 240, 7200, 1e6), (2, 5, 11)
  ):
    ticks = timeline.ticks(seconds, most)
    assert ticks[0] == 0 and ticks[-1] <= seconds * (1 + 1e-9)
    assert 1 <= len(ticks) <= most
    np.testing.assert_allclose(
      np.diff(ticks), ticks[1] - ticks[0] if len(ticks) > 1 else 0, rtol=1e-9
    )
  assert timeline.ticks(4.2, 6) == [0, 1, 2, 3, 4]
  assert timeline.ticks(76, 6) == [0, 15, 30, 45, 60, 75]


def test_curves_share_one_scale_and_the_axis(tmp_path):
  start, end = np.zeros(8), np.zeros(8)
  start[2], end[6], end[7] = 0.5, 0.25, math.nan
  root = tree(tmp_path, timeline.curves(10.0, 1.5, start, end))
  lines = {n.attributes['class']: n for n in root.find('polyline')}
  points = {
    k: [tuple(map(float, p.split(','))) for p in n.attributes['points'].split()]
    for k, n in lines.items()
  }
  assert [x for x, _ in points['p-start']] == [150 * i for i in range(7)]
  rise = {k: [30 - y for _, y in p] for k, p in points.items()}
  assert rise['p-start'] == [0, 0, 28, 0, 0, 0, 0]
  assert rise['p-end'] == [0, 0, 0, 0, 0, 0, 14]
  label = root.find('svg')[0].attributes['aria-label']
  assert label == 'start and end probabilities, at most 0.5'


def test_curves_of_nothing_are_flat(tmp_path):
  root = tree(tmp_path, timeline.curves(1.0, 1.5, np.zeros(3), np.zeros(0)))
  flat, none = (n.attributes['points'] for n in root.find('polyline'))
  assert flat == '0.0,30.00' and none == ''
