# SPDX-License-Identifier: Apache-2.0
"""The tables of RANP in docs/results.md; see `tables`."""

from benchmarks.pieces import facts, grid, spread, stored

_COLUMNS = {
  'nDCG': 'nDCG_avg',
  't2v nDCG': 't2v_nDCG',
  'v2t nDCG': 'v2t_nDCG',
  'mAP': 'mAP_avg',
  't2v R@1': 't2v_R@1',
  't2v R@10': 't2v_R@10',
  'v2t R@1': 'v2t_R@1',
  'v2t R@10': 'v2t_R@10',
  'rsum': 'rsum',
}
_STEPS = {
  'ranp_train_step': 'HGR + RANP, MSR-VTT sizes',
  'ranp_train_step_huge_pages': 'the same, huge pages',
  'ranp_train_step_epic': 'HGR + RANP, EPIC-Kitchens-100 sizes',
  'ranp_train_step_epic_huge_pages': 'the same, huge pages',
  'ranp_train_step_eao': 'EAO + RANP, MSR-VTT sizes',
}


def ranp_shapes():
  """One row per loss."""
  r = stored('ranp_shapes')
  rows = [
    [name, *(spread(row[key]) for key in _COLUMNS.values())]
    for name, row in r['models'].items()
  ]
  c = r['chance']
  random = [
    f'{c[key]:.1f}' if key in ('nDCG_avg', 'mAP_avg') else ''
    for key in _COLUMNS.values()
  ]
  return grid(['loss', *_COLUMNS], [*rows, ['random scores', *random]])


def ranp_train_step():
  """One update at the papers' sizes."""
  rows = []
  for name, title in _STEPS.items():
    r, m = stored(name), facts(name)
    rows.append(
      [
        title,
        f'{r["batch_size"]}',
        f'{r["seconds"]["median"]:.2f} s',
        f'{r["original_seconds"]:.2f} s ({r["speedup"]:.2f} times ours)',
        f'{r["gflop"]:.0f}',
        f'{r["gflops"]:.0f} of {m["matmul_gflops"]:.0f} GFLOP/s',
        f'{r["peak_rss_bytes"] / 1e9:.1f} GB',
      ]
    )
  head = [
    'one update',
    'batch',
    'here',
    'the original',
    'GFLOP',
    'rate',
    'peak',
  ]
  return grid(head, rows)


def ranp_scoring():
  """Encoders, pairs, and a whole evaluation."""
  r = stored('ranp_scoring')
  ours, original, e = r['seconds'], r['original_seconds'], r['evaluation']
  whole = r['whole_test_split']

  def row(title, key, scale, unit):
    return [
      title,
      f'{ours[key] * scale:.2f} {unit}',
      f'{original[key] * scale:.1f} {unit} '
      f'({r["speedup"][key]:.1f} times ours)',
    ]

  return grid(
    ['HGR at MSR-VTT sizes', 'here', 'the original'],
    [
      row('encoding a clip', 'video', 1e3, 'ms'),
      row('encoding a caption', 'caption', 1e3, 'ms'),
      row('scoring a pair', 'pair', 1e6, 'us'),
      [
        f'whole evaluation of {e["videos"]:,} clips and {e["captions"]:,} '
        'captions',
        f'{e["seconds"]:.1f} s ({e["seconds_per_pair"] * 1e6:.2f} us a pair)',
        '',
      ],
      [
        f'all {whole["videos"]:,} x {whole["captions"]:,} pairs, computed from '
        'the rows above',
        f'{whole["expected_seconds"] / 60:.1f} min',
        f'{whole["original_expected_seconds"] / 3600:.1f} h',
      ],
    ],
  )


def graded_metrics():
  """nDCG and mAP of given scores."""
  names = dict(epic='EPIC-Kitchens-100 test', msrvtt='MSR-VTT test, from files')
  rows = []
  for key, r in stored('graded_metrics').items():
    before = r['original_seconds']
    rows.append(
      [
        f'{names[key]}, {r["queries"]:,} x {r["items"]:,}',
        f'{r["seconds"]["both"]:.2f} s',
        f'{before:.1f} s ({before / r["seconds"]["both"]:.1f} times ours)'
        if before
        else '',
        f'{r["extra_mbytes"]:.0f} MB',
      ]
    )
  head = ['nDCG and mAP, both directions', 'here', 'the original', 'memory']
  return grid(head, rows)


def relevance_matrices():
  """Matrices from classes, beside loops over pairs of sets."""
  names = dict(
    epic_test='EPIC-Kitchens-100 test', msrvtt_test='MSR-VTT test, to a file'
  )
  return grid(
    ['relevance', 'here', 'loops over sets', 'peak memory'],
    [
      [
        f'{names[r["name"]]}, {r["clips"]:,} x {r["captions"]:,}',
        f'{r["seconds"]:.1f} s',
        f'{r["loop_seconds_scaled"]:.0f} s '
        f'({r["loop_seconds_scaled"] / r["seconds"]:.0f} times ours)',
        f'{r["peak_bytes"] / 1e9:.2f} GB',
      ]
      for r in stored('relevance')['matrices']
    ],
  )
