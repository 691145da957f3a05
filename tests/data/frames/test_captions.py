# SPDX-License-Identifier: Apache-2.0
"""Published annotation files -> tables, and what is refused."""

import importlib
import json
import pathlib
import pickle

import numpy as np
import pytest

from tests.data import frame_sets
from tests.data.test_pickles import Evil
from vidret_jax.data import pickles
from vidret_jax.data.frames import captions, published


def module(dataset):
  return importlib.import_module(f'vidret_jax.data.{dataset}_frames')


def table(dataset, folder, split, **changes):
  data = module(dataset).PUBLISHED
  return published.place(data, split, folder, **changes).table()


@pytest.fixture
def write(tmp_path):
  """Writes a dataset's annotations; its clips are not read here."""

  def make(dataset, **changes):
    sizes = {'train': 3, 'val': 2, 'test': 2}
    return frame_sets.write_set(
      dataset, tmp_path, videos=sizes, size=(16, 16), **changes
    )

  return make


def test_a_table_groups_by_first_appearance():
  rows = [('b', 'one'), ('a', 'two'), ('b', 'three'), ('c', 'four')]
  found = captions.table(rows, 'here')
  assert found.ids == ('b', 'a', 'c')
  assert found.captions == (('one', 'three'), ('two',), ('four',))
  assert found.rows.tolist() == [[0, 0], [1, 0], [0, 1], [2, 0]]


def test_a_table_keeps_a_list_s_order_and_leaves_out_others():
  rows = [('b', 'one'), ('a', 'two'), ('b', 'three'), ('c', 'four')]
  found = captions.table(
    rows,
    'here',
    ids=['c', 'b'],
    spans={'b': (0, 3)},
    variants=[['1', '2', '3', '4']],
  )
  assert found.ids == ('c', 'b')
  assert found.spans == (None, (0, 3))
  assert found.rows.tolist() == [[1, 0], [1, 1], [0, 0]]
  assert found.variants == ((('4',), ('1', '3')),)
  again = captions.Table.from_json(json.loads(json.dumps(found.to_json())))
  np.testing.assert_array_equal(again.rows, found.rows)
  assert (again.ids, again.captions) == (found.ids, found.captions)
  assert (again.spans, again.variants) == (found.spans, found.variants)


@pytest.mark.parametrize('dataset', frame_sets.DATASETS)
def test_every_split(write, dataset):
  folder = write(dataset)
  ids = frame_sets.video_ids(dataset, 7)
  sizes = {'train': ids[:3], 'val': ids[3:5], 'test': ids[5:]}
  if dataset == 'msrvtt':
    sizes = {
      'train_9k': ids[4::-1],
      'train_7k': ids[:3],
      'test_1ka': ids[5:],
      **{f'{split}_full': v for split, v in sizes.items()},
    }
  assert tuple(sizes) == frame_sets.SPLITS['msrvtt'] or dataset != 'msrvtt'
  assert tuple(module(dataset).PUBLISHED.splits) == frame_sets.SPLITS[dataset]
  for split in frame_sets.SPLITS[dataset]:
    found = table(dataset, folder, split)
    assert list(found.ids) == sizes[split], split
    assert len(found.rows) == sum(map(len, found.captions))
    fused = dataset in ('activitynet', 'didemo', 'lsmdc')
    many = not fused and split != 'test_1ka'
    assert (max(map(len, found.captions)) > 1) == many, split


def test_msrvtt_trains_in_the_order_of_the_json(write):
  folder = write('msrvtt')
  found = table('msrvtt', folder, 'train_9k')
  data = json.loads((folder / 'MSRVTT_data.json').read_text())
  want = [
    (s['video_id'], s['caption'])
    for s in data['sentences']
    if s['video_id'] in found.ids
  ]
  got = [(found.ids[v], found.captions[v][s]) for v, s in found.rows]
  assert got == want
  assert got != sorted(got, key=lambda row: found.ids.index(row[0]))


def test_msrvtt_paraphrases_are_of_the_same_rows(write):
  folder = write('msrvtt')
  data = json.loads((folder / 'MSRVTT_data.json').read_text())
  for row in data['sentences']:
    row['caption'] = 'again ' + row['caption']
  (folder / 'more.json').write_text(json.dumps(data))
  found = table('msrvtt', folder, 'train_7k', paraphrases=['more.json'])
  want = tuple(tuple('again ' + c for c in said) for said in found.captions)
  assert found.variants == (want,)
  data['sentences'].pop()
  (folder / 'more.json').write_text(json.dumps(data))
  with pytest.raises(captions.BadAnnotation, match=r'more\.json: its \d+ sent'):
    table('msrvtt', folder, 'train_7k', paraphrases=['more.json'])
  with pytest.raises(ValueError, match='has no paraphrases'):
    table('vatex', folder, 'train', paraphrases=['more.json'])


def test_activitynet_joins_sentences_and_rounds_durations_up(write):
  folder = write('activitynet')
  found = table('activitynet', folder, 'train')
  raw = json.loads((folder / 'train.json').read_text())
  for video, said, span in zip(found.ids, found.captions, found.spans):
    assert said == (' '.join(raw[video]['sentences']),)
    assert span == (0, -(-raw[video]['duration'] // 1))


def test_didemo_joins_descriptions_in_file_order(write):
  folder = write('didemo')
  rows = json.loads((folder / 'train_data.json').read_text())
  rows = rows[::2] + rows[1::2]
  for row in rows:  # Some archives name the converted file.
    row['video'] = row['video'].replace('.mov', '.mp4')
  (folder / 'train_data.json').write_text(json.dumps(rows))
  found = table('didemo', folder, 'train')
  assert found.ids[0].endswith('.mov')
  stem = found.ids[0].removesuffix('.mov')
  told = [r['description'] for r in rows if r['video'].startswith(stem)]
  assert found.captions[0] == (' '.join(told),)
  assert set(found.spans) == {(0, 31)}


def test_lsmdc_reads_what_is_not_utf8(write):
  folder = write('lsmdc')
  path = folder / 'LSMDC16_annos_val.csv'
  lines = path.read_bytes().splitlines()
  lines[0] = lines[0].rpartition(b'\t')[0] + b'\tat the caf\xe9 "Flor'
  path.write_bytes(b'\r\n'.join(lines))
  found = table('lsmdc', folder, 'val')
  assert found.captions[0] == ('at the café "Flor',)


def test_msvd_captions_may_be_bytes(write):
  folder = write('msvd')
  path = folder / 'raw-captions.pkl'
  said = pickle.loads(path.read_bytes())
  old = {
    k.encode(): [[w.encode() for w in c] for c in v] for k, v in said.items()
  }
  want = table('msvd', folder, 'test')
  path.write_bytes(pickle.dumps(old, protocol=2))
  assert table('msvd', folder, 'test').captions == want.captions


def test_a_pickle_cannot_run_anything(write, tmp_path):
  folder = write('msvd')
  mark = tmp_path / 'ran'
  evil = pickle.dumps({'a': Evil(mark)})
  (folder / 'raw-captions.pkl').write_bytes(evil)
  with pytest.raises(pickles.UnsafePickle, match=r'raw-captions\.pkl'):
    table('msvd', folder, 'train')
  assert not mark.exists()


@pytest.mark.parametrize(
  'dataset, split, names',
  [
    ('msrvtt', 'train_9k', ['MSRVTT_data.json', 'MSRVTT_train.9k.csv']),
    ('msvd', 'val', ['val_list.txt', 'raw-captions.pkl']),
    ('activitynet', 'val', ['val_ids.json', 'val_1.json']),
    ('didemo', 'test', ['test_list.txt', 'test_data.json']),
    ('lsmdc', 'train', ['LSMDC16_annos_training.csv']),
    ('vatex', 'test', ['VATEX_test.csv']),
  ],
)
def test_missing_files_are_named_together(tmp_path, dataset, split, names):
  with pytest.raises(published.MissingFiles) as caught:
    table(dataset, tmp_path, split)
  for name in names:
    assert str(tmp_path / name) in str(caught.value)
  assert 'published: http' in str(caught.value)
  assert 'paths=dict(' in str(caught.value)


def test_files_may_be_named(write, tmp_path):
  folder = write('msrvtt')
  want = table('msrvtt', folder, 'test_1ka')
  (folder / 'MSRVTT_JSFUSION_test.csv').rename(tmp_path / 'mine.csv')
  paths = {'test_1ka': str(tmp_path / 'mine.csv')}
  assert table('msrvtt', folder, 'test_1ka', paths=paths).ids == want.ids
  with pytest.raises(ValueError, match=r"\['tset'\]; known"):
    table('msrvtt', folder, 'test_1ka', paths={'tset': 'mine.csv'})
  with pytest.raises(ValueError, match="split='test'; known"):
    table('msrvtt', folder, 'test')


def rewrite(path: pathlib.Path, change):
  """Changes a text, pickle or JSON file in place."""
  if path.suffix == '.pkl':
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))
  elif path.suffix == '.json':
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value)))
  else:
    path.write_text(change(path.read_text()))


def put(value, *keys):
  """Returns a function that sets value[keys[0]][...] = value."""

  def change(node):
    inner = node
    for key in keys[:-1]:
      inner = inner[key]
    inner[keys[-1]] = value
    return node

  return change


BROKEN = {
  'no column': (
    *('msrvtt', 'train_7k', 'MSRVTT_train.7k.csv'),
    lambda text: text.replace('video_id', 'video'),
    r"7k\.csv, line 1: no column 'video_id'; found \['video'\]",
  ),
  'unknown id': (
    *('msrvtt', 'train_7k', 'MSRVTT_train.7k.csv'),
    lambda text: text.replace('video1', 'video99'),
    r"7k\.csv, line 3, column 'video_id': 'video99' has no caption in",
  ),
  'id twice': (
    *('msrvtt', 'train_7k', 'MSRVTT_train.7k.csv'),
    lambda text: text + 'video0\n',
    r"7k\.csv, line 5, column 'video_id': video id 'video0' is in line 2",
  ),
  'no value': (
    *('vatex', 'test', 'VATEX_test.csv'),
    lambda text: text + 'ret9,msr9,x\n',
    r"VATEX_test\.csv, line \d+, column 'sentence': no value",
  ),
  'empty csv': (
    *('vatex', 'test', 'VATEX_test.csv'),
    lambda text: text.splitlines()[0],
    r'VATEX_test\.csv: no videos',
  ),
  'not json': (
    *('didemo', 'test', 'test_data.json'),
    None,
    r'test_data\.json: not JSON',
  ),
  'another json': (
    *('msrvtt', 'val_full', 'MSRVTT_data.json'),
    lambda value: [value],
    r'MSRVTT_data\.json: expected a JSON object, found list',
  ),
  'no sentences': (
    *('msrvtt', 'val_full', 'MSRVTT_data.json'),
    lambda value: {'videos': value['videos']},
    r"MSRVTT_data\.json, outermost object: no key 'sentences'",
  ),
  'caption no text': (
    *('msrvtt', 'val_full', 'MSRVTT_data.json'),
    put(3, 'sentences', 1, 'caption'),
    r"sentences\[1\], key 'caption': found '3', expected str",
  ),
  'no such split': (
    *('msrvtt', 'val_full', 'MSRVTT_data.json'),
    lambda v: {
      **v,
      'videos': [row for row in v['videos'] if row['split'] != 'validate'],
    },
    r"none has split 'validate'; found \['test', 'train'\]",
  ),
  'no annotation': (
    *('activitynet', 'val', 'val_1.json'),
    lambda value: {},
    r"val_1\.json, outermost object: no key 'v_QOlSCBRmf3'",
  ),
  'endless': (
    *('activitynet', 'val', 'val_1.json'),
    put(float('inf'), 'v_QOlSCBRmf3', 'duration'),
    r"key 'duration': found inf, expected seconds",
  ),
  'no times': (
    *('activitynet', 'val', 'val_1.json'),
    put('3 s', 'v_QOlSCBRmf3', 'duration'),
    r"key 'duration': found '3 s', expected a number",
  ),
  'ids no text': (
    *('activitynet', 'val', 'val_ids.json'),
    lambda value: [1, *value],
    r"val_ids\.json, \[0\]: found '1', expected an id",
  ),
  'no description': (
    *('didemo', 'test', 'test_list.txt'),
    lambda text: text + 'absent.mov\n',
    r"test_list\.txt: video 'absent\.mov' has no description in",
  ),
  'too few columns': (
    *('lsmdc', 'test', 'LSMDC16_challenge_1000_publictect.csv'),
    lambda text: text + 'clip\t0\t1\n',
    r'publictect\.csv, line 3: found 3 columns between tabs, expected 6',
  ),
  'list twice': (
    *('msvd', 'test', 'test_list.txt'),
    lambda text: text + text,
    r'test_list\.txt, line 3: video id .* is in line 1, too',
  ),
  'empty list': (
    *('msvd', 'test', 'test_list.txt'),
    lambda text: '\n\n',
    r'test_list\.txt: no video ids',
  ),
  'captions no list': (
    *('msvd', 'test', 'raw-captions.pkl'),
    lambda said: {**said, '-4wsuPCjDB5_12_22': 'a man'},
    r"raw-captions\.pkl: the captions of video '-4\S+' are 'a man'; expected",
  ),
  'caption no words': (
    *('msvd', 'test', 'raw-captions.pkl'),
    lambda said: {**said, '-4wsuPCjDB5_12_22': [[3]]},
    r"a caption of video '-4\S+' is '\[3\]'; expected a list of words",
  ),
  'no dict': (
    *('msvd', 'test', 'raw-captions.pkl'),
    lambda said: [1],
    r'raw-captions\.pkl: expected a dict of video id to captions, found list',
  ),
  'binary list': (
    *('msvd', 'test', 'test_list.txt'),
    None,
    r'test_list\.txt: not text in UTF-8',
  ),
  'binary csv': (
    *('vatex', 'test', 'VATEX_test.csv'),
    None,
    r'VATEX_test\.csv, after line 0: not CSV in UTF-8',
  ),
  'no captions': (
    *('msvd', 'test', 'test_list.txt'),
    lambda text: text + 'stranger\n',
    r"test_list\.txt: video 'stranger' has no caption in",
  ),
}


@pytest.mark.parametrize('case', BROKEN)
def test_errors_name_file_and_place(write, case):
  dataset, split, name, change, message = BROKEN[case]
  folder = write(dataset)
  if change is None:
    (folder / name).write_bytes(b'[{"video": \xff')
  else:
    rewrite(folder / name, change)
  with pytest.raises(captions.BadAnnotation, match=message):
    table(dataset, folder, split)


def test_an_empty_caption_is_refused():
  with pytest.raises(captions.BadAnnotation, match="caption 0 of video 'a'"):
    captions.table([('a', ' ')], 'here')
