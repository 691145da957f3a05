# SPDX-License-Identifier: Apache-2.0
"""An index finds what the model finds, and damage never goes unnoticed."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib

import jax
import numpy as np
import pytest

from tests.search import toy_two_stage as toy
from vidret_jax import sharding
from vidret_jax.search import index as index_lib
from vidret_jax.search import index_files

RECIPE = dict(system='toy', frames=dict(max_frames=3, size=[2, 2]))
MODEL = toy.Tokens()
VARIABLES = toy.variables(MODEL)


def make(folder, emb=None, *, ids=None, step=5, model=MODEL, **options):
  """An index of these embeddings, added a few at a time."""
  options = dict(recipe=RECIPE, fingerprint='f1', dtype=None) | options
  index = index_lib.Index.create(folder, coarse=model.COARSE, **options)
  if emb is not None:
    add(index, emb, ids or names(len(emb['mean'])), step)
  return index


def names(n, first=0):
  return [f'clip {i}.mp4' for i in range(first, first + n)]


def add(index, emb, ids, step=5):
  for i in range(0, len(ids), step):
    part = jax.tree.map(lambda x, i=i: x[i : i + step], emb)
    index.add(ids[i : i + step], part)


def problem(q=3, v=17, model=MODEL, **options):
  return toy.embed(model, *toy.draw(q, v, **options))


def ask(index, queries, k, model=MODEL, **options):
  return index.query(
    model, sharding.make_mesh(), VARIABLES, queries, k, **options
  )


def all_pairs(queries, items, method='fine', model=MODEL):
  return np.asarray(model.apply(VARIABLES, queries, items, method=method))


def test_answers_are_the_best_of_all_pairs(tmp_path):
  queries, items = problem()
  make(tmp_path / 'i', items).close()
  index = index_lib.Index.load(tmp_path / 'i')
  assert len(index) == 17 and index.ids == names(17)
  assert 'clip 3.mp4' in index and 'clip 17.mp4' not in index
  fine = all_pairs(queries, items)
  best = np.argsort(-fine, axis=1, kind='stable')
  for k in (1, 6, 17, 30):
    got = ask(index, queries, k, shortlist=17)
    np.testing.assert_array_equal(got.numbers, best[:, :k])
    np.testing.assert_array_equal(
      got.scores, np.take_along_axis(fine, got.numbers, 1)
    )
  coarse = all_pairs(queries, items, 'score')
  np.testing.assert_array_equal(
    got.coarse, np.take_along_axis(coarse, got.numbers, 1)
  )
  order = np.argsort(-coarse, axis=1, kind='stable')
  np.testing.assert_array_equal(
    np.take_along_axis(order, got.coarse_rank - 1, 1), got.numbers
  )
  assert set(got.seconds) == {'shortlist', 'fine'}


def test_only_the_short_list_is_ordered(tmp_path):
  queries, items = problem(whole=False)
  index = make(tmp_path / 'i', items)
  coarse = all_pairs(queries, items, 'score')
  order = np.argsort(-coarse, axis=1, kind='stable')
  got = ask(index, queries, 3, shortlist=4)
  assert all(set(g) <= set(o) for g, o in zip(got.numbers, order[:, :4]))
  got = ask(index, queries, 9, shortlist=4)
  assert got.numbers.shape == (3, 9)
  got = ask(index, queries, 5, coarse_only=True)
  np.testing.assert_array_equal(got.numbers, order[:, :5])
  assert got.coarse_rank.tolist() == [[1, 2, 3, 4, 5]] * 3
  with pytest.raises(ValueError, match='k=0'):
    ask(index, queries, 0)


def test_items_may_be_added_later(tmp_path):
  queries, items = problem()
  first = jax.tree.map(lambda x: x[:11], items)
  rest = jax.tree.map(lambda x: x[11:], items)
  make(tmp_path / 'i', first).close()
  index = index_lib.Index.load(tmp_path / 'i')
  before = ask(index, queries, 17)
  assert before.numbers.max() == 10
  reader = index_lib.Index.load(tmp_path / 'i')
  add(index, rest, names(6, 11))
  whole = make(tmp_path / 'whole', items)
  for other in (index, index_lib.Index.load(tmp_path / 'i')):
    got, want = ask(other, queries, 17), ask(whole, queries, 17)
    np.testing.assert_array_equal(got.numbers, want.numbers)
    np.testing.assert_array_equal(got.scores, want.scores)
  # Who opened it before sees what was there then.
  np.testing.assert_array_equal(
    ask(reader, queries, 17).numbers, before.numbers
  )


def test_an_empty_index_has_no_answers(tmp_path):
  queries, _ = problem()
  index = make(tmp_path / 'i')
  for _ in range(2):
    got = ask(index, queries, 5)
    assert got.numbers.shape == got.scores.shape == (3, 0)
    index = index_lib.Index.load(tmp_path / 'i')


def test_without_a_second_stage(tmp_path):
  model = toy.OneStage()
  queries, items = problem(model=model)
  index = make(tmp_path / 'i', items, model=model)
  index = index_lib.Index.load(tmp_path / 'i')
  got = ask(index, queries, 4, model=model)
  best = np.argsort(
    -all_pairs(queries, items, model=model), axis=1, kind='stable'
  )
  np.testing.assert_array_equal(got.numbers, best[:, :4])
  assert os.path.getsize(tmp_path / 'i' / 'fine.rows') == 0


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_fine_part_in_half_coarse_part_in_full(tmp_path, dtype):
  queries, items = problem(whole=False)
  half, full = (
    make(tmp_path / str(d), items, dtype=d) for d in (dtype, 'float32')
  )
  sizes = [
    os.path.getsize(i.folder / 'fine.rows') / len(i) for i in (half, full)
  ]
  assert sizes == [16 + 24 + 3, 16 + 48 + 3]
  a, b = ask(half, queries, 17), ask(full, queries, 17)
  np.testing.assert_array_equal(np.sort(a.coarse), np.sort(b.coarse))
  assert 0 < np.abs(np.sort(a.scores) - np.sort(b.scores)).max() < 0.1


def test_files_come_along(tmp_path):
  (tmp_path / 'c.json').write_text('{}')
  options = dict(files={'config.json': tmp_path / 'c.json'}, about={'run': 'r'})
  make(tmp_path / 'i', **options)
  index = index_lib.Index.load(tmp_path / 'i')
  assert index.path('config.json').read_text() == '{}'
  assert index.about == {'run': 'r'} and index.recipe == RECIPE
  with pytest.raises(index_lib.BadIndex, match='merges.txt'):
    index.path('merges.txt')
  for name in ('index.json', '../c.json'):
    with pytest.raises(ValueError, match='cannot hold'):
      make(tmp_path / 'j', files={name: tmp_path / 'c.json'})
  assert not list(tmp_path.glob('j*'))


# ------------------------------------------------------------- what is refused


def test_other_weights_and_recipes_are_refused(tmp_path):
  index = make(tmp_path / 'i')
  index.require(recipe=RECIPE, fingerprint='f1')
  with pytest.raises(index_lib.BadIndex, match='weights .*f1.*f2'):
    index.require(recipe=RECIPE, fingerprint='f2')
  other = dict(RECIPE, frames=dict(max_frames=4, size=(2, 2)))
  with pytest.raises(index_lib.BadIndex, match=r'frames.max_frames.*3.*4'):
    index.require(recipe=other, fingerprint='f1')


def test_bad_items_change_nothing(tmp_path):
  queries, items = problem()
  index = make(tmp_path / 'i', items)
  want = ask(index, queries, 5)
  part = jax.tree.map(lambda x: x[:2], items)
  nan = jax.tree.map(np.array, part)
  nan['deep']['tokens'][1, 0, 0] = np.nan
  narrow = {**part, 'mean': part['mean'][:, :3]}
  for ids, emb, message in (
    (['clip 3.mp4', 'new'], part, "'clip 3.mp4' is in the index"),
    (['new', 'new'], part, "'new' is in the index"),
    (['a', 'b'], nan, "'deep/tokens' of 'b'.* not finite"),
    (['a', 'b'], narrow, r"'mean' .*\[3\]"),
    (['a'], part, '1 ids, but 2'),
    (['a', 'b'], {'deep': part['deep']}, "'mean'"),
  ):
    with pytest.raises(ValueError, match=message):
      index.add(ids, emb)
  for one in (index, index_lib.Index.load(tmp_path / 'i')):
    assert len(one) == 17
    np.testing.assert_array_equal(ask(one, queries, 5).numbers, want.numbers)


def test_values_too_large_for_half_are_refused(tmp_path):
  _, items = problem()
  items['deep']['tokens'] = items['deep']['tokens'] * 1e6
  with pytest.raises(ValueError, match='as float16, is not finite'):
    make(tmp_path / 'i', items, dtype='float16')


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
  (tmp_path / 'video.mp4').write_bytes(b'mine')
  with pytest.raises(FileExistsError, match='no empty folder'):
    make(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['video.mp4']
  with pytest.raises(FileNotFoundError, match='is no index'):
    index_lib.Index.load(tmp_path)
  with pytest.raises(FileNotFoundError, match='is no index'):
    index_lib.Index.load(tmp_path / 'none')


def test_one_adds_at_a_time(tmp_path):
  _, items = problem()
  first = make(tmp_path / 'i', items)
  second = index_lib.Index.load(tmp_path / 'i')
  with pytest.raises(index_lib.BadIndex, match='another process adds'):
    second.add(['new'], jax.tree.map(lambda x: x[:1], items))
  add(first, jax.tree.map(lambda x: x[:1], items), ['one more'])
  first.close()
  with pytest.raises(index_lib.BadIndex, match='has changed'):
    second.add(['new'], jax.tree.map(lambda x: x[:1], items))


# ----------------------------------------------------------------------- damage


def truncate(path):
  os.truncate(path, os.path.getsize(path) - 1)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


@pytest.mark.parametrize('damage', [truncate, flip, os.remove])
@pytest.mark.parametrize(
  'name',
  ['index.json', 'ids.jsonl', 'coarse.rows', 'fine.rows', 'fine.crc32'],
)
def test_damage_is_named(tmp_path, name, damage):
  queries, items = problem()
  make(tmp_path / 'i', items).close()
  damage(tmp_path / 'i' / name)
  with pytest.raises((index_lib.BadIndex, FileNotFoundError), match=name):
    ask(index_lib.Index.load(tmp_path / 'i'), queries, 17)


@pytest.mark.parametrize(
  'change',
  [
    dict(rows=-1),
    dict(rows=10**9),
    dict(rows='17'),
    dict(layouts=[[], 3]),
    dict(sums={}),
    dict(layouts=None),
    dict(coarse=[1]),
    dict(dtype='object'),
    dict(about='x'),
    dict(version=99),
    dict(format='other'),
  ],
)
def test_hostile_meta_is_refused(tmp_path, change):
  """With a checksum that fits, as a stranger would make it."""
  _, items = problem()
  make(tmp_path / 'i', items).close()
  meta = json.loads((tmp_path / 'i' / 'index.json').read_text())
  del meta['crc32']
  index_files.write_meta(tmp_path / 'i', {**meta, **change})
  with pytest.raises(index_lib.BadIndex):
    index_lib.Index.load(tmp_path / 'i')


KILLED = """
import sys
from tests.search import test_index as t
_, items = t.problem(v=4000)
index = t.make(sys.argv[1], step=2, emb=items)
"""


def test_a_killed_add_leaves_a_whole_index(tmp_path):
  """Killed at some moment, again and again; the next one goes on."""
  queries, items = problem(v=4000)
  process = subprocess.Popen([sys.executable, '-c', KILLED, tmp_path / 'i'])
  meta = tmp_path / 'i' / 'index.json'
  while not meta.exists() or json.loads(meta.read_text())['rows'] < 20:
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  # What a kill between two writes leaves: longer files than what counts.
  for name in ('fine.rows', 'ids.jsonl'):
    with open(tmp_path / 'i' / name, 'ab') as file:
      file.write(b'rest of a killed process')
  index = index_lib.Index.load(tmp_path / 'i')
  done = len(index)
  assert 20 <= done < 4000 and index.ids == names(done)
  ask(index, queries, done, shortlist=done)
  rest = jax.tree.map(lambda x: x[done : done + 20], items)
  add(index, rest, names(20, done))
  index = index_lib.Index.load(tmp_path / 'i')
  whole = jax.tree.map(lambda x: x[: done + 20], items)
  want = np.sort(all_pairs(queries, whole), axis=1)[:, ::-1]
  got = ask(index, queries, done + 20)
  np.testing.assert_array_equal(got.scores, want)


def test_a_full_disk_leaves_the_index_as_it_was(tmp_path):
  code = """
import resource, signal, sys
from tests.search import test_index as t
from vidret_jax.search import index as index_lib
queries, items = t.problem()
first, rest = ({k: x[a:b] if k == 'mean' else {j: y[a:b] for j, y in x.items()}
               for k, x in items.items()} for a, b in ((0, 6), (6, 17)))
index = t.make(sys.argv[1], first)
want = t.ask(index, queries, 6)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
  index.add(t.names(11, 6), rest)
except OSError as e:
  assert e.errno and 'make room' in str(e) and '11 more' in str(e), str(e)
else:
  raise AssertionError
for index in (index, index_lib.Index.load(sys.argv[1])):
  assert len(index) == 6
  assert (t.ask(index, queries, 6).scores == want.scores).all()
raise SystemExit(7)
"""
  done = subprocess.run(
    [sys.executable, '-c', code, tmp_path / 'i'], capture_output=True
  )
  assert done.returncode == 7, done.stderr.decode()


LARGE = """
import sys
import jax, numpy as np
from tests.search import toy_two_stage as toy
from vidret_jax import sharding
from vidret_jax.search import index as index_lib
model = toy.Tokens(width=512)
variables = toy.variables(model)
index = index_lib.Index.load(sys.argv[1])
rng = np.random.default_rng(0)
mesh = sharding.make_mesh()
for i in range(30):
  queries = {'q': rng.normal(size=(1, 512)).astype(np.float32)}
  got = index.query(model, mesh, variables, jax.device_put(queries), 50)
  assert got.numbers.shape == (1, 50)
assert len(set(got.numbers[0].tolist())) == 50
# Not ru_maxrss, which begins with what the parent had.
status = open('/proc/self/status').read()
print(int(status.split('VmHWM:')[1].split()[0]) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(
  not os.path.exists('/proc/self/status'), reason='needs Linux to measure'
)
def test_a_hundred_thousand_items_are_searched_in_bounded_memory(tmp_path):
  """With items of 0.6 MB, as EERCF's: 60 GB, in a file with holes."""
  n, width, tokens = 100_000, 512, 600
  folder = tmp_path / 'i'
  index = index_lib.Index.create(
    folder, coarse=toy.Tokens.COARSE, recipe={}, fingerprint=''
  )
  mean = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
  deep = {
    'tokens': np.zeros((1, tokens, width), np.float32),
    'mask': np.zeros((1, tokens), bool),
  }
  index.add(['0'], {'mean': mean[:1], 'deep': deep})
  index.close()
  meta = index_files.read_meta(folder)
  row_bytes = index_files.layouts(meta)[1].row_bytes
  check = zlib.crc32(bytes(row_bytes))
  for name, data in (
    ('ids.jsonl', ''.join(f'"{i}"\n' for i in range(n)).encode()),
    ('coarse.rows', mean.tobytes()),
    ('fine.crc32', np.full(n, check, '<u4').tobytes()),
  ):
    (folder / name).write_bytes(data)
    meta['sums'][name] = dict(bytes=len(data), crc32=zlib.crc32(data))
  os.truncate(folder / 'fine.rows', 0)
  os.truncate(folder / 'fine.rows', n * row_bytes)
  index_files.write_meta(folder, {**meta, 'rows': n})
  done = subprocess.run(
    [sys.executable, '-c', LARGE, folder],
    env={**os.environ, 'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert float(done.stdout) < 0.8  # GiB; weights come to that.
