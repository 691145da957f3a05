# SPDX-License-Identifier: Apache-2.0
"""Parameters and options of models/reloclnet.py."""

import functools

import flax
import jax
import numpy as np
import pytest

from vidret_jax.models import reloclnet

CASES = [
  (variant, streams)
  for variant in reloclnet.VARIANTS
  for streams in (('video', 'subtitle'), ('video',), ('subtitle',))
]


def make(variant='reloclnet', streams=('video', 'subtitle'), **options):
  sizes = dict(dim=8, heads=2, max_clips=9, max_words=6, hard_start_epoch=-1)
  return reloclnet.make(
    variant=variant, streams=streams, **{**sizes, **options}
  )


def spec(clips, words, *, query=5, video=7, subtitle=6):
  shape = jax.ShapeDtypeStruct
  return dict(
    query=shape((2, words, query), np.float32),
    query_mask=shape((2, words), bool),
    video=shape((2, clips, video), np.float32),
    subtitle=shape((2, clips, subtitle), np.float32),
    clip_mask=shape((2, clips), bool),
    span=shape((2, 2), np.int32),
  )


def shapes(model, clips=9, words=4, **widths):
  init = functools.partial(model.init, step=0, train=False, method='loss')
  batch = spec(clips, words, **widths)
  return jax.eval_shape(init, jax.random.key(0), batch)


def flat(tree):
  return flax.traverse_util.flatten_dict(tree['params'], sep='/')


@pytest.mark.parametrize('tef, count', [(2, 7_765_650), (0, 7_764_106)])
def test_parameters_of_the_published_model(tef, count):
  widths = dict(query=768, video=3072 + tef, subtitle=768 + tef)
  model = reloclnet.make(steps_per_epoch=682)
  tree = shapes(model, 128, 30, **widths)
  assert sum(x.size for x in jax.tree.leaves(tree)) == count


@pytest.mark.parametrize('variant, streams', CASES)
def test_parameter_trees(variant, streams):
  pair, xml = len(streams) > 1, variant == 'xml'
  norm, linear = ('scale', 'bias'), ('kernel', 'bias')
  attention = [f'{k}/{p}' for k in ('query', 'key', 'value') for p in linear]
  encoder = [
    *(*attention, *(f'out/{p}' for p in linear)),
    *(f'norm/{p}' for p in norm),
  ]
  proj = [*(f'norm/{p}' for p in norm), *(f'dense/{p}' for p in linear)]
  place = ['embedding', *(f'norm/{p}' for p in norm)]
  want = {f'query/proj/{p}' for p in proj} | {'query/modular/kernel'}
  want |= {f'{k}/{p}' for k in ('position', 'query/position') for p in place}
  for i in range(1, 2 if xml else 3):
    want |= {f'query/enc_{i}/{p}' for p in encoder}
  for stream in streams:
    want |= {f'{stream}/proj/{p}' for p in proj}
    for i in range(1, 3 if xml and pair else 4):
      want |= {f'{stream}/enc_{i}/{p}' for p in encoder}
    if pair:
      want |= {f'{stream}/cross/{p}' for p in attention}
      want |= {f'{stream}/cross_norm/{p}' for p in norm}
    want |= {f'span/{stream}/{p}' for p in linear}
  want |= {'span/start', 'span/end'}
  assert set(flat(shapes(make(variant, streams)))) == want


def test_initial_distribution():
  model = make('xml', ('subtitle',), dim=64, heads=4)
  batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), spec(9, 4))
  init = jax.jit(
    functools.partial(model.init, step=0, train=False, method='loss')
  )
  tree = init(jax.random.key(0, impl='unsafe_rbg'), batch)
  for path, x in flat(tree).items():
    path = path.split('/')
    if path[-1] in ('scale', 'bias'):
      np.testing.assert_array_equal(x, float(path[-1] == 'scale'))
    elif path[-2] == 'span':
      # Those of a convolution of PyTorch: +- 1 / sqrt(5).
      assert 0.1 < np.abs(x).max() < 5**-0.5
    else:
      assert abs(x.std() - 0.02) < 4 * 0.02 / (2 * x.size) ** 0.5, path
      assert abs(x.mean()) < 4 * 0.02 / x.size**0.5, path


@pytest.mark.parametrize(
  'given, message',
  [
    (dict(variant='xmls'), "variant='xmls': expected one of"),
    (dict(ranking='soft'), "ranking='soft': expected one of"),
    (dict(streams=()), r'streams=\(\): expected'),
    (dict(streams=('subtitle', 'video')), 'in this order'),
    (dict(streams=('audio',)), "streams=.'audio',"),
    (dict(heads=3), 'dim=8 does not divide into heads=3'),
    (dict(heads=0), 'heads=0: expected a number from 1'),
    (dict(kernel=4), 'kernel=4: expected an odd number'),
    (dict(max_clips=0), 'max_clips=0: expected'),
    (dict(hard_pool=0), 'hard_pool=0: expected'),
    (dict(short_clips=9), 'short_clips=9: expected .* than max_clips=9'),
    (dict(dropout=1.0), 'dropout=1.0: expected'),
    (dict(loss=dict(frames=1)), "no part 'frames'; known are frame, video"),
    (dict(hard_start_epoch=3), 'steps_per_epoch=None: expected'),
  ],
)
def test_bad_options_are_named(given, message):
  with pytest.raises(ValueError, match=message):
    make(**given)


def test_more_clips_than_places_are_named():
  with pytest.raises(ValueError, match=r'9 rows.*8 only; set max_clips'):
    shapes(make(max_clips=8))
