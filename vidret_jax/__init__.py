# SPDX-License-Identifier: Apache-2.0
"""Video-text and video-video retrieval in JAX.

`import vidret_jax` is cheap: the names below are imported when first used.
"""

import importlib

__version__ = '0.1.0'

_PUBLIC = {
  'Retriever': 'models.base',
  'Source': 'data.source',
  'GroundTruth': 'data.source',
  'TrainState': 'train.state',
  'load_config': 'config_lib',
}


def __getattr__(name):
  if name not in _PUBLIC:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_PUBLIC[name]}')
  return getattr(module, 'load' if name == 'load_config' else name)


def __dir__():
  return sorted([*_PUBLIC, '__version__'])
