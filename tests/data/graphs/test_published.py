# SPDX-License-Identifier: Apache-2.0
"""The reader of published roots: what it finds, and what it refuses."""

import json
import pathlib
import pickle
import shutil
import warnings

import h5py
import numpy as np
import pytest

from tests.data import graph_sets
from tests.data.test_pickles import Evil
from vidret_jax.data import pickles
from vidret_jax.data.graphs import files, layout, places, published, tensors

LAYOUTS = {
  'msrvtt': layout.MSRVTT,
  'epic_kitchens': layout.EPIC_KITCHENS,
  'msvd': layout.MSVD,
  'charades': layout.CHARADES,
}
WIDTH = 3


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """dataset -> root, made once and not to be changed."""
  found = {}

  def root(dataset):
    if dataset not in found:
      folder = tmp_path_factory.mktemp(dataset)
      found[dataset] = graph_sets.write_root(dataset, folder, widths=WIDTH)
    return found[dataset]

  return root


@pytest.fixture
def copied(made, tmp_path):
  """dataset -> a root of one's own."""
  return lambda dataset: shutil.copytree(made(dataset), tmp_path / 'root')


def opened(dataset, root, **options):
  return published.Published(LAYOUTS[dataset], root, **options)


def find(root, name) -> pathlib.Path:
  (path,) = root.rglob(name)
  return path


def edit(root, name, change):
  """Changes what a JSON file holds."""
  path = find(root, name)
  value = json.loads(path.read_text())
  changed = change(value)
  path.write_text(json.dumps(value if changed is None else changed))
  return path


@pytest.mark.parametrize('dataset', graph_sets.DATASETS)
def test_everything_is_found(made, dataset):
  found = opened(dataset, made(dataset))
  assert {s: len(n) for s, n in found.names.items()} == {
    'train': 6, 'val': 3, 'test': 4
  }  # fmt: skip
  assert found.width == WIDTH * len(LAYOUTS[dataset].streams)
  assert found.words[: tensors.UNKNOWN] == ('<BOS>', '<EOS>')
  assert graph_sets.UNKNOWN not in found.word2int
  for split, names in found.names.items():
    for name in names:
      x = found.features(split, name)
      assert x.dtype == np.float32 and x.shape[1] == found.width
      for text in found.captions(name):
        tensors.graph(found.graph(text), max_words=9, num_verbs=2, num_nouns=2)
  for name in found.names['train']:
    assert len(found.classes(name)) == len(found.captions(name))
  asked = found.evaluation('test')
  assert found.relevance('test').shape == (4, len(asked.texts))
  if dataset != 'epic_kitchens':
    said = [t for n in found.names['test'] for t in found.captions(n)]
    assert list(asked.texts) == said and asked.owners is None
    # The first caption of the first clip is the second clip's, too.
    assert asked.answers[0].tolist() == [0, 1]
  assert all(p.is_file() for p in found.files.values())


def test_only_what_is_asked_for_is_read(copied):
  root = copied('msvd')
  for path in (*root.rglob('*t*n_names.npy'), *root.rglob('trn_ft.hdf5')):
    path.unlink()
  for name in ('msvd_train.json', 'sent2rolegraph.augment.json'):
    find(root, name).unlink()
  find(root, 'word2int_msvd.json').unlink()
  (root / 'annotation').rename(root / 'annotations')
  found = opened(
    'msvd', root, splits=['test'], streams=['Swin3D'], graphs=False,
    vocabulary=False,
  )  # fmt: skip
  assert found.width == WIDTH and list(found.names) == ['test']
  with pytest.raises(ValueError, match='graphs=True'):
    found.graph('a')


def test_absent_files_are_all_named(copied):
  root = copied('epic_kitchens')
  csv = find(root, graph_sets.NARRATIONS)
  names = find(root, 'trn_names.npy')
  features = find(root, 'EPIC100_TBN_feats_SA_val.hdf5')
  for path in (csv, names, features):
    path.unlink()
  with pytest.raises(places.MissingFiles) as error:
    opened('epic_kitchens', root)
  text = str(error.value)
  assert isinstance(error.value, FileNotFoundError)
  for part in (str(csv), str(names), str(features), 'zenodo.11351375'):
    assert part in text
  assert 'epic-kitchens-100-annotations' in text
  assert 'vidret_jax.tools.prepare' in text and str(csv.name) in text
  with pytest.raises(places.MissingFiles, match='the folder .*nowhere'):
    opened('epic_kitchens', root / 'nowhere')


def test_files_elsewhere(copied):
  root = copied('msrvtt')
  moved = root.parent / 'mine.json'
  find(root, 'ref_captions.json').rename(moved)
  matrix = find(root, 'sorted*_val.hdf5')
  matrix.rename(root / 'v.hdf5')
  found = opened('msrvtt', root, paths={'captions': str(moved)})
  assert found.relevance('val') is None  # Not every measure needs one.
  found = opened(
    'msrvtt', root,
    paths={
      'captions': str(moved), 'relevance_val': 'v.hdf5', 'relevance_test': ''
    },
  )  # fmt: skip
  assert found.relevance('val') is not None
  assert found.relevance('test') is None
  with pytest.raises(places.MissingFiles, match='gone.pkl'):
    opened(
      'msrvtt', root,
      paths={'captions': str(moved), 'relevance_val': 'gone.pkl'},
    )  # fmt: skip
  with pytest.raises(ValueError, match=r"unknown keys of paths \['relevant'\]"):
    opened('msrvtt', root, paths={'relevant': ''})


@pytest.mark.parametrize(
  'options, said',
  [
    ({'splits': ['dev']}, "splits .'dev'.; known"),
    ({'splits': []}, 'known'),
    ({'streams': []}, 'expected folders of ordered_feature/MSVD/'),
    ({'streams': ['ViT', 'ViT']}, 'each once'),
  ],
)
def test_unknown_options(made, options, said):
  with pytest.raises(ValueError, match=said):
    opened('msvd', made('msvd'), **options)


# --- Lists and vocabulary.


def test_lists_may_be_object_arrays_of_strings_only(copied):
  root = copied('charades')
  path = find(root, 'val_names.npy')
  names = np.load(path, allow_pickle=True)
  assert names.dtype == object
  assert opened('charades', root).names['val'] == tuple(names)
  target = root / 'owned'
  np.save(path, np.array([names[0], Evil(target)], object))
  with pytest.raises(pickles.UnsafePickle, match='val_names.npy'):
    opened('charades', root)
  assert not target.exists()


@pytest.mark.parametrize(
  'value, said',
  [
    (np.array(['x', 1], object), "entry 1 is '1' .int., expected a string"),
    (np.array([['x']]), r'expected a list of clips, found shape \(1, 1\)'),
    (np.array([1.0]), 'entry 0 is'),
    (np.array(['x', 'x']), "'x' occurs twice"),
    (np.array([], str), 'no clips'),
    (np.array(['x', '']), 'entry 1'),
  ],
)
def test_lists_of_something_else(copied, value, said):
  root = copied('msvd')
  np.save(find(root, 'val_names.npy'), value)
  with pytest.raises(files.BadFile, match=said) as error:
    opened('msvd', root)
  assert 'val_names.npy' in str(error.value)


@pytest.mark.parametrize('content', [b'', b'x' * 100, b'\x93NUMPY\x01\x00'])
def test_damaged_list(copied, content):
  root = copied('msvd')
  find(root, 'val_names.npy').write_bytes(content)
  with pytest.raises(files.BadFile, match='val_names.npy'):
    opened('msvd', root)


@pytest.mark.parametrize(
  'change, said',
  [
    (lambda v: v.update(new=10**6), "the id of 'new' is '1000000'"),
    (lambda v: v.update(new='3'), "the id of 'new' is '3'"),
    (lambda v: v.update(new=4), "the id of 'new' is 4, but word 4 of"),
    (lambda v: list(v), 'expected a JSON object, found list'),
  ],
)
def test_vocabularies_that_do_not_belong_together(copied, change, said):
  root = copied('msvd')
  edit(root, 'word2int_msvd.json', change)
  with pytest.raises(files.BadFile, match=said) as error:
    opened('msvd', root)
  assert 'word2int_msvd.json' in str(error.value)


def test_vocabulary_without_reserved_words(copied):
  root = copied('msvd')
  np.save(find(root, 'int2word_msvd.npy'), np.array(['a', 'b']))
  with pytest.raises(files.BadFile, match='2 words, expected more than 2'):
    opened('msvd', root)


# --- Captions and graphs.


@pytest.mark.parametrize(
  'said, expected',
  [
    (None, 'has no caption'),
    ([], 'has no caption'),
    (['fine', ' \t'], 'caption 1 of clip .* is empty'),
    ([3], "caption 0 of clip .* is '3', expected a string"),
    (['\ud800'], 'expected a string'),
    ('text', 'expected a list of strings'),
  ],
)
def test_captions_that_cannot_be_used(copied, said, expected):
  root = copied('msvd')
  clip = opened('msvd', root).names['test'][1]

  def change(value):
    value.pop(clip)
    if said is not None:
      value[clip] = said

  path = edit(root, 'ref_captions.json', change)
  with pytest.raises(files.BadFile, match=expected) as error:
    opened('msvd', root, graphs=False)
  assert str(path) in str(error.value) and repr(clip) in str(error.value)


def test_damaged_json(copied):
  root = copied('msvd')
  path = find(root, 'ref_captions.json')
  for text in (path.read_text()[:-9], '[' * 10**5, '1' * 10**4):
    path.write_text(text)
    with pytest.raises(files.BadFile, match='ref_captions.json'):
      opened('msvd', root)


def test_charades_keys_are_not_prefixes(copied):
  """A clip whose name begins another's keeps to its own captions."""
  root = copied('charades')
  first, last = opened('charades', root).names['train'][::5]
  longer = f'{first}_9'  # Its captions have keys such as '<first>_9_0'.
  for path in root.rglob('trn_names.npy'):
    names = np.load(path, allow_pickle=True)
    np.save(path, np.where(names == last, longer, names))
  for path in root.rglob('trn_ft.hdf5'):
    with h5py.File(path, 'a') as file:
      file.move(last, longer)

  def rename(value):
    renamed = {k.replace(f'{last}_', f'{longer}_'): v for k, v in value.items()}
    return dict(reversed(renamed.items()))  # The order of slots decides.

  before = opened_texts(root, first, last)
  edit(root, 'ref_captions.json', rename)
  edit(
    root, 'charades_train.json', lambda v: {'database': rename(v['database'])}
  )
  found = opened('charades', root)
  assert [found.captions(first), found.captions(longer)] == before


def opened_texts(root, *clips):
  value = json.loads(find(root, 'ref_captions.json').read_text())
  return [
    tuple(t for k, (t,) in value.items() if k.rpartition('_')[0] == clip)
    for clip in clips
  ]


def test_charades_keys_have_one_caption(copied):
  root = copied('charades')
  clip = opened('charades', root).names['val'][0]
  edit(root, 'ref_captions.json', lambda v: v[f'{clip}_0'].append('one more'))
  with pytest.raises(files.BadFile, match='expected a list of one caption'):
    opened('charades', root)


def test_caption_without_graph(copied):
  root = copied('msrvtt')
  clip = opened('msrvtt', root).names['val'][2]
  text = opened('msrvtt', root).captions(clip)[0]
  path = edit(
    root, 'sent2rolegraph.augment.json', lambda v: v.pop(text) and None
  )
  with pytest.raises(files.BadFile) as error:
    opened('msrvtt', root)
  for part in (repr(text), repr(clip), str(path), 'Make one'):
    assert part in str(error.value)
  opened('msrvtt', root, graphs=False)


def test_narration_without_graph(copied):
  root = copied('epic_kitchens')
  csv = find(root, graph_sets.NARRATIONS)
  csv.write_text(csv.read_text() + 'S9,never seen\n')
  with pytest.raises(files.BadFile, match="graph for 'never seen', row"):
    opened('epic_kitchens', root)
  found = opened('epic_kitchens', root, graphs=False)
  # A sentence of no clip stays in the list.
  assert found.evaluation('test').texts[-1] == 'never seen'
  assert found.evaluation('test').answers[-1].tolist() == []
  with pytest.raises(files.BadFile, match='relevance'):
    found.relevance('test')


def test_malformed_graph(copied):
  root = copied('msrvtt')
  clip = opened('msrvtt', root).names['train'][0]
  text = opened('msrvtt', root).captions(clip)[0]
  path = edit(
    root, 'sent2rolegraph.augment.json',
    lambda v: v[text][0].update({'1': {'role': 'V', 'spans': [99]}}),
  )  # fmt: skip
  with pytest.raises(files.BadFile, match="node '1' has '99'") as error:
    opened('msrvtt', root)
  assert str(path) in str(error.value) and repr(text) in str(error.value)


@pytest.mark.parametrize(
  'text, said',
  [
    ('id,text\n1,a\n', r"no column narration, found \['id', 'text'\]"),
    ('narration\n', 'no rows'),
    ('id,narration\n1\n', 'narration 0 is'),
    ('id,narration\n1,\n', 'narration 0 is empty'),
    ('', 'no column narration'),
  ],
)
def test_tables_of_sentences(copied, text, said):
  root = copied('epic_kitchens')
  find(root, graph_sets.NARRATIONS).write_text(text)
  with pytest.raises(files.BadFile, match=said):
    opened('epic_kitchens', root)


# --- Classes.


@pytest.mark.parametrize(
  'dataset, field, value, said',
  [
    ('msvd', 'verb_class', ['2'], "verb classes .*'2'"),
    ('msvd', 'noun_classes', [-1], 'noun classes .*-1'),
    ('epic_kitchens', 'noun_classes', '[3, x]', 'noun classes .*3, x'),
    ('epic_kitchens', 'verb_class', 97, 'verb class 97, .* from 0 to 96'),
    ('epic_kitchens', 'noun_classes', '[300]', 'noun class 300'),
    ('charades', 'verb_class', None, 'verb classes'),
  ],
)
def test_classes_that_are_none(copied, dataset, field, value, said):
  root = copied(dataset)
  name = LAYOUTS[dataset].classes

  def change(found):
    key = next(iter(found['database']))
    found['database'][key]['annotations'][0][field] = value

  path = edit(root, name, change)
  with pytest.raises(files.BadFile, match=said) as error:
    opened(dataset, root)
  assert str(path) in str(error.value)
  opened(dataset, root, splits=['val'])  # Classes are for training only.


@pytest.mark.parametrize('dataset', graph_sets.DATASETS)
def test_caption_without_annotation(copied, dataset):
  root = copied(dataset)
  clip = opened(dataset, root).names['train'][2]
  stem = clip.removesuffix('.mp4')

  def change(found):
    key = max(k for k in found['database'] if k.startswith(stem))
    found['database'].pop(key)

  edit(root, LAYOUTS[dataset].classes, change)
  with pytest.raises(files.BadFile, match=f'no annotation .*{stem}') as error:
    opened(dataset, root)
  assert repr(clip) in str(error.value)


@pytest.mark.parametrize('value', [{}, {'annotations': []}, 3, None])
def test_malformed_annotation(copied, value):
  root = copied('epic_kitchens')
  edit(
    root, 'epic100_train.json',
    lambda v: v['database'].update(dict.fromkeys(v['database'], value)),
  )  # fmt: skip
  with pytest.raises(files.BadFile, match='expected .*annotations'):
    opened('epic_kitchens', root)


def test_msrvtt_captions_have_the_keys_by_rank(copied):
  """Slot 10 comes after slot 9, and gaps do not matter."""
  root = copied('msrvtt')
  clip = opened('msrvtt', root).names['train'][0]
  before = opened('msrvtt', root).classes(clip)
  stem = clip.removesuffix('.mp4')

  def change(found):
    database = found['database']
    for k in reversed(range(len(before))):
      database[f'{stem}_{9 + k}'] = database.pop(f'{stem}_{k}')

  edit(root, 'msrvtt_train.json', change)
  assert opened('msrvtt', root).classes(clip) == before
  edit(
    root, 'msrvtt_train.json',
    lambda v: v['database'].update({f'{stem}_99': v['database'][f'{stem}_9']}),
  )  # fmt: skip
  with pytest.warns(UserWarning, match='3 captions, but 4 annotations'):
    assert opened('msrvtt', root).classes(clip) == before


# --- Features.


def put(root, name, clip, value):
  path = find(root, name)
  with h5py.File(path, 'a') as file:
    del file[clip]
    if value is not None:
      file[clip] = value
  return path


@pytest.mark.parametrize(
  'value, said',
  [
    (None, 'no dataset'),
    (np.zeros((4, WIDTH + 1), 'f4'), 'have width 4, expected 3 as clip'),
    (np.zeros((2, 4, WIDTH), 'f4'), r'float32 \(2, 4, 3\), expected'),
    (np.zeros(WIDTH, 'f4'), 'expected floats .frames, width.'),
    (np.zeros((0, WIDTH), 'f4'), 'at least one frame'),
    (np.zeros((4, WIDTH), 'i4'), 'are int32'),
    (b'text', 'expected floats'),
    (h5py.SoftLink('/other'), 'not a plain dataset|no dataset'),
    (h5py.ExternalLink('other.hdf5', '/x'), 'not a plain dataset|no dataset'),
  ],
)
def test_features_that_cannot_be_used(copied, value, said):
  root = copied('epic_kitchens')
  clip = opened('epic_kitchens', root).names['val'][1]
  path = put(root, 'EPIC100_TBN_feats_SA_val.hdf5', clip, value)
  with pytest.raises(files.BadFile, match=said) as error:
    opened('epic_kitchens', root)
  assert str(path) in str(error.value) and repr(clip) in str(error.value)


def test_hdf5_that_points_to_other_files_is_refused(copied):
  root = copied('epic_kitchens')
  clip = opened('epic_kitchens', root).names['val'][1]
  secret = root / 'secret'
  secret.write_bytes(bytes(4 * WIDTH * 4))
  path = find(root, 'EPIC100_TBN_feats_SA_val.hdf5')
  with h5py.File(path, 'a') as file:
    del file[clip]
    file.create_dataset(
      clip, (4, WIDTH), 'f4', external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
    )
  with pytest.raises(files.BadFile, match='not a plain dataset'):
    opened('epic_kitchens', root)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_numbers_that_are_not_finite(copied, bad):
  root = copied('epic_kitchens')
  clip = opened('epic_kitchens', root).names['val'][1]
  value = np.full((4, WIDTH), bad, np.float32)
  put(root, 'EPIC100_TBN_feats_SA_val.hdf5', clip, value)
  found = opened('epic_kitchens', root)
  with pytest.raises(files.BadFile, match='NaN or Inf') as error:
    found.features('val', clip)
  assert repr(clip) in str(error.value)


def test_width_differs_between_splits(copied):
  root = copied('epic_kitchens')
  for clip in opened('epic_kitchens', root).names['test']:
    value = np.zeros((4, 5), np.float32)
    path = put(root, 'EPIC100_TBN_feats_SA_tst.hdf5', clip, value)
  with pytest.raises(files.BadFile, match='width 5 in split .test.') as error:
    opened('epic_kitchens', root)
  assert str(path) in str(error.value)


def test_a_leading_axis_and_slashes(copied):
  root = copied('msvd')
  old = opened('msvd', root).names['val'][0]
  path = find(root, 'val_names.npy')
  names = np.load(path)
  np.save(path, np.where(names == old, 'a/b', names))
  value = np.arange(6, dtype=np.float32).reshape(1, 2, WIDTH)
  for stream in ('ViT', 'Swin3D'):
    put(root, f'{stream}/val_ft.hdf5', old, None)
    with h5py.File(find(root, f'{stream}/val_ft.hdf5'), 'a') as file:
      file['a_b'] = value
  edit(root, 'ref_captions.json', lambda v: v.update({'a/b': v[old]}))
  found = opened('msvd', root, streams=['ViT', 'Swin3D'])
  np.testing.assert_array_equal(
    found.features('val', 'a/b'), np.concatenate([value[0]] * 2, axis=1)
  )
  assert pickle.loads(pickle.dumps(found)).features('val', 'a/b').shape == (
    2,
    6,
  )


def test_two_clips_with_one_key(copied):
  root = copied('msvd')
  path = find(root, 'val_names.npy')
  names = np.load(path)
  np.save(path, np.array(['a/b', 'a_b', *names[2:]]))
  edit(
    root, 'ref_captions.json',
    lambda v: v.update({'a/b': v[names[0]], 'a_b': v[names[1]]}),
  )  # fmt: skip
  with h5py.File(find(root, 'ViT/val_ft.hdf5'), 'a') as file:
    file['a_b'] = file[names[0]][()]
  with pytest.raises(files.BadFile, match="'a/b' and 'a_b' have the same key"):
    opened('msvd', root)


def test_no_hdf5(copied):
  root = copied('epic_kitchens')
  find(root, 'EPIC100_TBN_feats_SA_val.hdf5').write_bytes(b'no')
  with pytest.raises(files.BadFile, match='cannot be read as HDF5'):
    opened('epic_kitchens', root)


# --- Relevance.


def test_relevance_of_another_shape(copied):
  root = copied('msvd')
  path = find(root, 'msvd_val_relevance.pkl')
  path.write_bytes(pickle.dumps(np.zeros((3, 2))))
  found = opened('msvd', root)
  with pytest.raises(files.BadFile) as error:
    found.relevance('val')
  text = str(error.value)
  want = len(found.evaluation('val').texts)
  for part in (str(path), '3 x 2', f'3 clips and {want} captions', "'val'"):
    assert part in text
  assert "paths=dict(relevance_val='<file>')" in text


def test_relevance_is_not_run(copied):
  root = copied('msvd')
  target = root / 'owned'
  path = find(root, 'msvd_val_relevance.pkl')
  path.write_bytes(pickle.dumps(Evil(target)))
  with pytest.raises(ValueError, match='nothing in it was run'):
    opened('msvd', root).relevance('val')
  assert not target.exists()


def test_charades_borrows_the_matrix_of_the_test_split(copied):
  root = copied('charades')
  found = opened('charades', root)
  # The lists of the two splits differ here, so it does not fit.
  with pytest.warns(UserWarning, match='is of the test split; it does not fit'):
    assert found.relevance('val') is None
  del found  # HDF5 would go on with what it has open.
  for split in ('names.npy', 'ft.hdf5'):
    for path in root.rglob(f'tst_{split}'):
      shutil.copy(path, path.with_name(f'val_{split}'))
  found = opened('charades', root)
  with pytest.warns(UserWarning, match='chosen by it is chosen on test clips'):
    matrix = found.relevance('val')
  np.testing.assert_array_equal(matrix, found.relevance('test'))
  test = find(root, 'charades_test_relevance_SYN.pkl')
  shutil.copy(test, test.with_name('mine.pkl'))
  found = opened(
    'charades', root,
    paths={'relevance_val': 'annotation/charadesRET/mine.pkl'},
  )  # fmt: skip
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert found.relevance('val') is not None


# --- 1k-A.


def test_1ka(made):
  root = made('msrvtt')
  with pytest.raises(ValueError, match='has no role graphs'):
    published.Published(layout.MSRVTT_1KA, root)
  found = published.Published(
    layout.MSRVTT_1KA, root, splits=['train', 'test'], graphs=False
  )
  full = opened('msrvtt', root)
  names = found.names['test']
  asked = found.evaluation('test')
  # Of every second clip the last caption replaces the first.
  want = [full.captions(n)[0 if i % 2 else -1] for i, n in enumerate(names)]
  assert list(asked.texts) == want
  assert [a.tolist() for a in asked.answers] == [[i] for i in range(len(names))]
  assert asked.owners == tuple(range(len(names)))
  assert found.relevance('test') is None
  x = found.features('test', names[0])
  assert x.shape == (48, found.width)
  np.testing.assert_allclose((x[:, :WIDTH] ** 2).sum(1), 1, rtol=1e-5)
  name = found.names['train'][0]
  assert found.captions(name) == full.captions(name)


def test_1ka_replaces_no_caption_if_told_so(copied):
  root = copied('msrvtt')
  find(root, 'caps_msrvtt_1kA_wrong.json').unlink()
  options = dict(splits=['test'], graphs=False)
  with pytest.raises(places.MissingFiles, match='caps_msrvtt_1kA_wrong'):
    published.Published(layout.MSRVTT_1KA, root, **options)
  found = published.Published(
    layout.MSRVTT_1KA, root, paths={'replaced_1ka': ''}, **options
  )
  full = opened('msrvtt', root)
  want = [full.captions(name)[0] for name in found.names['test']]
  assert list(found.evaluation('test').texts) == want
