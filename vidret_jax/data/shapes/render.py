# SPDX-License-Identifier: Apache-2.0
"""Frames of a script: textured ground, acting shapes, overlaid words."""

import functools

import numpy as np

from vidret_jax.data.shapes import font
from vidret_jax.data.shapes import script as script_lib
from vidret_jax.data.shapes import vocabulary as vocab

W, H = script_lib.WIDTH, script_lib.HEIGHT
RADII = {'small': 10.0, 'large': 15.0}
_ANGLES = 512


@functools.cache
def outline(shape: str) -> np.ndarray:
  """float32 [512], distance of the rim from the centre by angle, about 1."""
  a = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)

  def polygon(n, turn):
    step = 2 * np.pi / n
    return np.cos(step / 2) / np.cos((a - turn) % step - step / 2)

  if shape in ('circle', 'ring'):
    r = np.ones_like(a)
  elif shape == 'square':
    r = 1.2 * polygon(4, np.pi / 4)
  elif shape == 'triangle':
    r = 1.4 * polygon(3, -np.pi / 2)
  elif shape == 'star':
    r = 0.5 + 0.9 * np.abs(((a + np.pi / 2) * 5 / (2 * np.pi)) % 1 - 0.5) * 2
  elif shape == 'cross':
    # A plus sign leaves at the tip of an arm or at its side.
    major, minor = np.sort(np.abs([np.cos(a), np.sin(a)]), axis=0)[::-1]
    r = np.minimum(1.3 / major, 0.42 / minor.clip(0.01))
  elif shape == 'heart':
    t = np.abs((a + 1.5 * np.pi) % (2 * np.pi) - np.pi)
    lobe = np.sin(np.clip(1.6 * t, 0, np.pi))
    r = 0.62 + 0.62 * lobe + 0.5 * (t / np.pi) ** 6
  elif shape == 'bar':
    x, y = np.abs(np.cos(a)), np.abs(np.sin(a))
    r = np.minimum(1.7 / x.clip(0.01), 0.5 / y.clip(0.01))
  else:
    raise ValueError(f'No outline for shape {shape!r}.')
  return r.astype(np.float32)


def ground(script: script_lib.Script) -> np.ndarray:
  """float32 [h, w, 3], the textured ground."""
  rng = script_lib.rng_of(script.seed, 'ground')
  y, x = np.mgrid[0:H, 0:W].astype(np.float32)
  x, y = x + rng.uniform(0, 40), y + rng.uniform(0, 40)
  p = float(rng.uniform(9, 13))  # Period in pixels.
  kind = script.texture
  if kind == 'plain':
    light = np.zeros((H, W), np.float32)
  elif kind == 'striped':
    light = np.where((x + y) % p < p / 2, 1.0, -1.0)
  elif kind == 'checked':
    light = np.where((x // p + y // p) % 2 < 1, 1.0, -1.0)
  elif kind == 'dotted':
    light = np.where(
      (x % p - p / 2) ** 2 + (y % p - p / 2) ** 2 < (p / 3.2) ** 2, 1.5, -0.5
    )
  elif kind == 'brick':
    row = y // (p * 0.7)
    mortar = (y % (p * 0.7) < 2) | ((x + row % 2 * p) % (2 * p) < 2)
    light = np.where(mortar, -1.5, 0.5)
  elif kind == 'wavy':
    light = np.sin(2 * np.pi * (y + 3 * np.sin(2 * np.pi * x / 24)) / p)
  elif kind == 'sandy':
    light = rng.standard_normal((H, W))
  else:
    light = np.where((x % p < 2) | (y % p < 2), 1.5, -0.4)
  tone = np.array(vocab.TONES[script.tone], np.float32)
  tone = tone + rng.uniform(-6, 6, 3).astype(np.float32)
  return tone + 18 * light[..., None].astype(np.float32)


def _ease(u: float) -> float:
  return u * u * (3 - 2 * u)


def pose(script: script_lib.Script, who: int, time: float) -> dict:
  """Where and how an actor is at `time` seconds.

  Returns:
    dict of floats: x, y (pixels), scale, turn (radians), alpha, wide, tall.
  """
  actor = script.actors[who]
  p = dict(
    x=actor.x, y=actor.y, scale=1.0, turn=0.0, alpha=1.0, wide=1.0, tall=1.0
  )
  for event in script.events:
    if event.actor != who or time < event.start:
      continue
    over = time >= event.end
    u = 1.0 if over else (time - event.start) / (event.end - event.start)
    e = _ease(u)
    swing = np.sin(np.pi * u)
    beat = time - event.start
    if event.verb == 'move':
      p['x'] += e * event.dx
      p['y'] += e * event.dy
    elif event.verb == 'grow':
      p['scale'] = min(p['scale'] * (1 + 0.7 * e), 1.8)
    elif event.verb == 'shrink':
      p['scale'] = max(p['scale'] * (1 - 0.45 * e), 0.5)
    elif event.verb == 'spin':
      p['turn'] += 1.5 * np.pi * e
    elif over:
      continue  # The other acts end as they began.
    elif event.verb == 'blink':
      p['alpha'] = float(beat * 4 % 2 < 1)
    elif event.verb == 'bounce':
      p['y'] -= 16 * abs(np.sin(2 * np.pi * u))
    elif event.verb == 'shake':
      p['x'] += 4 * np.sign(np.sin(2 * np.pi * 4 * beat + 0.5))
    elif event.verb == 'orbit':
      p['x'] += 13 * np.sin(2 * np.pi * u)
      p['y'] += 13 * (np.cos(2 * np.pi * u) - 1)
    elif event.verb == 'fade':
      p['alpha'] = 1 - 0.95 * swing
    elif event.verb == 'stretch':
      p['wide'], p['tall'] = 1 + 0.9 * swing, 1 - 0.35 * swing
  return p


def lit(colour: str, tone: str, tint: float) -> np.ndarray:
  """float32 [3], how a colour looks in the light that tones the ground."""
  light = np.array(vocab.TONES[tone], np.float32)
  # A floor keeps blue visible in brown light.
  light = np.maximum((light / light.max()) ** tint, 0.4)
  return np.array(vocab.COLOURS[colour], np.float32) * light


def _stamp(frame, actor: script_lib.Actor, colour, p: dict) -> None:
  """Blends one actor into float32 [h, w, 3] in place."""
  radius = RADII[actor.size] * p['scale']
  reach = 1.8 * radius * max(p['wide'], p['tall']) + 2
  x0, x1 = max(int(p['x'] - reach), 0), min(int(p['x'] + reach) + 2, W)
  y0, y1 = max(int(p['y'] - reach), 0), min(int(p['y'] + reach) + 2, H)
  if x0 >= x1 or y0 >= y1 or p['alpha'] <= 0:
    return
  dx = (np.arange(x0, x1, dtype=np.float32) - p['x'])[None] / p['wide']
  dy = (np.arange(y0, y1, dtype=np.float32) - p['y'])[:, None] / p['tall']
  dx, dy = dx.astype(np.float32), dy.astype(np.float32)
  distance = np.sqrt(dx * dx + dy * dy)
  angle = np.arctan2(dy, dx) - np.float32(p['turn'])
  index = ((angle + np.pi) * (_ANGLES / (2 * np.pi))).astype(np.int32)
  rim = radius * outline(actor.shape)[index % _ANGLES]
  cover = np.clip(rim - distance + 0.5, 0, 1)
  if actor.shape == 'ring':
    cover *= np.clip(distance - 0.55 * rim + 0.5, 0, 1)
  cover = (cover * p['alpha'])[..., None]
  patch = frame[y0:y1, x0:x1]
  patch += cover * (colour - patch)


def overlay(frame: np.ndarray, word: str, at: str) -> None:
  """Writes a word in white on a dark band at the top or bottom, in place."""
  ink = font.draw(word)
  h, w = ink.shape
  y0 = 4 if at == 'top' else H - h - 4
  x0 = (W - w) // 2
  frame[y0 - 3 : y0 + h + 3, x0 - 4 : x0 + w + 4] *= 0.3
  patch = frame[y0 : y0 + h, x0 : x0 + w]
  patch += ink[..., None] * (245 - patch)


def frames(
  script: script_lib.Script,
  knobs: script_lib.Difficulty,
  *,
  zoom: float = 1.0,
  flip: bool = False,
) -> np.ndarray:
  """Renders a script.

  Args:
    script: what to show.
    knobs: for `tint` and `frame_noise`.
    zoom: magnification about the centre, for another camera's view.
    flip: mirrors left and right, for another camera's view.

  Returns:
    uint8 [t, h, w, 3].
  """
  rng = script_lib.rng_of(script.seed, 'camera', f'{zoom}{flip}')
  base = ground(script)
  grain = rng.standard_normal((H + 16, W + 16, 1)).astype(np.float32)
  grain *= knobs.frame_noise
  shifts = rng.integers(0, 16, (script.frames, 2))
  colours = [lit(a.colour, script.tone, knobs.tint) for a in script.actors]
  film = np.empty((script.frames, H, W, 3), np.uint8)
  for t in range(script.frames):
    time = t / script_lib.FPS
    frame = base.copy()
    for who, actor in enumerate(script.actors):
      _stamp(frame, actor, colours[who], pose(script, who, time))
    if zoom != 1.0 or flip:
      frame = _view(frame, zoom, flip)
    for start, end, word in script.words:
      if start <= time < end:
        overlay(frame, word, script.words_at)
    dy, dx = shifts[t]
    frame += grain[dy : dy + H, dx : dx + W]
    film[t] = np.clip(frame, 0, 255)
  return film


def _view(frame: np.ndarray, zoom: float, flip: bool) -> np.ndarray:
  """Nearest-neighbour zoom about the centre and mirroring."""
  y = np.clip((np.arange(H) - H / 2) / zoom + H / 2, 0, H - 1).astype(int)
  x = np.clip((np.arange(W) - W / 2) / zoom + W / 2, 0, W - 1).astype(int)
  frame = frame[y][:, x]
  return frame[:, ::-1].copy() if flip else frame
