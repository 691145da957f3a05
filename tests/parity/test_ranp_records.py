# SPDX-License-Identifier: Apache-2.0
"""Published folders through records to batches, against the original's.

`test_ranp_data.py` compares the readers of the published files; here the same
numbers have gone through prepare and come out of the views.
"""

import importlib
import json

import numpy as np
import pytest

from vidret_jax.data.graphs import layout

_LAYOUTS = (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))


@pytest.fixture(scope='module')
def told(golden_root):
  """(folder, reader.json, reader.npz)."""
  root = golden_root / 'ranp'
  for name in ('reader.json', 'reader.npz'):
    if not (root / name).is_file():
      pytest.skip(f'{root / name} is absent')
  with np.load(root / 'reader.npz') as arrays:
    arrays = dict(arrays)
  return root, json.loads((root / 'reader.json').read_text()), arrays


def _dataset(toy, split, width):
  """Module and options of a toy root whose streams have that width."""
  import h5py

  home = toy / 'annotation'
  kind = next(x for x in _LAYOUTS if (home / x.annotation).is_dir())
  home = toy / 'ordered_feature' / kind.features
  widths = {}
  for folder in sorted(p.name for p in home.iterdir()):
    with h5py.File(toy / kind.feature_path(folder, split)) as file:
      widths[folder] = next(iter(file.values())).shape[-1]
  usual = tuple(s for s in kind.streams if s in widths)
  choices = [usual, tuple(widths), *((s,) for s in widths)]
  streams = next(c for c in choices if sum(widths[s] for s in c) == width)
  return importlib.import_module(f'vidret_jax.data.{kind.name}'), streams


def _tensors(batch, want, where):
  """Captions of a batch, which the original cuts at the longest."""
  longest = want['sent_ids'].shape[1]
  edges = batch['edge_mask'].astype(np.float32)
  got = {
    'sent_ids': batch['words'][:, :longest],
    'sent_lens': batch['word_mask'].sum(1),
    'verb_masks': batch['verb_mask'][..., :longest],
    'noun_masks': batch['noun_mask'][..., :longest],
    'node_roles': batch['roles'],
    'rel_edges': edges / np.maximum(edges.sum(-1, keepdims=True), 1),
  }
  assert not batch['word_mask'][:, longest:].any()
  for key, value in got.items():
    if key in want:
      np.testing.assert_array_equal(value, want[key], f'{where}{key}')


def _under(arrays, prefix):
  return {
    k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)
  }


def _kept(row):
  return row[row >= 0].tolist()


def _distinct(value):
  return sorted(set(value if isinstance(value, list) else [value]))


def _check_pairs(source, of_toy, want, where):
  items = of_toy['items']
  assert len(source) == of_toy['num_pairs']
  index = np.asarray([item['index'] for item in items])
  batch = source.gather(index, index)
  _tensors(batch, want, where)
  frames = want['attn_fts'].shape[1]
  np.testing.assert_array_equal(batch['features'][:, :frames], want['attn_fts'])
  assert not batch['features'][:, frames:].any()
  for row, item in enumerate(items):
    clip = source.ids[item['index']].rpartition('#')[0]
    assert clip == item['name']
    assert batch['feature_mask'][row].sum() == item['attn_lens']
    for ours, theirs in (
      ('verb_classes', 'verb_class'),
      ('noun_classes', 'noun_classes'),
    ):
      assert _kept(batch[ours][row]) == _distinct(item[theirs])
      key = f'video_{ours}'
      # EPIC-Kitchens has none of its own: they are the caption's.
      pooled = item.get(key) if item.get(key) is not None else item[theirs]
      assert _kept(batch[key][row]) == _distinct(pooled)


def test_records(told):
  root, reader, arrays = told
  for name, of_toy in reader.items():
    toy = root / f'tiny_{name}'
    if not toy.is_dir():
      pytest.skip(f'{toy} is absent')
    want = _under(arrays, f'{name}/collate/')
    first = _under(arrays, f'{name}/item{of_toy["items"][0]["index"]}/')
    data, streams = _dataset(toy, 'train', want['attn_fts'].shape[-1])
    options = dict(streams=streams, max_frames=len(first['attn_fts']))
    for split in ('train', 'test'):
      data.prepare(split=split, manual_dir=toy, progress=False, **options)
    options |= dict(
      max_words=len(first['sent_ids']),
      num_verbs=len(first['verb_masks']),
      num_nouns=len(first['noun_masks']),
    )
    pairs = data.make(view='pairs', split='train', **options)
    _check_pairs(pairs, of_toy, want, f'{name}/collate/')
    items, queries = (
      data.make(view=v, split='test', **options) for v in ('items', 'queries')
    )
    assert queries.texts == of_toy['tst_captions']
    graded = queries.ground_truth(items).graded
    matrix = arrays[f'{name}/tst_rel_mat'].T
    np.testing.assert_array_equal(graded, matrix.astype(np.float32))
    start, number = 0, 0
    while want := _under(arrays, f'{name}/tstcap{number}/'):
      index = np.arange(start, start + len(want['sent_ids']))
      where = f'{name}/tstcap{number}/'
      _tensors(queries.gather(index, index), want, where)
      start, number = start + len(index), number + 1
    assert number
