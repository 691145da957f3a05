# SPDX-License-Identifier: Apache-2.0
"""The moment report: true to what was found, complete, safe, and it plays."""

import base64
import hashlib
import importlib.resources
import json
import math
import os
import pathlib
import re
import shutil
import types

import numpy as np
import pytest

from tests.evaluators import page_reader
from tests.evaluators.report import browser
from vidret_jax.data.shapes import encode
from vidret_jax.evaluators.report import markup, moments_page
from vidret_jax.metrics import moments as moments_lib
from vidret_jax.search import moments as search_lib

STEP = 1.5
HOSTILE = (
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  '</script></article><style>*{display:none}</style>',
  'javascript:alert(1)',
  '../../etc/passwd',
  '&lt;b&gt; & <!-- ]]>',
  'right \u202eto\u202c left \ud800 \x00 null \u2028',
  'שלום عالم 日本語 🎬',
  'x' * 3000,
)


class Case:
  """Random answers to 30 questions about 7 videos of 20 to 60 seconds."""

  def __init__(self, seed=0, q=30, v=7, rows=20, annotators=1, videos=None):
    rng = np.random.default_rng(seed)
    self.rng, self.q, self.v = rng, q, v
    self.durations = rng.uniform(20, 60, v).round(2)
    self.item = np.arange(q) % v
    shape = (q, annotators)
    start = rng.uniform(0, 0.6, shape) * self.durations[self.item, None]
    spans = np.stack([start, start + rng.uniform(3, 9, shape)], -1)
    self.truth = moments_lib.Truth(self.item, spans.astype(np.float32))
    near = spans[:, rng.integers(0, annotators, rows)]
    near = near + rng.normal(0, 3, near.shape)
    near = np.sort(np.clip(near, 0, None), -1) + [0, 0.5]
    items = np.where(
      rng.random((q, rows)) < 0.5,
      self.item[:, None],
      rng.integers(0, v, (q, rows)),
    )
    scores = -np.sort(-rng.random((q, rows)).astype(np.float32)) + 0.1
    ranked = np.argsort(rng.random((q, v)), 1)[:, :5].astype(np.int32)
    self.found = search_lib.Found(
      videos=ranked,
      video_scores=np.ones(ranked.shape, np.float32),
      items=items.astype(np.int32),
      spans=near.astype(np.float32),
      scores=scores,
      own_spans=near[:, ::-1].astype(np.float32),
      own_scores=scores,
    )
    self.kinds = tuple(rng.choice(['v', 't', 'vt'], q).tolist())
    self.texts = [f'what happens in {i}' for i in range(q)]
    self.ids = tuple(str(500 + i) for i in range(q))
    self.item_ids = tuple(f'clip{i}' for i in range(v))
    self.captions = [[f'about {i}', f'on {i}'] for i in range(v)]
    self.videos = videos or [None] * v

  def lists(self):
    f = self.found
    own = np.broadcast_to(self.item[:, None], f.own_scores.shape)
    return {
      'VCMR': moments_lib.Lists(f.items, f.items >= 0, f.spans),
      'SVMR': moments_lib.Lists(own, f.own_scores > 0, f.own_spans),
      'VR': moments_lib.Lists(f.videos, f.videos >= 0),
    }

  def results(self):
    table = moments_lib.evaluate(self.lists(), self.truth, kinds=self.kinds)
    return moments_lib.summary(table)

  def build(self, hidden=False, **options):
    queries = types.SimpleNamespace(
      ids=self.ids, texts=self.texts, kinds=self.kinds
    )
    items = types.SimpleNamespace(
      ids=self.item_ids,
      durations=self.durations,
      clip_seconds=STEP,
      videos=self.videos,
      captions=lambda i: self.captions[i],
    )
    options = {'results': {}, 'chosen': np.arange(self.q)} | options
    return moments_page.build(
      self.found,
      queries,
      items,
      None if hidden else self.truth,
      title=options.pop('title', 'A run'),
      **options,
    )

  def write(self, folder, mode='link', **options):
    return moments_page.write(self.build(**options), folder, videos=mode)


def spans_of(node):
  """[(label, 'a–b s', IoU or None)] of a list of spans."""
  out = []
  for line in node.find(cls='spans')[0].find('li'):
    iou = [n.text for n in line.find(cls='iou')]
    shown = line.find(cls='play')[0].text.removeprefix('▶ ')
    out.append((line.find(cls='lane')[0].text, shown, iou[0] if iou else None))
  return out


def test_page_shows_what_was_found(tmp_path):
  case = Case()
  chosen = np.array([4, 17, 2])
  path = case.write(
    tmp_path,
    chosen=chosen,
    results=case.results(),
    facts=[('system', 'ReLoCLNet')],
    notes=['A caveat.'],
  )
  root = page_reader.parse(path)
  facts = {
    d.find('dt')[0].text: d.find('dd')[0].text
    for d in root.find(cls='facts')[0].find('div')
  }
  assert facts == {
    'queries': '30',
    'videos': '7',
    'shown': '3',
    'system': 'ReLoCLNet',
  }
  assert [n.text for n in root.find('p', 'note')] == ['A caveat.']
  f = case.found
  for query, article in zip(chosen, root.find('article'), strict=True):
    assert article.find('q')[0].text == case.texts[query]
    assert article.find('code')[0].text == case.ids[query]
    right = case.item[query]
    truth = case.truth.spans[query, 0]
    own = article.find('section', 'truth')[0]
    assert own.attributes['data-id'] == case.item_ids[right]
    label, text, iou = spans_of(own)[0]
    assert (label, text, iou) == (
      'true',
      '{:.1f}–{:.1f} s'.format(*truth),
      None,
    )
    want = []
    for k in range(moments_page.SPANS):
      span = f.own_spans[query, k]
      iou = float(moments_lib.hull_iou(span, truth))
      mark, iou = ' ✓' if iou >= 0.5 else '', math.floor(100 * iou) / 100
      text = '{:.1f}–{:.1f} s'.format(*span)
      want.append((f'#{k + 1}', text, f'IoU {iou:.2f}{mark}'))
    assert spans_of(own)[1:] == want
    want = {}
    for place, item in enumerate(f.items[query, : moments_page.ROWS].tolist()):
      if item in want or len(want) < moments_page.CARDS:
        want.setdefault(item, []).append(place)
    cards = article.find(cls='cards')[0].find('section')
    assert [c.attributes['data-id'] for c in cards] == [
      case.item_ids[i] for i in want
    ]
    for card, (item, places) in zip(cards, want.items(), strict=True):
      assert ('right' in card.classes) == (item == right)
      mark = '✓ right video' if item == right else '✗ other video'
      assert card.find(cls='mark')[0].text == mark
      lines = spans_of(card)
      assert (lines[-1][0] == 'true') == (item == right)
      lines = lines[: -1 if item == right else None]
      shown = places[: moments_page.PER_CARD]
      assert [(label, text) for label, text, _ in lines] == [
        (f'#{k + 1}', '{:.1f}–{:.1f} s'.format(*f.spans[query, k]))
        for k in shown
      ]
      assert [iou is not None for *_, iou in lines] == [item == right] * len(
        shown
      )
      more = [n.text for n in card.find('p', 'what')]
      left = len(places) - len(shown)
      assert more == ([f'and {left} more further down'] if left else [])


def test_every_number_of_the_table_is_the_evaluators(tmp_path):
  case = Case()
  results = case.results() | {'loss': 1.0, 'nms_VCMR_0.5-r1': 12.34}
  root = page_reader.parse(case.write(tmp_path, results=results))
  cells = {
    n.attributes['data-metric']: n.children[0]
    for n in root.find('td')
    if 'data-metric' in n.attributes
  }
  assert set(results) - set(cells) == {
    *('VCMR_stop', 'SVMR_stop', 'VR_stop', 'loss')
  }
  for name, text in cells.items():
    assert text == f'{results[name]:.1f}', name


@pytest.mark.parametrize('annotators', [1, 2, 4])
def test_outcomes_and_charts_agree_with_the_measure(annotators):
  case = Case(seed=annotators, q=80, annotators=annotators)
  page, results = case.build(), case.results()
  for row in page.rows:
    assert row.annotators == annotators
  for t in (0.5, 0.7):
    first = [r.iou >= np.float32(t) for r in page.rows]
    assert 100 * np.mean(first) == pytest.approx(results[f'VCMR_{t}-r1'])
    for name, best in page.overlap:
      task, k = name.split(' R@')
      want = results[f'{task}_{t}-r{k}']
      assert 100 * np.mean(best >= np.float32(t)) == pytest.approx(want)
  listed = [r.hit is not None and r.hit <= 10 for r in page.rows]
  assert 100 * np.mean(listed) == pytest.approx(results['VCMR_0.5-r10'])
  assert 100 * np.mean(page.video_ranks < 1) == pytest.approx(results['VR_r1'])


def test_filters_and_sorting_know_every_query(tmp_path):
  case = Case(q=60)
  page = case.build()
  root = page_reader.parse(moments_page.write(page, tmp_path))
  articles = root.find('article')
  for row, article in zip(page.rows, articles, strict=True):
    how = (
      ('hit7' if row.iou >= np.float32(0.7) else 'hit5')
      if row.hit == 1
      else 'later'
      if row.hit
      else 'lost'
    )
    assert article.classes == ['row', how, f'is-{row.kind}']
    assert article.attributes['data-iou'] == f'{row.iou:.4f}'
    place = article.attributes.get('data-place')
    assert place == (str(row.own.place) if row.own.place else None)
  css = root.find('style')[0].text
  for label in root.find('label'):
    (box,) = label.find('input') or [None]
    if box is None or box.attributes['type'] != 'radio':
      continue
    key = box.attributes['id']
    cls = {'show': '', 'kind': 'is-'}[key.split('-')[0]] + key.split('-')[1]
    count = len([a for a in articles if cls in a.classes])
    if key.endswith('-all'):
      count = len(articles)
    else:
      assert f'#{key}:checked) .row:not(.{cls})' in css
    assert label.find('b')[0].text == str(count)


def test_annotators_have_lanes_and_the_second_best_decides(tmp_path):
  case = Case(q=1, v=1, rows=1)
  spans = np.array([[[0, 10], [0, 10], [5, 15], [0, 0]]], np.float32)
  valid = np.array([[True, True, True, False]])
  case.truth = moments_lib.Truth(case.item, spans, valid)
  case.found = search_lib.Found(
    own_spans=np.array([[[5, 15]]], np.float32),
    own_scores=np.ones((1, 1), np.float32),
  )
  root = page_reader.parse(case.write(tmp_path))
  assert spans_of(root.find('article')[0]) == [
    ('true ×2', '0.0–10.0 s', None),
    ('true ×1', '5.0–15.0 s', None),
    ('#1', '5.0–15.0 s', 'IoU 0.33'),
  ]


def test_a_hidden_test_set_shows_answers_and_claims_nothing(tmp_path):
  case = Case()
  f = case.found
  case.found = search_lib.Found(
    f.videos, f.video_scores, f.items, f.spans, f.scores
  )
  root = page_reader.parse(case.write(tmp_path, hidden=True))
  assert len(root.find('article')) == case.q
  assert len(root.find('section')) >= case.q
  for cls in ('truth', 'right', 'other', 'mark', 'iou', 'band', 'curves'):
    assert not root.find(cls=cls), cls
  assert not [n for n in root.walk() if n.attributes.get('id') == 'show-all']


@pytest.mark.parametrize('tasks', ['VCMR', 'SVMR', 'VR', ''])
def test_tasks_that_were_not_run_are_left_out(tmp_path, tasks):
  case = Case(q=5)
  keep = {
    'VCMR': ('videos', 'items', 'spans', 'scores'),
    'SVMR': ('own_spans', 'own_scores'),
    'VR': ('videos', 'video_scores'),
    '': (),
  }[tasks]
  case.found = search_lib.Found(**{k: getattr(case.found, k) for k in keep})
  root = page_reader.parse(case.write(tmp_path))
  cards = [n for n in root.find('section') if 'truth' not in n.classes]
  assert bool(cards) == (tasks == 'VCMR')
  assert len(root.find('section', 'truth')) == 5
  own = [len(spans_of(n)) for n in root.find('section', 'truth')]
  assert own == [6 if tasks == 'SVMR' else 1] * 5


def test_rows_that_are_none_are_not_shown(tmp_path):
  case = Case(q=2)
  case.found.items[0, 1:] = -1
  case.found.items[1] = -1
  case.found.own_scores[:, 2:] = 0
  case.found.videos[:, 1:] = -1
  root = page_reader.parse(case.write(tmp_path))
  first, second = root.find('article')
  assert len(first.find('section')) == 2 and len(second.find('section')) == 1
  assert len(spans_of(second)) == 3
  assert 'lost' in second.classes


def test_odd_spans_and_durations_are_shown_as_they_are(tmp_path):
  films = [film(tmp_path / f'{i}.mp4', 1) for i in range(3)]
  case = Case(q=3, v=3, rows=4, videos=films)
  odd = [[0, 0], [500, 900], [math.nan, 2], [7, 3]]
  case.found.own_spans[:] = np.array(odd, np.float32)
  case.found.spans[:] = case.found.own_spans
  case.found.items[:] = case.item[:, None]
  case.truth.spans[0] = [[0, 0]]
  case.durations[:] = [0, math.nan, 30]
  curves = np.full((3, 128), math.nan), np.zeros((3, 128))
  path = case.write(tmp_path / 'page', curves=curves, results={'VR_r1': 0.0})
  root = page_reader.parse(path)
  for article in root.find('article'):
    own = spans_of(article.find('section', 'truth')[0])
    shown = ['0.0–0.0 s', '500.0–900.0 s', 'nan–2.0 s', '7.0–3.0 s']
    assert [text for _, text, _ in own[1:]] == shown
    assert all(iou and 'nan' not in iou for _, _, iou in own[1:])
    buttons = article.find('section', 'truth')[0].find('button')
    assert len(buttons) == 4  # No seconds, nothing to play.
  for source in root.find('source'):
    assert re.search(r'\.mp4#t=[0-9.]+(,[0-9.]+)?$', source.attributes['src'])
  text = (tmp_path / 'page' / 'moments.json').read_text()
  assert 'NaN' not in text and json.loads(text)['rows']


def hostile(tmp_path, **options):
  n = len(HOSTILE)
  case = Case(q=n, v=n, **options)
  case.ids, case.item_ids, case.texts = HOSTILE, HOSTILE, HOSTILE
  case.captions = [[h, h[::-1]] for h in HOSTILE]
  case.kinds = HOSTILE
  return case.write(
    tmp_path,
    title=HOSTILE[2],
    facts=[(h, h) for h in HOSTILE],
    notes=HOSTILE,
    results={HOSTILE[0]: 1.0, f'{HOSTILE[0]}_VCMR_0.5-r1': 2.0},
  )


def test_hostile_text_stays_text(tmp_path):
  films = [film(tmp_path / f'{i}.mp4', 1) for i in range(len(HOSTILE))]
  root = page_reader.parse(hostile(tmp_path / 'page', videos=films))
  plain = Case().write(tmp_path / 'plain', results={'VR_r1': 1.0})
  plain = page_reader.parse(plain)
  known = {n.name for n in plain.walk()} | {'video', 'source', 'button'}
  assert {n.name for n in root.walk()} <= known
  assert len(root.find('style')) == len(root.find('script')) == 1
  assert len(root.find('article')) == len(HOSTILE)
  for node in root.walk():
    for name, value in node.attributes.items():
      assert not name.startswith('on') and name != 'style', (name, value)
      if name in ('href', 'src', 'poster'):
        assert value.startswith('./videos/'), value
  shown = {a.find('q')[0].text for a in root.find('article')}
  assert shown == {markup.clean(h) for h in HOSTILE}


def test_policy_admits_our_style_and_script_alone(tmp_path):
  root = page_reader.parse(hostile(tmp_path))
  policy = next(
    m.attributes['content']
    for m in root.find('meta')
    if m.attributes.get('http-equiv') == 'Content-Security-Policy'
  )
  rules = dict(r.strip().split(' ', 1) for r in policy.split(';'))
  assert rules['default-src'] == "'none'" and 'unsafe' not in policy
  for name in ('style', 'script'):
    digest = hashlib.sha256(root.find(name)[0].text.encode()).digest()
    allowed = f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules[f'{name}-src'] == allowed
  ours = importlib.resources.files(moments_page.__package__)
  code = ours.joinpath('moments.js').read_text('utf-8')
  assert root.find('script')[0].text == code
  assert not re.search(r'https?:|fetch|innerHTML|eval|import', code)


def test_clips_start_and_stop_at_the_first_span(tmp_path):
  films = [film(tmp_path / f'{i}.mp4', 1) for i in range(7)]
  case = Case(videos=[*films[:6], str(tmp_path / 'absent.mp4')])
  path = case.write(tmp_path / 'page')
  root = page_reader.parse(path)
  for section in root.find('section'):
    item = case.item_ids.index(section.attributes['data-id'])
    sources = section.find('source')
    assert bool(sources) == bool(section.find('button')) == (item < 6)
    if not sources:
      assert section.find(cls='none')[0].text == 'no video file'
      assert spans_of(section)  # They are on the timeline all the same.
      continue
    link, fragment = sources[0].attributes['src'].split('#t=')
    assert os.path.samefile(path.parent / link, films[item])
    start, end = map(float, fragment.split(','))
    button = section.find('button')[0].attributes
    first = [float(x) for x in button['data-span'].split(',')]
    assert [start, end] == pytest.approx(first, abs=0.006)
    for button in section.find('button'):
      number = button.attributes['data-bar']
      bars = [r.attributes.get('data-bar') for r in section.find('rect')]
      assert bars.count(number) == 1
      assert button.attributes['aria-label'].startswith('play ')


def test_json_says_what_the_page_says(tmp_path):
  case = Case(videos=['/private/film.mp4'] * 7)
  case.write(tmp_path, results=case.results(), chosen=[3])
  text = (tmp_path / 'moments.json').read_text()
  assert 'private' not in text
  content = json.loads(text)
  assert content['results'] == pytest.approx(case.results())
  (row,) = content['rows']
  assert row['id'] == '503' and row['own']['id'] == 'clip3'
  start, end = case.truth.spans[3, 0].tolist()
  assert row['truth'] == [{'start': start, 'end': end, 'votes': 1}]
  assert row['own']['spans'][0]['place'] == 1
  assert not list(tmp_path.glob('*.part'))


@pytest.mark.parametrize('span', [(-1, 2), (0, math.inf), (math.nan, 1)])
def test_links_take_seconds_only(span):
  with pytest.raises(ValueError, match='no span of a clip'):
    markup.moment(markup.link('a.mp4'), *span)


def test_links_of_spans_without_length_have_no_end():
  link = markup.link('a.mp4')
  assert markup.moment(link, 1.5, 3) == './a.mp4#t=1.50,3.00'
  assert (
    markup.moment(link, 3, 3) == markup.moment(link, 3, 1) == './a.mp4#t=3.00'
  )


@pytest.mark.parametrize('make', [markup.script, markup.stylesheet])
@pytest.mark.parametrize('text', ['a</script>', 'x = "<!--"'])
def test_code_cannot_end_its_element(make, text):
  with pytest.raises(ValueError, match='cannot hold'):
    make(text)


def film(path, seconds):
  """A playable clip whose picture tells the time; its path."""
  path.parent.mkdir(parents=True, exist_ok=True)
  frames = np.zeros((int(seconds * encode.FPS), 48, 64, 3), np.uint8)
  for i, frame in enumerate(frames):
    frame[:, : 64 * (i + 1) // len(frames)] = 200
  sound = np.zeros(int(seconds * encode.RATE), np.float32)
  encode.write(path, frames, sound)
  return str(pathlib.Path(path))


@pytest.fixture
def chromium(tmp_path):
  """A browser without network, its films muted."""
  program = shutil.which('chromium') or shutil.which('google-chrome')
  if program is None:
    pytest.skip('chromium is absent')
  with browser.Browser(program, tmp_path / 'profile') as opened:
    yield opened


def test_a_press_plays_the_span_and_repeats_it(tmp_path, chromium):
  """In a real browser, from disk, under the page's own policy."""
  films = [film(tmp_path / f'{i}.mp4', 6) for i in range(2)]
  case = Case(q=2, v=2, rows=2, videos=films)
  case.durations[:] = 6
  case.found.items[:] = case.item[:, None]
  case.found.spans[:] = [[1.0, 1.5], [2.0, 2.5]]
  page = case.write(tmp_path / 'page')
  chromium.open(page.resolve().as_uri())
  chromium.run("""
    const clip = document.querySelector('.cards .clip');
    globalThis.video = clip.querySelector('video');
    globalThis.buttons = [...clip.querySelectorAll('button.play')];
    globalThis.seen = [];
    globalThis.turns = 0;
    video.addEventListener('seeked', () => { turns += 1; });
    const watch = () => {
      if (!video.paused && !video.seeking) seen.push(video.currentTime);
      requestAnimationFrame(watch);
    };
    watch();
  """)
  if not chromium.run('video.canPlayType(\'video/mp4; codecs="avc1.42E01E"\')'):
    pytest.skip('this browser cannot play H.264')
  chromium.wait('video.readyState >= 2')
  assert chromium.run('video.currentTime') == 1  # The first span.
  chromium.run('buttons[1].click()')
  chromium.wait('turns >= 3')
  assert chromium.run("buttons[1].getAttribute('aria-pressed')") == 'true'
  seen = chromium.run('seen')
  # Far from the end of the film, however busy the machine is.
  assert 2 <= min(seen) and max(seen) < 3.5
  # Stops at the end when told not to repeat.
  chromium.run("document.getElementById('loop').click()")
  chromium.wait('video.paused')
  assert chromium.run('video.currentTime') == pytest.approx(2.5, abs=1)
  # The bar of the first span does what its button does.
  chromium.run("""
    video.closest('.clip').querySelector('[data-bar="0"].span').dispatchEvent(
      new MouseEvent('click', {bubbles: true}))
  """)
  assert chromium.run("buttons[0].getAttribute('aria-pressed')") == 'true'
  chromium.wait('video.paused')
  assert chromium.run('video.currentTime') == pytest.approx(1.5, abs=1)
  assert chromium.complaints() == []
