# SPDX-License-Identifier: Apache-2.0
"""Models and batches of the golden files of RANP."""

import json

import numpy as np
import pytest

from vidret_jax.convert import ranp as convert
from vidret_jax.convert import ranp_config
from vidret_jax.models import ranp

# Zero up to rounding, since a softmax does not see a shift: what is there is
# noise, and Adam makes steps of it.
NOISE = ('ft_attn.bias', 'edge_attn_key.bias')


def description(root, name):
  """The JSON of a golden model."""
  file = root / 'ranp' / f'{name}.json'
  if not file.exists():
    pytest.skip(f'{file} is absent')
  return json.loads(file.read_text())


def model(config, **overrides):
  """The model of an upstream config, without dropout."""
  kwargs = ranp_config.model_config(config)
  kwargs.update(overrides)
  return ranp.make(**kwargs)


def load(root, name, model):
  """Variables of a golden checkpoint."""
  variables, _ = convert.load(root / 'ranp' / name, model)
  return variables


def padded(lists):
  """Lists of classes, or single classes, as rows padded with -1."""
  lists = [[x] if isinstance(x, int) else x for x in lists]
  out = np.full((len(lists), max(map(len, lists), default=0) + 1), -1, np.int32)
  for row, values in zip(out, lists):
    row[: len(values)] = values
  return out


def classes(given):
  """Classes of captions and clips; a clip without has its caption's."""
  out = {}
  for ours, theirs in (
    ('verb_classes', 'verb_class'),
    ('noun_classes', 'noun_classes'),
  ):
    video = 'video_verb_classes' if ours[0] == 'v' else 'video_noun_classes'
    out[ours] = padded(given[theirs])
    out[video] = padded(given.get(video, given[theirs]))
  return out


def batch(io, given, prefix='batch/'):
  """A collated batch as our models take it."""
  if f'{prefix}names' in io:
    assert io[f'{prefix}names'].dtype.kind == 'U'
  out = classes(given)
  features, sentences = io[f'{prefix}attn_fts'], io[f'{prefix}sent_ids']
  out['features'] = features
  out['feature_mask'] = below(io[f'{prefix}attn_lens'], features.shape[1])
  out['word_mask'] = below(io[f'{prefix}sent_lens'], sentences.shape[1])
  if sentences.ndim == 3:
    out['word_vectors'] = sentences
  else:
    out['words'] = sentences.astype(np.int32)
  if f'{prefix}rel_edges' in io:
    out['verb_mask'] = io[f'{prefix}verb_masks']
    out['noun_mask'] = io[f'{prefix}noun_masks']
    out['roles'] = io[f'{prefix}node_roles']
    out['edge_mask'] = io[f'{prefix}rel_edges'] > 0
  return out


def below(lengths, size):
  return np.arange(size) < np.asarray(lengths)[:, None]


def check_tree(errors, name, got, want, model, *, atol, rtol):
  """Compares gradients or weights with arrays by upstream's names.

  Args:
    errors: the fixture.
    name: of the comparison.
    got: variables, or gradients of them.
    want: '<submodule>/<parameter>' -> array.
    model: whose they are.
    atol: allowed error.
    rtol: allowed error, in largest values of a tensor.

  Returns:
    Names of the tensors that upstream has no array of.
  """
  flat = {
    f'{part}/{key}': value
    for part, tensors in convert.to_torch(got, model).items()
    for key, value in tensors.items()
  }
  assert set(want) <= set(flat), sorted(set(want) - set(flat))
  for key, value in want.items():
    if not key.endswith(NOISE):
      allowed = atol + rtol * np.abs(value).max()
      errors.close(f'{name} {key}', flat[key], value, atol=allowed)
  return {k: flat[k] for k in set(flat) - set(want)}
