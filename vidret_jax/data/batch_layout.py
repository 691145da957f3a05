# SPDX-License-Identifier: Apache-2.0
"""Names, widths and lengths of a batch of experts and text."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class BatchLayout:
  """Names, widths and lengths of a batch, in the models' expert order.

  Attributes:
    names: expert names in byte-wise order.
    dims: name -> width.
    lengths: name -> rows, for experts of variable length only.
    text_dim: width of a token.
    text_len: tokens of a caption.
  """

  def __init__(self, experts, text, drop=()):
    pairs = experts.items() if isinstance(experts, Mapping) else experts
    pairs = [(name, dict(value)) for name, value in pairs]
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
      twice = sorted({n for n in names if names.count(n) > 1})
      raise ValueError(f'`experts` names {twice} more than once; keep one.')
    for name in drop:
      if name not in names:
        raise ValueError(
          f'`drop` names {name!r}, which is not in `experts`: {sorted(names)}.'
        )
    for key, value in [*pairs, ('text', dict(text))]:
      if 'dim' not in value:
        raise ValueError(f'{key!r} has no `dim`; found {sorted(value)}.')
    if 'max_tokens' not in text:
      raise ValueError(f'`text` has no `max_tokens`; found {sorted(text)}.')
    kept = sorted((n, v) for n, v in pairs if n not in drop)
    self.names = tuple(name for name, _ in kept)
    self.dims = {name: int(value['dim']) for name, value in kept}
    self.lengths = {
      name: int(value['max_tokens'])
      for name, value in kept
      if value.get('max_tokens')
    }
    self.text_dim = int(text['dim'])
    self.text_len = int(text['max_tokens'])

  def video_spec(self) -> dict[str, Any]:
    experts = {
      name: (
        (self.lengths[name], dim) if name in self.lengths else (dim,),
        np.dtype(np.float32),
      )
      for name, dim in self.dims.items()
    }
    spec = {
      'experts': experts,
      'available': ((len(self.names),), np.dtype(bool)),
    }
    if self.lengths:
      spec['experts_mask'] = {
        name: ((n,), np.dtype(bool)) for name, n in self.lengths.items()
      }
    return spec

  def text_spec(self, slots: int | None = None) -> dict[str, Any]:
    lead = () if slots is None else (slots,)
    return {
      'text': (
        lead + (self.text_len, self.text_dim),
        np.dtype(np.float32),
      ),
      'text_mask': (lead + (self.text_len,), np.dtype(bool)),
    }
