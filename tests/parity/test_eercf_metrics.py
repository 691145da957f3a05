# SPDX-License-Identifier: Apache-2.0
"""EERCF's metrics and re-ranking on given matrices, exactly as upstream's."""

import json
import re

import numpy as np
import pytest

from vidret_jax.metrics import caption_ranks, rerank

# Upstream's names of one row of a table.
ROW = {'R1': 'R@1', 'R5': 'R@5', 'R10': 'R@10', 'MR': 'MdR', 'MeanR': 'MnR'}
# Recalls of the caption form are float32 divisions upstream.
CAPTION_RECALL = 1e-5


def load(golden_root, name):
  """(arrays, expectations) of `<name>.npz` and `<name>.json`."""
  found = []
  for suffix in ('npz', 'json'):
    file = golden_root / 'eercf' / f'{name}.{suffix}'
    if not file.exists():
      pytest.skip(f'{file} is absent')
    if suffix == 'json':
      found.append(json.loads(file.read_text()))
    else:
      with np.load(file, allow_pickle=False) as arrays:
        found.append({k: arrays[k] for k in arrays.files})
  return found


def compare(errors, name, got, want):
  for theirs, ours in ROW.items():
    recall = theirs in ('R1', 'R5', 'R10') and 'Std_Rank' in want
    atol = CAPTION_RECALL if recall else 1e-9
    errors.close(f'{name}/{theirs}', got[ours], want[theirs], atol=atol)


def item_of_query(arrays, case, rows):
  counts = arrays.get(f'{case}_counts')
  if counts is None:
    return np.arange(rows), 'square'
  return np.repeat(np.arange(len(counts)), counts), 'captions'


def test_square_form(golden_root, errors):
  arrays, want = load(golden_root, 'metrics')
  for case in (c for c in want if c.startswith('sq_')):
    sims = arrays[case]
    for direction, matrix in (('t2v', sims), ('v2t', sims.T)):
      ranks = caption_ranks.diagonal_ranks(matrix)
      expected = want[case][direction]
      assert ranks.tolist() == expected['cols'], case
      compare(
        errors,
        f'{case}/{direction}',
        caption_ranks.summary(ranks),
        expected,
      )


def test_caption_form(golden_root, errors):
  arrays, want = load(golden_root, 'metrics')
  for case in (c for c in want if c.startswith('multi_')):
    sims = arrays[case]
    ranks = caption_ranks.caption_ranks(sims)
    expected = want[case]['t2v']
    compare(
      errors,
      f'{case}/t2v',
      caption_ranks.summary(ranks, 'captions'),
      expected,
    )
    errors.close(f'{case}/Std_Rank', ranks.std(), expected['Std_Rank'], 1e-9)
    back = caption_ranks.video_to_text(sims)
    np.testing.assert_array_equal(back, arrays[f'{case}_v2t_sim'], case)
    ranks = caption_ranks.diagonal_ranks(back)
    assert ranks.tolist() == want[case]['v2t']['cols'], case
    compare(
      errors,
      f'{case}/v2t',
      caption_ranks.summary(ranks),
      want[case]['v2t'],
    )
    counts = arrays.get(f'{case}_counts')
    if counts is not None:  # The same matrix, caption by caption.
      flat = np.concatenate([m[:n] for m, n in zip(sims, counts)])
      item = np.repeat(np.arange(len(counts)), counts)
      np.testing.assert_array_equal(caption_ranks.by_video(flat, item), sims)


def test_re_ranking(golden_root, errors):
  arrays, want = load(golden_root, 'rerank')
  one_pass = 0
  for case, expected in want.items():
    levels = {n: arrays[f'{case}_{n}'] for n in rerank.LEVELS}
    video, k = levels['video'], expected['rerantopk']
    item, form = item_of_query(arrays, case, len(video))
    fused = rerank.fuse_groups(levels)
    errors.close(f'{case}/rerank', fused, arrays[f'{case}_rerank'], 1e-5)
    given = arrays[f'{case}_rerank']
    final = rerank.two_pass(video, given, levels, k)
    theirs = arrays[f'{case}_final']
    if theirs.ndim == 3:
      stacked = caption_ranks.by_video(final, item)
      real = np.isfinite(theirs)
      np.testing.assert_array_equal(np.isfinite(stacked), real)
      errors.close(f'{case}/final', stacked[real], theirs[real], 1e-5)
    else:
      errors.close(f'{case}/final', final, theirs, 1e-5)
    for prefix, matrix in (('', final), ('coarse_', video)):
      got = caption_ranks.evaluate(matrix, item, form)
      for direction, row in got.items():
        compare(
          errors,
          f'{case}/{prefix}{direction}',
          row,
          expected[prefix + direction],
        )
    got = caption_ranks.evaluate(final, item, form)['t2v']['rsum']
    errors.close(f'{case}/rsum', got, expected['selection_score'], 3e-5)
    if not rerank.needs_both_passes(video, given):
      one_pass += 1
      short = rerank.two_pass(video, given, levels, k, general=False)
      np.testing.assert_array_equal(short, final, case)
  assert 0 < one_pass < len(want)


def test_dual_softmax(golden_root, errors):
  arrays, _ = load(golden_root, 'rerank')
  readme = (golden_root / 'eercf' / 'README.md').read_text()
  found = re.search(
    r'dual-softmax function:.*tau ([\d.]+) and ([\d.]+), k = (\d+)', readme
  )
  if not found:
    pytest.skip('the README of the golden files names no tau and k')
  for name, tau in zip(('dsl_out_t1', 'dsl_out_t2'), found.groups()):
    main, fused = (
      rerank.dual_softmax(arrays[f'dsl_{n}'], float(tau))
      for n in ('main', 'rerank')
    )
    got = rerank.put(main, fused + np.float32(rerank.LIFT), int(found[3]))
    errors.close(name, got, arrays[name], 1e-5)


def test_softmax(golden_root, errors):
  arrays, _ = load(golden_root, 'rerank')
  x = arrays['npsoftmax_in']
  cases = [
    re.fullmatch(r'npsoftmax_axis(\d)(?:_theta(\d+))?', k) for k in arrays
  ]
  cases = [m for m in cases if m]
  assert cases
  for case in cases:
    got = rerank.softmax(x, float(case[2] or 1), int(case[1]))
    errors.close(case[0], got, arrays[case[0]], 1e-6)
