# SPDX-License-Identifier: Apache-2.0
"""Every dataset of frames, from its published files to batches."""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.data import frame_sets
from vidret_jax.data import pipeline, shapes_frames
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.data.frames import files, published
from vidret_jax.data.shapes import corpus

SMALL = dict(max_frames=4, image_size=20, max_words=10)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  return tmp_path


@pytest.fixture
def tokenizer(tmp_path):
  return frame_sets.write_tokenizer(tmp_path / 'tokenizer.json')


def module(dataset):
  return importlib.import_module(f'vidret_jax.data.{dataset}_frames')


def whole(source):
  index = np.arange(len(source))
  return source.gather(index, index)


@pytest.mark.parametrize('dataset', frame_sets.DATASETS)
def test_every_dataset(root, tokenizer, dataset):
  folder = frame_sets.write_set(dataset, root)
  data = module(dataset)
  assert data.PUBLISHED.name == f'{dataset}_frames'
  assert data.prepare(split=frame_sets.SPLITS[dataset][0]) == folder
  for split in frame_sets.SPLITS[dataset]:
    options = dict(split=split, tokenizer=tokenizer, **SMALL)
    pairs, items, queries = (
      data.make(view=view, **options) for view in ('pairs', 'items', 'queries')
    )
    assert not pairs.unreadable and not items.unreadable
    batch = whole(items)
    assert batch['frame_mask'].any(1).all() and batch['frames'].any()
    truth = queries.ground_truth(items)
    told = whole(queries)['text']
    for query, item in enumerate(truth.item_of_query):
      assert queries.texts[query] in items.captions(item)
      assert told[query, 0] == tokenizer_lib.load(tokenizer).start
    trained = whole(pairs)
    assert trained['_mask'].all()
    for row, name in enumerate(pairs.ids):
      item = items.ids.index(name.rpartition('#')[0])
      np.testing.assert_array_equal(
        trained['frames'][row], batch['frames'][item]
      )
    playable = dataset not in ('msrvtt', 'vatex')
    for path in items.videos:
      assert (path is not None) == playable
      assert path is None or pathlib.Path(path).is_file()


def test_clips_are_parts_of_their_video(root):
  folder = frame_sets.write_set('activitynet', root)
  source = module('activitynet').make(
    view='items', split='train', max_frames=20, image_size=16, framerate=3
  )
  batch = whole(source)
  for row, (path, mask) in enumerate(zip(source.videos, batch['frame_mask'])):
    seconds = int(np.ceil(1.4 + 0.5 * row))
    want = files.read(
      *(path,), size=16, max_frames=20, framerate=3, start=0, end=seconds
    )
    np.testing.assert_array_equal(batch['frames'][row][mask], want)
  assert folder.is_dir()


def test_the_tokenizer_is_asked_for(root):
  frame_sets.write_set('vatex', root)
  for view in ('pairs', 'queries'):
    with pytest.raises(ValueError, match='needs `tokenizer`, the path of'):
      module('vatex').make(view=view, split='test')


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(view='rows'), "Unknown view='rows'"),
    (dict(storage='tape'), "Unknown storage='tape'"),
    (dict(cache='disk'), "Unknown cache='disk'"),
    (dict(select='middle'), "select='middle'"),
    (dict(frame_order='random'), "frame_order='random'"),
    (dict(transform='nice'), "transform='nice'"),
    (dict(max_frames=0), 'max_frames=0'),
    (dict(framerate=0), 'framerate=0'),
    (dict(split='dev'), "vatex_frames: unknown split='dev'"),
    (dict(captions='some'), "captions='some'"),
    (dict(max_words=1), 'max_words is 1'),
  ],
)
def test_options_are_checked_at_once(root, tokenizer, changes, message):
  frame_sets.write_set('vatex', root, videos=dict(train=1, val=1, test=1))
  given = dict(view='pairs', split='test', tokenizer=tokenizer, **SMALL)
  with pytest.raises(ValueError, match=message):
    module('vatex').make(**{**given, **changes})


def test_clips_in_another_folder(root):
  folder = frame_sets.write_set('msrvtt', root)
  want = whole(module('msrvtt').make(view='items', split='test_1ka', **SMALL))
  (folder / 'videos' / 'frames').rename(root / 'clips')
  with pytest.raises(published.MissingFiles, match='none of the 4 videos'):
    module('msrvtt').make(view='items', split='test_1ka', **SMALL)
  (folder / 'videos').rmdir()
  with pytest.raises(published.MissingFiles, match='no folder of clips'):
    module('msrvtt').make(view='items', split='test_1ka', **SMALL)
  got = whole(
    module('msrvtt').make(
      view='items', split='test_1ka', videos=str(root / 'clips'), **SMALL
    )
  )
  np.testing.assert_array_equal(got['frames'], want['frames'])


@pytest.mark.parametrize(
  'options, kept', [(dict(cache='ram'), 4), (dict(cache_bytes=10000), 2)]
)
def test_kept_frames_are_the_same(root, options, kept):
  folder = frame_sets.write_set('msvd', root)
  make = module('msvd').make
  # Three frames, which every clip has: 3600 bytes each.
  small = dict(SMALL, max_frames=3, framerate=3)
  want = whole(make(view='items', split='test', **small))
  assert want['frame_mask'].all()
  source = make(view='items', split='test', **small, **options)
  whole(source)
  shutil.rmtree(folder / 'videos')
  got = whole(source)
  there = got['frame_mask'].all(1)
  assert there.sum() == kept
  np.testing.assert_array_equal(got['frames'][there], want['frames'][there])


def test_training_batches_leave_out_missing_videos(root, tokenizer):
  folder = frame_sets.write_set('msvd', root)
  gone = (folder / 'train_list.txt').read_text().split()[2]
  next((folder / 'videos').rglob(f'{gone}.*')).unlink()
  source = module('msvd').make(
    view='pairs', split='train', tokenizer=tokenizer, **SMALL
  )
  stream = pipeline.train_iter(source, batch_size=len(source), seed=3)
  index, _ = pipeline.batch_rows(0, len(source), len(source), 3, 'pad')
  batch = next(stream)
  stream.close()
  ours = [source.ids[i].startswith(gone) for i in index]
  np.testing.assert_array_equal(~batch['_mask'], ours)
  assert source.unreadable[gone].startswith('no file')


# ---------------------------------------------------------------------- shapes


COUNTS = dict(train=4, val=2, test=3, copies=0)
SHAPES = dict(counts=COUNTS, num_workers=2, progress=False, image_size=24)


@pytest.fixture(scope='module')
def shapes_root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shapes')
  shapes_frames.prepare(split='train', root=folder, **SHAPES)
  return folder


def test_shapes_frames(shapes_root):
  options = dict(root=shapes_root, **SHAPES)
  pairs = shapes_frames.make(view='pairs', split='train', **options)
  drawn = shapes_frames.make(
    view='pairs', split='train', captions='one', **options
  )
  assert len(drawn) == 4 and len(pairs) > 4
  batch = whole(pairs)
  assert batch['_mask'].all()
  assert batch['frames'].shape == (len(pairs), 12, 24, 24, 3)
  assert batch['text'].shape == (len(pairs), 32)
  items = shapes_frames.make(view='items', split='test', **options)
  queries = shapes_frames.make(view='queries', split='test', **options)
  truth = queries.ground_truth(items)
  assert truth.item_of_query.max() == 2 == len(items) - 1
  got = whole(items)
  for row, path in enumerate(items.videos):
    want = files.read(path, size=24, max_frames=12, framerate=4)
    np.testing.assert_array_equal(
      got['frames'][row][got['frame_mask'][row]], want
    )
  ram = shapes_frames.make(view='items', split='test', cache='ram', **options)
  np.testing.assert_array_equal(whole(ram)['frames'], got['frames'])


def test_shapes_tokenizer_is_learnt_from_the_training_captions(
  shapes_root, tmp_path
):
  options = dict(root=shapes_root, **SHAPES)
  folder = corpus.corpus_dir(shapes_root)
  path = folder / f'tokenizer-{shapes_frames.VOCAB_SIZE}.json'
  first = path.read_bytes()
  path.unlink()
  pairs = shapes_frames.make(view='pairs', split='train', **options)
  assert path.read_bytes() == first
  ours = tokenizer_lib.load(path)
  assert 514 < ours.vocab_size <= shapes_frames.VOCAB_SIZE
  index = np.arange(len(pairs))
  np.testing.assert_array_equal(
    whole(pairs)['text'], ours.rows(pairs.texts(index, index), 32)
  )
  other = frame_sets.write_tokenizer(tmp_path / 'other.json')
  told = shapes_frames.make(
    view='queries', split='val', tokenizer=other, **options
  )
  np.testing.assert_array_equal(
    whole(told)['text'], tokenizer_lib.load(other).rows(told.texts, 32)
  )


def test_shapes_frames_are_decoded_once(shapes_root):
  options = dict(root=shapes_root, **SHAPES)
  shapes_frames.make(view='items', split='val', **options)
  folder = corpus.corpus_dir(shapes_root) / 'frames'
  before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
  assert not [name for name in before if name.endswith('.part')]
  shapes_frames.make(view='items', split='val', **options)
  shapes_frames.make(view='items', split='val', **options, max_frames=3)
  after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
  assert len(after) == len(before) + 2
  assert before.items() <= after.items()


def test_shapes_frames_need_no_tensorflow(shapes_root):
  code = f"""if True:
    import sys
    sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None
    from vidret_jax.data import shapes_frames
    options = dict(root={str(shapes_root)!r}, **{SHAPES!r})
    for view in ('pairs', 'items', 'queries'):
      source = shapes_frames.make(view=view, split='train', **options)
      source.gather([0], [0])
  """
  environment = {**os.environ, 'PYTHONPATH': str(pathlib.Path.cwd())}
  done = subprocess.run(
    [sys.executable, '-c', code], env=environment, capture_output=True
  )
  assert not done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(split='copies'), "no split 'copies'"),
    (dict(view='rows'), "Unknown view 'rows'"),
    (dict(cache='tape'), "Unknown cache='tape'"),
    (dict(max_frames=0), 'max_frames=0'),
    (dict(frame_order='random'), "frame_order='random'"),
  ],
)
def test_shapes_options(shapes_root, changes, message):
  options = dict(view='items', split='val', root=shapes_root, **SHAPES)
  with pytest.raises(ValueError, match=message):
    shapes_frames.make(**{**options, **changes})
