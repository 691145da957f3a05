# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as described moments in TVR's layout."""

import hashlib
import json
import pathlib
import shutil

import h5py
import numpy as np
import pytest

from vidret_jax.data import shapes, shapes_moments, words
from vidret_jax.data.shapes import (
  annotations,
  blobs,
  corpus,
  encode,
  instants,
  moment_files,
)

COUNTS = {'train': 10, 'val': 4, 'test': 5, 'copies': 0}
NONE = np.zeros(1, np.int64)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shapes_moments')
  shapes.prepare(folder, counts=COUNTS, progress=False)
  moment_files.write(corpus.corpus_dir(folder), progress=False)
  return folder


@pytest.fixture(scope='module')
def rows(root):
  return annotations.read(corpus.corpus_dir(root))


@pytest.fixture(scope='module')
def files(root):
  return corpus.corpus_dir(root) / 'moments'


def make(root, view, split='train', **options):
  return shapes_moments.make(
    view=view, split=split, root=root, progress=False, **options
  )


def one(source, i):
  """One row, without the axis of the batch."""
  batch = source.gather(np.array([i]), NONE)
  return {key: value[0] for key, value in batch.items()}


def told(files, split):
  lines = (files / moment_files.annotation_file(split)).read_text().split('\n')
  return [json.loads(line) for line in lines]


def digests(files):
  return {
    p.name: hashlib.sha256(p.read_bytes()).hexdigest()
    for p in sorted(files.iterdir())
    if p.suffix in ('.h5', '.json', '.jsonl')
  }


def unit(x):
  return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-5)


def test_annotations_are_the_moments_with_ids_of_their_own(files, rows):
  number = 0
  for split in moment_files.SPLITS:
    here = [r for r in rows if r['split'] == split]
    want = [(r, m) for r in here for m in r['moments']]
    for found, (row, moment) in zip(told(files, split), want, strict=True):
      assert found == {
        'desc_id': number,
        'desc': moment['text'],
        'vid_name': row['id'],
        'ts': [moment['start'], moment['end']],
        'type': moment['kind'],
        'duration': row['duration'],
      }
      number += 1
  known = json.loads((files / moment_files.DURATIONS).read_text())
  assert list(known) == list(moment_files.SPLITS)
  order = [(n, v) for s in known.values() for n, v in s.items()]
  want = [[r['duration'], i] for i, r in enumerate(rows)]
  assert order == list(zip([r['id'] for r in rows], want, strict=True))


def test_a_row_per_quarter_of_a_second_and_a_vector_per_word(files, rows):
  assert instants.SECONDS == 0.25
  with (
    h5py.File(files / moment_files.VIDEO) as video,
    h5py.File(files / moment_files.SUBTITLE) as subtitle,
    h5py.File(files / moment_files.QUERY) as query,
  ):
    ids = {r['id'] for r in rows}
    assert set(video) == ids
    assert set(subtitle) == ids | {f'{name}-mask' for name in ids}
    for row in rows:
      seen, said = video[row['id']][:], subtitle[row['id']][:]
      t = int(np.ceil(row['duration'] / 0.25))
      assert seen.shape == (t, instants.DIM) and seen.dtype == np.float32
      assert np.isfinite(seen).all() and np.abs(seen).max() < 10
      mask = np.zeros(t, np.float32)
      for k in range(t):
        lines = [
          s['text']
          for s in row['subtitles']
          if s['start'] < (k + 1) * 0.25 and s['end'] > k * 0.25
        ]
        mask[k] = bool(lines)
        spoken = [words.embed(line) for line in lines]
        best = np.concatenate(spoken).max(axis=0) if lines else np.zeros(64)
        np.testing.assert_array_equal(said[k], best)
      np.testing.assert_array_equal(subtitle[f'{row["id"]}-mask'][:], mask)
    moments = [m for r in rows for m in r['moments']]
    assert len(query) == len(moments)
    for i, moment in enumerate(moments):
      want = words.embed(moment['text'])
      np.testing.assert_array_equal(query[str(i)][:], want)


def test_rows_are_measured_on_the_picture(root, rows, files, tmp_path):
  """Another file under a clip's name has other rows."""
  folder = corpus.corpus_dir(root)
  with h5py.File(files / moment_files.VIDEO) as video:
    kept = {name: video[name][:] for name in (rows[0]['id'], rows[1]['id'])}
  name = rows[1]['id']
  other = shutil.copy(folder / rows[0]['video'], tmp_path / f'{name}.mp4')
  np.testing.assert_array_equal(instants.snippets(other), kept[rows[0]['id']])


def test_an_odd_last_frame_is_a_snippet(root, rows, tmp_path):
  clip = corpus.corpus_dir(root) / rows[0]['video']
  film, sound = encode.read(clip, 'rgb24')
  for frames in (13, 14):
    encode.write(tmp_path / 'cut.mp4', film[:frames], sound)
    assert instants.snippets(tmp_path / 'cut.mp4').shape == (7, instants.DIM)


def test_most_changes_while_something_happens(files, rows):
  """Rows line up with the times of the annotations."""
  start = list(instants.BLOCKS).index('motion')
  start = sum(list(instants.BLOCKS.values())[:start])
  active = [start + k * blobs.MOTIONS + 13 for k in range(instants.FRAMES)]
  during, besides = [], []
  with h5py.File(files / moment_files.VIDEO) as video:
    for row in rows:
      change = video[row['id']][:, active].mean(axis=1)
      middle = (np.arange(len(change)) + 0.5) * 0.25
      near = np.zeros(len(change), bool)
      for event in row['events']:
        inside = (middle > event['start']) & (middle < event['end'])
        near |= (middle > event['start'] - 0.3) & (middle < event['end'] + 0.3)
        during += change[inside].tolist()
      besides += change[~near].tolist()
  assert len(during) > 50 and len(besides) > 10
  assert np.mean(during) > 3 * np.mean(besides)


@pytest.mark.parametrize('view', ['pairs', 'items', 'queries'])
@pytest.mark.parametrize('context', ['video_sub_tef', 'sub', 'video'])
def test_batches_are_what_the_spec_says(root, view, context):
  source = make(root, view, context=context)
  batch = source.gather(np.array([1, -1]), np.zeros(2, np.int64))
  assert {k: (x.shape[1:], x.dtype) for k, x in batch.items()} == {
    k: (tuple(shape), dtype) for k, (shape, dtype) in source.spec.items()
  }
  assert ('video' in batch) == ('video' in context and view != 'queries')
  assert ('subtitle' in batch) == ('sub' in context and view != 'queries')


def test_pairs_are_queries_with_their_videos_and_spans(root, files):
  source = make(root, 'pairs')
  asked = told(files, 'train')
  assert len(source) == len(asked)
  with h5py.File(files / moment_files.VIDEO) as video:
    for i, row in enumerate(asked):
      got = one(source, i)
      t = int(got['clip_mask'].sum())
      want = unit(video[row['vid_name']][:])
      np.testing.assert_allclose(got['video'][:t, :-2], want, atol=1e-6)
      ends = [np.floor(row['ts'][0] / 0.25), np.ceil(row['ts'][1] / 0.25)]
      assert got['span'].tolist() == np.minimum(ends, t - 1).tolist()
      want = unit(words.embed(row['desc']))
      length = int(got['query_mask'].sum())
      np.testing.assert_allclose(got['query'][:length], want, atol=1e-6)


def test_queries_know_their_answers(root, rows, files):
  items, queries = (make(root, v, 'test') for v in ('items', 'queries'))
  here = [r for r in rows if r['split'] == 'test']
  asked = told(files, 'test')
  assert list(items.ids) == [r['id'] for r in here]
  assert items.durations.tolist() == [r['duration'] for r in here]
  assert items.clip_seconds == 0.25
  assert all(pathlib.Path(v).is_file() for v in items.videos)
  assert items.numbers.tolist() == [14, 15, 16, 17, 18]
  assert queries.answered and list(queries.rows) == asked
  assert list(queries.kinds) == [r['type'] for r in asked]
  truth = queries.ground_truth(items)
  assert [items.ids[i] for i in truth.item_of_query] == [
    r['vid_name'] for r in asked
  ]
  np.testing.assert_array_equal(truth.spans, [r['ts'] for r in asked])


def test_builds_have_equal_bytes_and_are_taken_up_again(root, files, tmp_path):
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  folder = corpus.corpus_dir(tmp_path)
  shutil.rmtree(folder / 'moments')
  clip, done = (
    folder / 'videos' / f'{n}.mp4' for n in ('val00001', 'train00000')
  )
  whole = clip.read_bytes()
  clip.write_bytes(b'spoilt')
  with pytest.raises(RuntimeError, match='clip val00001 could not be made'):
    moment_files.write(folder, num_workers=1, progress=False)
  assert not (folder / 'moments').exists()
  # As a build leaves it that is killed while it writes.
  partial = folder / 'moments.partial'
  (partial / 'rows' / 'test00000.1.part').write_bytes(b'half')
  (partial / moment_files.VIDEO).write_bytes(b'half')
  clip.write_bytes(whole)
  done.unlink()  # Nothing is measured twice.
  assert moment_files.write(folder, progress=False) == folder / 'moments'
  assert set(p.name for p in (folder / 'moments').iterdir()) == set(
    digests(files)
  )
  assert digests(folder / 'moments') == digests(files)


def test_prepare_makes_all_and_then_touches_nothing(root, tmp_path):
  shutil.copytree(root, tmp_path, dirs_exist_ok=True)
  kw = dict(split='val', root=tmp_path, progress=False, max_words=20)
  folder = shapes_moments.prepare(**kw)
  assert folder == corpus.corpus_dir(tmp_path)

  def times():
    return {
      p: p.stat().st_mtime_ns
      for p in tmp_path.rglob('*')
      if p.is_file() and not p.name.endswith('lock')
    }

  before = times()
  # All of it lies in the corpus folder and goes where that goes.
  assert [p for p in before if 'shapes_moments-val' in str(p)]
  assert not (tmp_path / 'records' / 'moments').exists()
  shapes_moments.prepare(**kw)
  assert times() == before


@pytest.mark.parametrize(
  'options, word',
  [
    (dict(view='clips'), 'Unknown view'),
    (dict(split='copies'), "no split 'copies'"),
    (dict(context='subtitle'), 'context'),
    (dict(max_clips=0), 'max_clips=0'),
    (dict(cache='disk'), "cache='disk'"),
  ],
)
def test_bad_options_are_named(root, options, word):
  with pytest.raises(ValueError, match=word):
    make(root, **{'view': 'pairs', **options})
