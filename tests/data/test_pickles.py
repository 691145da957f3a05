"""Pickles that are read, and pickles that must not run."""

import collections
import os
import pickle
import sys

import numpy as np
import pytest

from tests.data import packs
from vidret_jax.data import pickles


class Evil:
  """Runs a command when an ordinary unpickler loads it."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return os.system, (
      f'{sys.executable} -c "open({str(self.target)!r}, \'w\')"',
    )


@pytest.mark.parametrize('protocol', range(6))
def test_arrays_and_containers_survive(tmp_path, protocol):
  value = {
    'a': np.arange(6, dtype=np.float16).reshape(2, 3),
    'b': [np.ones((0, 4), np.float32), float('nan'), np.float64(2.5)],
    'c': collections.OrderedDict(x=(1, 'é', b'\xff', {3}, True, None)),
    'd': collections.defaultdict(list, y=[1]),
    'e': np.array(['p', None, [1]], dtype=object),
    'f': np.asfortranarray(np.eye(3)),
  }
  file = tmp_path / 'x.pkl'
  packs.dump(file, value, protocol)
  got = pickles.load(file)
  np.testing.assert_array_equal(got['a'], value['a'])
  assert got['a'].dtype == np.float16
  assert got['b'][0].shape == (0, 4) and np.isnan(got['b'][1])
  assert got['b'][2] == 2.5
  assert got['c'] == value['c'] and got['d'] == value['d']
  assert list(got['e']) == ['p', None, [1]]
  np.testing.assert_array_equal(got['f'], np.eye(3))


def test_old_numpy_module_names(tmp_path):
  data = pickle.dumps({'a': np.arange(3.0), 'b': np.float32(2)}, protocol=2)
  assert b'numpy._core' in data
  # Protocol 2 names modules by lines of text: no lengths to mend.
  old = data.replace(b'numpy._core', b'numpy.core')
  (tmp_path / 'old.pkl').write_bytes(old)
  got = pickles.load(tmp_path / 'old.pkl')
  np.testing.assert_array_equal(got['a'], np.arange(3.0))
  assert got['b'] == 2


def test_python_2_pickle(tmp_path):
  """Strings of bytes, as Python 2 wrote them, become str."""
  data = b"(dp0\nS'video0'\np1\nF1.5\ns."
  (tmp_path / 'two.pkl').write_bytes(data)
  assert pickles.load(tmp_path / 'two.pkl') == {'video0': 1.5}


@pytest.mark.parametrize(
  'module',
  ['datastructures', 'utils.datastructures', 'zsvision.zs_data_structures'],
)
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_expert_store(tmp_path, module, protocol):
  with packs._expert_store(module) as cls:
    store = cls()
    store.keys = ['v0', 'v1']
    store.store = np.eye(2, dtype=np.float16)
    store.store_dtype = np.float16
    packs.dump(tmp_path / 'x.pkl', store, protocol)
  assert module not in sys.modules
  got = pickles.load(tmp_path / 'x.pkl')
  assert vars(got).keys() == {'keys', 'store', 'store_dtype'}
  np.testing.assert_array_equal(got.store, np.eye(2))


@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_code_is_not_run(tmp_path, protocol):
  target = tmp_path / 'owned'
  file = tmp_path / 'evil.pickle'
  packs.dump(file, {'video0': Evil(target)}, protocol)
  with pytest.raises(pickles.UnsafePickle) as error:
    pickles.load(file)
  assert not target.exists()
  text = str(error.value)
  assert str(file) in text and f'{os.system.__module__}.system' in text
  assert len(text.splitlines()) < 15
  # The same file does its work in an ordinary unpickler: the test is real.
  with open(file, 'rb') as stream:
    pickle.load(stream)
  assert target.exists()


@pytest.mark.parametrize(
  'payload',
  [
    b"cbuiltins\neval\n(S\"open('owned', 'w')\"\ntR.",
    b'cbuiltins\ngetattr\n.',
    b'c__builtin__\nexec\n.',
    b'cnumpy\nload\n.',
    b'cnumpy\nfromfile\n.',
    b'cfunctools\npartial\n.',
    b'ccodecs\ndecode\n.',
    b'cvidret_jax.data.pickles\nload\n.',
    b'\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.',
  ],
)
def test_globals_that_are_not_admitted(tmp_path, payload, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'x.pkl').write_bytes(payload)
  with pytest.raises(pickles.UnsafePickle, match='x.pkl'):
    pickles.load(tmp_path / 'x.pkl')
  assert not (tmp_path / 'owned').exists()


def test_other_codecs_are_refused(tmp_path):
  (tmp_path / 'x.pkl').write_bytes(b'c_codecs\nencode\n(Va\nVrot13\ntR.')
  with pytest.raises(pickles.UnreadablePickle, match='rot13'):
    pickles.load(tmp_path / 'x.pkl')


def test_a_file_cannot_change_what_the_next_one_sees(tmp_path):
  # BUILD sets an attribute on the ExpertStore class itself.
  spoil = b'cdatastructures\nExpertStore\n(N(dS"keys"\nS"spoilt"\nstb.'
  (tmp_path / 'x.pkl').write_bytes(spoil)
  assert pickles.load(tmp_path / 'x.pkl').keys == 'spoilt'
  packs.dump_store(tmp_path / 'y.pkl', {'v0': np.zeros(2)})
  with packs._expert_store('datastructures') as cls:
    packs.dump(tmp_path / 'z.pkl', cls())
  assert not hasattr(pickles.load(tmp_path / 'z.pkl'), 'keys')


@pytest.mark.parametrize('size', [0, 1, 20, -5])
def test_cut_file(tmp_path, size):
  data = pickle.dumps({'v': np.arange(50.0)})
  (tmp_path / 'cut.pkl').write_bytes(data[:size])
  with pytest.raises(pickles.UnreadablePickle) as error:
    pickles.load(tmp_path / 'cut.pkl')
  assert 'cut.pkl' in str(error.value)
  assert 'checksum' in str(error.value)


def test_npy_object_array(tmp_path):
  packs.dump_npy(tmp_path / 'x.npy', {'v': np.ones(3)})
  np.testing.assert_array_equal(
    pickles.load_npy(tmp_path / 'x.npy')['v'], np.ones(3)
  )
  np.save(tmp_path / 'plain.npy', np.eye(2))
  np.testing.assert_array_equal(
    pickles.load_npy(tmp_path / 'plain.npy'), np.eye(2)
  )


def test_npy_cannot_run_code(tmp_path):
  packs.dump_npy(tmp_path / 'evil.npy', {'v': Evil(tmp_path / 'owned')})
  with pytest.raises(pickles.UnsafePickle, match='evil.npy'):
    pickles.load_npy(tmp_path / 'evil.npy')
  assert not (tmp_path / 'owned').exists()


def test_npy_that_is_none(tmp_path):
  (tmp_path / 'x.npy').write_bytes(b'something else')
  with pytest.raises(pickles.UnreadablePickle, match='x.npy'):
    pickles.load_npy(tmp_path / 'x.npy')
