# SPDX-License-Identifier: Apache-2.0
"""What lies between the golden files of data and those of models.

Batches that the models were given come out of our records of the toy folders,
and the loss of every level is that of upstream's call for it, also where the
total leaves it out.
"""

import functools
import importlib

import jax
import numpy as np
import pytest

from tests.parity import ranp_goldens, test_ranp_models
from vidret_jax.data.graphs import layout
from vidret_jax.losses import mining

_LAYOUTS = (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)
_CALLS = 'criterion_calls_sent_verb_noun_fusion'


@pytest.fixture(scope='module')
def pairs(golden_root, tmp_path_factory):
  """Opens the pairs that a description of a model names."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('VIDRET_DATA_DIR', str(tmp_path_factory.mktemp('data')))
    yield functools.partial(_pairs, golden_root / 'ranp')


def _pairs(root, given):
  toy, config = root / given['dataset'], given['config']
  if not toy.is_dir():
    pytest.skip(f'{toy} is absent')
  kind = next(
    x for x in _LAYOUTS if (toy / 'annotation' / x.annotation).is_dir()
  )
  theirs = given.get('split', 'trn')
  split = next(k for k, v in layout.SPLITS.items() if v == theirs)
  module = importlib.import_module(f'vidret_jax.data.{kind.name}')
  options = dict(
    split=split, root=str(toy), max_frames=config['max_frames_in_video']
  )
  module.prepare(progress=False, **options)
  return module.make(
    view='pairs',
    max_words=config['max_words_in_sent'],
    num_verbs=config['num_verbs'],
    num_nouns=config['num_nouns'],
    **options,
  )


class Arrays(dict):
  """As `goldens.Arrays`; another test sees to it that all are read."""

  def under(self, prefix):
    return {
      k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)
    }


def _read(root, name):
  file = root / 'ranp' / f'{name}.npz'
  if not file.exists():
    pytest.skip(f'{file} is absent')
  with np.load(file) as arrays:
    return Arrays(arrays)


def _check(source, index, io, prefix, classes):
  want = ranp_goldens.batch(io, classes, prefix)
  got = source.gather(np.asarray(index), np.asarray(index))
  names = [source.ids[i].rpartition('#')[0] for i in index]
  assert names == io[f'{prefix}names'].tolist()
  # Upstream cuts a batch at its longest sentence and its longest clip.
  words, frames = want['words'].shape[1], want['features'].shape[1]
  assert not got['word_mask'][:, words:].any()
  assert not got['feature_mask'][:, frames:].any()
  for key in ('words', 'word_mask', 'verb_mask', 'noun_mask'):
    got[key] = got[key][..., :words]
  for key in ('features', 'feature_mask'):
    got[key] = got[key][:, :frames]
  for key, value in want.items():
    if 'classes' in key:
      for ours, theirs in zip(got[key], value, strict=True):
        assert set(ours) - {-1} == set(theirs) - {-1}, key
    else:
      np.testing.assert_array_equal(got[key], value, key)


def test_batches_of_models(golden_root, pairs, hgr_name):
  name = f'hgr_{hgr_name}'
  io = _read(golden_root, name)
  given = ranp_goldens.description(golden_root, name)
  source = pairs(given)
  words = given['config']['subcfgs']['text_encoder']['num_words']
  assert source.sizes == dict(num_words=words)
  _check(source, io['index'], io, 'batch/', given['classes'])


def test_batches_of_trainings(golden_root, pairs, hgr_training):
  name = f'hgr_train_{hgr_training}'
  io = _read(golden_root, name)
  given = ranp_goldens.description(golden_root, name)
  source = pairs(given)
  for step, classes in enumerate(given['classes']):
    _check(source, io['index'][step], io, f'step{step}/batch/', classes)


@functools.partial(jax.jit, static_argnums=2)
def _mine(sims, relevances, options):
  """The loss of matrices [levels, q, v], by part."""
  return jax.vmap(lambda s, r: mining.mine(s, r, options))(sims, relevances)


def test_losses_of_levels(golden_root, errors, hgr_name):
  name = f'hgr_{hgr_name}'
  given = ranp_goldens.description(golden_root, name)
  io = _read(golden_root, name)
  # Clips are rows there. The mean of the levels has the relevance of sentences.
  sims, relevances = (
    np.stack([io[key].swapaxes(0, 1) for key in keys])
    for keys in (
      [f'out/{k}scores' for k in ('sent_', 'verb_', 'noun_', '')],
      [f'rel/{k}' for k in ('sent', 'verb', 'noun', 'sent')],
    )
  )
  variants = test_ranp_models.variants_of(io, given)
  assert set(variants) == set(given['losses'])
  for variant, options in variants.items():
    options.pop('level_weights', None)
    told = given['losses'][variant]
    assert options.get('threshold', 1) == told['threshold_pos'], variant
    found = _mine(sims, relevances, mining.Mining(**options))
    parts = [found[k] for k in ('negatives', 'positives') if k in found]
    # Upstream works out negatives also where it leaves them out.
    want = [call[-len(parts) :] for call in told[_CALLS]]
    errors.close(variant, np.stack(parts, 1), want, test_ranp_models.LOSS)
