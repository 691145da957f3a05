# SPDX-License-Identifier: Apache-2.0
"""From frames and tokens to clips of equal length.

Pure functions on the arrays of one video, after the tools of TVRetrieval
(`utils/video_feature`, `utils/text_feature`; TVR, arXiv 2001.09099, appendix).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

POOLS: dict[str, Callable[..., np.ndarray]] = {'max': np.max, 'avg': np.mean}
_MAX_SPOKEN = 1_000_000  # Clips of all sentences of one video.


def frame_limit(fps: float, first: float, seconds: float) -> int:
  """How many frames begin before `seconds`."""
  return max(0, int(np.ceil((seconds - first) * fps)))


def pool_frames(
  frames: np.ndarray,
  *,
  pool: str = 'max',
  fps: float = 3.0,
  first: float = 0.1,
  clip_seconds: float = 1.5,
  max_seconds: float = 300.0,
) -> np.ndarray:
  """Pools the frames of each clip.

  Clip i takes the frames with clip_seconds * i <= time < clip_seconds *
  (i + 1), where frame j has the time first + j / fps: with the defaults, which
  are images 3, 13 and 23 of each second of 30, clips have 5, 4, 5, 4, ...
  frames (`get_clip2frm_idx_mapping`). Clips end at the first without frames.

  Args:
    frames: float32 [frames, d].
    pool: 'max' or 'avg'.
    fps: frames per second.
    first: time of frame 0 in seconds.
    clip_seconds: length of a clip.
    max_seconds: no clip begins at or after this.

  Returns:
    float32 [t, d].
  """
  times = first + np.arange(len(frames)) / fps
  edges = np.arange(0, max_seconds, clip_seconds)
  # The last clip ends with the time; the original fails at that one.
  edges = np.append(edges, min(edges[-1] + clip_seconds, max_seconds))
  bounds = np.searchsorted(times, edges)
  clips = []
  for start, end in zip(bounds, bounds[1:]):
    if start == end:
      break
    clips.append(POOLS[pool](frames[start:end], axis=0))
  if not clips:
    return np.zeros((0, frames.shape[1]), np.float32)
  return np.stack(clips).astype(np.float32)


def align(rows: np.ndarray, count: int) -> np.ndarray:
  """Cuts or zero-pads [rows, d] to [count, d] (`merge_align_i3d.py`)."""
  out = np.zeros((count, rows.shape[1]), np.float32)
  out[: len(rows)] = rows[:count]
  return out


def sentences_of_clips(
  times: np.ndarray, clip_seconds: float
) -> dict[int, list[int]]:
  """Which sentences are spoken in which clip (`process_single_vid_sub`).

  Args:
    times: [sentences, 2] start and end in seconds.
    clip_seconds: length of a clip.

  Returns:
    clip -> its sentences, both ascending. A sentence is in the clips from
    floor(start / clip_seconds) to ceil(end / clip_seconds) - 1, in float32.

  Raises:
    ValueError: the sentences last so long that no video can be meant.
  """
  times = np.asarray(times, np.float32).reshape(-1, 2) / np.float32(
    clip_seconds
  )
  starts = np.floor(times[:, 0]).astype(np.int64)
  ends = np.ceil(times[:, 1]).astype(np.int64)
  total = np.maximum(ends - starts, 0).sum()
  if total > _MAX_SPOKEN:
    raise ValueError(
      f'{len(times)} sentences are spoken in {total} clips in all, expected at '
      f'most {_MAX_SPOKEN}. Are the times seconds?'
    )
  found = {}
  for sentence, (start, end) in enumerate(zip(starts, ends)):
    for clip in range(start, end):
      found.setdefault(clip, []).append(sentence)
  return dict(sorted(found.items()))


def pool_sentences(
  tokens: np.ndarray,
  lengths: Sequence[int],
  spoken: Mapping[int, Sequence[int]],
  count: int,
  pool: str = 'max',
) -> tuple[np.ndarray, np.ndarray]:
  """Pools the tokens that are spoken in each clip (`convert_h5`).

  A clip takes all tokens from its first to its last sentence. Some videos
  have fewer embedded sentences than subtitles; the last one stands for those.

  Args:
    tokens: float32 [tokens, d], the sentences one after another.
    lengths: tokens of each embedded sentence.
    spoken: clip -> sentences; see `sentences_of_clips`.
    count: t, clips of the video.
    pool: 'max' or 'avg'.

  Returns:
    float32 [t, d], zero where nothing is said, and float32 [t], 1 where
    something is.
  """
  starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
  last = len(lengths) - 1
  features = np.zeros((count, tokens.shape[1]), np.float32)
  mask = np.zeros(count, np.float32)
  for clip, sentences in spoken.items():
    if clip >= count or last < 0:
      continue
    start = starts[min(sentences[0], last)]
    end = starts[min(sentences[-1], last) + 1]
    if start < end:
      features[clip] = POOLS[pool](tokens[start:end], axis=0)
      mask[clip] = 1
  return features, mask
