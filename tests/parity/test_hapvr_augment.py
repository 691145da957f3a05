# SPDX-License-Identifier: Apache-2.0
"""Times, video in video, and single operations on pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageFilter

from vidret_jax.data.augment import crops, randaugment, temporal
from vidret_jax.ops import video_in_video

_PADDING = -9
# Name of an array -> the transform, of (frames, generator, noise, window).
_TIMES = {
  'idx_tsd': lambda index, rng, noise, window: temporal.shuffle_dropout(
    index, 0.5, 0.3, 0.5, rng, noise
  ),
  'idx_tsd_hi': lambda index, rng, noise, window: temporal.shuffle_dropout(
    index, 0.9, 0.6, 0.5, rng, noise
  ),
  'idx_ff': lambda index, rng, noise, window: temporal.fast(index, rng),
  'idx_sm': lambda index, rng, noise, window: temporal.slow(index),
  'idx_rev': lambda index, rng, noise, window: temporal.reverse(index),
  'idx_pause': lambda index, rng, noise, window: temporal.pause(
    index, window, rng
  ),
  'idx_full': lambda index, rng, noise, window: temporal.transform(
    index, temporal.Options(), rng, noise, window
  ),
}


def near(errors, name, got, want):
  """One grey level on at most a hundredth of the values."""
  errors.close(name, got, want, atol=1)
  different = (np.asarray(got) != want).mean()
  assert different <= 0.01, f'{name}: {different:.2%} of the values differ'


def test_times(golden):
  found = golden('temporal.npz')
  count, window = int(found['clip_len']), int(found['window'])
  for name, transform in _TIMES.items():
    for seed, want in zip(found['seeds'].tolist(), found[name]):
      rng = np.random.RandomState(seed)
      # Upstream draws the pixels of noise here: the golden clips have 2 x 2.
      got = transform(
        np.arange(count), rng, lambda rng=rng: rng.random_sample(12), window
      )
      kept = want[want != _PADDING]
      got = np.maximum(got, temporal.NOISE)
      np.testing.assert_array_equal(got, kept, err_msg=f'{name} seed {seed}')
  for length, want in zip(found['crop_lens'].tolist(), found['crop_idx']):
    rng = np.random.RandomState(1000 + length)
    got = temporal.window(np.arange(length), window, rng)
    np.testing.assert_array_equal(got, want, err_msg=f'{length} frames')


def test_video_in_video(golden, errors, quick_compiler):
  found = golden('viv.npz')
  plan = found['plan']
  use = plan[:, 0] >= 0
  rows = np.arange(len(plan))
  how = video_in_video.Plan(
    use=jnp.asarray(use),
    host=jnp.asarray(np.where(use, plan[:, 0], rows).astype(np.int32)),
    box=jnp.asarray(plan[:, 2:].astype(np.int32)),
  )
  clips = found['videos']
  height, width = clips.shape[2:4]
  # What has to be drawn for these boxes, where no border cuts them.
  mix = np.zeros((len(plan), 5), np.float32)
  mix[:, 0], mix[:, 2] = use, np.abs(plan[:, 1])
  mix[:, 3] = (plan[:, 2:4].mean(1) + 0.5) / height
  mix[:, 4] = (plan[:, 4:6].mean(1) + 0.5) / width

  @jax.jit
  def run(clips, how, mix):
    shown = video_in_video.links(how)
    return (
      video_in_video.composite(clips, how, antialias=True),
      shown,
      video_in_video.label_matrix(shown),
      video_in_video.plan(mix, height, width).box,
    )

  got, shown, labels, boxes = map(np.asarray, run(clips, how, mix))
  near(errors, 'out', got, found['out'])
  np.testing.assert_array_equal(shown, found['strong_labels'] > 0)
  for name in ('label_matrix', 'collate_labels'):
    np.testing.assert_array_equal(labels, found[name] > 0)
  for first, size in ((2, height), (4, width)):
    want = plan[:, first : first + 2]
    whole = (want[:, 0] > 0) & (want[:, 1] < size) & use
    got = boxes[:, first - 2 : first]
    np.testing.assert_array_equal(got[whole], want[whole])


def test_pixels(golden, errors):
  found = golden('augment_ops.npz')
  image = found['image']
  size = image.shape[:2]
  for rest, want in found.under('op_').items():
    name = rest.removesuffix('_neg')
    value = float(found[f'mag_{rest}'])
    signed = randaugment.strength(name, 9, *size)
    errors.close(
      f'mag_{rest}', -signed if rest != name else signed, value, 0, 1e-6
    )
    got = randaugment.apply(image[None], name, value)[0]
    if name in randaugment.OPERATIONS[:6]:  # Geometric ones are exact.
      errors.close(rest, got, want, atol=0)
    else:
      near(errors, rest, got, want)
  box = tuple(found['rrc_box'].tolist())
  for smooth in (0, 1):
    want = found[f'rrc_antialias{smooth}']
    got = crops.resized(image[None], box, len(want), antialias=bool(smooth))
    near(errors, f'antialias {smooth}', got[0], want)
  side = min(size)
  got = crops.resized(image[None], (0, 0, side, side), side, flip=True)[0]
  errors.close('hflip', got, found['hflip'][:side, -side:], atol=0)
  for radius, want in found.under('blur_r').items():
    blur = ImageFilter.GaussianBlur(float(radius))
    got = np.asarray(Image.fromarray(image).filter(blur))
    near(errors, f'blur {radius}', got, want)
