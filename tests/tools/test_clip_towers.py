# SPDX-License-Identifier: Apache-2.0
"""CLIP's towers as encoders of frames and tokens."""

import json

import h5py
import jax
import numpy as np
import pytest

from tests.data import frame_sets
from vidret_jax.convert import clip as convert
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.models import clip as clip_lib
from vidret_jax.tools import clip_features as tool
from vidret_jax.tools import clip_towers

VOCAB = 530
SIZES = clip_lib.Sizes(
  vision_width=64,
  vision_layers=1,
  patch=8,
  image_size=16,
  text_width=64,
  text_layers=1,
  context=9,
  vocab=VOCAB,
  dim=24,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Weights, a tokenizer and videos."""
  path = tmp_path_factory.mktemp('clip')
  rng = np.random.default_rng(0)
  shapes = convert.variable_shapes(SIZES)
  variables = jax.tree.map(
    lambda s: (0.1 * rng.normal(size=s.shape)).astype(np.float32), shapes
  )
  convert.save(path / 'clip.pt', variables, SIZES)
  frame_sets.write_tokenizer(path / 'tokenizer.json', VOCAB)
  for name in ('a', 'b'):
    film = frame_sets.film(rng, 12)
    frame_sets.write_video(path / 'videos' / f'{name}.avi', film)
  return path, variables


@pytest.fixture(scope='module')
def towers(folder):
  path, _ = folder
  return clip_towers.Towers(path / 'clip.pt', path / 'tokenizer.json')


def apply(variables, method, *arguments, **options):
  model = clip_lib.Clip(SIZES)
  params = {'params': variables['params']['clip']}
  run = jax.jit(lambda p, *x: model.apply(p, *x, method=method, **options))
  return np.asarray(run(params, *arguments))


def test_frames(folder, towers):
  _, variables = folder
  assert (towers.image_size, towers.width) == (16, 24)
  pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
  want = apply(variables, 'encode_image', pixels[None])[0, :, 0]
  np.testing.assert_allclose(towers.frames(pixels), want, atol=1e-5)


def test_tokens(folder, towers):
  path, variables = folder
  tokenizer = tokenizer_lib.load(path / 'tokenizer.json')
  texts = ['a man sings', 'the red guitar ' * 9]
  found = towers.queries(texts)
  ids = tokenizer.rows(texts, SIZES.context)
  want = apply(variables, 'encode_text', ids, every=True)
  # Every token, and the end of text.
  count = len(tokenizer.encode(texts[0])) + 1
  np.testing.assert_allclose(found[0], want[0, 1 : 1 + count], atol=1e-5)
  # Start and end of text take two of the nine places.
  np.testing.assert_allclose(found[1], want[1, 1:], atol=1e-5)
  with pytest.raises(ValueError, match='has no token'):
    towers.queries(['a man', ' '])
  said = towers.sentences(['', 'a man sings'])
  assert said[0].shape == (0, 24)
  np.testing.assert_allclose(said[1], found[0], atol=1e-5)


def test_from_videos_to_clips(folder, tmp_path, capsys):
  path, _ = folder
  weights = ['--weights', str(path / 'clip.pt')]
  frames, clips, tokens = (str(tmp_path / f'{x}.h5') for x in 'fct')
  videos = str(path / 'videos')
  assert tool.main(['frames', videos, '--out', frames, *weights]) == 0
  assert tool.main(['pool', frames, '--out', clips]) == 0
  with h5py.File(clips) as file:
    assert {k: v.shape for k, v in file.items()} == {'a': (2, 24), 'b': (2, 24)}
  lines = tmp_path / 'train.jsonl'
  lines.write_text(json.dumps({'desc_id': 5, 'desc': 'a man sings'}))
  tokenizer = ['--tokenizer', str(path / 'tokenizer.json')]
  queries = ['clip', '--queries', str(lines), '--out', tokens]
  assert tool.main([*queries, *weights, *tokenizer]) == 0
  with h5py.File(tokens) as file:
    assert file['5'].ndim == 2 and file['5'].shape[1] == 24
  capsys.readouterr()
  absent = [
    'frames',
    videos,
    '--out',
    str(tmp_path / 'x'),
    '--weights',
    'no.pt',
  ]
  assert tool.main(absent) == 1
  assert 'no.pt: no such file' in capsys.readouterr().err
