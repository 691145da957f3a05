# SPDX-License-Identifier: Apache-2.0
"""Config files: arguments, overrides, durations, freezing, tracking."""

import json

import ml_collections as mlc
import pytest

from vidret_jax import config_lib as cl

CONFIG = """
import ml_collections as mlc
from vidret_jax import config_lib as cl

def get_config(arg=None):
  arg = cl.parse_arg(arg, split='full', seed=0, runlocal=False)
  c = mlc.ConfigDict()
  c.seed, c.split, c.small = arg.seed, arg.split, arg.runlocal
  c.optim = dict(lr=0.1, name='adam')
  c.schedule = [('.*', dict(decay='constant'))]
  c.init = dict(run=None)
  c.total_epochs = 3
  return c
"""


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'some_config.py'
  path.write_text(CONFIG)
  return str(path)


def test_parse_arg_types_follow_the_defaults():
  arg = cl.parse_arg(
    'split=1ka,seed=3,runlocal,x=2.5,none=a',
    split='full',
    seed=0,
    runlocal=False,
    x=1.0,
    none=None,
  )
  assert vars(arg) == dict(split='1ka', seed=3, runlocal=True, x=2.5, none='a')
  assert cl.parse_arg(None, seed=7).seed == 7


@pytest.mark.parametrize(
  'arg, words',
  [
    ('sede=1', ["'sede'", "'seed'", 'split']),
    ('seed=x', ['seed', 'int']),
    ('seed=1,seed=2', ['twice']),
    ('runlocal=maybe', ['bool']),
  ],
)
def test_parse_arg_refuses(arg, words):
  with pytest.raises(cl.ConfigError) as e:
    cl.parse_arg(arg, split='full', seed=0, runlocal=False)
  assert all(w in str(e.value) for w in words)


def test_load_applies_argument_then_overrides_then_locks(file):
  c = cl.load(f'{file}:seed=4', ['optim.lr=0.5', 'init.run=/a/b', 'seed=5'])
  assert (c.seed, c.optim.lr, c.init.run) == (5, 0.5, '/a/b')
  assert c.is_locked
  assert cl.load(file).seed == 0


def test_load_adds_defaults_that_can_be_overridden(file):
  defaults = dict(accum_steps=1, init=dict(torch=None, run='x'))
  c = cl.load(file, ['accum_steps=4', 'init.torch=f.pth'], defaults)
  assert c.accum_steps == 4
  assert c.init.to_dict() == dict(run=None, torch='f.pth')
  assert defaults['init'] == dict(torch=None, run='x')


@pytest.mark.parametrize(
  'change, words',
  [
    ('total_epoch=1', ["'total_epoch'", "'total_epochs'", 'seed']),
    ('optim.rl=1', ['optim.rl', "'lr'", 'name']),
    ('optim.lr.x=1', ['optim.lr']),
    ('optim.lr=fast', ['optim.lr', 'float', '0.1']),
    ('optim=1', ['group', 'optim.lr']),
    ('seed=1.5', ['seed', 'int']),
    ('schedule=3', ['schedule', 'list']),
    ('seed', ['no value']),
  ],
)
def test_overrides_are_refused_with_the_nearest_name(file, change, words):
  with pytest.raises(cl.ConfigError) as e:
    cl.load(file, [change])
  assert all(w in str(e.value) for w in words), str(e.value)
  assert len(str(e.value).splitlines()) < 20


def test_override_of_a_list_keeps_it_a_list(file):
  c = cl.load(file, ["schedule=[('a', None)]"])
  assert c.schedule == [('a', None)]


def test_missing_file_names_the_nearest(file):
  with pytest.raises(FileNotFoundError, match='some_config.py'):
    cl.load(file.replace('some_config', 'some_confg'))


def test_find_names_the_nearest_module_and_takes_dotted_paths():
  assert cl.find('models', 'os.path', 'join')('a', 'b') == 'a/b'
  with pytest.raises(cl.ConfigError, match="did you mean 'pipeline'"):
    cl.find('data', 'pipelin', 'make')
  with pytest.raises(cl.ConfigError, match="no 'make'"):
    cl.find('data', 'pipeline', 'make')


@pytest.mark.parametrize(
  'given, want',
  [
    (dict(total_steps=7), 7),
    (dict(total_epochs=2), 20),
    (dict(total_epochs=0.05), 1),
    (dict(total_epochs=0), 0),
    (dict(total_examples=33), 5),
    (dict(total_percent=25), 50),
    (dict(total_steps=None, total_epochs=1), 10),
  ],
)
def test_durations(given, want):
  assert cl.steps(given, 'total', epoch=10, batch_size=8, total=200) == want


def test_duration_errors():
  with pytest.raises(cl.ConfigError, match='only one of log_steps and log_ep'):
    cl.steps(dict(log_steps=1, log_epochs=1), 'log', epoch=1)
  with pytest.raises(cl.ConfigError, match='give one of log_steps'):
    cl.steps({}, 'log')
  with pytest.raises(cl.ConfigError, match='no meaning'):
    cl.steps(dict(total_percent=5), 'total')
  with pytest.raises(cl.ConfigError, match='at least 0'):
    cl.steps(dict(log_steps=-1), 'log')
  assert cl.steps({}, 'log', default=9) == 9


def test_freeze_is_deep_and_hashable():
  frozen = cl.freeze(mlc.ConfigDict(dict(a=[1, dict(b=[2])], c=dict(d=None))))
  same = cl.freeze(dict(a=(1, dict(b=[2])), c=dict(d=None)))
  assert hash(frozen) == hash(same)
  assert frozen['a'][1]['b'] == (2,)


def test_shrink_makes_every_duration_and_block_small():
  c = mlc.ConfigDict(
    dict(
      total_epochs=100,
      log_epochs=1,
      ckpt_percent=3,
      input=dict(batch_size=64),
      model=dict(dim=768),
      evals=dict(
        val=dict(type='x', item_block=512, log_epochs=1, k=3),
        test=dict(type='x', when='final'),
      ),
    )
  )
  small = cl.shrink(c, steps=3, **{'model.dim': 16})
  assert small.total_steps == small.log_steps == small.ckpt_steps == 3
  assert 'total_epochs' not in small and small.input.batch_size == 8
  assert small.evals.val.to_dict() == dict(
    type='x', item_block=8, log_steps=3, k=3
  )
  assert 'log_steps' not in small.evals.test
  assert small.model.dim == 16 and c.model.dim == 768


def test_save_load_diff(tmp_path, file):
  c = cl.load(file)
  path = str(tmp_path / 'config.json')
  cl.save(c, path)
  again = cl.load_json(path)
  assert cl.to_dict(again) == cl.to_dict(c)
  with c.unlocked():
    c.optim.lr = 0.2
    del c.init
    c.new = (1, 2)
  with open(path) as f:
    changes = cl.diff(json.load(f), cl.to_dict(c))
  assert changes == [
    ('init', {'run': None}, '(absent)'),
    ('new', '(absent)', [1, 2]),
    ('optim.lr', 0.1, 0.2),
  ]


def test_track_records_reads_not_names():
  c = mlc.ConfigDict(dict(a=1, b=dict(c=2, d=3), e=dict(f=4), g=[('x', 1)]))
  t = cl.track(c)
  assert t.unread() == ['a', 'b.c', 'b.d', 'e.f', 'g']
  assert sorted(t) == ['a', 'b', 'e', 'g'] and 'a' in t and t.get('z', 5) == 5
  cl.to_dict(t)
  assert len(t.unread()) == 5
  assert t.a == 1 and t.b['c'] == 2
  assert t.unread() == ['b.d', 'e.f', 'g']
  dict(**t.e)
  cl.freeze(t.b)
  assert t.unread() == ['g']
  assert t.g == [('x', 1)] and t.unread() == []


def test_check_keys():
  cl.check_keys(dict(a=1), ('a', 'b'), 'here')
  message = "'batchsize' in input.*'batch_size'"
  with pytest.raises(cl.ConfigError, match=message):
    cl.check_keys(dict(batchsize=1), ('batch_size',), 'input')
