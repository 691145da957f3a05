"""Turns an upstream job of the golden folder into our data arguments."""

import importlib
import json
import pathlib

_SPLITS = {
  'MSRVTT': {
    'full-val': ('full/train', 'full/val'),
    'full-test': ('full/train', 'full/test'),
    'jsfusion': ('jsfusion/train', 'jsfusion/test'),
    'miech': ('miech/train', 'miech/test'),
  },
  'LSMDC': {'full-val': ('train', 'val'), 'full-test': ('train', 'test')},
  'MSVD': {'dev': ('train', 'val'), 'official': ('train', 'test')},
  'DiDeMo': {'val': ('train', 'val'), 'test': ('train', 'test')},
  'ActivityNet': {'val': ('train', 'val'), 'val1': ('train', 'val1')},
}


def _merge(base, changes):
  out = dict(base)
  for key, value in changes.items():
    nested = isinstance(value, dict) and isinstance(out.get(key), dict)
    out[key] = _merge(out[key], value) if nested else value
  return out


def read_config(golden_root: pathlib.Path, job: str, final: bool) -> dict:
  """The job's config, with its evaluation settings merged when `final`."""
  file = golden_root / 'ce' / 'e2e' / job / 'config.json'
  config = json.loads(file.read_text())
  if final and isinstance(config.get('eval_settings'), dict):
    config = _merge(config, config['eval_settings'])
  return config


def _expert(name: str, config: dict) -> dict:
  loader = config['data_loader']['args']
  options = loader['feat_aggregation'].get(name, {})
  if name == 'face':
    dim = config['experts']['face_dim']
  elif 'feat_dims' in options:
    dim = options['feat_dims'][options.get('type', 'embed')]
    dim *= len(options.get('temporal', 'avg').split('-'))
  else:
    dim = 128  # VGGish
  out = {'dim': dim}
  if options.get('temporal') == 'vlad':
    out['max_tokens'] = loader['max_tokens'][name]
  return out


_SAMPLING = (
  *('fps', 'pixel_dim', 'stride', 'offset', 'inner_stride', 'num_segments'),
  *('temporal', 'type'),
)


def data_of(golden_root: pathlib.Path, job: str, *, train: bool):
  """Our data arguments for a job.

  Args:
    golden_root: folder that holds `ce`.
    job: name of an end-to-end job.
    train: training split as in the config, else the final evaluation split.

  Returns:
    (dataset module, manual_dir, arguments for prepare, further ones for make).
  """
  config = read_config(golden_root, job, final=not train)
  loader = config['data_loader']['args']
  table = golden_root / 'ce' / config['text_embedding_model_configs']
  encoder = config['experts']['text_feat']
  text_dim = json.loads(table.read_text())[encoder]['dim']
  names = config['experts']['modalities']
  dropped = [n for n in config['experts']['drop_feats'].split(',') if n]
  dataset = loader['dataset_name']
  splits = _SPLITS[dataset][loader['split_name']]
  text_len = loader['max_tokens']['text']
  asked = dict(
    split=splits[0] if train else splits[1],
    experts=tuple((n, _expert(n, config)) for n in names if n not in dropped),
    text=dict(dim=text_dim, max_tokens=text_len, encoder=encoder),
    root=loader['root_feat_folder'],
    training_file=config.get('training_file'),
    aggregation=tuple(
      (n, {k: loader['feat_aggregation'][n].get(k) for k in _SAMPLING})
      for n in names
      if 'fps' in loader['feat_aggregation'].get(n, {})
    ),
  )
  viewed = dict(fuse_captions=bool(loader['fuse_captions']))
  if train:
    viewed['max_captions'] = loader.get('restrict_train_captions') or None
    viewed['text_dropout'] = loader.get('text_dropout') or 0.0
  else:
    viewed['max_captions'] = loader['num_test_captions']
  module = importlib.import_module(f'vidret_jax.data.{dataset.lower()}')
  manual_dir = golden_root / 'ce' / 'e2e' / loader['data_dir']
  return module, manual_dir, asked, viewed
