"""The embedded corpus, built small but for real."""

import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vidret_jax.data import shapes, words
from vidret_jax.data.shapes import (
  annotations,
  copies,
  corpus,
  encode,
  measure,
  reading,
  script,
)
from vidret_jax.data.shapes import vocabulary as vocab

COUNTS = {'train': 10, 'val': 5, 'test': 10, 'copies': 10}
PACKAGE_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shapes')
  shapes.prepare(folder, counts=COUNTS, progress=False)
  return folder


@pytest.fixture(scope='session')
def rows(root):
  return annotations.read(corpus.corpus_dir(root))


@pytest.fixture(scope='session')
def decoded(root, rows):
  folder = corpus.corpus_dir(root)
  return {r['id']: encode.read(folder / r['video'], 'rgb24') for r in rows}


def digests(root):
  """Hash of every file that holds data; TFDS' own notes are left out."""
  kinds = ('.mp4', '.srt', '.npz', '.jsonl')
  return {
    str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
    for p in sorted(pathlib.Path(root).rglob('*'))
    if p.suffix in kinds or '.array_record' in p.name
  }


def test_counts_splits_and_unique_ids(rows):
  found = [r['split'] for r in rows]
  assert {s: found.count(s) for s in shapes.SPLITS} == COUNTS
  assert len({r['id'] for r in rows}) == sum(COUNTS.values())


def test_another_build_is_byte_identical(root, tmp_path):
  shapes.prepare(tmp_path, counts=COUNTS, num_workers=1, progress=False)
  assert digests(tmp_path) == digests(root)


def test_another_seed_is_another_corpus(rows):
  recipe = corpus.script_lib.Recipe(seed=1, counts=COUNTS)
  other = list(annotations.rows(recipe))
  assert [r['events'] for r in other] != [r['events'] for r in rows]


def test_every_clip_decodes_with_sound_of_its_length(rows, decoded):
  for row in rows:
    film, sound = decoded[row['id']]
    assert film.shape[1:] == (96, 128, 3)
    seconds = len(film) / encode.FPS
    if row['copy']['edit'] not in ('speed', 'excerpt'):
      assert seconds == pytest.approx(row['duration'], abs=1 / encode.FPS)
    assert abs(len(sound) / encode.RATE - seconds) < 0.3


def test_silence_is_silent_and_sound_is_not(rows, decoded):
  for row in rows:
    if row['split'] != 'copies':
      loud = np.sqrt(np.mean(decoded[row['id']][1] ** 2)) > 1e-3
      assert loud == bool(row['sound'])


@pytest.mark.parametrize(
  'expert, key, missing',
  [('audio', 'sound', 0.2), ('ocr', 'overlays', 0.6),
   ('speech', 'subtitles', 0.4)],
)  # fmt: skip
def test_experts_are_missing_where_the_files_lack_them(
  root, rows, expert, key, missing
):
  folder = corpus.corpus_dir(root)
  for split in ('train', 'val', 'test'):
    here = [r for r in rows if r['split'] == split]
    absent = [not r[key] for r in here]
    assert np.mean(absent) == pytest.approx(missing)
    for row, gone in zip(here, absent, strict=True):
      with np.load(folder / 'experts' / f'{row["id"]}.npz') as file:
        assert (len(file[expert]) == 0) == gone, row['id']


def test_experts_are_finite_and_have_their_shapes(root, rows):
  folder = corpus.corpus_dir(root)
  for row in rows:
    with np.load(folder / 'experts' / f'{row["id"]}.npz') as file:
      assert set(file) == set(measure.DIMS)
      for name, dim in measure.DIMS.items():
        value = file[name]
        assert value.dtype == np.float32 and value.shape[1] == dim
        assert np.isfinite(value).all()
        if name in measure.TOKENS:
          assert len(value) <= measure.TOKENS[name]
        else:
          assert len(value) == 1


def test_experts_are_measured_on_the_files(root, rows, tmp_path):
  """Another file under the same name gives other experts."""
  folder = corpus.corpus_dir(root)
  first, second = rows[0], rows[1]
  again = measure.experts(
    folder / first['video'], folder / 'subtitles' / f'{first["id"]}.srt'
  )
  with np.load(folder / 'experts' / f'{first["id"]}.npz') as file:
    for name in measure.DIMS:
      np.testing.assert_array_equal(again[name], file[name])
  fake = shutil.copy(folder / second['video'], tmp_path / 'train00000.mp4')
  assert not np.allclose(measure.experts(fake)['motion'], again['motion'])
  assert len(measure.experts(fake)['speech']) == 0


def test_overlaid_words_are_read_from_the_picture(root, rows):
  folder = corpus.corpus_dir(root)
  for row in rows:
    if row['split'] == 'copies':
      continue
    planes, _ = encode.read(folder / row['video'])
    wanted = [o['text'] for o in row['overlays']]
    assert reading.overlaid_words(planes[:, :96]) == wanted, row['id']


def test_subtitles_come_back_with_their_times(root, rows):
  folder = corpus.corpus_dir(root) / 'subtitles'
  for row in rows:
    if row['split'] == 'copies':
      continue
    found = reading.subtitle_lines(folder / f'{row["id"]}.srt')
    assert [f[2] for f in found] == [s['text'] for s in row['subtitles']]
    for (start, end, _), line in zip(found, row['subtitles'], strict=True):
      assert (start, end) == pytest.approx((line['start'], line['end']))
      assert 0 <= start < end <= row['duration']


def test_a_broken_subtitle_file_is_named(tmp_path):
  bad = tmp_path / 'bad.srt'
  bad.write_text('1\nno times\nhello\n')
  with pytest.raises(ValueError, match='bad.srt'):
    reading.subtitle_lines(bad)


def test_captions_tell_their_events(rows):
  for row in rows:
    assert 2 <= len(row['captions']) <= 4
    for caption in row['captions']:
      tokens = caption['text'].split()
      assert words.tokenize(caption['text']) == tokens
      assert len(tokens) <= shapes.TEXT['max_tokens']
      assert caption['events']
      for i, verb in zip(
        caption['events'], _acts(caption['verb_classes']), strict=True
      ):
        name = row['events'][i]['verb']
        assert vocab.VERB_CLASSES[verb] == name
        assert set(vocab.ACTIONS[name]) & set(tokens)
      for noun in caption['noun_classes']:
        name = vocab.NOUN_CLASSES[noun]
        if name in vocab.SHAPES:
          assert name in {a['shape'] for a in row['actors']}
      if 'overlay' in caption['contexts']:
        assert {o['text'] for o in row['overlays']} & set(tokens)


def _acts(classes):
  return [c for c in classes if vocab.VERB_CLASSES[c] in vocab.ACTIONS]


def test_role_graphs_spell_the_caption(rows):
  for row in rows:
    for caption in [*row['captions'], *row['moments']]:
      tokens = caption['text'].split()
      nodes, edges = caption['graph']
      assert nodes['0']['role'] == 'ROOT' and nodes['0']['words'] == tokens
      verbs = {k for k, n in nodes.items() if n['role'] == 'V'}
      assert verbs
      for node in nodes.values():
        assert node['words'] == [tokens[i] for i in node['spans']]
      arguments = set(nodes) - verbs - {'0'}
      assert {a for _, a, _ in edges} == arguments
      for verb, argument, role in edges:
        assert verb in verbs and nodes[argument]['role'] == role


def test_events_follow_each_other_inside_the_clip(rows):
  for row in rows:
    assert 1 <= len(row['events']) <= 3
    now = 0.0
    for event in row['events']:
      assert now < event['start'] < event['end'] < row['duration']
      now = event['end']
    spans = [(m['start'], m['end']) for m in row['moments'] if m['event'] >= 0]
    assert spans == [(e['start'], e['end']) for e in row['events']]
    for moment in row['moments']:
      assert moment['kind'] in ('v', 't', 'vt')
      assert 0 <= moment['start'] < moment['end'] <= row['duration']


def test_copies_resemble_their_source(rows, decoded):
  here = [r for r in rows if r['split'] == 'copies']
  assert {r['copy']['edit'] for r in here} == set(copies.EDITS)
  tests = [r['id'] for r in rows if r['split'] == 'test']
  for row in here:
    copy = row['copy']
    assert copy['relation'] == copies.EDITS[copy['edit']]
    assert copy['source'] in tests
    if copy['edit'] in ('overlay', 'blur', 'speed', 'colour', 'crop'):
      mine = _fingerprint(decoded[row['id']][0])
      gaps = {
        t: np.abs(mine - _fingerprint(decoded[t][0])).mean() for t in tests
      }
      assert min(gaps, key=gaps.get) == copy['source'], copy['edit']
    assert not np.array_equal(
      decoded[row['id']][0][:8], decoded[copy['source']][0][:8]
    )


def _fingerprint(film):
  """[8, 6, 8, 3] thumbnails over time, free of brightness and contrast."""
  at = np.linspace(0, len(film) - 1, 8).astype(int)
  small = film[at].reshape(8, 6, 16, 8, 16, 3).mean(axis=(2, 4))
  flat = small - small.mean(axis=(0, 1, 2))
  return flat / (flat.std(axis=(0, 1, 2)) + 1)


@pytest.mark.parametrize('cache', ['ram', None])
def test_views(root, rows, cache):
  kw = dict(split='test', root=root, progress=False, cache=cache)
  items = shapes.make(view='items', **kw)
  queries = shapes.make(view='queries', **kw)
  here = [r for r in rows if r['split'] == 'test']
  assert list(items.ids) == [r['id'] for r in here]
  assert all(pathlib.Path(v).is_file() for v in items.videos)
  texts = [c['text'] for r in here for c in r['captions']]
  assert list(queries.texts) == texts
  truth = queries.ground_truth(items)
  assert [truth.item_ids[i] for i in truth.item_of_query] == [
    q.split('#')[0] for q in queries.ids
  ]
  batch = items.gather(np.arange(3), np.zeros(3, np.int64))
  assert batch['experts']['motion'].shape == (3, measure.DIMS['motion'])
  text = queries.gather(np.array([0]), np.zeros(1, np.int64))
  length = int(text['text_mask'].sum())
  np.testing.assert_array_equal(text['text'][0, :length], words.embed(texts[0]))


def test_training_pairs_and_copies_open(root):
  pairs = shapes.make(view='pairs', split='train', root=root, cache='ram')
  batch = pairs.gather(np.arange(10), np.arange(10))
  assert batch['text_mask'].any(axis=1).all()
  names = [name for name, _ in shapes.EXPERTS]
  assert batch['available'][:, names.index('colour')].all()
  assert batch['available'][:, names.index('ocr')].sum() == 4
  assert len(shapes.make(view='items', split='copies', root=root)) == 10


def test_records_carry_the_ground_truth(root, rows):
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(corpus.records_dir(root)))
  source = builder.as_data_source(split='test')
  here = [r for r in rows if r['split'] == 'test']
  assert len(source) == len(here)
  for record, row in zip(source, here, strict=True):
    assert record['id'].decode() == row['id']
    graphs = [json.loads(g) for g in record['graphs']]
    assert graphs == [c['graph'] for c in row['captions']]
    np.testing.assert_allclose(
      record['moments']['start'], [m['start'] for m in row['moments']]
    )
    assert record['duration'] == row['duration']
    for name in measure.DIMS:
      assert record['available'][name] == (len(record['experts'][name]) > 0)


def test_a_killed_build_is_taken_up_again(root, tmp_path):
  code = (
    'from vidret_jax.data import shapes; '
    f'shapes.prepare({str(tmp_path)!r}, counts={COUNTS!r}, progress=False)'
  )
  process = subprocess.Popen([sys.executable, '-c', code], cwd=PACKAGE_ROOT)
  partial = corpus.corpus_dir(tmp_path).with_name(script.VERSION + '.partial')
  deadline = time.time() + 60
  while len(list(partial.glob('experts/*.npz'))) < 5:
    assert time.time() < deadline and process.poll() is None
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert partial.is_dir() and not corpus.corpus_dir(tmp_path).exists()
  kept = min(partial.glob('experts/*.npz'), key=lambda p: p.stat().st_mtime)
  before = kept.stat().st_mtime_ns
  shapes.prepare(tmp_path, counts=COUNTS, progress=False)
  assert digests(tmp_path) == digests(root)
  done = corpus.corpus_dir(tmp_path) / 'experts' / kept.name
  assert done.stat().st_mtime_ns == before
  assert not list(tmp_path.rglob('*.part'))


def test_records_killed_half_way_are_written_again(root, tmp_path):
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  folder = corpus.records_dir(tmp_path)
  (folder / 'recipe.json').unlink()
  next(folder.glob('*train.array_record*')).write_bytes(b'')
  shapes.prepare(tmp_path, progress=False)
  assert digests(tmp_path) == digests(root)


def test_a_second_prepare_touches_nothing(root):
  before = {p: p.stat().st_mtime_ns for p in root.rglob('*') if p.is_file()}
  shapes.prepare(root, progress=False)
  after = {p: p.stat().st_mtime_ns for p in root.rglob('*') if p.is_file()}
  lock = root / 'shapes' / '.lock'
  assert {k: v for k, v in after.items() if k != lock} == {
    k: v for k, v in before.items() if k != lock
  }


def test_overwrite_makes_it_anew_once(root, tmp_path):
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  spoilt = corpus.corpus_dir(tmp_path) / 'videos' / 'train00000.mp4'
  spoilt.write_bytes(b'spoilt')
  kw = dict(counts=COUNTS, progress=False, overwrite=True)
  folder = shapes.prepare(tmp_path, **kw)
  assert digests(tmp_path) == digests(root)
  before = spoilt.stat().st_mtime_ns
  shapes.prepare(tmp_path, keep=(folder,), **kw)
  assert spoilt.stat().st_mtime_ns == before


def test_contact_sheet_shows_clips_and_captions(root, rows):
  from vidret_jax.tools import contact_sheet

  chosen = contact_sheet.choose(rows, 3, copies=False)
  assert len(chosen) == 3 and {r['split'] for r in chosen} == {'test'}
  image = contact_sheet.sheet(corpus.corpus_dir(root), chosen, frames=4)
  assert image.width == 4 * 128 and image.height > 3 * 96
  edits = contact_sheet.choose(rows, 10, copies=True)
  assert len({r['copy']['edit'] for r in edits}) == 10


def test_another_recipe_is_refused(root):
  with pytest.raises(ValueError, match='seed=0, asked for is 7.*Delete'):
    shapes.prepare(root, seed=7, progress=False)
  with pytest.raises(ValueError, match='counts='):
    shapes.prepare(root, counts={'train': 3}, progress=False)


def test_a_clip_that_cannot_be_made_is_named_and_the_rest_kept(root, tmp_path):
  partial = corpus.corpus_dir(tmp_path).with_name(script.VERSION + '.partial')
  block = partial / 'videos' / 'train00003.mp4'
  block.mkdir(parents=True)
  recipe = corpus.script_lib.Recipe(counts=COUNTS)
  (partial / 'recipe.json').write_text(recipe.to_json())
  with pytest.raises(RuntimeError, match='train00003'):
    shapes.prepare(tmp_path, counts=COUNTS, num_workers=1, progress=False)
  assert not corpus.corpus_dir(tmp_path).exists()
  block.rmdir()
  shapes.prepare(tmp_path, counts=COUNTS, progress=False)
  assert digests(tmp_path) == digests(root)


def test_bad_arguments(tmp_path, root):
  with pytest.raises(ValueError, match="no split 'tset'"):
    shapes.make(view='items', split='tset', root=root)
  with pytest.raises(ValueError, match="unknown splits \\['dev'\\]"):
    shapes.prepare(tmp_path, counts={'dev': 3})
  with pytest.raises(ValueError, match='-1'):
    shapes.prepare(tmp_path, counts={'train': -1})
  with pytest.raises(ValueError, match='copies'):
    shapes.prepare(tmp_path, counts={'copies': 4})
  file = tmp_path / 'file'
  file.write_text('')
  with pytest.raises(NotADirectoryError, match='VIDRET_DATA_DIR'):
    shapes.prepare(file)
  with pytest.raises(FileNotFoundError, match='tools.prepare'):
    annotations.read(tmp_path)
