# SPDX-License-Identifier: Apache-2.0
"""tools.inspect and tools.profile, on a real run of the small system."""

import collections
import types

import jax
import jax.numpy as jnp
import pytest

from tests.train.tiny import command
from vidret_jax.tools import inspect, profile


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished run with a trace of steps 3 to 6."""
  folder = tmp_path_factory.mktemp('tools') / 'run'
  command.run(folder, '--profile', '3:6')
  return folder


@pytest.fixture(autouse=True)
def root(monkeypatch):
  monkeypatch.chdir(command.ROOT)


# -------------------------------------------------------------------- inspect


def test_config_shows_values_parameters_and_programs(capsys):
  assert inspect.main(['--config', command.CONFIG, '--config.seed=7']) == 0
  text = capsys.readouterr().out
  assert 'seed = 7' in text
  assert "optim.name = 'adam'" in text
  rows = {l.split()[0]: l.split() for l in text.splitlines() if l.strip()}
  assert 'float32' in rows[next(k for k in rows if k.startswith('params/'))]
  for program in ('encode_query', 'encode_item', 'score'):
    assert float(rows[program][2].replace(',', '')) >= 0
  assert 'training step' in text


def test_flops_are_those_of_the_programs(capsys):
  """A dot of [8, 8] with [8, 8] is 1,024 operations."""
  from vidret_jax import config_lib as cl
  from vidret_jax.train import defaults

  config = cl.load(command.CONFIG, (), defaults.DEFAULTS)
  defaults.resolve(config)
  spec, here, _ = inspect.batch_spec(cl.freeze(config.input.data))
  assert here
  make = cl.find('models', config.system, 'make')
  model = make(**cl.freeze(config.model))
  programs = {n: p for n, _, p, _ in inspect.costs(config, model, spec)}
  assert programs['score'].cost_analysis()['flops'] >= 1024
  step = programs['training step'].cost_analysis()['flops']
  assert step > programs['encode_query'].cost_analysis()['flops'] > 0


CONFIG = """
import ml_collections as mlc

def get_config(arg=None):
  c = mlc.ConfigDict()
  experts = [('audio', dict(dim=8, max_tokens=3, clusters=2)),
             ('face', dict(dim=6))]
  text = dict(dim=768, max_tokens=4, clusters=2, ghosts=1)
  c.system = 'ce'
  c.model = dict(experts=experts, text=text, dim=16, margin=0.1)
  c.input = dict(batch_size=4, data=dict(
    name='msrvtt', split='full/train', experts=experts,
    text=dict(text, encoder='openai')))
  c.total_epochs = 1
  c.optim = dict(name='adam', lr=0.1)
  c.schedule = [('.*', dict(decay='constant'))]
  return c
"""


def test_expert_datasets_need_not_be_there(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path / 'nothing'))
  path = tmp_path / 'absent.py'
  path.write_text(CONFIG)
  assert inspect.main(['--config', str(path), '--no_programs']) == 0
  text = capsys.readouterr().out
  assert 'not on this machine' in text
  # 768 text dims times 2 clusters plus a ghost.
  line = next(l for l in text.splitlines() if 'text_pooling/clusters' in l)
  assert '(768, 3)' in line


def test_workdir_shows_results_and_checkpoints(workdir, capsys):
  assert inspect.main(['--workdir', str(workdir)]) == 0
  text = capsys.readouterr().out
  for step in command.steps(workdir):
    assert f'checkpoint {step}' in text
  assert 'val/t2v_R@1 = ' in text
  assert 'opt_state' in text and 'params/' in text


@pytest.mark.parametrize(
  'args, told',
  [
    (['--config', 'nowhere.py'], 'no config file nowhere.py'),
    (
      ['--config', command.CONFIG, '--config.sead=1'],
      "unknown config key 'sead' (did you mean 'seed'?)",
    ),
    (['--workdir', 'tests'], 'not the workdir of a run'),
  ],
)
def test_errors_fit_on_a_line(args, told, capsys):
  assert inspect.main(args) == 1
  error = capsys.readouterr().err
  assert told in error
  assert len(error.splitlines()) == 1


# -------------------------------------------------------------------- profile


def test_run_with_a_trace(workdir, capsys):
  assert profile.main([str(workdir), '--by', 'module']) == 0
  assert 'jit_update' in capsys.readouterr().out
  paths = profile.newest_traces(workdir)
  ops = [op for path in paths for op in profile.read(path)]
  times = collections.Counter(o.name for o in ops if o.module == 'jit_update')
  # Three steps were asked for; those still under way before them show too.
  assert times and min(times.values()) >= 3


def test_every_execution_in_a_trace_counts(tmp_path):
  """How long they take is the machine's affair; how often, the program's."""

  @jax.jit
  def many(x):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x, None, 50)[0]

  x = jnp.ones((256, 256))
  many(x).block_until_ready()
  jax.profiler.start_trace(str(tmp_path))
  many(x).block_until_ready()
  jax.profiler.stop_trace()
  (path,) = profile.newest_traces(tmp_path)
  ops = profile.read(path)
  assert {o.module for o in ops} == {'jit_many'}
  assert all(0 <= o.own <= o.duration for o in ops)
  counts = {name: n for name, n, _ in profile.totals(ops, 'kind')}
  assert 50 in counts.values()
  total = sum(ns for _, _, ns in profile.totals(ops, 'op'))
  assert total == pytest.approx(sum(o.own for o in ops))


def test_own_time_leaves_out_the_inside():
  """A loop of 100 ns with two bodies, the second with an operation in it."""
  times = {'while.1': (0, 100), 'a': (10, 30), 'b': (50, 40), 'c': (60, 10)}
  events = [
    types.SimpleNamespace(
      name=name,
      start_ns=start,
      duration_ns=duration,
      stats=[('hlo_op', name), ('hlo_module', 'jit_many(3)')],
    )
    for name, (start, duration) in reversed(times.items())
  ]
  line = types.SimpleNamespace(name='thread', events=events)
  ops = {op.name: op for op in profile.ops_of(line)}
  assert {n: op.own for n, op in ops.items()} == {
    'while.1': 30,
    'a': 30,
    'b': 30,
    'c': 10,
  }
  assert {op.module for op in ops.values()} == {'jit_many'}


def test_no_trace_is_an_error(tmp_path, capsys):
  assert profile.main([str(tmp_path)]) == 1
  assert 'train with --profile START:STOP first' in capsys.readouterr().err


@pytest.mark.parametrize(
  'name, expected',
  [
    ('fusion.12', 'fusion'),
    ('dot.3.clone.1', 'dot'),
    ('wrapped_tanh', 'wrapped_tanh'),
    ('conv2d_1x1.7', 'conv2d_1x1'),
  ],
)
def test_kind_drops_numbers(name, expected):
  assert profile.kind(name) == expected
