# SPDX-License-Identifier: Apache-2.0
"""Every weight file, config and run of the RANP folder, read and given back."""

import json
import math

import jax
import numpy as np
import pytest

from tests.parity.conftest import root_of
from vidret_jax.convert import ranp as convert
from vidret_jax.convert import (
  ranp_config,
  ranp_runs,
  ranp_shapes,
  rules,
  torch_file,
)
from vidret_jax.models import ranp

# Names of the published set; whatever else a folder holds is tested as well.
_WEIGHTS = (
  *('eao_default.pth', 'eao_pos_cls.pth', 'global.pth', 'hgr_default.pth'),
  *('hgr_epic.pth', 'hgr_lstm.pth', 'hgr_sim_gcn.pth'),
  *(
    f'hgr_train_{name}.{when}.pth'
    for name in ('base_nohn', 'ranp')
    for when in ('init', 'final')
  ),
)
_RUNS = (
  'tiny_epic/results/RET.released/mlmatch/epic_hgr',
  'tiny_msrvtt/results/RET.released/mlmatch/msrvtt_hgr',
  'tiny_msrvtt/results/RET.released/eaomatch/msrvtt_eao',
)
_WORDS = tuple(
  f'{toy}/word_embeds.glove42b.th' for toy in ('tiny_epic', 'tiny_msrvtt')
)


def pytest_generate_tests(metafunc):
  root = root_of(metafunc.config) / 'ranp'
  files = {p for p in root.rglob('*.pth') if p.is_file()}
  files |= set(root.rglob('*.th'))
  names = {str(p.relative_to(root)) for p in files}
  partial = {n for n in names if 'word_embeds' in n} | set(_WORDS)
  runs = {str(p.parent.relative_to(root)) for p in root.rglob('model.json')}
  for fixture, values in (
    ('weights', names - partial | set(_WEIGHTS)),
    ('words', partial),
    ('run', runs | set(_RUNS)),
  ):
    if fixture in metafunc.fixturenames:
      metafunc.parametrize(fixture, sorted(values))


@pytest.fixture
def root(golden_root):
  return golden_root / 'ranp'


def present(path):
  if not path.exists():
    pytest.skip(f'{path} is absent')
  return path


def config_of(root, path):
  """The upstream config of a weight file: beside it, or of its run."""
  if path.parent != root:
    return ranp_runs.read_json(path.parent.parent / 'model.json')
  case = path.name.split('.')[0]
  about = json.loads(present(root / f'{case}.json').read_text())
  config = dict(about['config'])
  if 'text_input' in about:
    config['use_word2vec'] = about['text_input'] == 'word vectors'
  return config


def same(errors, got, want):
  """Bit-equal values of the same types in the same order."""
  assert list(got) == list(want)
  for part in want:
    assert list(got[part]) == list(want[part])
    for name, value in want[part].items():
      assert got[part][name].dtype == value.dtype, name
      np.testing.assert_array_equal(got[part][name], value, err_msg=name)
      errors.close(f'{part}.{name}', got[part][name], value, 0)


def test_both_ways(weights, root, tmp_path, errors):
  path = present(root / weights)
  model = ranp.make(**ranp_config.model_config(config_of(root, path)))
  variables, report = convert.load(path, model)
  report.check_whole(str(path))
  assert not report.notes and not report.ignored and not report.filled
  saved = convert.save(tmp_path / 'back.th', variables, model)
  want = torch_file.read(path)
  assert len(saved.rows) == sum(map(len, want.values()))
  same(errors, torch_file.read(tmp_path / 'back.th'), want)
  again, _ = convert.load(tmp_path / 'back.th', model)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_the_tree_is_the_models(weights, root):
  path = present(root / weights)
  model = ranp.make(**ranp_config.model_config(config_of(root, path)))
  variables, _ = convert.load(path, model)
  leaves = {k: v.shape for k, v in rules.flatten(variables).items()}
  found, want = (
    jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    for tree in (variables, convert.variable_shapes(model, leaves))
  )
  assert found == want


def test_shapes_tell_the_options(weights, root):
  path = present(root / weights)
  options = ranp_config.model_config(config_of(root, path))
  state, _ = convert.read(path)
  found = ranp_shapes.options({k: v.shape for k, v in state.items()})
  assert found == {k: options[k] for k in found}
  hidden = {'mining', 'fusion', 'sigma', 'heads', 'level_weights'}
  hidden |= {
    'level_relevance',
    'fix_words',
    *(o for o in options if 'drop' in o),
  }
  if not options.get('positions'):
    hidden |= {'max_frames', 'max_words'}
  if options.get('words') == 'vectors':
    hidden |= {'word_dim', 'num_words'}
  assert set(options) - set(found) <= hidden


def test_pytorch_reads_the_same(weights, root, errors):
  torch = pytest.importorskip('torch')
  path = present(root / weights)
  want = torch.load(path, map_location='cpu', weights_only=True)
  want = {p: {k: v.numpy() for k, v in d.items()} for p, d in want.items()}
  same(errors, torch_file.read(path), want)


def test_the_older_serialisation(weights, root, tmp_path, errors):
  """Files of HGR's time are streams, not zip archives."""
  torch = pytest.importorskip('torch')
  path = present(root / weights)
  want = torch.load(path, map_location='cpu', weights_only=True)
  other = tmp_path / 'other.th'
  torch.save(want, other, _use_new_zipfile_serialization=False)
  same(errors, torch_file.read(other), torch_file.read(path))


def test_word_vectors_are_a_start(words, root):
  path = present(root / words)
  runs = [r for r in path.parent.rglob('model.json') if 'mlmatch' in str(r)]
  if not runs:
    pytest.skip(f'{path.parent} has no run that started from it')
  options = ranp_config.model_config(ranp_runs.read_json(runs[0]))
  model = ranp.make(**options)
  variables, report = convert.load(path, model)
  (value,) = torch_file.read(path)['text_encoder'].values()
  np.testing.assert_array_equal(variables['params']['text']['embedding'], value)
  leaves = {rule.leaf for rule in convert.rules(model)}
  assert {*rules.flatten(variables), *report.drawn} == leaves
  assert len(report.rows) == 1 and not report.unused
  assert convert.sizes(path) == dict(num_words=options['num_words'])
  with pytest.raises(rules.CheckpointMismatch, match='init.torch'):
    report.check_whole(str(path))


def test_selection(root):
  cases = json.loads(present(root / 'select.json').read_text())
  assert cases
  for case in cases:
    got = ranp_runs.groups(case['logs'])
    assert {k: f'MODEL/{v}' for k, v in got.items()} == case['selected']
    assert list(got) == list(case['selected'])


def test_selection_of_runs(run, root):
  """As the run's own scores.csv records it."""
  folder = present(root / run)
  assert ranp_runs.is_one(folder)
  logs = ranp_runs.read_logs(folder)
  chosen = ranp_runs.selected(folder)
  assert chosen.parent == folder / 'model' and chosen.is_file()
  assert chosen.name in ranp_runs.best(logs)['rsum']
  recorded = ranp_runs.evaluated(folder)
  assert set(recorded) <= {chosen.name}
  for path in folder.glob('pred/*/*.npz'):
    assert path.stem == chosen.stem


def test_logs_of_runs(run, root):
  """Every log is of a checkpoint that is there, and is what it sums up to."""
  folder = present(root / run)
  for name, metrics in ranp_runs.read_logs(folder).items():
    assert (folder / 'model' / ranp_runs.checkpoint(name)).is_file()
    recalls = sum(metrics[f'{d}r{k}'] for d in 'ci' for k in (1, 5, 10))
    assert math.isclose(metrics['rsum'], recalls)


def test_published_configs(root):
  """All scripts of upstream give a model, with the loss that it trains."""
  families = json.loads(present(root / 'configs.json').read_text())
  kinds = dict(mlmatch='hgr', eaomatch='eao')
  for name, scripts in families.items():
    for script, entry in scripts['scripts'].items():
      config = nested({**scripts['common_model'], **entry['model']})
      options = ranp_config.model_config(config)
      assert options['backbone'] == kinds[name], script
      model = ranp.make(**{**options, 'num_words': 9})
      assert model.mining.positives == (
        'RANP' in script or 'hardPos' in script
      ), script
      above = model.mining.threshold is not None
      assert above == (config['threshold_pos'] < 1), script
      softmax = any(
        config.get(k) for k in ('use_normsoftmax', 'use_normsoftmax_ranp')
      )
      assert (model.mining.loss == 'softmax') == softmax, script
      if not softmax:
        assert model.mining.hardest == config['max_violation'], script
      semi = bool(config.get('semi_hard_neg')) and name == 'eaomatch'
      assert model.mining.semi_hard == (semi and not softmax), script


def nested(flat):
  """{'a': {'b': 1}} from {'a.b': 1}."""
  return rules.unflatten({k.replace('.', '/'): v for k, v in flat.items()})
