# SPDX-License-Identifier: Apache-2.0
"""ReLoCLNet's optimiser, its groups, and a recorded training run."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.configs import shipped
from tests.parity import reloclnet_goldens as goldens
from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import reloclnet as convert
from vidret_jax.convert import reloclnet_config
from vidret_jax.data import tvr_moments
from vidret_jax.models import reloclnet
from vidret_jax.train import optim, schedules

STEP = 1e-6
TRACE = 1e-4
WEIGHTS = 5e-4
# As the README of the golden files has them.
GIVEN = dict(lr=0.05, warmup=0.3, total=8)
LONG = dict(warmup=0.01, total=68200)
UNUSED = 'never_used/kernel'
COLUMNS = ('st_ed', 'fcl', 'vcl', 'neg_ctx', 'neg_q')


def recipe(**changes):
  """`optim` and `schedule` of the shipped config, with changes to both."""
  config = cl.to_dict(shipped.load('reloclnet_tvr.py'))
  schedule = [
    (regex, dict(rule, warmup=changes.get('warmup', rule['warmup'])))
    for regex, rule in config['schedule']
  ]
  return dict(config['optim'], lr=changes['lr']), schedule


def decays(optim_config, names):
  """Name -> weight decay, by the first rule that fits."""
  rules = [(re.compile(r), x) for r, x in optim_config['wd_mults']]
  return {
    name: optim_config['wd']
    * next(x for rule, x in rules if rule.fullmatch(name))
    for name in names
  }


def upstreams_decay(name, wd):
  """Of a tensor of upstream's (train.py, `no_decay`)."""
  return 0.0 if re.search(r'bias|LayerNorm\.weight', name) else wd


def ours(name):
  """Our name for a tensor that is called as one of upstream's."""
  name = re.sub(r'_cross_layernorm\.weight$', '.cross_norm.scale', name)
  name = re.sub(r'LayerNorm\.weight$', 'norm.scale', name)
  return re.sub(r'weight$', 'kernel', name).replace('.', '/')


def test_given_gradients(golden, errors):
  io = golden('optimizer.npz')
  start = {ours(k): v for k, v in io.under('init/').items()}
  optim_config, schedule = recipe(**GIVEN)
  found = decays(optim_config, start)
  errors.close('decay', list(found.values()), io['decay'], 0)
  tx, _ = optim.make(
    optim_config,
    [(UNUSED, None), *schedule],
    params=start,
    steps_per_epoch=1,
    total_steps=GIVEN['total'],
  )

  @jax.jit
  def update(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  params, state = start, tx.init(start)
  for step in range(sum(g.startswith('grad') for g in io.groups())):
    grads = {ours(k): v for k, v in io.under(f'grad{step}/').items()}
    grads[UNUSED] = np.zeros_like(start[UNUSED])
    params, state = update(params, state, grads)
    for name, want in io.under(f'param{step}/').items():
      errors.close(f'{name} after step {step}', params[ours(name)], want, STEP)
  rate = schedules.make(
    dict(schedule[0][1], warmup=LONG['warmup']),
    1.0,
    steps_per_epoch=682,
    total_steps=LONG['total'],
  )
  got = [float(rate(step)) for step in io['sched_steps']]
  errors.close('rate', got, io['sched_mult'], STEP)


class Run:
  """The recorded run of the small set."""

  def __init__(self, golden_root):
    self.root = goldens.folder(golden_root) / 'tiny_tvr'
    self.results = self.root / 'results'
    opt = json.loads(goldens.present(self.results / 'opt.json').read_text())
    goldens.present(self.root / opt['train_path'])
    self.opt, self.told = opt, reloclnet_config.run_config(opt)
    self.data = dict(
      self.told['data'],
      root=str(self.root),
      paths={
        'annotations_train': opt['train_path'],
        'annotations_val': opt['eval_path'],
        'durations': opt['video_duration_idx_path'],
        'video': opt['vid_feat_path'],
        'subtitle': opt['sub_bert_path'],
        'query': opt['desc_bert_path'],
      },
    )

  def pairs(self, split):
    """All pairs of a split, and the place of each query in them."""
    tvr_moments.prepare(split=split, progress=False, **self.data)
    source = tvr_moments.make(view='pairs', split=split, **self.data)
    index = np.arange(len(source))
    place = {number: i for i, number in enumerate(source.numbers.tolist())}
    return source.gather(index, index), place

  def model(self, steps_per_epoch):
    return reloclnet.make(**self.told['model'], steps_per_epoch=steps_per_epoch)

  def state(self, name):
    return goldens.state(self.results / name)


@pytest.fixture
def run(golden_root, tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  return Run(golden_root)


def test_decay_groups_of_the_model(run):
  model, want = run.model(1), run.state('init_state.pth')
  variables, _ = convert.to_flax(want, model)
  optim_config, _ = recipe(lr=1.0)
  leaves, tree = jax.tree_util.tree_flatten_with_path(variables['params'])
  names = [sharding.path_name(path) for path, _ in leaves]
  found = decays(optim_config, names)
  filled = [np.full_like(x, found[n]) for n, (_, x) in zip(names, leaves)]
  got = convert.to_torch({'params': jax.tree.unflatten(tree, filled)}, model)
  assert set(got) == set(want)
  for name, value in got.items():
    decay = upstreams_decay(name, optim_config['wd'])
    np.testing.assert_array_equal(value, np.float32(decay), name)


@pytest.mark.usefixtures('quick_compiler')
def test_training_run(run, golden, errors):
  trace = golden('tiny_tvr/results/train_trace.npz')
  opt, ids = run.opt, trace['batch_desc_ids']
  sets = {1: run.pairs('train'), 0: run.pairs('val')}
  per_epoch = math.ceil(len(sets[1][1]) / opt['bsz'])
  model, total = run.model(per_epoch), per_epoch * opt['n_epoch']
  optim_config, schedule = recipe(
    lr=opt['lr'], warmup=opt['lr_warmup_proportion']
  )
  variables, _ = convert.to_flax(run.state('init_state.pth'), model)
  params = variables['params']
  tx, _ = optim.make(
    optim_config,
    schedule,
    params=params,
    steps_per_epoch=per_epoch,
    total_steps=total,
  )

  @jax.jit
  def update(params, state, batch, ranks, step, training):
    def objective(params):
      return model.apply(
        {'params': params},
        batch,
        ranks,
        step=step,
        train=False,  # There is no dropout; see below.
        method='objective',
      )

    (loss, parts), grads = jax.value_and_grad(objective, has_aux=True)(params)
    updates, new = tx.update(grads, state, params)
    new = optax.apply_updates(params, updates), new
    kept = jax.tree.map(
      lambda a, b: jnp.where(training, a, b), new, (params, state)
    )
    return loss, parts, *kept

  assert opt['drop'] == opt['input_drop'] == 0
  state, step, epochs = tx.init(params), 0, trace['epoch'].tolist()
  drawn, compared = (trace['neg_rank_ctx'], trace['neg_rank_q']), []
  for row, training in enumerate(trace['training'].tolist()):
    real = ids[row] >= 0
    pairs, place = sets[training]
    index = [place.get(number, 0) for number in ids[row].tolist()]
    batch = {k: x[index] for k, x in pairs.items()} | {'_mask': real}
    ranks = {
      name: np.where(real, x[row], 1).astype(np.int32)
      for name, x in zip(('ctx', 'query'), drawn)
    }
    # Upstream changes its loss between epochs, also that of evaluation.
    at = epochs[row] * per_epoch
    most = real.sum() - 1
    if at >= model.hard_start:
      most = min(most, model.hard_pool)
    for x in ranks.values():
      assert 1 <= x[real].min() and x[real].max() <= most
    loss, parts, params, state = update(
      params, state, batch, ranks, np.int32(at), bool(training)
    )
    step += training
    got = [parts[goldens.TERMS[name]] for name in COLUMNS] + [loss]
    errors.close(f'losses {row}', got, trace['losses'][row], TRACE)
    if row + 1 == len(epochs) or epochs[row + 1] != epochs[row]:
      name = 'last' if step == total else f'after_epoch{epochs[row]}'
      if (run.results / f'{name}_state.pth').exists():
        compared.append(name)
        check(errors, model, params, run.state(f'{name}_state.pth'), name)
  assert compared == ['after_epoch0', 'last']


def check(errors, model, params, want, when):
  """Compares all weights."""
  got = convert.to_torch({'params': params}, model)
  assert set(got) == set(want)
  for name, value in want.items():
    errors.close(f'{when} {name}', got[name], value, WEIGHTS)
