# SPDX-License-Identifier: Apache-2.0
"""The report: true to the ranks, complete, and safe whatever the data says."""

import json
import os
import pathlib
import re
import urllib.parse

import numpy as np
import pytest

from tests.evaluators import page_reader, toy
from vidret_jax import sharding
from vidret_jax.evaluators import matrix, retrieval
from vidret_jax.evaluators.report import clips, layout, markup

HOSTILE = (
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  "' onmouseover='alert(1)",
  '</q></article><style>*{display:none}</style>',
  'javascript:alert(1)',
  '../../etc/passwd',
  '//evil.example/x.mp4',
  '&lt;b&gt; & <!-- ]]>',
  'right \u202eto\u202c left \ud800 \x00 null \u2028',
  '日本語 ü 🎬',
  'x' * 3000,
  '%2e%2e/%00',
)


def report(
  folder,
  sims,
  item,
  ids,
  *,
  texts=None,
  captions=None,
  videos=None,
  mode='link',
  **options,
):
  model, variables = matrix.retriever(np.asarray(sims, np.float32))
  queries, items = matrix.sources(
    np.asarray(item), ids, texts=texts, captions=captions, videos=videos
  )
  evaluator = retrieval.Evaluator(
    model,
    sharding.make_mesh(),
    queries=queries,
    items=items,
    videos=mode,
    **options,
  )
  return evaluator, evaluator.report(variables, folder)


def hostile_report(folder, videos=None, **options):
  n = len(HOSTILE)
  sims = np.random.default_rng(0).normal(size=(n, n))
  return report(
    folder,
    sims,
    np.arange(n),
    HOSTILE,
    texts=HOSTILE,
    captions=[[h, h[::-1]] for h in HOSTILE],
    videos=videos,
    title=HOSTILE[0],
    **options,
  )


def test_page_shows_what_was_ranked(tmp_path):
  rng = np.random.default_rng(1)
  sims = rng.normal(size=(40, 12)).astype(np.float32)
  item = np.arange(40) % 12
  captions = [
    [f'caption {k} of {v}' for k in range((item == v).sum())] for v in range(12)
  ]
  evaluator, path = report(
    tmp_path,
    sims,
    item,
    [f'v{i}' for i in range(12)],
    captions=captions,
    num_samples=9,
    title='A run',
    query_block=8,
    item_block=5,
  )
  page = page_reader.read(path)
  assert page['title'] == 'A run' and len(page['rows']) == 9
  assert page['facts']['sample seed'] == '0'
  assert page['facts']['queries'] == '40' and page['facts']['videos'] == '12'
  number = {f'v{item[q]}#{q // 12}': q for q in range(40)}
  assert len({r['id'] for r in page['rows']}) == 9
  for row in page['rows']:
    q = number[row['id']]
    v = item[q]
    assert row['text'] == captions[v][q // 12]
    assert row['rank'] == evaluator.ranks.text[q] + 1
    assert row['truth']['id'] == f'v{v}'
    assert row['truth']['sim'] == f'{sims[q, v]:.3f}'
    assert row['truth']['captions'] == captions[v]
    order = np.argsort(-sims[q], kind='stable')[:5]
    assert [c['id'] for c in row['top']] == [f'v{i}' for i in order]
    assert [(c['place'], c['sim']) for c in row['top']] == [
      (f'rank {k + 1}', f'{sims[q, i]:.3f}') for k, i in enumerate(order)
    ]
    assert [c['correct'] for c in row['top']] == [i == v for i in order]
  content = json.loads((tmp_path / 'rankings.json').read_text())
  shown = [r['id'] for r in page['rows']]
  assert [r['query'] for r in content['rows']] == shown


def test_samples_are_clamped_and_leave_the_global_generator_alone(tmp_path):
  np.random.seed(3)
  before = np.random.get_state()[1].copy()
  _, path = report(tmp_path, np.eye(3), np.arange(3), 'abc', num_samples=100)
  assert len(page_reader.read(path)['rows']) == 3
  np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_other_seeds_draw_other_queries(tmp_path):
  shown = []
  for seed in (0, 0, 1):
    _, path = report(
      tmp_path / 'p',
      np.eye(60),
      np.arange(60),
      [f'v{i}' for i in range(60)],
      num_samples=8,
      report_seed=seed,
    )
    shown.append([r['id'] for r in page_reader.read(path)['rows']])
  assert shown[0] == shown[1] != shown[2]


def test_ties_show_their_mean_rank(tmp_path):
  _, path = report(tmp_path, np.zeros((2, 4)), [0, 1], 'abcd')
  assert [r['rank'] for r in page_reader.read(path)['rows']] == [2.5, 2.5]


def test_infinite_mean_rank_is_printed(tmp_path):
  _, path = report(tmp_path, np.eye(3)[:2], [0, 1], 'abc')
  assert page_reader.read(path)['metrics']['v2t_MnR'] == '∞'


def test_unknown_query_ids_are_an_error(tmp_path):
  model, variables = matrix.retriever(np.eye(2, dtype=np.float32))
  queries, items = matrix.sources(np.arange(2), 'ab')
  evaluator = retrieval.Evaluator(
    model, sharding.make_mesh(), queries=queries, items=items
  )
  with pytest.raises(ValueError, match="no query 'z'; ids look like 'a#0'"):
    evaluator.report(variables, tmp_path, queries=['z'])


def test_experts_and_mixture_are_visible(tmp_path):
  model, variables, queries, items = toy.build()
  path = retrieval.Evaluator(
    model,
    sharding.make_mesh(),
    queries=queries,
    items=items,
    num_samples=7,
    drop_experts=('audio',),
    no_expert='last',
  ).report(variables, tmp_path)
  root, page = page_reader.parse(path), page_reader.read(path)
  legend = [li.text for li in root.find(cls='legend')[0].find('li')]
  assert legend == ['audio', 'face', 'scene.net', 'scene.other']
  assert page['facts']['availability rule'] == 'candidate'
  assert page['facts']['hidden experts'] == 'audio'
  for article, row in zip(root.find('article'), page['rows']):
    mixture = article.find(cls='mixture')[0].find('li')
    assert [li.find('span')[0].text for li in mixture] == legend
    percents = [int(li.find('b')[0].text.split()[0]) for li in mixture]
    assert abs(sum(percents) - 100) <= 2
    for card in (row['truth'], *row['top']):
      have = items.available[items.ids.index(card['id'])] & [0, 1, 1, 1]
      missing = [n for n, h in zip(legend, have) if not h]
      assert card['without'] == 'without ' + ', '.join(missing)
      assert (card['sim'] == 'no score') == (not have.any())
  assert root.find(cls='strip')
  for strip in root.find(cls='strip'):
    widths = [float(r.attributes['width']) for r in strip.find('rect')]
    assert sum(widths) == pytest.approx(100, abs=0.1) and widths[0] == 0


def test_leak_is_printed_with_every_number(tmp_path):
  model, variables, queries, items = toy.build(availability='legacy_2019')
  path = retrieval.Evaluator(
    model, sharding.make_mesh(), queries=queries, items=items, num_samples=2
  ).report(variables, tmp_path)
  root = page_reader.parse(path)
  assert 'Leaky 2019' in root.find(cls='leak')[0].text
  cells = [n for n in root.find('td') if 'data-metric' in n.attributes]
  assert len(cells) == 14 and all('leaky 2019' in c.text for c in cells)


def test_hostile_text_stays_text(tmp_path):
  _, path = hostile_report(tmp_path)
  root = page_reader.parse(path)
  allowed = {
    'root',
    'html',
    'head',
    'meta',
    'title',
    'style',
    'body',
    'header',
    'h1',
    'h2',
    'p',
    'dl',
    'div',
    'dt',
    'dd',
    'table',
    'thead',
    'tbody',
    'tr',
    'th',
    'td',
    'figure',
    'figcaption',
    'svg',
    'line',
    'text',
    'polyline',
    'rect',
    'span',
    'main',
    'label',
    'input',
    'b',
    'i',
    'ul',
    'li',
    'article',
    'q',
    'bdi',
    'code',
    'section',
    'small',
    'video',
    'source',
  }
  assert {n.name for n in root.walk()} <= allowed
  assert len(root.find('style')) == 1
  assert len(root.find('article')) == len(HOSTILE)
  for node in root.walk():
    for name, value in node.attributes.items():
      assert not name.startswith('on') and name != 'style', (name, value)
      if name in ('href', 'src', 'poster'):
        assert value.startswith('./videos/'), value
  shown = {r['text'] for r in page_reader.read(path)['rows']}
  assert shown == {markup.clean(h) for h in HOSTILE}
  text = path.read_text('utf-8')
  assert '\x00' not in text and '\u202e' not in text and '<script' not in text


def test_policy_forbids_everything_but_our_style_and_clips(tmp_path):
  _, path = hostile_report(tmp_path)
  meta = [m.attributes for m in page_reader.parse(path).find('meta')]
  policy = next(
    m['content']
    for m in meta
    if m.get('http-equiv') == 'Content-Security-Policy'
  )
  rules = dict(r.strip().split(' ', 1) for r in policy.split(';'))
  assert rules['default-src'] == "'none'"
  assert re.fullmatch(r"'sha256-[\w+/=]+'", rules['style-src'])
  assert 'script-src' not in rules and 'unsafe' not in policy


def make_clips(folder):
  """Files under hostile names, and where they cannot be."""
  folder.mkdir()
  names = ["a'b.mp4", 'c d#e?.mp4', '%41.webm', 'ünï.mp4', 'plain.mp4']
  for name in names:
    (folder / name).write_bytes(name.encode())
  (folder / 'secret.txt').write_text('secret')
  (folder / 'page.html').write_text('<script>')
  (folder / 'alias.mp4').symlink_to(folder / 'secret.txt')
  return [
    *(str(folder / n) for n in names),
    str(folder / 'absent.mp4'),
    str(folder / 'secret.txt'),
    str(folder / 'page.html'),
    str(folder / 'alias.mp4'),
    str(folder),
    None,
    'nul\x00.mp4',
  ]


@pytest.mark.parametrize('mode', clips.MODES)
def test_clips_come_along_under_harmless_names(tmp_path, mode):
  videos = make_clips(tmp_path / 'originals')
  folder = tmp_path / 'report'
  _, path = hostile_report(folder, videos=videos, mode=mode)
  shown = {}
  for row in page_reader.read(path)['rows']:
    for card in (row['truth'], *row['top']):
      shown[card['id']] = card['video']
  assert len(shown) == len(HOSTILE)
  for name, original in zip(HOSTILE, videos):
    link = shown[markup.clean(name)]
    playable = mode != 'none' and videos.index(original) < 5
    assert (link is not None) == playable, (name, original)
    if playable:
      assert re.fullmatch(r'\./videos/\d{4}-[\w-]*\.(mp4|webm)', link)
      target = folder / urllib.parse.unquote(link)
      assert target.parent.resolve() == (folder / 'videos').resolve()
      assert target.read_bytes() == pathlib.Path(original).read_bytes()
      if mode == 'copy':
        assert os.stat(target).st_ino != os.stat(original).st_ino
  kept = list(folder.rglob('*'))
  assert not [p for p in kept if p.suffix in ('.txt', '.part')]


def test_an_older_page_leaves_no_clips_behind(tmp_path):
  videos = make_clips(tmp_path / 'originals')
  args = (np.eye(2), [0, 1], ['one', 'two'])
  report(tmp_path / 'r', *args, videos=videos[:2])
  assert len(list((tmp_path / 'r' / 'videos').iterdir())) == 2
  (tmp_path / 'r' / 'videos' / 'mine.mp4').write_text('not ours')
  report(tmp_path / 'r', *args, videos=[None, videos[4]])
  names = {p.name for p in (tmp_path / 'r' / 'videos').iterdir()}
  assert names == {'0001-two.mp4', 'mine.mp4'} or names == {
    '0000-two.mp4',
    'mine.mp4',
  }


def test_a_planted_symlink_is_replaced_not_followed(tmp_path):
  videos = make_clips(tmp_path / 'originals')
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  (tmp_path / 'r').mkdir()
  (tmp_path / 'r' / 'videos').symlink_to(elsewhere)
  report(tmp_path / 'r', np.eye(2), [0, 1], 'ab', videos=videos[:2])
  assert not list(elsewhere.iterdir())
  assert len(list((tmp_path / 'r' / 'videos').iterdir())) == 2


@pytest.mark.parametrize(
  'parts', [('..', 'x'), ('/etc/passwd',), ('videos', '../../x'), ('',)]
)
def test_links_stay_below_the_page(parts):
  with pytest.raises(ValueError, match='below the page'):
    markup.link(*parts)


def test_links_are_relative_whatever_the_name():
  assert markup.link('javascript:alert(1)') == './javascript%3Aalert%281%29'
  assert markup.link('a b', '"\'<>') == './a%20b/%22%27%3C%3E'


@pytest.mark.parametrize(
  'attributes',
  [dict(src='http://x'), dict(onclick='f()'), dict(style='color:red')],
)
def test_pages_carry_no_code_and_no_foreign_links(attributes):
  with pytest.raises(TypeError):
    markup.tag('div', **attributes)


def test_short_names_tell_experts_apart():
  names = ('audio', 'imagenet.resnext.0', 'imagenet.senet.0', 'scene.x.0')
  assert layout.short_names(names) == [
    'audio',
    'imagenet.resnext',
    'imagenet.senet',
    'scene',
  ]
  assert layout.short_names(('a', 'a.b')) == ['a', 'a.b']


def test_predictions_are_written_beside_the_page(tmp_path):
  sims = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
  item = np.random.default_rng(1).integers(0, 6, 9)  # In no order.
  report(
    tmp_path, sims, item, 'abcdef', predictions=3, query_block=4, item_block=4
  )
  rows = (tmp_path / 'retrieval-predictions.csv').read_text().split()
  want = np.argsort(-sims, 1, kind='stable')[:, :3]
  assert rows == [','.join(map(str, r)) for r in want.tolist()]
