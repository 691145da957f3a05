# SPDX-License-Identifier: Apache-2.0
"""What the tables of docs/results.md are made of: results and Markdown."""

import json

from benchmarks import machine

METRICS = ('R@1', 'R@5', 'R@10', 'R@50', 'MdR', 'MnR', 'geom')


def stored(name):
  """The results of one benchmark."""
  return json.loads((machine.RESULTS / f'{name}.json').read_text())['results']


def facts(name):
  """The machine of one benchmark."""
  return json.loads((machine.RESULTS / f'{name}.json').read_text())['machine']


def grid(head, rows):
  """A Markdown table."""
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join('| ' + ' | '.join(map(str, r)) + ' |' for r in lines)


def spread(cell):
  """Mean and deviation, one decimal, as the papers print them."""
  return f'{cell["mean"]:.1f} ({cell["std"]:.1f})'


def ranking(rows, direction, first='model'):
  """One row per model, one column per metric."""
  return grid(
    [first, *METRICS],
    [
      [name, *(spread(row[f'{direction}_{m}']) for m in METRICS)]
      for name, row in rows.items()
    ],
  )
