# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations on a small data set in the published formats.

HDF5 and annotations through the readers, the search and the evaluator, to
scores and metrics. Runs are read off the names in the files: a data set, and
what differs from the usual: `_chunk12`, `_featonly`, `_audio`, `_labeled`.
"""

import json
import re

import numpy as np
import pytest

from tests.parity import goldens
from vidret_jax import sharding
from vidret_jax.convert import hap_vr as convert
from vidret_jax.evaluators import copies
from vidret_jax.models import hap_vr

# Name of a run -> module and split.
_SETS = {
  'fivr_200k': ('fivr', '200k'),
  'fivr_5k': ('fivr', '5k'),
  'evve': ('evve', 'all'),
  'svd': ('svd', 'all'),
  'svd_labeled': ('svd', 'labeled'),
}
_RUN = re.compile(
  r'(?P<set>fivr_\d+k|evve|svd(?:_labeled)?)(?P<audio>_audio)?'
  r'(?:_chunk(?P<chunk>\d+))?(?P<plain>_featonly)?'
)
# Few shapes: what is compiled is what takes the time here.
_EDGES = (24, 64, 256, 1024)
_ATOL, _RTOL, _METRIC = 2e-5, 1e-5, 1e-6  # Of the golden README.


@pytest.fixture(scope='module')
def mini(golden_root):
  folder = golden_root / 'hap_vr' / 'mini'
  if not (folder / 'expected_metrics.json').exists():
    pytest.skip(f'{folder} is absent')
  return folder


@pytest.fixture(scope='module')
def networks(golden_root):
  """features_only -> (model, variables)."""
  path = golden_root / 'hap_vr' / 'ckpt_eval.pth'
  if not path.exists():
    pytest.skip(f'{path} is absent')
  options = convert.describe(path)[1]['model']
  out = {}
  for plain in (False, True):
    model = hap_vr.make(**{**options, 'features_only': plain})
    out[plain] = model, convert.load(path, model)[0]
  return out


@pytest.fixture(scope='module')
def runs(mini, networks, tmp_path_factory):
  """Name of a run -> (evaluator, results); audio runs are part of others."""
  mesh, made = sharding.make_mesh(), {}

  def evaluate(data, chunk, plain):
    dataset, split = _SETS[data]
    model, variables = networks[plain]
    evaluator = copies.Evaluator(
      model,
      mesh,
      data=dict(
        name=dataset,
        split=split,
        root=str(mini),
        paths=dict(features=f'{dataset}.hdf5'),
      ),
      audio=dataset == 'fivr',
      search=dict(chunk=chunk, edges=_EDGES, query_buckets=1),
      shards=str(tmp_path_factory.mktemp('shards')),
    )
    return evaluator, evaluator.run(variables)

  done = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('VIDRET_DATA_DIR', str(tmp_path_factory.mktemp('data')))
    for name in json.loads((mini / 'expected_metrics.json').read_text()):
      parts = _RUN.fullmatch(name)
      assert parts, f'{name}: no run that is known'
      key = parts['set'], int(parts['chunk'] or 2048), bool(parts['plain'])
      if key not in made:
        made[key] = evaluate(*key)
      done[name] = made[key]
  return done


def test_scores(runs, mini, errors):
  sims = goldens.Arrays(mini / 'expected_sims.npz')
  assert set(sims.groups()) == set(runs)
  for name, (evaluator, _) in runs.items():
    want = sims.under(f'{name}/')
    queries, items = evaluator.queries.ids, evaluator.items.ids
    assert list(items) == want['targets'].tolist()
    rows = [queries.index(q) for q in want['queries'].tolist()]
    if '_audio' not in name:
      assert rows == np.flatnonzero(evaluator.queries.found).tolist()
    got = evaluator.found.scores[rows]
    there = ~np.isnan(want['sim'])
    np.testing.assert_array_equal(~np.isnan(got), there)
    errors.close(name, got[there], want['sim'][there], _ATOL, _RTOL)
    found = {
      name
      for view in (evaluator.queries, evaluator.items)
      for name, here in zip(view.ids, view.found)
      if here and (view is evaluator.items or name in want['queries'])
    }
    assert sorted(found) == want['available'].tolist()
  sims.assert_all_read()


def test_metrics(runs, mini, errors):
  expected = json.loads((mini / 'expected_metrics.json').read_text())
  for name, want in expected.items():
    _, got = runs[name]
    for key, value in want.items():
      mine = key if key in got else f'SVD_{key}'
      errors.close(f'{name}/{key}', got[mine] / 100, value, _METRIC)
    numbers = {key for key in got if key.endswith(('D', 'R', 'AP', '_h'))}
    if name.startswith('fivr'):
      audio = {key for key in numbers if key.startswith('DAV')}
      numbers = audio if '_audio' in name else numbers - audio
    assert len(numbers) == len(want), name
