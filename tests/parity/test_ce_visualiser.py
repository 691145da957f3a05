# SPDX-License-Identifier: Apache-2.0
"""Our ranking page says what upstream's says, for the same queries."""

import json
import pathlib
import re

import numpy as np
import pytest

from tests.evaluators import page_reader
from tests.parity import goldens
from vidret_jax import sharding
from vidret_jax.evaluators import matrix, retrieval

_LINE = re.compile(r'Rank: (\d+), Sim: (-?[\d.]+),? \[(.*)\]')


def upstream_page(path):
  """(heading numbers, rows) of a page written by upstream."""
  root = page_reader.parse(path)
  heading = next(h.text for h in root.find('h3') if h.text.startswith('R1'))
  numbers = dict(part.split(': ') for part in heading.split(', '))
  rows = []
  for table in root.find('table'):
    first, *others = table.find('td')
    *captions, line = [s.text for s in first.find('span')]
    rows.append(
      (
        captions,
        _LINE.search(line).groups(),
        [_LINE.search(o.text).groups() for o in others],
      )
    )
  return numbers, rows


def inputs(folder):
  """(similarities, ids, captions or None) behind a page."""
  if (folder / 'inputs.json').is_file():
    data = json.loads((folder / 'inputs.json').read_text())
    captions = [
      [' '.join(words) for words in one] for one in data['raw_captions']
    ]
    return np.array(data['sims'], np.float32), data['paths'], captions
  with np.load(folder / 'expected.npz', allow_pickle=False) as arrays:
    return arrays['sims'], arrays['retrieval/paths'].tolist(), None


def pages(root):
  return sorted((root / 'ce').rglob('index.html'))


def test_ranking_pages(golden_root, tmp_path, errors):
  if not pages(golden_root):
    pytest.skip(f'no index.html below {golden_root}/ce')
  for page in pages(golden_root):
    numbers, want = upstream_page(page)
    sims, paths, captions = inputs(page.parent)
    ids = [pathlib.PurePosixPath(p).stem for p in paths]
    model, variables = matrix.retriever(sims)
    queries, items = matrix.sources(
      np.arange(len(ids)),
      ids,
      captions=captions,
      videos=[str(page.parent / p) for p in paths],
    )
    judge = retrieval.Evaluator(
      model, sharding.make_mesh(), queries=queries, items=items
    )
    shown = [f'{truth[2]}#0' for _, truth, _ in want]
    out = judge.report(variables, tmp_path / page.parent.name, queries=shown)
    got = page_reader.read(out)

    for theirs, value in numbers.items():
      errors.close(
        f'{page.parent.name}/{theirs}',
        float(got['metrics'][f't2v_{goldens.METRICS[theirs]}']),
        float(value),
        atol=0,
      )
    assert [r['id'] for r in got['rows']] == shown
    for row, (lines, (rank, sim, name), top) in zip(
      got['rows'], want, strict=True
    ):
      assert row['truth']['id'] == name
      assert row['truth']['sim'] == sim
      assert row['rank'] == int(rank) + 1
      if captions is not None:
        assert row['truth']['captions'] == lines
      assert [(c['place'], c['sim'], c['id']) for c in row['top']] == [
        (f'rank {int(r) + 1}', s, n) for r, s, n in top
      ]
      assert [c['correct'] for c in row['top']] == [n == name for *_, n in top]
    ours = [float(c['sim']) for r in got['rows'] for c in r['top']]
    errors.close(
      f'{page.parent.name}/sims',
      ours,
      [float(s) for *_, top in want for _, s, _ in top],
      atol=0,
    )
