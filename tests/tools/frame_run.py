# SPDX-License-Identifier: Apache-2.0
"""A small real run of EERCF with drawn weights, and a folder of videos."""

import functools
import pathlib

import av
import jax
import ml_collections as mlc
import numpy as np

from tests.data.frames import pictures
from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.train import ckpt, defaults, optim, workdir
from vidret_jax.train import state as state_lib

SENTENCES = ('a red circle grows', 'a blue square', 'two stars fall down')
SIZE, FRAMES, WORDS, VOCAB = 32, 3, 9, 560
CLIP = dict(
  vision_width=64,
  vision_layers=1,
  patch=16,
  image_size=SIZE,
  text_width=64,
  text_layers=1,
  context=12,
  vocab=VOCAB,
  dim=64,
)


def config(tokenizer, **model):
  """The config of the run; its dataset is on no machine."""
  c = mlc.ConfigDict()
  c.system = 'eercf'
  c.model = dict(clip=CLIP, max_frames=FRAMES, temporal_layers=1) | model
  data = dict(
    name='msrvtt_frames',
    split='train_9k',
    root='absent',
    max_frames=FRAMES,
    image_size=SIZE,
    max_words=WORDS,
    tokenizer=str(tokenizer),
    frame_order='shuffled',
  )
  c.input = dict(data=data, batch_size=2)
  test = dict(data, split='test_1ka', frame_order='as_is', framerate=2)
  c.evals = dict(test=dict(type='retrieval', data=test))
  c.total_epochs = 1
  c.optim = dict(name='adam', lr=0.1)
  c.schedule = [('.*', dict(decay='constant'))]
  c.compile_cache = False
  return defaults.resolve(c)


def make(folder, *, seed=0, **model):
  """Writes a run; returns (its config, variables)."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  words = folder / 'words.json'
  tokenizer_lib.train(SENTENCES * 2, words, VOCAB)
  c = config(words, **model)
  variables = draw(build(c), seed)
  tx, _ = optim.make(
    c.optim,
    c.schedule,
    params=variables['params'],
    steps_per_epoch=10,
    total_steps=10,
  )
  state = state_lib.start(variables, tx)
  mesh = sharding.make_mesh()
  where = sharding.replicated(mesh)
  state = jax.device_put(state, where)
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state
  )
  workdir.write(c, str(folder))
  checkpoints = ckpt.Checkpoints(str(folder), target)
  checkpoints.save(0, state, {})
  checkpoints.close()
  return c, variables


def build(c):
  return cl.find('models', c.system, 'make')(**cl.freeze(c.model))


def draw(model, seed):
  spec = dict(
    text=((WORDS,), np.int32),
    frames=((FRAMES, SIZE, SIZE, 3), np.uint8),
    frame_mask=((FRAMES,), bool),
  )
  return jax.jit(state_lib.init_fn(model, spec, seed))()


@functools.cache
def films():
  """{relative path: frames per second}: what `videos` writes."""
  return {
    'deep/er/e.mkv': 5,
    'film [b].avi': 4,
    'film a.mp4': 5,
    'ü 日本.mov': 5,
    "<i>'&.webm": 3,
  }


def videos(folder):
  """Writes videos of noise, and files that only look like videos."""
  folder = pathlib.Path(folder)
  for seed, (name, rate) in enumerate(films().items()):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    film(path, seed, rate)
  (folder / 'broken.mp4').write_bytes(b'\0\0\0\x18ftypmp42 and no more')
  (folder / 'empty.avi').touch()
  (folder / 'notes.txt').write_text('no video')
  (folder / '.hidden').mkdir()
  film(folder / '.hidden' / 'h.mp4', 9, 5)
  return folder


def film(path, seed, rate):
  """A video of `seed + 2` seconds, each with a picture of its own."""
  codec = 'vp9' if path.suffix == '.webm' else 'mpeg4'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height = 48, 40
    stream.bit_rate = 4_000_000
    for second in range(seed + 2):
      pixels = pictures.natural(40, 48, 10 * seed + second)
      for _ in range(rate):
        frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
