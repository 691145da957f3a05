# SPDX-License-Identifier: Apache-2.0
"""The page of copies: true to scores and annotations, complete, safe."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.evaluators import page_reader
from tests.evaluators.report import browser
from vidret_jax.data.shapes import encode
from vidret_jax.evaluators.report import copies_page, copy_ranks

TASKS = {'DSVR': ('ND', 'DS'), 'ISVR': ('ND', 'DS', 'CS', 'IS')}
HOSTILE = (
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  '../../etc/passwd',
  'right \u202eto \ud800 \x00',
)


def slow_order(scores, mask, ties):
  """Columns best first, by a full sort."""
  if ties == 'later':
    order = np.argsort(scores, kind='stable')[::-1]
  else:
    order = np.argsort(-scores, kind='stable')
  return [i for i in order.tolist() if mask[i]]


@pytest.mark.parametrize('ties', copy_ranks.TIES)
def test_places_are_those_of_a_full_sort(ties):
  rng = np.random.default_rng(0)
  for _ in range(30):
    n = int(rng.integers(1, 40))
    scores = rng.integers(0, 6, n).astype(np.float32)
    mask = rng.random(n) < 0.8
    scores[~mask & (rng.random(n) < 0.5)] = np.nan
    ranking = copy_ranks.Ranking(scores, mask, ties)
    want = slow_order(scores, mask, ties)
    places = ranking.places(np.arange(n))
    assert places.tolist() == [
      want.index(i) + 1 if mask[i] else 0 for i in range(n)
    ]
    for count in (0, 1, 3, n):
      assert ranking.best(count).tolist() == want[:count]
    half = rng.random(n) < 0.5
    assert ranking.best(2, half).tolist() == [i for i in want if half[i]][:2]
    assert ranking.count == mask.sum()


def test_recall_is_the_mean_over_queries_with_relatives():
  scores = np.array([[4, 3, 2, 1], [1, 2, 3, 4], [0, 0, 0, 0]], np.float32)
  relevant = [np.array([0, 2]), np.array([0]), np.array([], int)]

  def rank(q):
    return copy_ranks.Ranking(scores[q], np.ones(4, bool)), relevant[q]

  got = copy_ranks.recall(rank, 3, np.array([1, 2, 3, 4]))
  np.testing.assert_allclose(got, [25, 25, 50, 100])
  assert np.isnan(copy_ranks.recall(rank, 0, np.array([1]))).all()


class Case:
  """40 videos, the first four of them queries; 30 and 31 are missing."""

  def __init__(self, videos=None):
    rng = np.random.default_rng(1)
    self.items = [f'v{i:02}' for i in range(40)]
    self.queries = self.items[:4]
    self.scores = rng.permutation(160).reshape(4, 40).astype(np.float32) / 100
    self.scores[:, 30:32] = np.nan
    self.scores[3] = np.nan
    self.labels = {
      'v00': {'ND': ('v05', 'v06'), 'IS': ('v06', 'v30'), 'DA': ('v07',)},
      'v01': {'DS': ('v01', 'v08', 'unknown')},
      'v02': {'DA': ('v09',)},
      'v03': {'ND': ('v10',)},
    }
    # Best first: a relative, others, the other relative last.
    self.scores[0, [5, 6, 7]] = 9, -9, 8
    self.ap = {
      'DSVR': np.array([50.0, 12.5, np.nan, np.nan]),
      'ISVR': np.array([60.0, 12.5, np.nan, np.nan]),
    }
    self.videos = videos

  def build(self, **options):
    given = dict(
      queries=self.queries,
      items=self.items,
      scores=self.scores,
      labels=self.labels,
      tasks=TASKS,
      ap=self.ap,
      results={'DSVR': 31.25, 'DSVD': 20.0, 'DSVR_h': 30.0}
      | {'visited': 40, 'videos_found': 38.0},
      title='A run',
      item_videos=self.videos,
      query_videos=self.videos and self.videos[:4],
      answers=6,
    )
    return copies_page.build(**given | options)


def test_the_page_shows_what_was_found(tmp_path):
  case = Case()
  page = case.build(
    easy=['v07'],
    facts=[('system', 'HAP-VR')],
    notes=['A caveat.'],
    item_frames=np.arange(40),
  )
  path = copies_page.write(page, tmp_path)
  root = page_reader.parse(path)
  facts = {
    d.find('dt')[0].text: d.find('dd')[0].text
    for d in root.find(cls='facts')[0].find('div')
  }
  assert facts == {
    'queries': '3 of 4 found',
    'videos': '38 of 40 found',
    'shown': '4',
    'system': 'HAP-VR',
    'visited': '40',
  }
  assert [n.text for n in root.find('p', 'note')] == ['A caveat.']
  cells = {
    n.attributes['data-metric']: n.text
    for n in root.find('td')
    if 'data-metric' in n.attributes
  }
  assert cells == {'DSVR': '31.25 %', 'DSVD': '20.00 %', 'DSVR_h': '30.00 %'}
  missing = [n.text for n in root.find('details', 'absent')]
  assert 'v03' in missing[0] and 'v30 v31' in missing[1]
  articles = root.find('article')
  assert len(articles) == 4
  for query, article in enumerate(articles[:3]):
    row = case.scores[query]
    mask = ~np.isnan(row)
    mask[query] = False
    want = slow_order(row, mask, 'later')
    first, further = article.find(cls='cards')[0], article.find(cls='further')
    cards = first.find('section')
    assert cards[0].attributes['data-id'] == case.queries[query]
    ids = [c.attributes['data-id'] for c in cards[1:]]
    assert ids == [case.items[i] for i in want[:6]]
    for place, (card, i) in enumerate(zip(cards[1:], want), 1):
      shown = card.find(cls='sim')[0].text.replace('−', '-')
      assert shown == f'{row[i]:.3f}'
      assert card.find(cls='place')[0].text == f'#{place}'
    assert bool(further) == (query < 2)
  one = articles[0]
  kinds = [c.attributes['class'] for c in one.find('section')[1:4]]
  assert kinds == ['card right', 'card open', 'card other']
  audio = one.find('section')[2]
  assert 'not counted' in audio.text and 'easy' in audio.text
  assert '7 frames' in audio.text
  lanes = [n.text for n in one.find(cls='lanes')[0].find('li')]
  assert lanes == ['ND2, last #37', 'IS1 of 2 found, last #37', 'DA1, last #2']
  # Further down: the other relative.
  further = one.find(cls='further')[0].find('section')
  assert [c.attributes['data-id'] for c in further] == ['v06']
  assert further[0].find(cls='place')[0].text == '#37'
  assert [x.text for x in one.find(cls='ap')] == ['DSVR 50.0 %', 'ISVR 60.0 %']
  assert 'This query is missing' in articles[3].text
  outcomes = [a.attributes['class'] for a in articles]
  assert outcomes == ['row top', 'row miss', 'row open', 'row open']


def test_others_before_the_last_relative_are_shown():
  case = Case()
  case.scores[0] = np.linspace(-1, -2, 40)
  good = [f'v{i:02}' for i in range(1, 9)]
  case.labels['v00'] = {'ND': (*good, 'v20')}
  (row,) = case.build(chosen=[0]).rows
  assert [c.id for c in row.answers] == good[:6]
  assert [c.id for c in row.beyond] == ['v07', 'v08', 'v20']
  assert [(c.id, c.place) for c in row.intruders] == [('v09', 9), ('v10', 10)]
  case.labels['v00'] = {'ND': tuple(good[:2])}
  (row,) = case.build(chosen=[0]).rows
  assert not row.beyond and not row.intruders


def test_candidates_and_short_lists_are_respected(tmp_path):
  case = Case()
  candidates = np.zeros((4, 40), bool)
  candidates[:, 4:12] = True
  visited = np.zeros((4, 40), bool)
  visited[:, 4:6] = True
  page = case.build(candidates=candidates, visited=visited, chosen=[1, 0])
  assert [row.id for row in page.rows] == ['v01', 'v00']
  for row in page.rows:
    assert row.candidates == 8
    assert {c.id for c in row.answers} <= set(case.items[4:12])
    for card in row.answers:
      assert card.visited == (card.id in ('v04', 'v05'))
  root = page_reader.parse(copies_page.write(page, tmp_path))
  coarse = [c for c in root.find('section') if 'coarse only' in c.text]
  assert len(coarse) == sum(
    not c.visited for r in page.rows for c in (*r.answers, *r.beyond)
  )


def test_events_have_their_means():
  events = {'storm': ['v00', 'v01', 'v03'], 'vote': ['v02'], 'none': ['x']}
  page = Case().build(events=events)
  assert page.events == {'storm': (2, pytest.approx(31.25))}
  assert [row.event for row in page.rows] == ['storm', 'storm', 'vote', 'storm']


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(scores=np.zeros((4, 39))), r'scores has shape \(4, 39\)'),
    (dict(visited=np.zeros((3, 40), bool)), 'visited has shape'),
    (dict(ap={'DSVR': np.zeros(5)}), 'ap of DSVR has 5 entries, expected 4'),
    (dict(item_videos=['a']), 'item_videos has 1 entries, expected 40'),
    (dict(ties='drawn'), "ties='drawn'"),
    (dict(items=['v'] * 40), 'not distinct'),
  ],
)
def test_what_does_not_fit_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    Case().build(**change)


def test_hostile_names_stay_text(tmp_path):
  case = Case()
  names = dict(zip(case.items, HOSTILE))
  case.items = [names.get(x, x) for x in case.items]
  case.queries = case.items[:4]
  case.labels = {HOSTILE[0]: {HOSTILE[1]: (HOSTILE[2],)}}
  path = copies_page.write(
    case.build(events={HOSTILE[1]: case.queries}, title=HOSTILE[0]), tmp_path
  )
  root = page_reader.parse(path)
  assert len(root.find('script')) == 1 and not root.find('img')
  assert len(root.find('article')) == 4
  assert root.find('h1')[0].text == HOSTILE[0]
  content = json.loads((tmp_path / 'copies.json').read_text())
  assert content['rows'][0]['id'] == HOSTILE[0]


def test_programs_can_read_the_rows(tmp_path):
  secret = tmp_path / 'private.mp4'
  secret.write_bytes(b'x')
  case = Case(videos=[str(secret)] * 40)
  copies_page.write(case.build(chosen=[0]), tmp_path / 'out')
  text = (tmp_path / 'out' / 'copies.json').read_text()
  assert 'private' not in text
  (row,) = json.loads(text)['rows']
  assert row['places'] == {'ND': [1, 37], 'IS': [37], 'DA': [2]}
  assert row['ap'] == {'DSVR': 50.0, 'ISVR': 60.0}


def test_clips_play_together_and_queries_are_sorted(tmp_path):
  """In a real browser, from disk, under the page's own policy."""
  program = shutil.which('chromium') or shutil.which('google-chrome')
  if program is None:
    pytest.skip('chromium is absent')
  film = tmp_path / 'film.mp4'
  frames = np.zeros((4 * encode.FPS, 48, 64, 3), np.uint8)
  encode.write(film, frames, np.zeros(4 * encode.RATE, np.float32))
  case = Case(videos=[str(film)] * 40)
  page = copies_page.write(case.build(answers=1), tmp_path / 'page')
  with browser.Browser(program, tmp_path / 'profile') as chromium:
    chromium.open(pathlib.Path(page).resolve().as_uri())
    # Of thousands of clips only those are read that can be seen.
    chromium.wait("document.querySelector('video').preload === 'metadata'")
    chromium.run("globalThis.all = [...document.querySelectorAll('video')]")
    unread = chromium.run("all.filter(v => v.preload === 'none').length")
    assert unread > chromium.run('all.length') / 2
    chromium.run("""
      globalThis.order = document.getElementById('order');
      order.value = 'worst';
      order.dispatchEvent(new Event('change'));
      globalThis.first = document.querySelector('article');
      globalThis.button = first.querySelector('.together');
      globalThis.clips = [...first.querySelectorAll('video')];
    """)
    assert chromium.run('first.id') == 'q-v01'
    kind = 'video/mp4; codecs="avc1.42E01E"'
    if chromium.run(f"clips[0].canPlayType('{kind}')"):
      chromium.run('button.click()')
      chromium.wait('clips.every(c => !c.paused && c.currentTime > 0)')
      chromium.run('button.click()')
      assert chromium.run('clips.every(c => c.paused)')
    assert chromium.complaints() == []
