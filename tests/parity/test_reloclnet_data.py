# SPDX-License-Identifier: Apache-2.0
"""Readers of ReLoCLNet: units, and the small set through records to batches."""

import json
import pathlib
import re

import h5py
import numpy as np
import pytest

from vidret_jax.data import tvr_moments
from vidret_jax.data.moments import features

_ULP = 1.2e-7  # Upstream's evaluation adds 1 / T to the start of a clip.
_ROUNDING = 1e-6  # Of a mean or a norm.


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))


class Tiny:
  """The small set and the options it was run with."""

  def __init__(self, root: pathlib.Path):
    self.root = root / 'reloclnet' / 'tiny_tvr'
    told = self.root / 'results' / 'opt.json'
    if not told.is_file():
      pytest.skip(f'{told} is absent')
    self.opt = opt = json.loads(told.read_text())
    self.files = {
      'annotations_train': opt['train_path'],
      f'annotations_{opt["eval_split_name"]}': opt['eval_path'],
      'durations': opt['video_duration_idx_path'],
      'video': opt['vid_feat_path'],
      'subtitle': opt['sub_bert_path'],
      'query': opt['desc_bert_path'],
    }
    self.options = dict(
      root=str(self.root),
      paths=self.files,
      context=opt['ctx_mode'],
      max_clips=opt['max_ctx_l'],
      max_words=opt['max_desc_l'],
      norm_video=not opt['no_norm_vfeat'],
      norm_text=not opt['no_norm_tfeat'],
      clip_seconds=opt['clip_length'],
    )
    if not (self.root / opt['train_path']).is_file():
      pytest.skip(f'{self.root / opt["train_path"]} is absent')

  def json(self, name):
    """A result, or the annotations of a file of data."""
    path = self.root / name
    if not path.is_file():
      pytest.skip(f'{path} is absent')
    return json.loads(path.read_text())


@pytest.fixture
def tiny(golden_root):
  return Tiny(golden_root)


def prepared(split, views, cache=None, **options):
  """The views of a split."""
  tvr_moments.prepare(split=split, progress=False, **options)
  return [
    tvr_moments.make(view=view, split=split, cache=cache, **options)
    for view in views
  ]


def all_of(source):
  index = np.arange(len(source))
  return source.gather(index, index)


def test_units(golden, errors, tiny):
  units = golden('data_units.npz')
  found = re.findall(r'sample(\d+)_in', ' '.join(units.under('')))
  limit = max(len(units[f'sample{n}_out']) for n in found)
  for n in found:
    got = features.sample(units[f'sample{n}_in'], limit)
    errors.close(f'sample{n}', got, units[f'sample{n}_out'], _ROUNDING)
  got = features.normalise(units['l2_in'])
  errors.close('l2', got, units['l2_out'], _ROUNDING)
  told = units['label_in_st_ed_nclip']
  got = features.labels(told[:, :2], told[:, 2], tiny.opt['clip_length'])
  np.testing.assert_array_equal(got, units['label_out'])


@pytest.mark.parametrize('cache', [None, 'ram'])
def test_batches(golden, errors, tiny, cache):
  want = golden('tiny_tvr/results/batches.npz')
  split = tiny.opt['eval_split_name']
  (items,) = prepared(split, ['items'], cache=cache, **tiny.options)
  index = np.arange(len(want['ctx3_mask']))
  got = items.gather(index, index)
  errors.close('evaluated video', got['video'], want['ctx3_video_feat'], _ULP)
  errors.close(
    'evaluated subtitle', got['subtitle'], want['ctx3_sub_feat'], _ULP
  )
  np.testing.assert_array_equal(got['clip_mask'], want['ctx3_mask'])

  (pairs,) = prepared('train', ['pairs'], cache=cache, **tiny.options)
  place = {number: i for i, number in enumerate(pairs.numbers.tolist())}
  index = np.asarray([place[i] for i in want['train4_desc_ids'].tolist()])
  got = pairs.gather(index, index)
  words = want['train4_query_mask'].shape[1]
  assert not got['query_mask'][:, words:].any()
  assert not got['query'][:, words:].any()
  for ours, theirs in (
    ('query', 'train4_query_feat'),
    ('video', 'train4_video_feat'),
    ('subtitle', 'train4_sub_feat'),
  ):
    value = got[ours][:, :words] if ours == 'query' else got[ours]
    errors.close(ours, value, want[theirs], _ULP)
  np.testing.assert_array_equal(
    got['query_mask'][:, :words], want['train4_query_mask']
  )
  np.testing.assert_array_equal(got['clip_mask'], want['train4_mask'])
  np.testing.assert_array_equal(got['span'], want['train4_st_ed'])
  clip = np.arange(want['train4_match'].shape[1])
  inside = (clip >= got['span'][:, :1]) & (clip <= got['span'][:, 1:])
  np.testing.assert_array_equal(inside, want['train4_match'])


def _results(root):
  """Split -> one file of predictions of it."""
  out = {}
  for path in sorted(root.glob('results/inference_*_predictions_*.json')):
    split = re.match(r'inference_[a-z]+_(.+?)_(None|svmronly)_', path.name)
    if split and not re.search(r'metrics|nms', path.name):
      out.setdefault(split[1], path)
  return out


def test_predictions_are_about_the_same_rows(tiny):
  found = _results(tiny.root)
  if not found:
    pytest.skip(f'{tiny.root}: no predictions')
  for split, path in found.items():
    want = json.loads(path.read_text())
    own = pathlib.Path(tiny.opt['eval_path'])
    name = own.name.replace(tiny.opt['eval_split_name'], split)
    files = {**tiny.files, f'annotations_{split}': str(own.with_name(name))}
    options = {**tiny.options, 'paths': files}
    items, queries = prepared(split, ['items', 'queries'], **options)
    assert dict(zip(items.ids, items.numbers.tolist())) == want['video2idx']
    assert list(items.ids) == list(want['video2idx'])
    for task in ('VCMR', 'SVMR', 'VR'):
      rows = want.get(task, [])
      for key, ours in (
        ('desc_id', queries.numbers.tolist()),
        ('desc', queries.texts),
      ):
        assert not rows or [row[key] for row in rows] == ours


def _annotated(tiny):
  """Split -> its file, of all that the folder has."""
  home = (tiny.root / tiny.opt['train_path']).parent
  start, _, end = pathlib.Path(tiny.opt['train_path']).name.partition('train')
  paths = sorted(home.glob(f'{start}*{end}'))
  return {p.name[len(start) : -len(end)]: p for p in paths}


def test_every_file_of_the_set(tiny):
  durations = tiny.json(tiny.opt['video_duration_idx_path'])
  features_of = (tiny.root / tiny.opt['vid_feat_path']).parent
  limit, words = tiny.opt['max_ctx_l'], tiny.opt['max_desc_l']
  for split, annotations in _annotated(tiny).items():
    rows = [json.loads(x) for x in annotations.read_text().splitlines()]
    for path in sorted(features_of.glob('*.h5')):
      files = {
        **tiny.files,
        f'annotations_{split}': str(annotations),
        'video': str(path),
      }
      options = {**tiny.options, 'paths': files, 'context': 'video'}
      items, queries = prepared(split, ['items', 'queries'], **options)
      assert [
        list(x)
        for x in zip(items.ids, items.durations, items.numbers, strict=True)
      ] == [[name, *told] for name, told in durations[split].items()]
      assert list(queries.rows) == rows
      assert queries.answered == ('vid_name' in rows[0])
      got = all_of(items)
      with h5py.File(path) as file:
        _same_rows(got['video'], got['clip_mask'], file, items.ids, limit)
      if queries.answered:
        truth = queries.ground_truth(items)
        np.testing.assert_array_equal(truth.spans, [r['ts'] for r in rows])
        got = [items.ids[i] for i in truth.item_of_query]
        assert got == [row['vid_name'] for row in rows]
    got = all_of(queries)
    with h5py.File(tiny.root / tiny.opt['desc_bert_path']) as file:
      want = [file[name][:words] for name in queries.ids]
    for row, mask, tokens in zip(
      got['query'], got['query_mask'], want, strict=True
    ):
      assert mask.sum() == len(tokens) and mask[: len(tokens)].all()
      length = np.linalg.norm(tokens, axis=1, keepdims=True) + 1e-5
      np.testing.assert_allclose(
        row[: len(tokens)], tokens / length, rtol=0, atol=_ROUNDING
      )


def _same_rows(rows, mask, file, names, limit):
  """Videos that are short enough come out as they lie in the file."""
  for got, valid, name in zip(rows, mask, names, strict=True):
    count = min(len(file[name]), limit)
    assert valid.sum() == count and valid[:count].all()
    assert not got[count:].any()
    if len(file[name]) <= limit:
      np.testing.assert_array_equal(got[:count], file[name])
