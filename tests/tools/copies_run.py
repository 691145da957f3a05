# SPDX-License-Identifier: Apache-2.0
"""A small real run of HAP-VR, and a folder of videos with copies."""

import pathlib
import shutil

import av
import jax
import ml_collections as mlc
import numpy as np

from tests.data.frames import pictures
from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import hap_vr, hap_vr_parts, rules
from vidret_jax.search import index as index_lib
from vidret_jax.tools import copies
from vidret_jax.train import ckpt, defaults, optim, workdir
from vidret_jax.train import state as state_lib

SIZE, DIM = 32, 16
BACKBONE = dict(stages=(1, 1), width=4, dims=DIM, kernels=(4, 2))


def config(**model):
  """The config of the run; its dataset is on no machine."""
  c = mlc.ConfigDict()
  c.system = 'hap_vr'
  c.model = dict(
    dim=DIM, backbone=BACKBONE, loss=dict(frame=0.0), features_only=True
  )
  c.model.update(model)
  data = dict(name='absent', root='absent', size=SIZE, resize=36)
  c.input = dict(data=data, batch_size=2)
  c.total_epochs = 1
  c.optim = dict(name='adam', lr=0.1)
  c.schedule = [('.*', dict(decay='constant'))]
  c.compile_cache = False
  return defaults.resolve(c)


def build(c):
  return cl.find('models', c.system, 'make')(**cl.freeze(c.model))


def draw(model, seed=0):
  """Variables of the right shapes, drawn."""
  rng = np.random.default_rng(seed)
  shapes = rules.flatten(hap_vr.variable_shapes(model))
  shapes |= hap_vr_parts.shapes(model)
  flat = {
    name: (rng.normal(0, 0.2, x.shape) + ('scale' in name)).astype(x.dtype)
    for name, x in shapes.items()
  }
  flat = {k: np.abs(x) if 'var' in k else x for k, x in flat.items()}
  variables = rules.unflatten(flat)
  _whiten(model, variables['params']['backbone'])
  return variables


def _whiten(model, params):
  """Fits the PCA, without which all pictures look alike."""
  eyes = model.backbone.clone(dims=None, parent=None)
  shown = np.stack([pictures.natural(SIZE, SIZE, i) for i in range(24)])
  x = jax.jit(eyes.apply)({'params': {'resnet': params['resnet']}}, shown)
  x = np.asarray(x).reshape(-1, x.shape[-1])
  pca = params['pca']
  pca['mean'] = x.mean(0)
  _, sizes, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
  pca['kernel'] = (axes[:DIM] / sizes[:DIM, None]).T.copy()


def make(folder, *, seed=0, variables=None, **model):
  """Writes a run; returns (its config, variables)."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  c = config(**model)
  variables = draw(build(c), seed) if variables is None else variables
  tx, _ = optim.make(
    c.optim,
    c.schedule,
    params=variables['params'],
    steps_per_epoch=10,
    total_steps=10,
  )
  state = state_lib.start(variables, tx)
  where = sharding.replicated(sharding.make_mesh())
  state = jax.device_put(state, where)
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state
  )
  workdir.write(c, str(folder))
  checkpoints = ckpt.Checkpoints(str(folder), target)
  checkpoints.save(0, state, {})
  checkpoints.close()
  return c, variables


def film(path, seeds, *, light=0, rate=4):
  """A video of one picture a second; equal seeds show the same."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=rate)
    stream.width, stream.height = 64, 48
    stream.bit_rate = 4_000_000
    for seed in seeds:
      pixels = pictures.natural(48, 64, seed).astype(int) + light
      pixels = pixels.clip(0, 255).astype(np.uint8)
      for _ in range(rate):
        frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


FILMS = {
  'a/film.mp4': (range(0, 40), 0),
  'a/darker.mkv': (range(0, 40), -25),
  'part of <film>.mp4': (range(10, 18), 0),
  'b ü.avi': (range(100, 107), 0),
  'b again.mov': (range(100, 107), 12),
  'short.mp4': (range(200, 202), 0),
  'other#1:2/3.mp4': (range(300, 306), 0),
}


def videos(folder):
  """Writes `FILMS`, and files that only look like videos."""
  folder = pathlib.Path(folder)
  for name, (seeds, light) in FILMS.items():
    film(folder / name, seeds, light=light)
  (folder / 'broken.mp4').write_bytes(b'\0\0\0\x18ftypmp42 and no more')
  (folder / 'empty.avi').touch()
  return folder


def indexed(folder):
  """(folder of `run`, `films` and `index`, config, variables, arguments)."""
  c, variables = make(folder / 'run')
  videos(folder / 'films')
  args = [
    *('index', '--run', str(folder / 'run')),
    *('--videos', str(folder / 'films'), '--out', str(folder / 'index')),
    *('--dtype', 'float32', '--batch_size', '2'),
  ]
  assert copies.main(args) == 0
  return folder, c, variables, args


def copied(made, tmp_path):
  """Of `indexed`, an index and a folder to change; arguments to go on."""
  folder = made[0]
  shutil.copytree(folder / 'index', tmp_path / 'index')
  shutil.copytree(folder / 'films', tmp_path / 'films')
  opened = index_lib.Index.load(tmp_path / 'index')
  opened.note(videos=str(tmp_path / 'films'))
  opened.close()
  return [
    *('index', '--run', str(folder / 'run')),
    *('--videos', str(tmp_path / 'films'), '--out', str(tmp_path / 'index')),
  ]
