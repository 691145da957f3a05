# SPDX-License-Identifier: Apache-2.0
"""A checkpoint and a feature pack, as published, to the published metrics.

Nothing of the original runs here but its files: our reader opens the pack, our
converter the checkpoint, our evaluator ranks.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import ce_packs, goldens, test_ce_data
from vidret_jax import sharding
from vidret_jax.convert import ce as convert
from vidret_jax.convert import ce_config
from vidret_jax.evaluators import retrieval
from vidret_jax.models import ce

data_folder = test_ce_data.data_folder


def open_job(golden_root, job):
  """(model, variables, items, queries) of an upstream job."""
  file = golden_root / 'ce' / 'e2e' / job / 'trained_model.pth'
  if not file.is_file():
    pytest.skip(f'no {file.name} in {job}')
  items, queries = test_ce_data.open_views(
    golden_root, job, train=False, views=('items', 'queries')
  )
  config = ce_packs.read_config(golden_root, job, final=True)
  table = golden_root / 'ce' / config['text_embedding_model_configs']
  encoder = config['experts']['text_feat']
  model = ce.make(
    **ce_config.model_config(
      config, text_dim=json.loads(table.read_text())[encoder]['dim']
    )
  )
  variables, _ = convert.load(file, model)
  return model, variables, items, queries


def expected(golden_root, job):
  file = golden_root / 'ce' / 'e2e' / job / 'expected.npz'
  if not file.is_file():
    pytest.skip(f'no {file.name} in {job}')
  return goldens.Arrays(file)


def test_similarities(golden_root, errors, job):
  want = expected(golden_root, job)
  model, variables, items, queries = open_job(golden_root, job)
  q = model.apply(variables, test_ce_data.whole(queries), method='encode_query')
  v = model.apply(variables, test_ce_data.whole(items), method='encode_item')
  sim_qv = model.apply(variables, q, v, method='score')
  exists = want['query_masks'].astype(bool).reshape(-1)
  errors.close('sims', sim_qv, want['sims'][exists], atol=2e-6)


def test_metrics(golden_root, errors, job):
  want = expected(golden_root, job)
  model, variables, items, queries = open_job(golden_root, job)
  evaluator = retrieval.Evaluator(
    model,
    sharding.make_mesh(),
    items=items,
    queries=queries,
    query_block=5,
    item_block=4,  # Several blocks, the last of them partial.
  )
  got = evaluator.run(_on_device(variables))
  for direction in ('t2v', 'v2t'):
    for name, value in want.under(f'{direction}_metrics/').items():
      key = f'{direction}_{goldens.METRICS[name]}'
      errors.close(key, got[key], value, atol=0, rtol=1e-12)


def test_metrics_of_the_training_scripts_log(golden_root, errors, job):
  """The last test values in an upstream log are those of its checkpoint."""
  file = golden_root / 'ce' / 'e2e' / job / 'info.log'
  if not file.is_file():
    pytest.skip(f'no {file.name} in {job}')
  model, variables, items, queries = open_job(golden_root, job)
  got = retrieval.Evaluator(
    model, sharding.make_mesh(), items=items, queries=queries
  ).run(_on_device(variables))
  rows = dict(
    re.findall(r'test_(\w+_metrics_[\w-]+): ([\d.]+)', file.read_text())
  )
  assert rows
  for name, text in rows.items():
    direction, _, metric = name.partition('_metrics_')
    key = f'{direction}_{goldens.METRICS[metric]}'
    errors.close(key, got[key], float(text), atol=0, rtol=1e-12)


def _on_device(variables):
  return jax.tree.map(jnp.asarray, variables)


def test_every_metric_of_the_folder_has_a_name(golden_root, job):
  want = expected(golden_root, job)
  for direction in ('t2v', 'v2t'):
    assert set(want.under(f'{direction}_metrics/')) <= set(goldens.METRICS)
    values = np.array(list(want.under(f'{direction}_metrics/').values()))
    assert np.isfinite(values).all()
