# SPDX-License-Identifier: Apache-2.0
"""Sound tracks of a script: one of eight kinds, at a varying pitch."""

import numpy as np

from vidret_jax.data.shapes import script as script_lib

RATE = script_lib.RATE


def track(script: script_lib.Script, noise: float) -> np.ndarray:
  """Synthesises the sound.

  Args:
    script: whose `sound` to make; '' gives digital silence.
    noise: standard deviation of the hiss under every sound, of 1.

  Returns:
    float32 [s] in [-1, 1] at 16 kHz, as long as the video.
  """
  n = int(round(script.duration * RATE))
  if not script.sound:
    return np.zeros(n, np.float32)
  rng = script_lib.rng_of(script.seed, 'sound')
  t = np.arange(n) / RATE
  pitch = 2 ** float(rng.uniform(-0.25, 0.25))
  phase = float(rng.uniform(0, 1))

  def tone(frequency):
    return np.sin(2 * np.pi * (frequency * t + phase))

  def sweep(low, high, period):
    u = (t / period + phase) % 1
    hertz = low * (high / low) ** u
    return np.sin(2 * np.pi * np.cumsum(hertz) / RATE)

  def since(period):
    return (t + phase * period) % period

  kind = script.sound
  if kind == 'hum':
    wave = sum(tone(110 * pitch * k) / k for k in (1, 2, 3))
  elif kind == 'whistle':
    wave = np.sin(2 * np.pi * 1900 * pitch * t + 4 * np.sin(2 * np.pi * 5 * t))
  elif kind == 'beeps':
    wave = tone(1000 * pitch) * (since(0.3) < 0.12)
  elif kind == 'drum':
    wave = tone(85 * pitch) * np.exp(-since(0.5) * 12) * 1.6
  elif kind == 'rise':
    wave = sweep(300 * pitch, 2600 * pitch, 1.5)
  elif kind == 'fall':
    wave = sweep(2600 * pitch, 300 * pitch, 1.5)
  elif kind == 'hiss':
    wave = rng.standard_normal(n) * 0.4
  elif kind == 'bell':
    ring = np.exp(-since(1.1) * 4)
    wave = (tone(700 * pitch) + 0.6 * tone(1690 * pitch)) * ring
  else:
    raise ValueError(f'No sound of kind {kind!r}.')
  gain = float(rng.uniform(0.2, 0.4))
  wave = gain * wave + noise * rng.standard_normal(n)
  return np.clip(wave, -1, 1).astype(np.float32)
