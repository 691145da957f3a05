# SPDX-License-Identifier: Apache-2.0
"""Every dataset of role graphs, from its published files to batches."""

import importlib
import json

import h5py
import numpy as np
import pytest

from tests.data import graph_sets
from vidret_jax.data import store
from vidret_jax.data.graphs import classes, features, tensors

WIDTHS = 6
SIZES = dict(max_words=7, num_verbs=2, num_nouns=3)


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
  """Roots by dataset, written once."""
  folder = tmp_path_factory.mktemp('roots')
  return {
    name: graph_sets.write_root(name, folder / name, widths=WIDTHS)
    for name in graph_sets.DATASETS
  }


@pytest.fixture(scope='module', autouse=True)
def data_folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    folder = tmp_path_factory.mktemp('data')
    patch.setenv('VIDRET_DATA_DIR', str(folder))
    yield folder


def module(dataset):
  return importlib.import_module(f'vidret_jax.data.{dataset}_graphs')


def prepared(roots, dataset, split, **options):
  kept = {k: v for k, v in options.items() if k not in ('cache', *SIZES)}
  return module(dataset).prepare(
    split=split, manual_dir=roots[dataset], progress=False, **kept
  )


def opened(roots, dataset, split, views=('pairs', 'items', 'queries'), **more):
  prepared(roots, dataset, split, **more)
  make = module(dataset).make
  return [make(view=view, split=split, **more) for view in views]


def whole(source):
  index = np.arange(len(source))
  return source.gather(index, index)


def home(roots, dataset):
  return next((roots[dataset] / 'annotation').iterdir())


def captions_of(roots, dataset):
  """{clip: captions} as the file has them."""
  said = json.loads((home(roots, dataset) / 'ref_captions.json').read_text())
  if dataset != 'charades':
    return said
  out = {}
  for key, (text,) in said.items():
    out.setdefault(key.rpartition('_')[0], []).append(text)
  return out


def features_of(roots, dataset, split, clip):
  """Aligned rows of a clip from the HDF5 files of the default streams."""
  found = []
  for stream in module(dataset).LAYOUTS['full'].streams:
    pattern = f'ordered_feature/*/{stream}/*{graph_sets.SPLITS[split]}*'
    (path,) = roots[dataset].glob(pattern)
    with h5py.File(path) as file:
      value = file[clip][()]
    found.append(value[0] if value.ndim == 3 else value)
  return features.select(features.align(found), 20)


@pytest.mark.parametrize('dataset', graph_sets.DATASETS)
def test_training_pairs(roots, dataset):
  pairs, items, _ = opened(roots, dataset, 'train', **SIZES)
  said = captions_of(roots, dataset)
  table = next(home(roots, dataset).glob('*_train.json'))
  table = json.loads(table.read_text())
  graphs = home(roots, dataset) / 'sent2rolegraph.augment.json'
  graphs = json.loads(graphs.read_text())
  vocabulary = next(home(roots, dataset).glob('word2int*'))
  vocabulary = json.loads(vocabulary.read_text())
  assert pairs.sizes == items.sizes == {'num_words': len(vocabulary)}
  assert pairs.ids == tuple(
    f'{clip}#{k}' for clip in items.ids for k in range(len(said[clip]))
  )
  batch = whole(pairs)
  assert batch['_mask'].all()
  for row, name in enumerate(pairs.ids):
    clip, slot = name.rsplit('#')
    text = said[clip][int(slot)]
    ids, mask = tensors.sentence(text, vocabulary, SIZES['max_words'])
    np.testing.assert_array_equal(batch['words'][row], ids)
    np.testing.assert_array_equal(batch['word_mask'][row], mask)
    for key, want in tensors.graph(graphs[text], **SIZES).items():
      np.testing.assert_array_equal(batch[key][row], want, err_msg=key)
    want, mask = features_of(roots, dataset, 'train', clip)
    np.testing.assert_array_equal(batch['features'][row], want)
    np.testing.assert_array_equal(batch['feature_mask'][row], mask)
    key = f'{clip.removesuffix(".mp4")}_{slot}'
    found = table['database'][clip if dataset == 'epic_kitchens' else key]
    for kind, field in (('verb', 'verb_class'), ('noun', 'noun_classes')):
      value = found['annotations'][0][field]
      got = batch[f'{kind}_classes'][row]
      want = sorted(set(classes.parse(value)))
      assert got[got >= 0].tolist() == want
      if dataset == 'epic_kitchens':
        of_clip = batch[f'video_{kind}_classes'][row]
        assert of_clip[of_clip >= 0].tolist() == want


@pytest.mark.parametrize('dataset', graph_sets.DATASETS)
@pytest.mark.parametrize('split', ['val', 'test'])
def test_evaluation(roots, dataset, split, recwarn):
  items, queries = opened(roots, dataset, split, ('items', 'queries'))
  told = [str(w.message) for w in recwarn if 'test split' in str(w.message)]
  # Published is one matrix, that of the test split, which does not fit here.
  assert bool(told) == (dataset == 'charades' and split == 'val')
  said = captions_of(roots, dataset)
  truth = queries.ground_truth(items)
  batch = whole(items)
  for row, clip in enumerate(items.ids):
    assert items.captions(row) == said[clip]
    want, mask = features_of(roots, dataset, split, clip)
    np.testing.assert_array_equal(batch['features'][row], want)
    np.testing.assert_array_equal(batch['feature_mask'][row], mask)
  if (dataset, split) == ('epic_kitchens', 'test'):
    listed = home(roots, dataset) / graph_sets.NARRATIONS
    listed = listed.read_text().split('\n')[1:-1]
    assert queries.texts == [line.split(',')[1] for line in listed]
  else:
    assert queries.texts == [t for clip in items.ids for t in said[clip]]
  for text, first, found in zip(
    *(queries.texts, truth.item_of_query, queries.answers(items)), strict=True
  ):
    want = [i for i, clip in enumerate(items.ids) if text in said[clip]]
    assert found.tolist() == want and first == want[0]
  if dataset == 'charades' and split == 'val':
    assert truth.graded is None
    return
  name = graph_sets._MATRICES[dataset][split]
  path = home(roots, dataset) / name
  if name.endswith('hdf5'):
    with h5py.File(path) as file:
      want = file['rel_mat'][()]
  else:
    want = np.load(path, allow_pickle=True)
  assert isinstance(truth.graded, np.memmap)
  assert truth.graded.dtype == np.float32
  np.testing.assert_array_equal(truth.graded, want.T.astype(np.float32))


@pytest.mark.parametrize('cache', ['ram', 'ram16', None])
@pytest.mark.parametrize('precision', ['float32', 'float16'])
def test_caches_and_precisions(roots, cache, precision):
  (want,) = opened(roots, 'epic_kitchens', 'train', ['pairs'])
  options = dict(cache=cache, precision=precision)
  (got,) = opened(roots, 'epic_kitchens', 'train', ['pairs'], **options)
  index = np.asarray([3, 0, -1, 3])
  want, got = (source.gather(index, index) for source in (want, got))
  assert got.keys() == want.keys()
  for key in want:
    if key == 'features' and (cache, precision) != ('ram', 'float32'):
      np.testing.assert_allclose(got[key], want[key], rtol=1e-3)
    if key != 'features' or (cache, precision) == (None, 'float32'):
      np.testing.assert_array_equal(got[key], want[key], err_msg=key)


def test_streams_and_frames(roots):
  one = dict(streams=('resnet152.pth',), max_frames=5)
  (items,) = opened(roots, 'msrvtt', 'test', ['items'], **one)
  assert items.spec['features'][0] == (5, WIDTHS)
  both = dict(streams=('EAO_resnext101.pth', 'EAO_resnet152.pth'))
  (swapped,) = opened(roots, 'msrvtt', 'test', ['items'], **both)
  (usual,) = opened(roots, 'msrvtt', 'test', ['items'])
  assert swapped.spec['features'][0] == (20, 2 * WIDTHS)
  a, b = whole(swapped)['features'], whole(usual)['features']
  np.testing.assert_array_equal(np.roll(a, WIDTHS, axis=2), b)


def test_data_of_ones_own(tmp_path):
  # In the files of a published dataset, with features of any name and width.
  root = graph_sets.write_root('msvd', tmp_path, widths={'ViT': 3})
  stream = root / 'ordered_feature' / 'MSVD' / 'ViT'
  stream.rename(stream.with_name('mine'))
  options = dict(split='test', root=str(root), streams=('mine',))
  module('msvd').prepare(**options, progress=False)
  items = module('msvd').make(view='items', **options)
  assert items.spec['features'][0] == (20, 3)
  with pytest.raises(store.MissingRecords, match=str(tmp_path / 'other')):
    module('msvd').make(
      view='items', **{**options, 'root': str(tmp_path / 'other')}
    )


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_word_vectors(roots, split):
  options = dict(words='vectors', graphs=False)
  views = ('pairs', 'items', 'queries')
  pairs, items, queries = opened(roots, 'msrvtt', split, views, **options)
  for source in (pairs, queries):
    batch = whole(source)
    assert batch['word_vectors'].shape[1:] == (30, 300)
    known = [
      [w for w in text.split() if w not in graph_sets.UNHEARD]
      for text in (
        source.texts if source is queries else source.texts(
          np.arange(len(source))
        )
      )
    ]  # fmt: skip
    assert batch['word_mask'].sum(1).tolist() == [len(row) for row in known]
    assert not {*batch} & {'words', 'roles', 'verb_mask'}
    assert source.sizes == items.sizes == {}
    first = {}
    for row, words in enumerate(known):
      for place, word in enumerate(words):
        vector = batch['word_vectors'][row, place]
        np.testing.assert_array_equal(first.setdefault(word, vector), vector)
    assert all(vector.any() for vector in first.values())


def test_one_caption_per_clip(roots):
  options = dict(protocol='1ka', graphs=False, words='vectors')
  items, queries = opened(
    roots, 'msrvtt', 'test', ('items', 'queries'), **options
  )
  said = captions_of(roots, 'msrvtt')
  assert queries.texts == [
    said[clip][-1 if i % 2 == 0 else 0] for i, clip in enumerate(items.ids)
  ]
  truth = queries.ground_truth(items)
  assert truth.item_of_query.tolist() == list(range(len(items)))
  assert truth.graded is None
  batch = whole(items)
  assert batch['feature_mask'].all()  # Stretched to 48, then 20 of these.
  norms = np.linalg.norm(batch['features'][..., :WIDTHS], axis=2)
  np.testing.assert_allclose(norms, 1, rtol=1e-5)
  with pytest.raises(ValueError, match='set graphs=False'):
    prepared(roots, 'msrvtt', 'val', protocol='1ka')
  with pytest.raises(ValueError, match="'1ka' has no role graphs"):
    module('msrvtt').make(view='items', split='val', protocol='1ka')
  with pytest.raises(ValueError, match="protocol='1ka'; known: .'full'"):
    prepared(roots, 'msvd', 'val', protocol='1ka')


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(view='rows'), "Unknown view='rows'"),
    (dict(split='dev'), "msvd_graphs: unknown split='dev'"),
    (dict(words='letters'), "Unknown words='letters'"),
    (dict(cache='disk'), "Unknown cache='disk'"),
    (dict(precision='int8'), "Unknown precision='int8'"),
    (dict(max_frames=0), 'max_frames=0'),
    (dict(max_words=0), 'max_words=0'),
    (dict(protocol='2ka'), "msvd_graphs: unknown protocol='2ka'"),
    (dict(streams=('C3D',)), 'msvd_graphs: no records for this config'),
    (dict(words='vectors', word_vectors='x.bin'), 'no vectors of x.bin'),
  ],
)
def test_options_are_checked_at_once(roots, changes, message):
  prepared(roots, 'msvd', 'test')
  with pytest.raises((ValueError, store.MissingRecords), match=message):
    module('msvd').make(**{**dict(view='pairs', split='test'), **changes})
