# SPDX-License-Identifier: Apache-2.0
"""The rows that the upstream readers make of the same files.

Where upstream differs on purpose the test says so.
"""

import json

import numpy as np
import pytest

from tests.parity import eercf_goldens
from vidret_jax.data import (
  activitynet_frames,
  didemo_frames,
  lsmdc_frames,
  msrvtt_frames,
  msvd_frames,
  vatex_frames,
)
from vidret_jax.data.frames import published

MEAN = np.asarray((0.48145466, 0.4578275, 0.40821073))
STD = np.asarray((0.26862954, 0.26130258, 0.27577711))
NORMALISED = 2e-6  # The golden README's tolerance of normalised images.
BPE = 'bpe_simple_vocab_16e6*.txt.gz'


@pytest.fixture
def root(golden_root):
  return golden_root / 'eercf'


@pytest.fixture
def present(root):
  return lambda name: eercf_goldens.present(root / name)


@pytest.fixture
def expected(present):
  """(arrays, facts) of '<name>_expected'."""

  def load(name):
    with np.load(present(f'{name}_expected.npz'), allow_pickle=False) as file:
      arrays = dict(file)
    return arrays, json.loads(present(f'{name}_expected.json').read_text())

  return load


@pytest.fixture
def other(present):
  def load(name):
    found = json.loads(present('other_formats_expected.json').read_text())
    if name not in found:
      pytest.skip(f'other_formats_expected.json has no {name}')
    return found[name]

  return load


@pytest.fixture
def tokenizer(root):
  found = sorted(root.glob(BPE))
  if not found:
    pytest.skip(f'{root / BPE} is absent')
  return found[0]


def whole(source):
  index = np.arange(len(source))
  return source.gather(index, index)


def real(text):
  """bool [b, l], up to the end token, the largest id; zero is a token, too."""
  return np.arange(text.shape[1]) <= text.argmax(1)[:, None]


def texts(table):
  """[[video, caption], ...] in file order."""
  return [[table.ids[v], table.captions[v][s]] for v, s in table.rows.tolist()]


def means(batch):
  """float64 [b], of the normalised clips; padding is zero."""
  frames = (batch['frames'] / 255 - MEAN) / STD
  frames[~batch['frame_mask']] = 0
  return frames.mean(axis=(1, 2, 3, 4))


def check_clips(errors, batch, rows, masks, mean, pixels=None):
  """Compares clips; `rows`: the clip of each of upstream's items."""
  batch = {key: value[rows] for key, value in batch.items()}
  np.testing.assert_array_equal(batch['frame_mask'], masks.astype(bool))
  errors.close('mean', means(batch), mean, atol=NORMALISED)
  if pixels is not None:
    real = batch['frame_mask']
    np.testing.assert_array_equal(batch['frames'][real], pixels[real])


# --------------------------------------------------------------------- MSR-VTT


def msrvtt(present, arrays, tokenizer, **changes):
  """What all MSR-VTT sources are opened with; sizes are the arrays' own."""
  return {
    'root': present('msrvtt'),
    'videos': 'frames',
    'tokenizer': tokenizer,
    'max_frames': arrays['test_video_mask'].shape[1],
    'max_words': arrays['test_ids'].shape[1],
    'image_size': arrays['test_video_uint8'].shape[2],
    **changes,
  }


@pytest.mark.parametrize('name', ['test', 'test_multi'])
@pytest.mark.parametrize('data', [msrvtt_frames, vatex_frames])
def test_msrvtt_evaluation(present, expected, tokenizer, errors, data, name):
  # Upstream takes the groups of captions from an unordered set (quirk 17);
  # rows of a video are adjacent and of equal number here, where that is right.
  arrays, facts = expected('msrvtt')
  key = 'test_1ka' if data is msrvtt_frames else 'test'
  options = msrvtt(present, arrays, tokenizer, paths={key: f'{name}.csv'})
  options['split'] = key
  present(f'msrvtt/{name}.csv')
  items = data.make(view='items', **options)
  queries = data.make(view='queries', **options)
  truth = queries.ground_truth(items)
  ends = np.cumsum(np.bincount(truth.item_of_query))
  assert ends.tolist() == facts[name]['cut_off_points']
  assert len(queries) == facts[name]['sentence_num']
  text = whole(queries)['text']
  np.testing.assert_array_equal(text, arrays[f'{name}_ids'])
  np.testing.assert_array_equal(real(text), arrays[f'{name}_mask'] > 0)
  check_clips(
    errors,
    whole(items),
    truth.item_of_query,
    arrays[f'{name}_video_mask'],
    arrays[f'{name}_video_mean'],
    arrays['test_video_uint8'] if name == 'test' else None,
  )
  if name == 'test':
    first = (whole(items)['frames'][0] / 255 - MEAN) / STD
    first[~whole(items)['frame_mask'][0]] = 0
    errors.close(
      'first',
      first[:, None].transpose(0, 1, 4, 2, 3),
      arrays['test_video_first'][0],
      atol=NORMALISED,
    )


def test_msrvtt_training_order(present, expected, tokenizer):
  # --expand_msrvtt_sentences: captions='all'.
  arrays, facts = expected('msrvtt')
  options = msrvtt(present, arrays, tokenizer, split='train_9k')
  options['paths'] = {'train_9k': present('msrvtt/train.csv')}
  pairs = msrvtt_frames.make(view='pairs', **options)
  index = np.arange(len(pairs))
  got = [
    [name.rpartition('#')[0], text]
    for name, text in zip(pairs.ids, pairs.texts(index, index))
  ]
  assert got == facts['train_pairs'] == facts['train_multi_pairs'][0]


def test_msrvtt_paraphrases(present, expected, tokenizer):
  # --multi_augmentation: upstream stacks the rows of all files and trains on
  # the first (quirk 19). Without `paraphrases` so do we; with them a row draws
  # one of the texts.
  arrays, facts = expected('msrvtt')
  options = msrvtt(present, arrays, tokenizer, split='train_9k')
  options['paths'] = {'train_9k': present('msrvtt/train.csv')}
  others = [present('msrvtt/MSRVTT_aug.json').name]
  pairs = msrvtt_frames.make(view='pairs', paraphrases=others, **options)
  versions = facts['train_multi_pairs']
  for row in range(len(pairs)):
    told = set(pairs.texts(np.full(60, row), np.arange(60)))
    assert told == {version[row][1] for version in versions}
  rows = pairs.gather(np.full(60, 1), np.arange(60))
  want = arrays['train_multi_item1_ids'][:, 0]
  got = np.unique(rows['text'], axis=0)
  np.testing.assert_array_equal(got, np.unique(want, axis=0))
  np.testing.assert_array_equal(
    rows['frame_mask'][:1], arrays['train_multi_item1_video_mask'] > 0
  )
  first = msrvtt_frames.make(view='pairs', **options)
  np.testing.assert_array_equal(whole(first)['text'][1], want[0])


def test_msrvtt_one_caption_per_video(present, expected, tokenizer):
  # Without --expand_msrvtt_sentences a caption is drawn for every row.
  arrays, facts = expected('msrvtt')
  options = msrvtt(present, arrays, tokenizer, split='train_9k')
  options['paths'] = {'train_9k': present('msrvtt/train.csv')}
  pairs = msrvtt_frames.make(view='pairs', captions='one', **options)
  want = facts['train_not_expanded']
  assert list(pairs.ids) == want['video_ids'] and len(pairs) == want['length']
  for row, video in enumerate(pairs.ids):
    told = set(pairs.texts(np.full(200, row), np.arange(200)))
    assert told == set(want['candidates'][video])


# ------------------------------------------------------------------------ MSVD


def test_msvd(present, expected, tokenizer, errors):
  arrays, facts = expected('msvd')
  options = {
    'split': 'test',
    'root': present('msvd'),
    'tokenizer': tokenizer,
    'max_frames': arrays['video_mask'].shape[1],
    'max_words': arrays['ids'].shape[1],
    'image_size': arrays['video_uint8'].shape[2],
  }
  items = msvd_frames.make(view='items', **options)
  queries = msvd_frames.make(view='queries', **options)
  truth = queries.ground_truth(items)
  ends = np.cumsum(np.bincount(truth.item_of_query))
  assert ends.tolist() == facts['cut_off_points']
  names = [name.rpartition('#')[0] for name in queries.ids]
  assert [list(p) for p in zip(names, queries.texts)] == facts['pairs']
  text = whole(queries)['text']
  np.testing.assert_array_equal(text, arrays['ids'])
  np.testing.assert_array_equal(real(text), arrays['mask'] > 0)
  check_clips(
    errors,
    whole(items),
    truth.item_of_query,
    arrays['video_mask'],
    arrays['video_mean'],
    arrays['video_uint8'],
  )


def test_msvd_has_a_validation_list_of_its_own(present):
  # Upstream validates on test_list.txt.
  folder = present('msvd')
  for split in ('train', 'val', 'test'):
    want = present(f'msvd/{split}_list.txt').read_text().split()
    found = msvd_frames.make(view='items', split=split, root=folder)
    assert list(found.ids) == want and not found.unreadable


# ------------------------------------------------- ActivityNet, DiDeMo, LSMDC


def sizes(root):
  """Sides of frames in the golden folder; one file does not tell its own."""
  with np.load(eercf_goldens.present(root / 'rawvideo.npz')) as file:
    found = {file[key].shape[-1] for key in file.files}
  configs = eercf_goldens.present(root / 'configs.json')
  named = json.loads(configs.read_text()).values()
  return sorted(found | {given['res'] for given in named})


def test_activitynet(root, present, other, tokenizer, errors):
  want = other('activitynet')
  ids, mask = (
    np.asarray(want[f'item0_{key}']) for key in ('ids', 'video_mask')
  )
  place = published.place(
    activitynet_frames.PUBLISHED, 'train', present('activitynet')
  )
  table = place.table()
  got = [
    [video, text, span[1]]
    for (video, text), span in zip(texts(table), table.spans)
  ]
  assert got == want['pairs'] and all(span[0] == 0 for span in table.spans)
  tried = []
  for size in sizes(root):
    pairs = activitynet_frames.make(
      view='pairs',
      split='train',
      root=place.root,
      tokenizer=tokenizer,
      max_frames=mask.shape[1],
      max_words=ids.shape[1],
      image_size=size,
    )
    batch = pairs.gather(np.zeros(1, np.int64), np.zeros(1, np.int64))
    np.testing.assert_array_equal(batch['text'], ids)
    np.testing.assert_array_equal(batch['frame_mask'], mask > 0)
    tried.append(means(batch))
  nearest = min(tried, key=lambda m: abs(m - want['item0_video_mean']).max())
  errors.close(
    'mean', nearest, np.asarray([want['item0_video_mean']]), atol=NORMALISED
  )


def test_didemo(present, other, tmp_path):
  # EERCF takes '.mp4' off the names of files but not off the ids of the list,
  # so that it loses ids with '.mp4'; ours finds them, too.
  want = other('didemo')
  for name in want['files_on_disk']:
    (tmp_path / name).touch()
  place = published.place(
    didemo_frames.PUBLISHED, 'test', present('didemo'), str(tmp_path)
  )
  table = place.table()
  got = [
    [video, text, *span]
    for (video, text), span in zip(texts(table), table.spans)
  ]
  assert [row for row in got if row in want['pairs']] == want['pairs']
  lost = [row[0] for row in got if row not in want['pairs']]
  assert all(video.endswith('.mp4') for video in lost)
  found = place.find(table)
  assert sorted(path.name for path in found) == sorted(want['files_on_disk'])


def test_lsmdc(present, other, tmp_path):
  # Upstream drops rows whose clip is missing; ours stay in an evaluation and
  # are left out of training.
  want = other('lsmdc')
  (tmp_path / 'film').mkdir()
  for clip in want['present']:
    (tmp_path / 'film' / f'{clip}.avi').touch()
  place = published.place(
    lsmdc_frames.PUBLISHED, 'test', present('lsmdc'), str(tmp_path)
  )
  table = place.table()
  found = place.find(table)
  there = [video for video, path in zip(table.ids, found) if path]
  assert there == want['present']
  assert [row for row in texts(table) if row[0] in there] == want['pairs']
  items = lsmdc_frames.make(
    view='items', split='test', root=place.root, videos=str(tmp_path)
  )
  assert len(items) == len(table.ids)
  assert set(items.unreadable) == set(table.ids) - set(there)
