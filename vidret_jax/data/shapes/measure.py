# SPDX-License-Identifier: Apache-2.0
"""Experts of `shapes`: measurements on the decoded mp4 and its subtitle file.

Nothing here sees the script. The picture is separated from the ground by
chroma (actors are vivid, grounds and letters are not); what is absent from
the files (sound, letters, subtitles) is a missing expert.
"""

import os

import numpy as np

from vidret_jax.data import words
from vidret_jax.data.shapes import blobs, encode, reading
from vidret_jax.data.shapes import script as script_lib

H, W = script_lib.HEIGHT, script_lib.WIDTH
# Name -> width. Experts in `TOKENS` have a row per sound window or word, at
# most that many; the others are one vector per video.
DIMS = {
  'audio': 64,
  'colour': 128,
  'layout': 72,
  'motion': 96,
  'ocr': words.DIM,
  'shape': 84,
  'speech': words.DIM,
  'texture': 84,
}
TOKENS = {'audio': 24, 'ocr': 4, 'speech': 20}
_SILENCE = 1e-3  # Root mean square below which a track is silent.


def experts(
  clip: str | os.PathLike, subtitle: str | os.PathLike | None = None
) -> dict[str, np.ndarray]:
  """Measures every expert of one clip.

  Args:
    clip: an mp4 of 128 x 96 pixels.
    subtitle: its .srt file; None or an absent file means none.

  Returns:
    Name -> float32 [n, DIMS[name]]; n is 0 where the expert is missing and 1
    for experts that are one vector.
  """
  planes, sound = encode.read(clip)
  found = picture(planes)
  found['audio'] = audio(sound)
  found['ocr'] = words.embed_tokens(reading.overlaid_words(planes[:, :H]))
  found['speech'] = words.embed_tokens(reading.spoken_words(subtitle))
  for name, limit in TOKENS.items():
    found[name] = found[name][:limit]
  return {name: found[name].astype(np.float32) for name in DIMS}


def split_planes(planes: np.ndarray) -> tuple[np.ndarray, ...]:
  """(y, u, v) as float32 [t, h, w], [t, h/2, w/2] twice; u, v about 0."""
  t = len(planes)
  y = planes[:, :H].astype(np.float32)
  u = planes[:, H : H + H // 4].reshape(t, H // 2, W // 2)
  v = planes[:, H + H // 4 :].reshape(t, H // 2, W // 2)
  return y, u.astype(np.float32) - 128, v.astype(np.float32) - 128


def picture(planes: np.ndarray) -> dict[str, np.ndarray]:
  """The five experts of the picture, each [1, d]."""
  y, u, v = split_planes(planes)
  vivid = blobs.vivid(u, v)
  change = blobs.change(y)
  return {
    'colour': _colour(u, v, vivid, change)[None],
    'layout': _layout(vivid)[None],
    'motion': _motion(vivid, change)[None],
    'shape': _shape(u, v, vivid)[None],
    'texture': _texture(y, u, v, vivid)[None],
  }


def _parts(t: int, n: int) -> list[slice]:
  """n slices of about equal length that cover t frames."""
  cuts = np.linspace(0, t, n + 1).round().astype(int)
  return [
    slice(a, max(b, a + 1)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)
  ]


def _unit(x: np.ndarray) -> np.ndarray:
  return x / (np.linalg.norm(x) + 1e-6)


def _colour(u, v, vivid, change) -> np.ndarray:
  """[128]: hues of vivid and of changing pixels in four parts of time."""
  seen = vivid > 0
  hue = np.zeros_like(u)
  hue[seen] = blobs.hue(u[seen], v[seen])
  blocks = []
  for part in _parts(len(u), 4):
    here = seen[part]
    for weight in (vivid[part][here], (vivid * change)[part][here]):
      count = blobs.soft_histogram(hue[part][here], weight, blobs.HUES)
      blocks.append(np.sqrt(count / (count.sum() + 1.0)))
  return np.concatenate(blocks)


def _layout(vivid) -> np.ndarray:
  """[72]: where vivid pixels are, a 4 x 6 grid in three parts of time."""
  edge = [len(vivid) * k // 3 for k in range(4)]
  grids = []
  for a, b in zip(edge[:-1], edge[1:], strict=True):
    mean = vivid[a : max(b, a + 1), :48, :60].mean(axis=0)
    grids.append(_unit(mean.reshape(4, 12, 6, 10).mean(axis=(1, 3)).ravel()))
  return np.concatenate(grids)


def _motion(vivid, change) -> np.ndarray:
  """[96]: how area, place and extent change, in six parts of time."""
  rows = blobs.motion(vivid, change)
  parts = _parts(len(vivid), 6)
  return np.concatenate([rows[:, p].mean(axis=1) for p in parts]) / 2


def _shape(u, v, vivid) -> np.ndarray:
  """[84]: polar contour of the two strongest hues, free of place and turn.

  For each, the mass in six rings around its centre and the strength of the
  harmonics 1 to 6 of the angle in each ring, scaled by the root of its area.
  """
  blocks = []
  for blob in blobs.by_hue(u, v, vivid):
    if blob is None:
      blocks.append(np.zeros(42))
      continue
    rows, good = blobs.contour(*blob, len(vivid))
    blocks.append(rows[:, good].mean(axis=1).ravel())
  return np.concatenate(blocks)


def _texture(y, u, v, vivid) -> np.ndarray:
  """[84]: spectrum, gradients and tone of the ground."""
  step = max(len(y) // 8, 1)
  # Actors leave traces in a mean but few in a median over time.
  plate = np.median(y[::step], axis=0)
  calm = vivid.mean(axis=0) < 0.05
  tone = _chroma_map(u[::step].mean(axis=0), v[::step].mean(axis=0), calm)
  light = [np.median(y[0]) / 64 - 1.5]
  inner = plate[16:80]
  flat = inner - inner.mean()
  power = np.abs(np.fft.rfft2(flat * np.hanning(64)[:, None])) ** 2
  fy = np.fft.fftfreq(64)[:, None] * 64
  fx = np.fft.rfftfreq(W)[None] * 64
  radius, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
  ring = np.digitize(radius, (3, 4.5, 6.5, 9, 13, 20))
  wedge = ((angle / np.pi + 0.5) * 6 + 0.5).astype(int) % 6
  total = np.bincount((ring * 6 + wedge).ravel(), power.ravel(), 42)
  spectrum = np.sqrt(total / (total.sum() + 1e-3))
  gy, gx = np.gradient(inner)
  size = np.hypot(gx, gy)
  turn = (np.arctan2(gy, gx) / np.pi * 8) % 8
  edges = np.sqrt(
    blobs.soft_histogram(turn.ravel(), size.ravel(), 8) / size.size
  )
  count, _ = np.histogram(size, (0, 2, 4, 8, 16, 24, 32, 48, 256))
  rough = np.sqrt(count / size.size)
  return np.concatenate([spectrum, edges / 3, rough, light, tone])


def _chroma_map(u, v, where) -> np.ndarray:
  """[25]: share of pixels near each point of a 5 x 5 grid of chroma."""
  if not where.any():
    return np.zeros(25)
  centres = np.arange(-2, 3)
  near = [
    np.clip(1 - np.abs(q[where][:, None] / 9 - centres), 0, 1) for q in (u, v)
  ]
  return (near[0].T @ near[1] / where.sum()).ravel()


def mel_filters(bands: int, bins: int, rate: int) -> np.ndarray:
  """Triangular filters, float64 [bins, bands], evenly spaced in mel."""

  def to_mel(f):
    return 2595 * np.log10(1 + f / 700)

  edges = np.linspace(to_mel(60), to_mel(rate / 2), bands + 2)
  edges = 700 * (10 ** (edges / 2595) - 1)
  f = np.linspace(0, rate / 2, bins)[:, None]
  rise = (f - edges[:-2]) / (edges[1:-1] - edges[:-2])
  fall = (edges[2:] - f) / (edges[2:] - edges[1:-1])
  return np.clip(np.minimum(rise, fall), 0, None)


_MEL = mel_filters(32, 513, encode.RATE)


def audio(sound: np.ndarray) -> np.ndarray:
  """Log-mel energies and their slopes, one row per quarter of a second.

  Args:
    sound: float32 [s] at 16 kHz.

  Returns:
    float32 [n, 64]; n = 0 for a silent track.
  """
  if not len(sound) or np.sqrt(np.mean(sound**2)) < _SILENCE:
    return np.zeros((0, DIMS['audio']), np.float32)
  hop = 1000
  n = max(len(sound) // hop - 1, 1)
  padded = np.pad(sound, (0, max(hop * (n + 1) - len(sound), 0)))
  frames = np.stack([padded[i * hop : i * hop + 1024] for i in range(n)])
  power = np.abs(np.fft.rfft(frames * np.hanning(1024), axis=1)) ** 2
  mel = np.log(power @ _MEL + 1e-2)
  slope = np.gradient(mel, axis=0) if n > 1 else np.zeros_like(mel)
  windows = n // 4
  if not windows:
    return np.concatenate([mel[:1] / 4, slope[:1] / 2], axis=1)
  shape = (windows, 4, 32)
  mel, slope = (q[: windows * 4].reshape(shape).mean(1) for q in (mel, slope))
  return np.concatenate([mel / 4, slope / 2], axis=1).astype(np.float32)
