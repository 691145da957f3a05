# SPDX-License-Identifier: Apache-2.0
"""The tables of EERCF in docs/results.md; see `tables`."""

from benchmarks.pieces import METRICS, facts, grid, spread, stored

_STORAGE = dict(files='JPEG files', records='records')
_STAGES = dict(
  coarse='coarse score of all items',
  rerank='score of the short list',
  all_pairs='score of all items at all levels, instead',
)


def _times(seconds):
  """'1.2 s' or '12 ms'."""
  return f'{seconds:.2f} s' if seconds >= 0.1 else f'{seconds * 1e3:.1f} ms'


def _beside(row):
  """The original's time, and how many times it is ours."""
  return f'{_times(row["original_seconds"])} ({row["speedup"]:.1f} times ours)'


def _rankings(direction, more=()):
  """One row per length of the short lists."""
  rows = stored('eercf_shapes')['rankings']
  return [
    [
      'coarse only' if name == 'coarse' else f'k = {name}',
      *(spread(row[f'{direction}_{m}']) for m in METRICS),
      *(spread(row[key]) if key in row else '' for key in more),
    ]
    for name, row in rows.items()
  ]


def eercf_shapes_t2v():
  """Sentences find videos."""
  head = ['short lists', *METRICS, 'own clip on the list, %']
  return grid(head, _rankings('t2v', ['shortlisted']))


def eercf_shapes_v2t():
  """Videos find sentences."""
  return grid(['short lists', *METRICS], _rankings('v2t'))


def eercf_shapes_costs():
  """What a query costs with short lists of several lengths."""
  costs = stored('eercf_shapes')['costs']

  def both(cost, unit):
    return sum(cost[f'{s}_{unit}_per_query'] for s in ('coarse', 'rerank'))

  return grid(
    ['short lists', 'MFLOP per query', 'of all pairs', 'MB', 'of all pairs'],
    [
      [
        f'k = {name}',
        f'{both(cost, "mflop"):.2f}',
        f'{cost["mflop_share"]:.1f} %',
        f'{both(cost, "mb"):.2f}',
        f'{cost["mb_share"]:.1f} %',
      ]
      for name, cost in costs.items()
      if name != 'all'
    ],
  )


def eercf_shapes_training():
  """How long the runs took, evaluations and report included."""
  r = stored('eercf_shapes')
  seconds = min(r['training_seconds'])
  return grid(
    ['training, evaluations and page', ''],
    [['fastest run on two cores', f'{seconds / 60:.1f} min']],
  )


def eercf_train_step():
  """One update at the paper's sizes."""
  names = {
    'float32': 'eercf_train_step',
    'float32, huge pages': 'eercf_train_step_huge_pages',
  }
  found = [stored(name) for name in names.values()]
  rates = [facts(name)['matmul_gflops'] for name in names.values()]
  first = found[0]
  return grid(
    [
      f'EERCF, one update of {first["batch_size"]} clips, '
      f'{first["parameters"]:,} parameters',
      *names,
    ],
    [
      ['median of steps', *(_times(r['seconds']['median']) for r in found)],
      [
        f'the original, float32: {_times(first["original_seconds"])}',
        *(f'{r["speedup"]:.1f} times ours' for r in found),
      ],
      ['arithmetic, as compiled', *(f'{r["gflop"]:.0f} GFLOP' for r in found)],
      [
        "rate, and share of the machine's float32 matmul rate",
        *(
          f'{r["gflops"]:.0f} GFLOP/s, {r["fraction_of_matmul_peak"]:.0%} of '
          f'{rate:.0f}'
          for r, rate in zip(found, rates)
        ),
      ],
      ['compilation, once', *(f'{r["compile_seconds"]:.0f} s' for r in found)],
      [
        'peak memory',
        *(f'{r["peak_rss_bytes"] / 1e9:.1f} GB' for r in found),
      ],
    ],
  )


def eercf_encode():
  """Encoders, one clip and one sentence."""
  names = dict(
    encode_item='clip of 12 frames', encode_query='sentence of 32 tokens'
  )
  return grid(
    [
      'ViT-B/32',
      'each, in blocks',
      'the original, float32',
      'GFLOP',
      'share of the float32 matmul rate',
      'lowest cosine with float32',
    ],
    [
      [
        f'{names[name]}, {dtype}',
        f'{_times(r["seconds_per_row"])} (of {r["rows"]})',
        _beside(r),
        f'{r["gflop_per_row"]:.1f}',
        f'{r["fraction_of_matmul_peak"]:.0%}',
        f'{r["lowest_cosine_with_float32"]:.4f}',
      ]
      for dtype, programs in stored('eercf_encode')['types'].items()
      for name, r in programs.items()
    ],
  )


def eercf_search():
  """Scores of many queries and items."""
  r = stored('eercf_search')
  coarse, dense, same = r['coarse_block'], r['all_pairs'], r['agreement']
  size = f'{r["queries"]:,} x {r["items"]:,}'

  def against(key):
    return f'{r["speedup"][key]:.1f}'

  return grid(
    [f'{size}, from given embeddings', 'time', "times the original's speed"],
    [
      [
        f'coarse scores of all pairs ({coarse["gflops"]:.0f} GFLOP/s)',
        _times(coarse['best']),
        '',
      ],
      [f'short lists, k = {r["k"]}', _times(r['shortlist']['best']), ''],
      ['scores of the short lists', _times(r['rerank']['best']), ''],
      [
        'both stages',
        _times(r['two_stages_seconds']),
        against('stages'),
      ],
      [
        'whole evaluation, both directions, drawing of the embeddings included',
        _times(r['evaluation']['best']),
        against('evaluation'),
      ],
      [
        f'all pairs at all levels ({dense["gflop"]:,.0f} GFLOP at '
        f'{dense["gflops"]:.0f} GFLOP/s)',
        _times(dense['best']),
        against('all_pairs'),
      ],
      [
        'the original: all pairs at all levels',
        _times(r['original_seconds']),
        '1',
      ],
      [
        'short lists in the same order as by all pairs',
        f'{same["lists_in_the_same_order"]:.1%}',
        '',
      ],
    ],
  )


def eercf_costs():
  """What one query costs among many items, as compiled."""
  r = stored('eercf_search')
  c = r['per_query']
  return grid(
    [f'one query among {r["items"]:,}, k = {r["k"]}', 'MFLOP', 'MB'],
    [
      *(
        [
          name,
          f'{c[f"{stage}_mflop_per_query"]:,.1f}',
          f'{c[f"{stage}_mb_per_query"]:,.1f}',
        ]
        for stage, name in _STAGES.items()
      ),
      [
        'two stages, share of that',
        f'{c["mflop_share"]:.1f} %',
        f'{c["mb_share"]:.1f} %',
      ],
    ],
  )


def eercf_input():
  """From JPEGs to batches."""
  r = stored('eercf_input')
  return grid(
    [
      f'clip of {r["jpegs"]} JPEGs of {r["jpeg_size"][0]} x '
      f'{r["jpeg_size"][1]} ({r["jpeg_bytes"] / 1e3:.0f} KB each)',
      'threads',
      'each',
      'clips/s',
      "times the original's speed",
    ],
    [
      [
        f'{_STORAGE[w["storage"]]}, {w["transform"]}',
        w['threads'],
        _times(w['seconds_per_clip']),
        f'{w["clips_per_second"]:.0f}',
        f'{w["speedup"]:.1f}',
      ]
      for w in r['ways']
    ],
  )


def eercf_memory():
  """Peak memory of evaluations."""
  return grid(
    ['queries x items', 'patches', 'float16 of all items', 'peak', 'time'],
    [
      [
        f'{row["queries"]:,} x {row["items"]:,}',
        f'{row["frames"]} x {row["patches"]}',
        f'{row["fine_bytes"] / 1e9:.1f} GB',
        f'{row["peak_bytes"] / 1e9:.2f} GB',
        f'{row["seconds"]:.0f} s',
      ]
      for row in stored('eercf_memory')['evaluations']
    ],
  )


def eercf_index():
  """Indexes on disk."""
  rows = stored('eercf_index')['indexes']

  def ms(row, when, stage):
    return f'{row["median_seconds"][when][stage] * 1e3:.1f} ms'

  return grid(
    [
      f'index, k = {rows[0]["shortlist"]}',
      'on disk',
      'to build',
      'to open, first query',
      'first stage',
      'second stage, from disk',
      'again',
      'peak while searching',
    ],
    [
      [
        f'{row["items"]:,} items, 12 x {row["patches"]} patches',
        f'{row["bytes"] / 1e9:.1f} GB',
        f'{row["build_seconds"]:.0f} s',
        f'{_times(row["open_seconds"])}, {_times(row["first_query_seconds"])}',
        ms(row, 'warm', 'shortlist'),
        ms(row, 'cold', 'fine'),
        ms(row, 'warm', 'fine'),
        f'{row["search_peak_bytes"] / 1e9:.2f} GB',
      ]
      for row in rows
    ],
  )
