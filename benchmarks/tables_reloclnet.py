# SPDX-License-Identifier: Apache-2.0
"""The tables of ReLoCLNet in docs/results.md; see `tables`."""

from benchmarks.pieces import facts, grid, spread, stored

_COLUMNS = {
  'VR R@1': 'VR_r1',
  'R@10': 'VR_r10',
  'SVMR R@1, 0.5': 'SVMR_0.5-r1',
  '0.7': 'SVMR_0.7-r1',
  'VCMR R@1, 0.5': 'VCMR_0.5-r1',
  'R@10, 0.5': 'VCMR_0.5-r10',
  'R@1, 0.7': 'VCMR_0.7-r1',
  'R@10, 0.7': 'VCMR_0.7-r10',
}
_KINDS = {
  'sees (v)': 'VCMR_v-0.5-r1',
  'hears (t)': 'VCMR_t-0.5-r1',
  'both (vt)': 'VCMR_vt-0.5-r1',
}
_STEPS = {
  'reloclnet_train_step': 'ReLoCLNet, TVR sizes',
  'reloclnet_train_step_huge_pages': 'the same, huge pages',
}


def reloclnet_shapes():
  """One row per model."""
  r = stored('reloclnet_shapes')
  rows = [
    [name, *(spread(row[key]) for key in _COLUMNS.values())]
    for name, row in r['models'].items()
  ]
  chance = [
    f'{r["chance"][key]:.1f}' if key in r['chance'] else ''
    for key in _COLUMNS.values()
  ]
  return grid(['model', *_COLUMNS], [*rows, ['drawn at random', *chance]])


def reloclnet_kinds():
  """VCMR by what the sentence is about."""
  return grid(
    ['VCMR R@1, 0.5; the sentence tells what one', *_KINDS],
    [
      [name, *(spread(row[key]) for key in _KINDS.values())]
      for name, row in stored('reloclnet_shapes')['models'].items()
    ],
  )


def reloclnet_train_step():
  """One update at the paper's sizes."""
  rows = []
  for name, title in _STEPS.items():
    r, m = stored(name), facts(name)
    rows.append(
      [
        title,
        f'{r["batch_size"]}',
        f'{r["seconds"]["median"]:.2f} s',
        f'{r["original_seconds"]:.1f} s ({r["speedup"]:.2f} times ours)',
        f'{m["matmul_gflops"]:.0f} GFLOP/s',
        f'{r["peak_rss_bytes"] / 1e9:.1f} GB',
      ]
    )
  head = ['one update', 'batch', 'here', 'the original']
  return grid([*head, "machine's matrix products", 'peak'], rows)


def reloclnet_search():
  """Encoding and searching a corpus of TVR's size."""
  r = stored('reloclnet_search')
  original, speed = r['original'], r['speedup']
  return grid(
    ['TVR val, random features', 'here', 'the original'],
    [
      [
        'encoding 200 videos',
        f'{r["encode_200_seconds"]:.2f} s',
        f'{original["encode_200"]:.1f} s ({speed["encode_200"]:.1f} times '
        'ours)',
      ],
      [f'encoding {r["videos"]:,} videos', f'{r["encode_seconds"]:.1f} s', ''],
      [
        f'VR, SVMR and VCMR of {r["queries"]:,} sentences',
        f'{r["search_seconds"]:.1f} s ({r["seconds_per_query"] * 1e3:.1f} ms '
        'each)',
        '',
      ],
      [
        'both',
        f'{r["seconds"]:.1f} s',
        f'about {original["search"] / 60:.0f} min ({speed["whole"]:.1f} times '
        'ours)',
      ],
      [
        'peak memory',
        f'{r["peak_rss_bytes"] / 1e9:.1f} GB',
        f'about {original["memory"] / 1e9:.0f} GB',
      ],
    ],
  )


def reloclnet_memory():
  """Training and its input, from records."""
  r = stored('reloclnet_memory')
  return grid(
    ['training at TVR widths, from records on disk', ''],
    [
      ['batch', f'{r["batch_size"]}, {r["batch_bytes"] / 1e6:.0f} MB'],
      ['the input alone', f'{r["input_seconds"]:.2f} s a batch'],
      ['peak memory of the trainer', f'{r["peak_rss_bytes"] / 1e9:.1f} GB'],
    ],
  )
