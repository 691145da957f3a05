# SPDX-License-Identifier: Apache-2.0
"""State dicts of TorchScript archives, without PyTorch.

`torch.jit.save` writes the same zip as `torch.save`, with the module itself in
data.pkl: objects of generated classes below `__torch__` whose attributes are
tensors, plain values and further modules. Their code lies beside it and is
neither read nor run.
"""

import numpy as np

from vidret_jax.convert.torch_file import Bag, TorchFileError

# A ViT-L/14 has some 600 tensors in some 700 modules, 6 deep.
_MOST = 100_000
_DEEPEST = 50
# What a Bag holds besides the attributes of the object.
_OWN = ('args', 'kwargs', 'items')


def is_module(obj) -> bool:
  """Whether `torch_file.read` returned a TorchScript module."""
  # Of the class: an attribute may have the same name.
  module = getattr(type(obj), 'module', '') if isinstance(obj, Bag) else ''
  return module.split('.')[0] == '__torch__'


def state_dict(module: Bag) -> dict[str, np.ndarray]:
  """Tensors by dotted name, in the order of the attributes.

  Raises:
    TorchFileError: modules that contain themselves, or far too many.
  """
  state = {}
  steps = 0

  def walk(node, prefix, above):
    nonlocal steps
    if any(node is other for other in above):
      raise TorchFileError(f'the module {prefix or "itself"} contains itself')
    for name, value in vars(node).items():
      steps += 1
      if steps > _MOST or len(above) > _DEEPEST:
        raise TorchFileError(
          f'more than {_MOST} attributes, or nested deeper than {_DEEPEST}: '
          'no archive of a network'
        )
      if isinstance(value, np.ndarray):
        state[prefix + name] = value
      elif isinstance(value, Bag) and name not in _OWN:
        walk(value, f'{prefix}{name}.', [*above, node])

  walk(module, '', [])
  return state
