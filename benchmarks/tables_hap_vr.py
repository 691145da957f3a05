# SPDX-License-Identifier: Apache-2.0
"""The tables of HAP-VR in docs/results.md; see `tables`."""

from benchmarks.hap_vr_shapes import METRICS
from benchmarks.pieces import grid, spread, stored


def hap_vr_shapes():
  """One row per objective."""
  names = [f'{m} {"mAP" if m.endswith("R") else "uAP"}' for m in METRICS]
  return grid(
    ['model', *names],
    [
      [name, *(spread(row[m]) for m in METRICS)]
      for name, row in stored('hap_vr_shapes')['models'].items()
    ],
  )


def hap_vr_network():
  """Network and losses on one core."""
  parts = stored('hap_vr_network')['parts']
  rows = []
  for name, title in (
    ('train 16 clips', 'one update, 16 clips'),
    ('train 32 clips', 'one update, 32 clips'),
    ('frame AP 16 clips', 'average precision of frames, 16 clips'),
    ('frame AP 128 clips', 'the same, 128 clips'),
    ('pair 16 x 16', 'a pair of 16 x 16 frames'),
    ('pair 100 x 100', 'a pair of 100 x 100 frames'),
  ):
    p = parts[name]
    rows.append([title, _time(p['best_seconds']), _original(p)])
  p = parts['attention']
  rows.append(
    [
      'attention, frames a second',
      f'{1 / p["best_seconds"]:,.0f}',
      f'{1 / p["original_seconds"]:,.0f} (ours {p["times_faster"]:.2f} times)',
    ]
  )
  return grid(['one core', 'here', 'the original'], rows)


def hap_vr_memory():
  """What the average precision of frames holds."""
  p = stored('hap_vr_network')['parts']['frame AP 128 clips']
  plain, ours = p['plain_array_bytes'] / 1e6, p['temporary_bytes'] / 1e6
  times = p['times_smaller_than_one_plain_array']
  return grid(
    ['average precision of frames, 128 clips of 28 frames, both passes', ''],
    [
      [
        'one array [128, 128, 28, 28, 28] of the plain form',
        f'{plain:,.0f} MB',
      ],
      ['all temporary memory here', f'{ours:,.0f} MB ({times:.0f} times less)'],
    ],
  )


def copy_metrics():
  """mAP and micro-AP at the size of the collections."""
  rows = []
  for name, title in (
    ('fivr_200k', 'FIVR-200K, with audio and without easy duplicates'),
    ('evve', 'EVVE'),
    ('svd', 'SVD'),
  ):
    r = stored('copy_metrics')[name]
    original = r['original_seconds'] and _original(r, best='seconds')
    rows.append(
      [
        f'{title}, {r["queries"]:,} x {r["videos"]:,}',
        f'{r["seconds"]:.2f} s',
        original or '',
        f'{r["extra_mbytes"]:.0f} MB',
      ]
    )
  return grid(
    ['all numbers, one thread', 'here', 'the original', 'memory'], rows
  )


def copy_search():
  """The large search on random features."""
  r = stored('copy_search')
  share, pruned = r['roofline_share'], r['pruned']
  halves = stored('copy_storage')
  change, points = halves['largest_change'], halves['map_change']
  return grid(
    [
      f'{r["queries"]} queries of {r["query_frames"]} frames in '
      f'{r["videos"]:,} videos of about {r["frames"]}',
      '',
    ],
    [
      [
        'frames of videos a second',
        f'{r["frames_per_second_and_device"]:,.0f}',
      ],
      [
        'a pair, with reading and attention',
        f'{1e3 * r["cpu_seconds_per_pair"]:.2f} ms of one core '
        '(the original: 1.9 ms without them)',
      ],
      [
        "share of the machine's rate of matrix products",
        f'{100 * share["own"]:.0f} %; {100 * share["with_padding"]:.0f} % '
        'with padding',
      ],
      ['peak memory', f'{r["peak_bytes"]["host"] / 1e9:.2f} GB'],
      [
        f'with the best {100 * pruned["visited_share"]:.0f} % by the coarse '
        'score alone',
        f'{pruned["speedup"]:.1f} times less work',
      ],
      [
        'largest change of a score from 16-bit features '
        '(`benchmarks.copy_storage`; scores from '
        f'{halves["lowest_score"]:.2f} to {halves["largest_score"]:.2f})',
        f'{change["float16"]:.1e} (float16), {change["bfloat16"]:.1e} '
        '(bfloat16)',
      ],
      [
        f'change of the mAP there, {halves["map"]["float32"]:.2f}',
        f'{points["float16"]:.2f} (float16), {points["bfloat16"]:.2f} '
        '(bfloat16)',
      ],
    ],
  )


def copy_search_model():
  """What FIVR-200K would take: computed, not measured."""
  rows = []
  for plan, title in (
    ('defaults', 'defaults'),
    ('32 fitted edges, 8 groups of queries', '32 lengths, 8 of queries'),
  ):
    machines = stored('copy_search_model')['plans'][plan]['machines']
    for name, m in machines.items():
      padding = 100 * m['padding_share']['all']
      rows.append(
        [
          name,
          title,
          f'{padding:.0f} %',
          f'{m["compute_seconds"]["estimated"]:.0f} s',
          f'{m["reading_seconds"]:.0f} s',
          f'{m["first_search_seconds"]:.0f} s',
        ]
      )
  head = ['machine', 'buckets', 'padding', 'compute', 'reading', 'first search']
  return grid(head, rows)


def hap_vr_input():
  """Data preparation and augmentation."""
  r = stored('extract_speed')
  decode = r['decoding']
  rows = [
    [
      f'decoding {name}, one frame a second of video',
      f'{found["frames_per_second"]:.0f} frames/s',
    ]
    for name, found in decode.items()
  ]
  nets = r['networks']
  rows += [
    ['ResNet-50 regions', f'{nets["regions_frames_per_second"]:.1f} frames/s'],
    [
      'the same and DINO',
      f'{nets["regions_and_labels_frames_per_second"]:.1f} frames/s',
    ],
  ]
  rows += [
    [
      f'a pair of views, {way["way"]}',
      f'{1 / way["processor_seconds_per_pair"]:,.1f} a second',
    ]
    for way in stored('augment_input')['ways']
    if way['threads'] == 1
  ]
  return grid(['one core', ''], rows)


def _time(seconds):
  return f'{seconds:.2f} s' if seconds > 0.1 else f'{1e3 * seconds:.2f} ms'


def _original(part, best='best_seconds'):
  original = part['original_seconds']
  if original is None:
    return ''
  return f'{_time(original)} ({original / part[best]:.2f} times ours)'
