"""The views of expert records: padding, choice of captions, bad records."""

import numpy as np
import pytest

from tests.data import packs
from vidret_jax.data import experts, lsmdc, msrvtt, pipeline, records, store
from vidret_jax.data import source as source_lib

EXPERTS = (
  ('speech', dict(dim=5, max_tokens=3)),
  ('imagenet.senet154.0', dict(dim=7)),
  ('face', dict(dim=4)),
  ('audio', dict(dim=3, max_tokens=2)),
)
TEXT = dict(dim=8, max_tokens=4, encoder='openai')
VIEWS = ('pairs', 'items', 'queries')
pytestmark = pytest.mark.filterwarnings('ignore:text.dim')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Records of a small MSR-VTT."""
  root = tmp_path_factory.mktemp('data')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('VIDRET_DATA_DIR', str(root))
    packs.write_pack('msrvtt', root, experts=EXPERTS, text=TEXT)
    kw = dict(split='full/train', experts=EXPERTS, text=TEXT)
    return msrvtt.prepare(**kw)


def view(folder, name, split='train', **options):
  options = {'experts': EXPERTS, 'text': TEXT, **options}
  return experts.make(str(folder), split, view=name, **options)


def flat(batch, prefix=''):
  out = {}
  for key, value in batch.items():
    if isinstance(value, dict):
      out.update(flat(value, f'{prefix}{key}/'))
    else:
      out[prefix + key] = value
  return out


def same(a, b):
  a, b = flat(a), flat(b)
  assert a.keys() == b.keys()
  for key, value in a.items():
    np.testing.assert_array_equal(value, b[key], err_msg=key)


@pytest.mark.parametrize('cache', ['ram', 'ram16', None])
@pytest.mark.parametrize('name', VIEWS)
@pytest.mark.parametrize(
  'options',
  [
    {},
    dict(fuse_captions=True),
    dict(average_captions=True),
    dict(own_available=True, max_captions=2, text_dropout=0.5),
    dict(drop=('speech', 'audio')),
  ],
)
def test_spec_is_what_gather_returns(folder, cache, name, options):
  source = view(folder, name, cache=cache, **options)
  batch = flat(source.gather(np.array([2, -1, 0]), np.array([5, 6, 7])))
  spec = flat(source.spec)
  assert spec.keys() == batch.keys()
  for key, (shape, dtype) in spec.items():
    assert batch[key].shape == (3, *shape), key
    assert batch[key].dtype == dtype, key
    assert not batch[key][1].any(), f'{key} of a padding row'
  assert list(batch['_mask']) == [True, False, True]
  assert len(source) == len(source.ids)


@pytest.mark.parametrize('name', VIEWS)
def test_memory_and_disk_agree(folder, name):
  index, seeds = np.array([3, 1, 1, -1, 7]), np.arange(5)
  ram = view(folder, name, cache='ram').gather(index, seeds)
  same(ram, view(folder, name, cache=None).gather(index, seeds))
  half = flat(view(folder, name, cache='ram16').gather(index, seeds))
  for key, value in flat(ram).items():
    np.testing.assert_allclose(half[key], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('cache', ['ram', None])
@pytest.mark.parametrize('name', VIEWS)
def test_a_batch_of_padding(folder, cache, name):
  got = flat(
    view(folder, name, cache=cache).gather(np.full(2, -1), np.zeros(2))
  )
  assert all(not value.any() for value in got.values())


def test_experts_are_in_byte_order(folder):
  upper = (('a', dict(dim=1)), ('B', dict(dim=1)), ('a.b', dict(dim=1)))
  from vidret_jax.data import batch_layout

  assert batch_layout.BatchLayout(upper, TEXT).names == ('B', 'a', 'a.b')
  items = view(folder, 'items')
  want = ('audio', 'face', 'imagenet.senet154.0', 'speech')
  assert items.names == want
  batch = items.gather(np.arange(8), np.zeros(8))
  for m, name in enumerate(want):
    missing = ~batch['available'][:, m]
    assert not batch['experts'][name][missing].any()


def test_views_share_records(folder):
  items, queries = view(folder, 'items'), view(folder, 'queries')
  assert items._records is queries._records


def test_a_row_depends_on_its_seed_alone(folder):
  pairs = view(folder, 'pairs', text_dropout=0.5)
  index, seeds = np.arange(8), np.arange(100, 108)
  whole = flat(pairs.gather(index, seeds))
  order = np.array([5, 0, 3])
  part = flat(pairs.gather(index[order], seeds[order]))
  for key, value in whole.items():
    np.testing.assert_array_equal(part[key], value[order], err_msg=key)


def test_captions_are_drawn_evenly(folder):
  pairs = view(folder, 'pairs')
  n = 4000
  draws = pairs.picks(np.zeros(n, np.int64), np.arange(n))
  counts = np.bincount(draws, minlength=4)
  assert len(counts) == 4
  # Four captions: 1000 each, standard deviation 27.
  assert np.abs(counts - n / 4).max() < 5 * 27
  # Every fourth video has one caption fewer.
  assert pairs.picks(np.full(n, 3), np.arange(n)).max() == 2
  few = view(folder, 'pairs', max_captions=2)
  assert set(few.picks(np.zeros(99, np.int64), np.arange(99))) == {0, 1}


def test_the_drawn_caption_is_the_batch(folder):
  pairs, queries = view(folder, 'pairs'), view(folder, 'queries')
  index, seeds = np.arange(8), np.arange(8) + 50
  batch = pairs.gather(index, seeds)
  slots = pairs.picks(index, seeds)
  place = {q: i for i, q in enumerate(queries.ids)}
  rows = [place[f'{pairs.ids[i]}#{s}'] for i, s in zip(index, slots)]
  want = queries.gather(np.array(rows), np.zeros(8))
  np.testing.assert_array_equal(batch['text'], want['text'])
  np.testing.assert_array_equal(batch['text_mask'], want['text_mask'])


def test_text_dropout(folder):
  plain = view(folder, 'pairs', text=dict(TEXT, max_tokens=20))
  noisy = view(
    folder, 'pairs', text=dict(TEXT, max_tokens=20), text_dropout=1.0
  )
  index, seeds = np.tile(np.arange(8), 50), np.arange(400)
  a, b = plain.gather(index, seeds), noisy.gather(index, seeds)
  before, after = a['text_mask'].sum(1), b['text_mask'].sum(1)
  assert (after >= 1).all()
  assert 0.45 < after.sum() / before.sum() < 0.56
  for row in range(20):
    kept = {t.tobytes() for t in b['text'][row, : after[row]]}
    assert kept <= {t.tobytes() for t in a['text'][row, : before[row]]}
    assert not b['text'][row, after[row] :].any()
  some = view(
    folder, 'pairs', text=dict(TEXT, max_tokens=20), text_dropout=0.25
  )
  changed = some.gather(index, seeds)['text_mask'].sum(1) != before
  assert 0.15 < changed.mean() < 0.32


def test_queries_of_each_kind(folder):
  every = view(folder, 'queries')
  assert len(every) == 8 * 4 - 2
  assert every.ids[:5] == (
    *('video0#0', 'video0#1', 'video0#2', 'video0#3'),
    'video1#0',
  )
  first = view(folder, 'queries', max_captions=1)
  assert list(first.ids) == [f'video{i}#0' for i in range(8)]
  fused = view(folder, 'queries', fuse_captions=True, max_captions=1)
  assert list(fused.ids) == [f'video{i}#0' for i in range(8)]
  assert fused.texts[0] == ' '.join(every.texts[:4])
  averaged = view(folder, 'queries', average_captions=True)
  got = averaged.gather(np.arange(8), np.zeros(8))
  assert got['text'].shape == (8, 4, 4, 8)
  slots = every.gather(np.arange(len(every)), np.zeros(len(every)))
  there = got['text_mask'].any(-1)
  assert there.sum() == len(every) and not there[3, 3]
  np.testing.assert_array_equal(got['text'][there], slots['text'])


def test_own_available_is_that_of_the_video(folder):
  items = view(folder, 'items')
  queries = view(folder, 'queries', own_available=True)
  video = items.gather(np.arange(8), np.zeros(8))['available']
  got = queries.gather(np.arange(len(queries)), np.zeros(len(queries)))
  truth = queries.ground_truth(items)
  np.testing.assert_array_equal(got['available'], video[truth.item_of_query])
  assert 'available' not in view(folder, 'queries').spec


def test_ground_truth_needs_the_videos(folder):
  queries = view(folder, 'queries', split='test')
  with pytest.raises(ValueError, match='not among the 8 items'):
    queries.ground_truth(view(folder, 'items'))


def test_in_the_training_stream_and_in_blocks(folder):
  pairs = view(folder, 'pairs')
  steps = pipeline.train_iter(pairs, batch_size=4, seed=3)
  assert flat(next(steps)).keys() == flat(pairs.spec).keys()
  queries = view(folder, 'queries', cache=None)
  real = [b['_mask'].sum() for _, b in source_lib.blocks(queries, 7)]
  assert sum(real) == len(queries)


def test_videos_stay_in_their_folder(folder, tmp_path):
  from vidret_jax.data import views

  (tmp_path / 'a.mp4').touch()
  inner = tmp_path / 'corpus'
  inner.mkdir()
  (inner / 'b.mp4').touch()
  assert views._playable(str(inner), 'b.mp4') == str(inner / 'b.mp4')
  for path in ('../a.mp4', str(tmp_path / 'a.mp4'), '', 'c.mp4'):
    assert views._playable(str(inner), path) is None
  assert views._playable(None, 'b.mp4') is None


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
  'changes, want',
  [
    (dict(experts=(('fase', dict(dim=4)),)), "unknown expert 'fase'"),
    (dict(experts=(('face', dict(dim=9)),)), 'width 4, the config expects 9'),
    (dict(experts=(('face', dict(size=9)),)), 'no `dim`'),
    (dict(text=dict(dim=6, max_tokens=3)), 'text.dim=6'),
    (dict(text=dict(dim=8)), 'max_tokens'),
    (dict(split='dev'), "no split 'dev'"),
    (dict(cache='disk'), "cache='disk'"),
    (dict(name='triples'), "view 'triples'"),
    (dict(max_captions=0), 'max_captions=0'),
    (dict(drop=('nose',)), "'nose'"),
  ],
)
def test_options_that_are_refused(folder, changes, want):
  with pytest.raises(ValueError, match=want) as error:
    view(folder, changes.pop('name', 'items'), **changes)
  assert len(str(error.value).splitlines()) < 6


def row(**changes):
  return {
    'id': b'v0',
    'captions': [b'a'],
    'video': b'',
    'text': np.ones((2, 3), np.float32),
    'text_len': np.array([2]),
    'experts': {'face': np.ones((1, 4), np.float32)},
    'available': {'face': True},
    **changes,
  }


@pytest.mark.parametrize(
  'changes, want',
  [
    (dict(experts={'face': np.full((1, 4), np.nan)}), "'experts/face', row 0"),
    (dict(text=np.array([[1, 1, 1], [1, np.inf, 1]])), "key 'text', row 1"),
    (dict(text_len=np.array([1])), 'text_len sums to 1'),
  ],
)
@pytest.mark.parametrize('meta_only', [False, True])
def test_records_that_are_refused(changes, want, meta_only):
  with pytest.raises(ValueError, match=want) as error:
    records.pack(
      [row(**changes)], {'face': 4}, 3, where='here', meta_only=meta_only
    )
  assert 'here' in str(error.value) and "'v0'" in str(error.value)


def test_packing_in_many_pieces(monkeypatch):
  monkeypatch.setattr(records, '_FLUSH_VALUES', 20)
  rng = np.random.default_rng(0)
  pieces = [rng.normal(size=(n, 3)).astype('f4') for n in (0, 4, 1, 0, 9, 2)]
  packed = records.Packed(3)
  for piece in pieces:
    packed.append(piece, [len(piece)])
  packed.close()
  np.testing.assert_array_equal(packed.flat, np.concatenate(pieces))
  start, length = packed.spans(np.array([4, -1, 1]))
  out, mask = packed.padded(start, length, 5)
  np.testing.assert_array_equal(out[0], pieces[4][:5])
  np.testing.assert_array_equal(out[2], np.pad(pieces[1], ((0, 1), (0, 0))))
  assert not out[1].any()
  assert mask.sum(1).tolist() == [5, 0, 4]


def test_records_with_one_id_twice():
  class Rows:
    def __len__(self):
      return 2

    def __getitems__(self, index):
      return [row() for _ in index]

  with pytest.raises(ValueError, match="'v0' occurs twice"):
    store.Records(Rows(), {'face': 4}, 3, where='x', cache='ram', corpus=None)


def test_lsmdc_and_msrvtt_do_not_mix(folder, monkeypatch, tmp_path):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  with pytest.raises(store.MissingRecords, match='lsmdc: no records'):
    lsmdc.make(view='items', split='test', experts=EXPERTS, text=TEXT)
