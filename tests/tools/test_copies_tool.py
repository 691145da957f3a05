# SPDX-License-Identifier: Apache-2.0
"""Copies in a folder of videos, with a real run of HAP-VR."""

import functools
import json
import os
import re
import shutil
import urllib.parse

import jax
import numpy as np
import pytest

from tests.evaluators import page_reader
from tests.tools import copies_run
from vidret_jax.convert import hap_vr, hap_vr_parts
from vidret_jax.data.copies import video_frames
from vidret_jax.evaluators import base
from vidret_jax.search import index as index_lib
from vidret_jax.tools import (
  copies,
  copies_fill,
  copies_finder,
  copies_index,
  copy_groups,
)

FILM, DARKER, PART = 'a/film.mp4', 'a/darker.mkv', 'part of <film>.mp4'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A run, a folder of videos, its index, and the arguments that made it."""
  return copies_run.indexed(tmp_path_factory.mktemp('made'))


@pytest.fixture(scope='module')
def finder(made):
  return copies_finder.Finder(made[0] / 'index')


@pytest.fixture(scope='module')
def grouped(made):
  """What `groups` writes: (printed, JSON, page)."""
  folder = made[0]
  line = ['groups', '--index', str(folder / 'index'), '--threshold', '0.8']
  line += ['--html', str(folder / 'g.html'), '--json', str(folder / 'g.json')]
  assert copies.main(line) == 0
  content = json.loads((folder / 'g.json').read_text())
  return content, page_reader.parse(folder / 'g.html')


@pytest.fixture(scope='module')
def whole(made):
  """{name: regions [t, r, d]} of the model alone, video by video."""
  folder, config, variables, _ = made
  model = copies_run.build(config)
  encode = jax.jit(functools.partial(model.apply, method='encode_item'))
  out = {}
  for name in (FILM, PART):
    frames = video_frames.read(
      folder / 'films' / name, resize=36, crop=copies_run.SIZE
    )
    batch = dict(frames=frames[None], length=np.array([len(frames)]))
    out[name] = np.asarray(encode(variables, batch)['regions'][0])
  return out


def score(q, v):
  """Of a pair: the mean over frames of the best frame, by region."""
  sim = np.einsum('ird,jsd->irjs', q, v).max(-1).mean(1)
  return float(sim.max(1).mean())


def test_pieces_make_up_the_videos(finder, whole):
  videos = finder.videos()
  assert set(videos.ids) == set(copies_run.FILMS)
  lengths = dict(zip(videos.ids, videos.lengths.tolist()))
  assert lengths[FILM] == 40 and lengths['short.mp4'] == 4
  for name in whole:
    got = videos.read(videos.ids.index(name))
    assert got.shape == (lengths[name], 9, copies_run.DIM)
    np.testing.assert_allclose(got, whole[name], atol=2e-5)
  assert any(x.startswith(f'{FILM}#32:40/40@') for x in finder.index.ids)


def test_groups_are_those_of_the_scores(made, grouped, whole):
  content, root = grouped
  scores = content['scores']
  assert set(scores) == set(copies_run.FILMS)
  for a, b in ((PART, FILM), (FILM, PART)):
    want = score(whole[a], whole[b])
    assert scores[a][b] == pytest.approx(want, abs=2e-4)
  assert all(len(row) == len(copies_run.FILMS) - 1 for row in scores.values())
  groups = [[m['video'] for m in group] for group in content['groups']]
  # Of two copies the larger file represents; a part is no copy of the whole.
  assert groups == [[FILM, DARKER], ['b ü.avi', 'b again.mov']]
  member = content['groups'][0][1]
  both = scores[FILM][DARKER], scores[DARKER][FILM]
  assert (member['as_target'], member['as_query']) == pytest.approx(both)
  assert member['score'] == pytest.approx(np.mean(both))
  shown = [
    [s.attributes['data-id'] for s in article.find('section')]
    for article in root.find('article')
  ]
  assert shown == groups
  for card in root.find('section'):
    src = card.find('source')[0].attributes['src']
    file = made[0] / urllib.parse.unquote(src)
    assert file.samefile(made[0] / 'films' / card.attributes['data-id'])


def test_max_joins_a_part_with_its_whole(made, tmp_path, capsys):
  line = ['groups', '--index', str(made[0] / 'index'), '--threshold', '0.8']
  line += ['--both', 'max', '--clips', 'none']
  line += ['--html', str(tmp_path / 'g.html'), '--json', str(tmp_path / 'g')]
  assert copies.main(line) == 0
  groups = json.loads((tmp_path / 'g').read_text())['groups']
  assert {m['video'] for m in groups[0]} == {FILM, DARKER, PART}
  card = next(
    c
    for c in page_reader.parse(tmp_path / 'g.html').find('section')
    if c.attributes['data-id'] == PART
  )
  assert 'perhaps a part of it' in card.text
  assert re.search(r'0\.8 < ', capsys.readouterr().out)


def test_a_clip_finds_its_film(made, whole, tmp_path, capsys):
  clip = str(made[0] / 'films' / PART)
  broken = str(made[0] / 'films' / 'broken.mp4')
  line = ['query', '--index', str(made[0] / 'index'), clip, broken]
  line += ['--top', '3', '--threshold', '0.8']
  line += ['--html', str(tmp_path / 'q.html'), '--json', str(tmp_path / 'q')]
  assert copies.main(line) == 0
  text = capsys.readouterr().out
  assert '1 could not be read' in text and broken in text
  (found,) = json.loads((tmp_path / 'q').read_text()).values()
  # It is in the index itself, and no answer to itself.
  assert list(found)[:2] == [FILM, DARKER] and len(found) == 3
  want = score(whole[PART], whole[FILM])
  assert found[FILM] == pytest.approx(want, abs=2e-4)
  cards = page_reader.parse(tmp_path / 'q.html').find('section')
  assert [c.attributes['data-id'] for c in cards] == [clip, *found]
  kinds = [c.attributes['class'] for c in cards]
  assert kinds == ['card truth', 'card right', 'card right', 'card open']


def test_short_lists_keep_the_nearest(finder, made):
  clip = str(made[0] / 'films' / PART)
  answers, unreadable = finder.ask([clip], 1, 1)
  assert not unreadable
  assert [name for name, _ in answers[0][1]] == [FILM]
  videos, scores, visited = finder.all_pairs(1)
  # Itself and one more.
  assert (visited.sum(1) == 2).all() and visited.diagonal().all()
  i = videos.ids.index(FILM)
  assert visited[i, videos.ids.index(DARKER)]
  assert np.isfinite(scores[visited]).all()


def test_an_interrupted_index_goes_on(made, tmp_path, monkeypatch, capsys):
  """Ctrl-C after the first videos; the end is as if it had not been."""
  add = index_lib.Index.add

  def add_and_stop(self, *args):
    add(self, *args)
    raise KeyboardInterrupt

  monkeypatch.setattr(copies_fill, '_ROWS', 3)
  monkeypatch.setattr(index_lib.Index, 'add', add_and_stop)
  args = list(made[3])
  args[6] = str(tmp_path / 'i')
  assert copies.main(args) == 130
  assert 'the same command goes on' in capsys.readouterr().out
  monkeypatch.undo()
  assert 0 < len(index_lib.Index.load(tmp_path / 'i')) < 9
  assert copies.main(args) == 0
  for name in ('ids.jsonl', 'coarse.rows', 'fine.rows'):
    want = (made[0] / 'index' / name).read_bytes()
    assert (tmp_path / 'i' / name).read_bytes() == want


def test_a_network_of_the_same_eyes_fits(made, finder, tmp_path, capsys):
  """Only the frozen weights decide what is in an index."""
  folder, config, variables, _ = made
  frozen = variables['params']['backbone']
  model = copies_run.build(config)
  other = copies_run.draw(model, seed=1)
  other['params']['backbone'] = frozen
  copies_run.make(tmp_path / 'other', variables=other, features_only=False)
  found = copies_finder.Finder(
    folder / 'index', weights=str(tmp_path / 'other')
  )
  assert not found.trained.model.features_only
  drawn = copies_run.draw(model, seed=1)
  hap_vr_parts.save('resnet', tmp_path / 'r.pth', drawn, model)
  line = ['query', '--index', str(folder / 'index')]
  line += ['--resnet', str(tmp_path / 'r.pth'), str(folder / 'films' / PART)]
  assert copies.main(line) == 1
  assert 'other weights' in capsys.readouterr().err
  args = [*made[3], '--crop', '28']
  assert copies.main(args) == 1
  assert 'frames.crop: the index has 32' in capsys.readouterr().err


def test_frozen_weights_of_files_of_their_own(made, finder, tmp_path, capsys):
  """A file of the authors, with those of others beside it."""
  folder, config, variables, args = made
  model = copies_run.build(config)
  hap_vr.save(tmp_path / 'model.pth', variables, model)
  files = []
  for name in ('resnet', 'pca'):
    hap_vr_parts.save(name, tmp_path / f'{name}.pth', variables, model)
    files += [f'--{name}', str(tmp_path / f'{name}.pth')]
  line = [
    *('index', '--config', str(folder / 'run' / 'config.json')),
    *('--weights', str(tmp_path / 'model.pth'), *args[3:5]),
    *('--out', str(tmp_path / 'i')),
  ]
  assert copies.main(line) == 1
  assert '--resnet resnet50.pth' in capsys.readouterr().err
  assert not (tmp_path / 'i').exists()
  few = tmp_path / 'few'
  few.mkdir()
  shutil.copy(folder / 'films' / PART, few)
  line[line.index('--videos') + 1] = str(few)
  assert copies.main([*line, *files]) == 0
  made_again = copies_finder.Finder(tmp_path / 'i')
  got, want = made_again.videos(), finder.videos()
  np.testing.assert_allclose(
    got.read(0), want.read(want.ids.index(PART)), atol=2e-3
  )


@pytest.mark.parametrize(
  'change, message',
  [
    (['--videos', 'absent'], 'absent: no such folder'),
    (['--run', 'absent'], 'absent/config.json'),
    (['--out', '{films}'], 'exists already'),
    (['--crop', '64', '--resize', '32'], 'crop=64, resize=32'),
    (['--crop', '4'], 'kernels'),
    (['--fps', '0'], 'fps=0'),
    (['--config.system=ce'], "system 'ce' does not compare videos"),
  ],
)
def test_errors_are_one_line(made, tmp_path, capsys, change, message):
  args = list(made[3])
  args[6] = str(tmp_path / 'i')
  args += [a.format(films=made[0] / 'films') for a in change]
  assert copies.main(args) == 1
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'i').exists()


def test_damage_is_told(made, tmp_path, capsys):
  copies_run.copied(made, tmp_path)
  line = ['groups', '--index', str(tmp_path / 'index')]
  path = tmp_path / 'index' / 'fine.rows'
  data = bytearray(path.read_bytes())
  data[100] ^= 1
  path.write_bytes(data)
  assert copies.main(line) == 1
  assert 'fine.rows is damaged' in capsys.readouterr().err
  os.truncate(path, 100)
  assert copies.main(line) == 1
  assert 'fine.rows is damaged' in capsys.readouterr().err
  assert copies.main(['groups', '--index', str(tmp_path / 'none')]) == 1
  assert 'is no index' in capsys.readouterr().err


def test_an_index_of_something_else_is_refused(tmp_path):
  index = index_lib.Index.create(
    tmp_path / 'i', coarse=['vector'], recipe={}, fingerprint='x'
  )
  emb = dict(vector=np.ones((1, 4)), regions=np.ones((1, 2, 9, 4)))
  index.add(['film.mp4'], emb)
  with pytest.raises(index_lib.BadIndex, match='no piece of a video'):
    copies_index.contents(index)
  index.add(['film.mp4#0:2/5@1.2'], emb)
  index.ids.pop(0)
  pieces = copies_index.present(index, None).pieces
  with pytest.raises(index_lib.BadIndex, match='2 of 5 frames'):
    copies_index.Videos(index, pieces)
  index.close()


def test_a_long_search_shows_how_far_it_is(finder, monkeypatch):
  seen = []

  def watch(steps, total, text):
    seen.append((text, total))
    yield from steps

  monkeypatch.setattr(base, 'progress', watch)
  finder.all_pairs(0)
  assert seen and all(total > 0 for _, total in seen)


def test_json_can_go_to_another_program(made, capsys):
  clip = str(made[0] / 'films' / PART)
  line = ['query', '--index', str(made[0] / 'index'), clip, '--json', '-']
  assert copies.main(line) == 0
  printed = capsys.readouterr()
  assert list(json.loads(printed.out)) == [clip]
  assert 'score' in printed.err
  line = ['groups', '--index', str(made[0] / 'index'), '--json', '-']
  assert copies.main(line) == 0
  assert set(json.loads(capsys.readouterr().out)['scores']) == set(
    copies_run.FILMS
  )


def test_what_cannot_be_written_ends_before_the_search(
  made, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(copies_finder, 'Finder', None)
  line = ['groups', '--index', str(made[0] / 'index')]
  (tmp_path / 'file').touch()
  for option in ('--html', '--json'):
    for name, why in (('', 'is no file'), ('file/x', 'file')):
      path = str(tmp_path / name)
      assert copies.main([*line, option, path]) == 1
      assert why in capsys.readouterr().err
  os.mkfifo(tmp_path / 'pipe')
  assert copies.main([*line, '--json', str(tmp_path / 'pipe')]) == 1


@pytest.mark.parametrize(
  'more',
  [
    ['groups', '--threshold', 'nan'],
    ['groups', '--shortlist', '-1'],
    ['query', 'clip.mp4', '--top', '0'],
    ['index', '--run', 'x', '--videos', 'x', '--out', 'x', '--batch_size', '0'],
  ],
)
def test_bad_numbers(more, capsys):
  where = [] if more[0] == 'index' else ['--index', 'x']
  with pytest.raises(SystemExit):
    copies.main([*more, *where])
  assert 'expected' in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(made, monkeypatch, capsys):
  def stop(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(copies_finder.Finder, 'all_pairs', stop)
  assert copies.main(['groups', '--index', str(made[0] / 'index')]) == 130
  assert 'stopped' in capsys.readouterr().err


class TestGroups:
  """Of scores, without any network."""

  def pairs(self, near, n, both='mean', visited=None):
    scores = np.full((n, n), -0.5, np.float32)
    for (i, j), (forth, back) in near.items():
      scores[i, j], scores[j, i] = forth, back
    return copy_groups.pairs(scores, visited, both)

  def test_components_and_representatives(self):
    near = {(0, 1): (0.9, 0.7), (1, 2): (0.6, 0.8), (4, 5): (1, 1)}
    found = self.pairs(near, 7)
    assert len(found.first) == 21
    one, two = copy_groups.groups(found, 0.7, [0] * 7)
    # The middle of a chain is most like the others.
    assert [m.number for m in one] == [1, 0, 2]
    assert [m.score for m in one[1:]] == pytest.approx([0.8, 0.7])
    assert (one[1].forth, one[1].back) == pytest.approx((0.7, 0.9))
    assert [m.number for m in two] == [4, 5]
    assert [m.number for m in copy_groups.groups(found, 0.7, range(7))[1]] == [
      5,
      4,
    ]
    assert not copy_groups.groups(found, 1.1, [0] * 7)

  def test_members_by_way_of_others(self):
    near = {(i, i + 1): (0.9, 0.9) for i in range(4)}
    (group,) = copy_groups.groups(self.pairs(near, 5), 0.5, [0] * 5)
    assert group[0].number in (1, 2, 3)
    through = {m.number: m.through for m in group[1:]}
    direct = {i for i, x in through.items() if x is None}
    assert direct == {group[0].number - 1, group[0].number + 1}
    for number, other in through.items():
      assert other is None or abs(number - other) == 1

  def test_both_ways(self):
    near = {(0, 1): (0.9, 0.1)}
    assert self.pairs(near, 2).score[0] == pytest.approx(0.5)
    assert self.pairs(near, 2, 'max').score[0] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="both='sum'"):
      self.pairs(near, 2, 'sum')

  def test_one_way_alone_counts(self):
    visited = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)
    found = self.pairs({(0, 1): (0.9, 0.1)}, 3, visited=visited)
    assert found.first.tolist() == [0] and found.second.tolist() == [1]
    assert found.score[0] == pytest.approx(0.9) and np.isnan(found.back[0])

  def test_the_table_counts(self):
    near = {(0, 1): (0.9, 0.9), (1, 2): (0.6, 0.6), (4, 5): (0.6, 0.6)}
    table = copy_groups.table(self.pairs(near, 7), 7, [0.5, 0.8, 1])
    assert table == [(0.5, 3, 2, 5), (0.8, 1, 1, 2), (1, 0, 0, 0)]
