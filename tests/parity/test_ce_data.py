"""The tensors that the upstream loaders make of the same files."""

import warnings

import numpy as np
import pytest

from tests.parity import ce_packs


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory, monkeypatch):
  """All jobs share prepared records: a second job finds the first's."""
  folder = tmp_path_factory.getbasetemp() / 'ce_data'
  monkeypatch.setenv('VIDRET_DATA_DIR', str(folder))


def open_views(golden_root, job, *, train, views, cache='ram'):
  module, manual, asked, viewed = ce_packs.data_of(
    golden_root, job, train=train
  )
  with warnings.catch_warnings():
    # The golden packs are narrower than the published ones.
    warnings.filterwarnings('ignore', message='text.dim')
    module.prepare(manual_dir=str(manual), **asked)
    return [
      module.make(view=view, cache=cache, **asked, **viewed) for view in views
    ]


def whole(source):
  index = np.arange(len(source))
  return source.gather(index, np.zeros_like(index))


def compare_experts(errors, batch, want_experts, want_ind, names):
  """Checks availability, and the features where there are any."""
  for m, name in enumerate(names):
    ind = want_ind[name].astype(bool)
    np.testing.assert_array_equal(batch['available'][:, m], ind, err_msg=name)
    want = want_experts[name]
    got = batch['experts'][name]
    assert got.shape == want.shape, name
    assert np.isnan(want[~ind]).all(), name
    assert not got[~ind].any(), name
    # The same numbers in the same places: nothing is computed here.
    errors.close(f'experts/{name}', got[ind], want[ind], atol=0)
    if name in batch.get('experts_mask', {}):
      mask = batch['experts_mask'][name]
      assert not got[~mask].any() and not mask[~ind].any()


def part(arrays, prefix):
  return {k[len(prefix) :]: arrays[k] for k in arrays if k.startswith(prefix)}


@pytest.mark.parametrize('cache', ['ram', None])
def test_retrieval_tensors(golden_root, errors, job, cache):
  file = golden_root / 'ce' / 'e2e' / job / 'expected.npz'
  if not file.is_file():
    pytest.skip(f'no {file.name} in {job}')
  want = dict(np.load(file))
  items, queries = open_views(
    golden_root, job, train=False, views=('items', 'queries'), cache=cache
  )

  ids = [
    str(p).split('/', 1)[1].removesuffix('.mp4')
    for p in want['retrieval/paths']
  ]
  assert list(items.ids) == ids
  batch = whole(items)
  compare_experts(
    errors,
    batch,
    part(want, 'retrieval/experts/'),
    part(want, 'retrieval/ind/'),
    items.names,
  )
  assert set(items.names) == set(part(want, 'retrieval/experts/'))

  # Upstream has a slot for every caption that might exist; ours are those
  # that do.
  exists = want['query_masks'].astype(bool)
  truth = queries.ground_truth(items)
  np.testing.assert_array_equal(
    np.bincount(truth.item_of_query, minlength=len(ids)), exists.sum(1)
  )
  order = np.flatnonzero(exists.reshape(-1))
  np.testing.assert_array_equal(truth.item_of_query, order // exists.shape[1])
  text = whole(queries)
  assert not text['text'][~text['text_mask']].any()
  assert text['text_mask'].any(axis=1).all()
  if 'retrieval/text' in want:
    slots = want['retrieval/text'].reshape(-1, *text['text'].shape[1:])
    errors.close('text', text['text'], slots[order], atol=0)
    assert not slots[~exists.reshape(-1)].any()


def test_training_batch(golden_root, errors, job):
  file = golden_root / 'ce' / 'e2e' / job / 'train_batch.npz'
  if not file.is_file():
    pytest.skip(f'no {file.name} in {job}')
  want = dict(np.load(file))
  (pairs,) = open_views(golden_root, job, train=True, views=('pairs',))
  videos = [str(v) for v in want['videos']]
  assert [pairs.ids[i] for i in want['indices']] == videos
  index = want['indices']

  # Find row seeds that draw the captions upstream happened to draw.
  picks = np.maximum(want['caption_pick'], 0)
  seeds = np.zeros(len(index), np.int64)
  for row in range(len(index)):
    tries = np.arange(1000)
    drawn = pairs.picks(np.full(1000, index[row]), tries)
    seeds[row] = tries[drawn == picks[row]][0]
  batch = pairs.gather(index, seeds)

  compare_experts(
    errors,
    batch,
    part(want, 'experts/'),
    part(want, 'ind/'),
    sorted(part(want, 'ind/')),
  )
  errors.close('text', batch['text'], want['text'][:, 0], atol=0)
  np.testing.assert_array_equal(
    batch['text_mask'].sum(1), want['text_token_mask'][:, 0]
  )
