# SPDX-License-Identifier: Apache-2.0
"""From a folder of videos to answers, with a real run of EERCF."""

import dataclasses
import functools
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

import jax
import numpy as np
import pytest

from tests.evaluators import page_reader
from tests.tools import frame_run
from vidret_jax import config_lib as cl
from vidret_jax.data import shapes_frames
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data.frames import files
from vidret_jax.search import index as index_lib
from vidret_jax.tools import answers_page, index, search, trained

QUERY = frame_run.SENTENCES[0]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A run, a folder of videos, and its index."""
  folder = tmp_path_factory.mktemp('made')
  config, variables = frame_run.make(folder / 'run')
  frame_run.videos(folder / 'films')
  args = [
    *('--run', str(folder / 'run'), '--videos', str(folder / 'films')),
    *('--out', str(folder / 'index'), '--batch_size', '2'),
    *('--dtype', 'float32'),
  ]
  assert index.main(args) == 0
  return folder, config, variables, args


@pytest.fixture
def copy(made, tmp_path):
  """An index and a folder of videos to change; the arguments to go on."""
  folder, _, _, _ = made
  shutil.copytree(folder / 'index', tmp_path / 'index')
  shutil.copytree(folder / 'films', tmp_path / 'films')
  opened = index_lib.Index.load(tmp_path / 'index')
  opened.note(videos=str(tmp_path / 'films'))
  opened.close()
  return tmp_path, [
    *('--run', str(folder / 'run'), '--videos', str(tmp_path / 'films')),
    *('--out', str(tmp_path / 'index')),
  ]


def scores(made, sentence):
  """Scores of all pairs by the model alone: (coarse, fine), {id: float}."""
  folder, config, variables, _ = made
  model = frame_run.build(config)
  words = tokenizer_lib.load(folder / 'run' / 'words.json')

  @functools.partial(jax.jit, static_argnums=0)
  def call(method, *args):
    return model.apply(variables, *args, method=method)

  text = {'text': words.rows([sentence], frame_run.WORDS)}
  q, out = call('encode_query', text), []
  for name in frame_run.films():
    clip = files.read(
      folder / 'films' / name,
      size=frame_run.SIZE,
      max_frames=frame_run.FRAMES,
      framerate=2,
    )
    frames = np.zeros((1, frame_run.FRAMES, *clip.shape[1:]), np.uint8)
    frames[0, : len(clip)] = clip
    mask = np.arange(frame_run.FRAMES)[None] < len(clip)
    v = call('encode_item', {'frames': frames, 'frame_mask': mask})
    out.append([float(call(m, q, v)[0, 0]) for m in ('score', 'fine')])
  return [dict(zip(frame_run.films(), x)) for x in zip(*out)]


@functools.cache
def searcher(folder):
  return search.Searcher(folder)


def answers(made, *args, **options):
  return searcher(made[0] / 'index').ask(*args, **options)


def test_answers_are_those_of_the_model(made):
  for sentence in frame_run.SENTENCES:
    coarse, fine = scores(made, sentence)
    got = answers(made, sentence, 10)
    assert [h.id for h in got.hits] == sorted(fine, key=fine.get)[::-1]
    order = sorted(coarse, key=coarse.get)[::-1]
    for hit in got.hits:
      assert hit.score == pytest.approx(fine[hit.id], abs=1e-4)
      assert hit.coarse == pytest.approx(coarse[hit.id], abs=1e-4)
      assert order[hit.coarse_rank - 1] == hit.id
      assert pathlib.Path(hit.video).samefile(made[0] / 'films' / hit.id)
    assert set(got.seconds) == {'sentence', 'shortlist', 'fine'}
    got = answers(made, sentence, 3, coarse_only=True)
    assert [h.id for h in got.hits] == order[:3]
    got = answers(made, sentence, 1, shortlist=2)
    assert got.hits[0].id == max(order[:2], key=fine.get)


def test_index_tells_what_it_did(made, capsys):
  assert index.main(made[3]) == 0
  text = capsys.readouterr().out
  assert '0 videos added' in text and '5 in the index' in text
  # What could not be read is tried, and named, each time.
  assert '2 could not be read' in text
  for name in ('broken.mp4', 'empty.avi'):
    assert re.search(rf'^  {name}: \S', text, re.M)
  assert set(index_lib.Index.load(made[0] / 'index').ids) == set(
    frame_run.films()
  )


def test_a_second_run_adds_what_is_new(made, copy, capsys):
  folder, args = copy
  frame_run.film(folder / 'films' / 'new.mp4', 7, 5)
  (folder / 'films' / 'film a.mp4').unlink()
  before = (folder / 'index' / 'fine.rows').read_bytes()
  assert index.main(args) == 0
  text = capsys.readouterr().out
  assert '1 videos added' in text and '6 in the index' in text
  assert '1 videos of the index are no longer there' in text
  after = (folder / 'index' / 'fine.rows').read_bytes()
  assert after.startswith(before) and len(after) > len(before)
  got = search.Searcher(folder / 'index').ask(QUERY, 10)
  assert {h.id for h in got.hits} == {*frame_run.films(), 'new.mp4'}
  assert [h.id for h in got.hits if h.video is None] == ['film a.mp4']


def test_a_moved_folder_and_moved_weights(made, copy, capsys):
  folder, args = copy
  (folder / 'films').rename(folder / 'moved')
  args = [a.replace(str(folder / 'films'), str(folder / 'moved')) for a in args]
  assert index.main(args) == 0
  got = search.Searcher(folder / 'index').ask(QUERY, 10)
  assert all(str(folder / 'moved') in h.video for h in got.hits)
  opened = index_lib.Index.load(folder / 'index')
  opened.note(weights=str(folder / 'gone'))
  opened.close()
  line = ['--index', str(folder / 'index'), QUERY]
  assert search.main(line) == 1
  assert '--run' in capsys.readouterr().err
  assert search.main([*line, '--run', str(made[0] / 'run')]) == 0


@pytest.mark.parametrize('dtype, atol', [('float16', 0.05), ('bfloat16', 0.5)])
def test_half_precision_changes_little(made, tmp_path, dtype, atol):
  args = [*made[3][:4], '--out', str(tmp_path / 'i'), '--dtype', dtype]
  assert index.main(args) == 0
  half = search.Searcher(tmp_path / 'i').ask(QUERY, 5)
  full = {h.id: h for h in answers(made, QUERY, 5).hits}
  for hit in half.hits:
    assert hit.coarse == pytest.approx(full[hit.id].coarse, abs=1e-4)
    assert hit.score == pytest.approx(full[hit.id].score, abs=atol)
  sizes = [
    (f / 'fine.rows').stat().st_size
    for f in (tmp_path / 'i', made[0] / 'index')
  ]
  assert sizes[0] < 0.6 * sizes[1]


def test_other_weights_are_refused(made, tmp_path, capsys):
  frame_run.make(tmp_path / 'other', seed=1)
  frame_run.make(tmp_path / 'deeper', temporal_layers=2)
  for run, message in (
    ('other', 'other weights'),
    ('deeper', 'model.temporal_layers: the index has 1, here it is 2'),
  ):
    args = ['--run', str(tmp_path / run), *made[3][2:]]
    assert index.main(args) == 1
    assert message in capsys.readouterr().err
  line = ['--index', str(made[0] / 'index'), '--run', str(tmp_path / 'other')]
  assert search.main([*line, QUERY]) == 1
  assert 'other weights' in capsys.readouterr().err


def test_table_and_page(made, tmp_path, capsys):
  page = tmp_path / 'out' / 'page.html'
  line = ['--index', str(made[0] / 'index'), '--html', str(page)]
  assert search.main([*line, '--top', '4', *QUERY.split()]) == 0
  text = capsys.readouterr().out
  want = answers(made, QUERY, 4)
  places = [text.index(hit.id) for hit in want.hits]
  assert places == sorted(places)
  for hit in want.hits:
    assert f'{hit.score:.3f}' in text
  for stage in ('sentence', 'shortlist', 'fine'):
    assert re.search(rf'{stage} [\d.]+ ms', text)
  root = page_reader.parse(page)
  cards = root.find('section')
  assert [c.attributes['data-id'] for c in cards] == [h.id for h in want.hits]
  assert root.find('q')[0].text == QUERY
  for card, hit in zip(cards, want.hits):
    src = card.find('source')[0].attributes['src']
    assert src.startswith('./page_clips/')
    file = page.parent / urllib.parse.unquote(src)
    assert file.samefile(hit.video)


def test_asks_for_sentences(made, tmp_path, capsys, monkeypatch):
  page = tmp_path / 'p.html'
  lines = '\n'.join([frame_run.SENTENCES[1], '', QUERY]) + '\n'
  monkeypatch.setattr('sys.stdin', io.StringIO(lines))
  line = ['--index', str(made[0] / 'index'), '--html', str(page)]
  assert search.main([*line, '--coarse_only', '--clips', 'none']) == 0
  text = capsys.readouterr().out
  assert text.count('shortlist ') == 2 and 'fine' not in text
  # The last answer comes first.
  shown = [q.text for q in page_reader.parse(page).find('q')]
  assert shown == [QUERY, frame_run.SENTENCES[1]]
  assert not (tmp_path / 'p_clips').exists()


def test_the_page_holds_whatever_names_and_sentences(tmp_path):
  hostile = (
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    '../../etc/passwd',
    'right \u202eto left \ud800 \x00',
  )
  clip = frame_run.pictures.write_video(tmp_path / 'c.mp4', 3)
  hits = [answers_page.Hit(h, 1.0, 2.0, 1, str(clip)) for h in hostile]
  asked = [answers_page.Asked(h, tuple(hits), {'a': 1}, True) for h in hostile]
  page = tmp_path / 'p' / 'x.html'
  (page.parent / 'videos').mkdir(parents=True)
  mine = page.parent / 'videos' / '0001-mine.mp4'
  mine.write_bytes(b'mine')
  answers_page.write(page, asked, 4)
  assert mine.exists()
  root = page_reader.parse(page)
  assert not root.find('script') and not root.find('img')
  assert len(root.find('article')) == 4 and len(root.find('video')) == 16
  folder = page.parent / 'x_clips'
  assert len(list(folder.iterdir())) == 4
  assert {p.suffix for p in folder.iterdir()} == {'.mp4'}


def test_an_interrupted_index_goes_on(made, tmp_path, monkeypatch, capsys):
  """Ctrl-C after the first block."""
  add = index_lib.Index.add

  def add_and_stop(self, *args):
    add(self, *args)
    raise KeyboardInterrupt

  args = [*made[3][:4], '--out', str(tmp_path / 'i'), '--batch_size', '3']
  args += ['--dtype', 'float32']
  monkeypatch.setattr(index_lib.Index, 'add', add_and_stop)
  assert index.main(args) == 130
  monkeypatch.undo()
  assert 0 < len(index_lib.Index.load(tmp_path / 'i')) < 5
  assert index.main(args) == 0
  got = search.Searcher(tmp_path / 'i').ask(QUERY, 5)
  want = answers(made, QUERY, 5)
  assert [h.id for h in got.hits] == [h.id for h in want.hits]
  np.testing.assert_allclose(
    [h.score for h in got.hits], [h.score for h in want.hits], atol=1e-4
  )


@pytest.mark.parametrize(
  'change, message',
  [
    (['--videos', 'absent'], 'absent: no such folder'),
    (['--run', 'absent'], 'absent/config.json'),
    (['--tokenizer', 'absent.json'], 'absent.json'),
    (['--out', '{films}'], 'exists already'),
  ],
)
def test_errors_are_one_line_and_write_nothing(
  made, tmp_path, capsys, change, message
):
  films = str(made[0] / 'films')
  args = [*made[3][:4], '--out', str(tmp_path / 'i')]
  args += [a.format(films=films) for a in change]
  assert index.main(args) == 1
  assert message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_folder_without_videos(made, tmp_path, capsys):
  (tmp_path / 'films').mkdir()
  args = [*made[3][:2], '--videos', str(tmp_path / 'films')]
  args += ['--out', str(tmp_path / 'i')]
  assert index.main(args) == 1
  assert 'no video below' in capsys.readouterr().err
  shutil.copy(made[0] / 'films' / 'broken.mp4', tmp_path / 'films')
  assert index.main(args) == 1
  out = capsys.readouterr()
  assert 'broken.mp4' in out.out and 'no video could be read' in out.err
  # The index is there, and empty.
  assert search.main(['--index', str(tmp_path / 'i'), QUERY]) == 0
  assert 'the index is empty' in capsys.readouterr().out


def test_a_run_without_frames_is_refused(tmp_path, capsys):
  args = ['--config', 'configs/ce_shapes.py', '--weights', 'x.pth']
  args += ['--videos', str(tmp_path), '--out', str(tmp_path / 'i')]
  os.chdir(pathlib.Path(__file__).parents[2])
  assert index.main(args) == 1
  assert "system 'ce'" in capsys.readouterr().err


def test_damage_is_one_line_at_the_command(copy):
  folder, _ = copy
  os.truncate(folder / 'index' / 'fine.rows', 100)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'vidret_jax.tools.search'),
      *('--index', str(folder / 'index'), QUERY),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'fine.rows is damaged' in done.stderr


def test_the_tokenizer_of_the_embedded_corpus_is_found(made, tmp_path):
  config = frame_run.config('unused')
  given = dict(name='shapes_frames', split='train', root=str(tmp_path))
  with config.unlocked():
    config.input.data = given
  assert trained.tokenizer_file(config, 'mine.json').name == 'mine.json'
  with pytest.raises(FileNotFoundError, match='tokenizer-1000.json'):
    trained.tokenizer_file(config)
  path = shapes_frames.corpus.corpus_dir(tmp_path) / 'tokenizer-1000.json'
  path.parent.mkdir(parents=True)
  shutil.copy(made[0] / 'run' / 'words.json', path)
  assert trained.tokenizer_file(config) == path
  with config.unlocked():
    config.input.data = dict(given, name='shapes')
  with pytest.raises(cl.ConfigError, match='--tokenizer'):
    trained.tokenizer_file(config)


def test_a_tokenizer_of_another_model_is_refused(made, tmp_path):
  config, source = made[1], made[0] / 'run' / 'words.json'
  model = frame_run.build(config)
  trained.write_tokenizer(source, tmp_path / 't.json', model)
  a, b = (tokenizer_lib.load(p) for p in (source, tmp_path / 't.json'))
  for sentence in frame_run.SENTENCES:
    assert a.encode(sentence) == b.encode(sentence)
  small = model.clone(sizes=dataclasses.replace(model.sizes, vocab=515))
  with pytest.raises(ValueError, match='the model knows 515'):
    trained.write_tokenizer(source, tmp_path / 'u.json', small)
