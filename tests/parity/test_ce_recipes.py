# SPDX-License-Identifier: Apache-2.0
"""Our configs against the merged configs that upstream writes beside weights.

Widths, clusters and lengths in the golden folder are small on purpose; all
other values of a recipe are those of the published configs.
"""

import json
import pathlib

import pytest

from vidret_jax import config_lib as cl
from vidret_jax.convert import ce_config

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
# Jobs that upstream's own files describe; others may change any value.
_MOEE = 'ce_msrvtt.py:split=miech,model=moee,moee_features'
JOBS = {
  'msrvtt_full': 'ce_msrvtt.py',
  'msrvtt_1kA': 'ce_msrvtt.py:split=jsfusion',
  'msrvtt_1kB_miechfeats_moee': _MOEE,
  'lsmdc': 'ce_lsmdc.py',
  'msvd': 'ce_msvd.py',
  'didemo': 'ce_didemo.py',
  'activity-net': 'ce_activitynet.py',
}


@pytest.mark.parametrize('name', JOBS)
def test_recipe(golden_root, name):
  path = golden_root / 'ce' / 'e2e' / name / 'config.json'
  if not path.exists():
    pytest.skip(f'{path} is absent')
  config = cl.load(str(CONFIGS / JOBS[name]))
  compare(config, json.loads(path.read_text()), name)


def compare(config, theirs, name):
  loader, arch = theirs['data_loader']['args'], theirs['arch']['args']
  experts = dict(config.model.experts)
  optim, step = theirs['optimizer'], theirs['lr_scheduler']
  rule = config.schedule[-1][1]
  data = next(iter(config.evals.values())).data
  network = ce_config.model_config(theirs, text_dim=1)
  pairs = {
    'experts': (sorted(experts), sorted(theirs['experts']['modalities'])),
    'text': (config.model.text.encoder, theirs['experts']['text_feat']),
    'margin': (config.model.margin, theirs['loss']['args']['margin']),
    'optimiser': (config.optim.name, optim['type'].lower()),
    'lr': (config.optim.lr, optim['args']['lr']),
    'wd': (config.optim.wd, optim['args']['weight_decay']),
    'gamma': (rule['gamma'], step['args']['gamma']),
    'step': (rule['every_epochs'], step['args']['step_size']),
    'fuse': (data.get('fuse_captions', False), loader['fuse_captions']),
    'select': (config.select == 'best', theirs['eval_mode'] == 'test_run'),
    'pooled': (
      sorted(n for n, v in experts.items() if 'clusters' in v),
      sorted(n for n, v in network['experts'] if dict(v).get('clusters')),
    ),
  }
  for key in (
    'gating',
    'include_self',
    'g_layers',
    'h_layers',
    'g_norm',
    'activation',
    'mixture',
    'missing',
    'fix_norm',
  ):
    if key in network:
      pairs[key] = (config.model[key], network[key])
  wrong = {k: v for k, v in pairs.items() if v[0] != v[1]}
  assert not wrong, f'{name}: (ours, theirs) {wrong}'
  assert arch['use_ce'] or config.model.gating == 'none'
  print(f'{name}: {len(pairs)} values agree')
