# SPDX-License-Identifier: Apache-2.0
"""Moments of any dataset in the form of the TVR release.

Rows of `<name>_<split>_release.jsonl` and the table `<name>_video2dur_idx.json`
(TVR, arXiv 2001.09099).
"""

from collections.abc import Iterable, Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Query:
  """One sentence and where it happens.

  Attributes:
    video: name of the video.
    text: the sentence.
    duration: of the video in seconds.
    spans: (start, end) in seconds by each annotator, as published.
  """

  video: str
  text: str
  duration: float
  spans: tuple[tuple[float, float], ...]


@dataclasses.dataclass
class Repairs:
  """Moments that were not as they should be, with examples.

  Attributes:
    swapped: ended before they started.
    cut: reached beyond the video.
    empty: are left without a length; no answer can overlap them.
  """

  swapped: list[str] = dataclasses.field(default_factory=list)
  cut: list[str] = dataclasses.field(default_factory=list)
  empty: list[str] = dataclasses.field(default_factory=list)


def release(
  splits: Mapping[str, Iterable[Query]],
) -> tuple[dict[str, list[dict]], dict[str, dict], dict[str, Repairs]]:
  """Numbers queries and videos over all splits and repairs their moments.

  A moment that ends before it starts is turned round, one that reaches beyond
  the video is cut. Nothing is left out, so that means over queries stay
  comparable: a moment outside the video has no length and is a miss. A video
  of several splits has one number.

  Args:
    splits: split -> queries, in the order in which they get numbers.

  Returns:
    split -> rows of annotations, split -> {video: [duration, number]}, and
    split -> what was repaired.

  Raises:
    ValueError: a video has two durations.
  """
  rows, tables, repairs, numbers = {}, {}, {}, {}
  desc_id = 0
  for split, queries in splits.items():
    rows[split], tables[split], repairs[split] = [], {}, Repairs()
    for query in queries:
      if query.video not in tables[split]:
        number = numbers.setdefault(query.video, len(numbers))
        tables[split][query.video] = [query.duration, number]
      known = tables[split][query.video][0]
      if known != query.duration:
        raise ValueError(
          f'{split}: video {query.video!r} lasts {known:g} s and '
          f'{query.duration:g} s. Correct one of them.'
        )
      rows[split].append(
        {
          'vid_name': query.video,
          'duration': query.duration,
          'ts': _repaired(query, repairs[split]),
          'desc': query.text,
          'type': 'v',
          'desc_id': desc_id,
        }
      )
      desc_id += 1
  return rows, tables, repairs


def _repaired(query, repairs):
  pairs = []
  for start, end in query.spans:
    if end < start:
      start, end = end, start
      repairs.swapped.append(query.video)
    if end > query.duration:
      start, end = min(start, query.duration), query.duration
      repairs.cut.append(query.video)
    if start == end:
      repairs.empty.append(query.video)
    pairs.append([start, end])
  # Of several annotators a list of pairs, as the evaluation of TVR takes it.
  return pairs[0] if len(pairs) == 1 else pairs
