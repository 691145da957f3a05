"""Packs in the published form -> records -> views, and what is refused."""

import importlib
import json
import math
import pickle

import numpy as np
import pytest

from tests.data import packs
from tests.data.test_pickles import Evil
from vidret_jax.data import features, store

DATASETS = ('msrvtt', 'lsmdc', 'msvd', 'didemo', 'activitynet')
EXPERTS = (
  ('speech', dict(dim=5, max_tokens=3)),
  ('imagenet.senet154.0', dict(dim=7)),
  ('face', dict(dim=4)),
  ('scene.densenet161.0', dict(dim=6)),
  ('ocr', dict(dim=5, max_tokens=4, clusters=2)),
  ('audio', dict(dim=3, max_tokens=2)),
)
TEXT = dict(dim=8, max_tokens=6, clusters=2, encoder='openai')
pytestmark = pytest.mark.filterwarnings('ignore:text.dim')


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  return tmp_path


def without(table, video):
  return {key: value for key, value in table.items() if key != video}


def asked(dataset, split='train', **changes):
  silent = dataset == 'msvd'
  chosen = [e for e in EXPERTS if not (silent and e[0] in ('audio', 'speech'))]
  return {'split': split, 'experts': chosen, 'text': TEXT, **changes}


def write(dataset, root, **changes):
  kw = asked(dataset)
  return packs.write_pack(
    dataset, root, experts=kw['experts'], text=TEXT, **changes
  )


def module(dataset):
  return importlib.import_module(f'vidret_jax.data.{dataset}')


def load(path):
  with open(path, 'rb') as stream:
    return pickle.load(stream)


def edit(path, change):
  """Changes what a pickle of the pack holds."""
  value = load(path)
  value = change(value) or value
  packs.dump(path, value)


@pytest.mark.parametrize('dataset', DATASETS)
def test_every_dataset(root, dataset):
  corpus = write(dataset, root)
  (corpus / 'videos').mkdir()
  protocol = 'full/' if dataset == 'msrvtt' else ''
  test = protocol + ('val1' if dataset == 'activitynet' else 'test')
  data = module(dataset)
  folder = data.prepare(**asked(dataset, protocol + 'train'))
  assert folder.parts[-4:-2] == ('records', dataset)
  kw = asked(dataset, test)
  assert data.prepare(**kw) == folder  # One folder for all splits.
  items = data.make(view='items', **kw)
  queries = data.make(view='queries', **kw)
  pairs = data.make(view='pairs', **{**kw, 'split': protocol + 'train'})
  assert (len(pairs), len(items)) == (8, 6)

  said = load(next((corpus / 'structured-symlinks').glob('raw-captions*')))
  order = [(v, s) for v in items.ids for s in range(len(said[v]))]
  assert list(queries.ids) == [f'{v}#{s}' for v, s in order]
  assert queries.texts == [' '.join(said[v][s]) for v, s in order]
  truth = queries.ground_truth(items)
  assert [items.ids[i] for i in truth.item_of_query] == [v for v, _ in order]
  assert items.captions(2) == [' '.join(c) for c in said[items.ids[2]]]

  assert items.videos == [None] * 6
  clip = corpus / 'videos' / f'{items.ids[3]}.mp4'
  clip.touch()
  assert items.videos[3] == str(clip)


@pytest.mark.parametrize('dataset', DATASETS)
def test_every_encoder_name_is_found(root, dataset):
  text = dict(TEXT, encoder='w2v')
  experts = asked(dataset)['experts']
  packs.write_pack(dataset, root, experts=experts, text=text)
  split = 'full/train' if dataset == 'msrvtt' else 'train'
  kw = dict(split=split, experts=experts, text=text)
  folder = module(dataset).prepare(**kw)
  assert 'w2v' in folder.parts[-2]
  assert len(module(dataset).make(view='pairs', **kw)) == 8


def test_w2v_of_the_other_archive(root):
  text = dict(TEXT, encoder='w2v')
  corpus = packs.write_pack('msrvtt', root, experts=EXPERTS, text=text)
  folder = corpus / 'structured-symlinks' / 'aggregated_text_feats'
  (folder / 'w2v.pkl').rename(folder / 'w2v_MSRVTT.pickle')
  module('msrvtt').prepare(split='full/train', experts=EXPERTS, text=text)


def test_one_chosen_caption(root):
  corpus = write('msrvtt', root, protocol='jsfusion')
  kw = asked('msrvtt', 'jsfusion/test')
  module('msrvtt').prepare(**kw)
  queries = module('msrvtt').make(view='queries', **kw)
  chosen = load(corpus / 'structured-symlinks' / 'jsfusion_val_caption_idx.pkl')
  assert list(queries.ids) == [f'{v}#{s}' for v, s in chosen.items()]
  assert len(module('msrvtt').make(view='items', **kw).captions(0)) == 4


def test_first_caption_of_1kb(root):
  write('msrvtt', root, protocol='miech')
  kw = asked('msrvtt', 'miech/test')
  module('msrvtt').prepare(**kw)
  queries = module('msrvtt').make(view='queries', **kw)
  assert len(queries) == 6 and all(q.endswith('#0') for q in queries.ids)


def test_caption_index_is_absent(root):
  corpus = write('msrvtt', root, protocol='jsfusion')
  index = corpus / 'structured-symlinks' / 'jsfusion_val_caption_idx.pkl'
  index.rename(index.with_name('jsfsion_val_caption_idx.pkl'))
  kw = asked('msrvtt', 'jsfusion/train')
  module('msrvtt').prepare(**kw)  # One archive misspells it.
  index.with_name('jsfsion_val_caption_idx.pkl').unlink()
  with pytest.raises(FileNotFoundError, match='index of the choice'):
    module('msrvtt').prepare(**kw, overwrite=True)


def test_values_arrive_unchanged(root):
  corpus = write('didemo', root)
  kw = asked('didemo')
  module('didemo').prepare(**kw)
  pairs = module('didemo').make(view='pairs', fuse_captions=True, **kw)
  batch = pairs.gather(np.arange(8), np.arange(8))
  base = corpus / 'structured-symlinks'
  speech = load(base / 'aggregated_speech_feats' / 'stt_w2v.pickle')
  tokens = load(base / 'aggregated_text_feats' / 'openai-feats.pkl')
  names = sorted(dict(kw['experts']))
  missing = 0
  for row, video in enumerate(pairs.ids):
    fused = np.concatenate(tokens[video])[:6]
    np.testing.assert_array_equal(batch['text'][row, : len(fused)], fused)
    value = speech[video]
    here = not isinstance(value, float)
    assert batch['available'][row, names.index('speech')] == here
    if here:
      n = min(3, len(value))
      got = batch['experts']['speech'][row]
      np.testing.assert_array_equal(got[:n], value[:n])
      assert not got[n:].any()
      assert batch['experts_mask']['speech'][row].sum() == n
    else:
      missing += 1
      assert not batch['experts']['speech'][row].any()
      assert not batch['experts_mask']['speech'][row].any()
  assert 0 < missing < 8


def test_msvd_takes_other_r2p1d_files(root):
  name = 'r2p1d.r2p1d-ig65m-kinetics.0'
  experts = ((name, dict(dim=5)),)
  packs.write_pack('msvd', root, experts=experts, text=TEXT)
  module('msvd').prepare(split='train', experts=experts, text=TEXT)


@pytest.mark.parametrize('form', ['h5', 'npy'])
def test_other_containers_of_a_whole_pack(root, form):
  corpus = write('lsmdc', root)
  kw = asked('lsmdc', 'test')
  plain = module('lsmdc').prepare(**kw)
  want = module('lsmdc').make(view='items', cache=None, **kw)
  want = want.gather(np.arange(6), np.zeros(6, int))
  for file in list((corpus / 'structured-symlinks').rglob('*/*.p*k*')):
    value = load_any(file)
    writer = packs.dump_hdf5 if form == 'h5' else packs.dump_npy
    writer(file.with_suffix(f'.{form}'), value)
    file.unlink()
  assert module('lsmdc').prepare(**kw, overwrite=True) == plain
  got = module('lsmdc').make(view='items', **kw)
  got = got.gather(np.arange(6), np.zeros(6, int))
  np.testing.assert_array_equal(got['available'], want['available'])
  for name, value in want['experts'].items():
    np.testing.assert_array_equal(got['experts'][name], value)


def load_any(file):
  from vidret_jax.data import containers

  return dict(containers.open_features(file))


def test_experts_of_ones_own(root):
  corpus = write('lsmdc', root)
  base = corpus / 'structured-symlinks'
  rng = np.random.default_rng(1)
  ids = list(load(base / 'raw-captions.pkl'))
  for part in ('avg', 'max'):
    packs.dump(
      base / f'mine/depth-{part}.pkl', {v: rng.normal(size=(1, 3)) for v in ids}
    )
  experts = (('depth', dict(dim=6)), ('face', dict(dim=4)))
  paths = (('depth', ('mine/depth-avg.pkl', 'mine/depth-max.pkl')),)
  kw = dict(split='train', experts=experts, text=TEXT, paths=paths)
  module('lsmdc').prepare(**kw)
  items = module('lsmdc').make(view='items', **kw)
  got = items.gather(np.arange(2), np.zeros(2, int))['experts']['depth']
  want = [
    np.concatenate(
      [load(base / f'mine/depth-{p}.pkl')[v][0] for p in ('avg', 'max')]
    )
    for v in items.ids[:2]
  ]
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_another_training_list(root):
  corpus = write('msvd', root)
  ids = packs.video_ids('msvd', 3)
  (corpus / 'structured-symlinks' / 'few.txt').write_text('\n'.join(ids))
  kw = asked('msvd', training_file='few.txt')
  module('msvd').prepare(**kw)
  assert list(module('msvd').make(view='pairs', **kw).ids) == ids


def test_prepared_records_are_left_alone(root):
  corpus = write('lsmdc', root)
  kw = asked('lsmdc')
  folder = module('lsmdc').prepare(**kw)
  before = {f: f.stat().st_mtime_ns for f in folder.iterdir()}
  assert module('lsmdc').prepare(**kw) == folder
  assert before == {f: f.stat().st_mtime_ns for f in folder.iterdir()}
  file = corpus / 'structured-symlinks' / 'raw-captions.pkl'
  edit(file, lambda value: {**value, 'new': [['x']]})
  with pytest.raises(ValueError, match='--overwrite') as error:
    module('lsmdc').prepare(**kw)
  assert str(file) in str(error.value)
  module('lsmdc').prepare(**kw, overwrite=True)


def test_beam_writes_the_same_records(root):
  pytest.importorskip('apache_beam')
  write('didemo', root)
  kw = asked('didemo', 'test')
  folder = module('didemo').prepare(**kw)

  def views():
    return [module('didemo').make(view=v, **kw) for v in ('items', 'queries')]

  want = [(v.ids, v.gather(np.arange(4), np.zeros(4, int))) for v in views()]
  module('didemo').prepare(**kw, overwrite=True, beam_runner='DirectRunner')
  assert (folder / 'dataset_info.json').exists()
  got = [(v.ids, v.gather(np.arange(4), np.zeros(4, int))) for v in views()]
  assert got[0][0] == want[0][0] and got[1][0] == want[1][0]
  np.testing.assert_array_equal(got[1][1]['text'], want[1][1]['text'])
  for name, value in want[0][1]['experts'].items():
    np.testing.assert_array_equal(got[0][1]['experts'][name], value)


# ------------------------------------------------------------------ bad input


def refused(root, dataset='lsmdc', error=ValueError, **changes):
  """The message of a prepare that must fail before it writes records."""
  with pytest.raises(error) as found:
    module(dataset).prepare(**asked(dataset, **changes))
  assert not list(root.glob('records/**/*.array_record*'))
  text = str(found.value)
  assert len(text.splitlines()) <= 24 and len(text) < 3000
  return text


def test_missing_dataset(root):
  text = refused(root, error=FileNotFoundError)
  for part in ('LSMDC', 'github.com', 'sha1', 'train_list.txt', '--manual_dir'):
    assert part in text
  with pytest.raises(store.MissingRecords) as error:
    module('lsmdc').make(view='items', **asked('lsmdc'))
  for part in ('no records', 'vidret_jax.tools.prepare', 'github.com'):
    assert part in str(error.value)


def test_missing_feature_file(root):
  corpus = write('lsmdc', root)
  next(corpus.rglob('speech-w2v.pickle')).unlink()
  text = refused(root, error=features.MissingFile)
  for part in ('speech', 'aggregated_speech/speech-w2v.pickle', 'looked in'):
    assert part in text


def test_wrong_width(root):
  corpus = write('lsmdc', root)
  wrong = tuple((n, dict(v, dim=9) if n == 'face' else v) for n, v in EXPERTS)
  text = refused(root, experts=wrong)
  file = next(corpus.rglob('face-max*'))
  for part in (str(file), 'face', 'width 9, found 4', 'dim=4'):
    assert part in text
  text = refused(root, text=dict(TEXT, dim=11))
  assert 'text.dim' in text and 'width 11, found 8' in text


def test_unknown_names(root):
  write('lsmdc', root)
  text = refused(root, experts=(*EXPERTS, ('fase', dict(dim=4))))
  assert "'fase'" in text and 'face' in text and 'paths=' in text
  text = refused(root, text=dict(TEXT, encoder='gpt9'))
  assert "'gpt9'" in text and 'openai' in text and 'text.files' in text
  assert 'known' in refused(root, split='validation')
  assert "['face'] more than once" in refused(
    root, experts=(*EXPERTS, ('face', dict(dim=4)))
  )


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_features_that_are_not_finite(root, bad):
  corpus = write('lsmdc', root)
  file = next(corpus.rglob('vggish-raw.pickle'))
  (video, *_) = (v for v, x in load(file).items() if not isinstance(x, float))

  def spoil(table):
    table[video] = np.full((2, 3), bad, np.float32)

  edit(file, spoil)
  text = refused(root)
  for part in (str(file), 'audio', video, 'finite'):
    assert part in text


def test_empty_captions(root):
  corpus = write('lsmdc', root)
  file = next(corpus.rglob('openai-text.pickle'))
  video = packs.video_ids('lsmdc', 3)[2]
  good = load(file)
  edit(file, lambda t: t.update({video: [np.zeros((0, 8), np.float32)]}))
  text = refused(root)
  for part in (str(file), video, 'empty', 'at least one token'):
    assert part in text
  edit(file, lambda t: t.update({video: []}))
  assert 'no captions' in refused(root)
  packs.dump(file, good)
  edit(
    next(corpus.rglob('raw-captions.pkl')), lambda t: t.update({video: [[]]})
  )
  text = refused(root)
  for part in ('raw-captions.pkl', video, 'empty'):
    assert part in text


@pytest.mark.parametrize(
  'name', ['raw-captions.pkl', 'openai-text.pickle', 'face-max*', 'ocr-w2v*']
)
def test_a_file_that_misses_videos(root, name):
  corpus = write('lsmdc', root)
  file = next(corpus.rglob(name))
  video = packs.video_ids('lsmdc', 12)[11]
  edit(file, lambda table: without(table, video))
  text = refused(root)
  for part in (str(file), video, 'no entry', 'take the video off the list'):
    assert part in text


def test_duplicate_ids(root):
  corpus = write('lsmdc', root)
  file = corpus / 'structured-symlinks' / 'val_list.txt'
  lines = file.read_text().split()
  file.write_text('\n'.join([*lines, lines[1]]))
  text = refused(root)
  for part in (str(file), lines[1], 'twice'):
    assert part in text


def test_unreadable_and_hostile_pickles(root):
  corpus = write('lsmdc', root)
  file = next(corpus.rglob('face-max*'))
  whole = file.read_bytes()
  file.write_bytes(whole[: len(whole) // 2])
  text = refused(root)
  assert str(file) in text and 'damaged or cut' in text
  target = root / 'owned'
  packs.dump(file, {'v': Evil(target)})
  text = refused(root)
  assert str(file) in text and 'system' in text
  assert not target.exists()


def test_msvd_keys(root):
  corpus = write('msvd', root)
  edit(
    corpus / 'structured-symlinks' / 'dict_youtube_mapping.pkl',
    lambda table: without(table, packs.video_ids('msvd', 2)[1]),
  )
  text = refused(root, 'msvd')
  assert 'dict_youtube_mapping.pkl' in text
  assert packs.video_ids('msvd', 2)[1] in text


@pytest.mark.parametrize('gone', ['info', 'shard', 'cut', 'folder'])
def test_half_written_records(root, gone):
  write('lsmdc', root)
  kw = asked('lsmdc', 'val')
  folder = module('lsmdc').prepare(**kw)
  shard = next(folder.glob('*-val.array_record*'))
  if gone == 'info':
    (folder / 'dataset_info.json').unlink()
  elif gone == 'shard':
    shard.unlink()
  elif gone == 'cut':
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
  else:
    folder.rename(folder.with_name('incomplete.ABC_1.0.0'))
  with pytest.raises(store.MissingRecords) as error:
    module('lsmdc').make(view='items', **kw)
  text = str(error.value)
  assert str(folder) in text and 'vidret_jax.tools.prepare' in text
  assert len(text.splitlines()) < 10
  if gone in ('info', 'shard'):
    with pytest.raises(store.MissingRecords, match='half written'):
      module('lsmdc').prepare(**kw)
  module('lsmdc').prepare(**kw, overwrite=True)
  assert len(module('lsmdc').make(view='items', **kw)) == 6


def test_records_remember_what_they_are_made_of(root):
  corpus = write('lsmdc', root)
  folder = module('lsmdc').prepare(**asked('lsmdc'))
  metadata = json.loads((folder / 'metadata.json').read_text())
  assert metadata['corpus'] == str(corpus)
  assert str(next(corpus.rglob('face-max*'))) in metadata['files']
  assert math.prod(metadata['files'][str(next(corpus.rglob('face-max*')))]) > 0
