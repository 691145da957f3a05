# SPDX-License-Identifier: Apache-2.0
r"""Writes the tables of docs/results.md from the stored results.

  python -m benchmarks.tables

A block between `<!-- table: NAME -->` and `<!-- end -->` is replaced by what
the function of that name makes of benchmarks/results/*.json. Figures reach the
page in no other way; a test compares the two.
"""

import pathlib
import re

from benchmarks import (
  tables_eercf,
  tables_hap_vr,
  tables_ranp,
  tables_reloclnet,
)
from benchmarks.pieces import facts, grid, ranking, spread, stored

PAGE = pathlib.Path(__file__).parent.parent / 'docs' / 'results.md'


def shapes_t2v():
  """Sentences find videos."""
  return ranking(stored('shapes_ce')['models'], 't2v')


def shapes_v2t():
  """Videos find sentences."""
  return ranking(stored('shapes_ce')['models'], 'v2t')


def shapes_hidden():
  """Sentences find videos that lost experts."""
  hidden = stored('shapes_ce')['hidden']
  rates = list(next(iter(hidden.values())))
  return grid(
    ['t2v R@1, experts hidden', *rates],
    [
      [name, *(spread(by_rate[r]['t2v_R@1']) for r in rates)]
      for name, by_rate in hidden.items()
    ],
  )


def train_step():
  """One update at the paper's sizes."""
  r, m = stored('train_step'), facts('train_step')
  huge = stored('train_step_huge_pages')
  return grid(
    ['CE on MSR-VTT sizes, one update', ''],
    [
      ['batch, parameters', f'{r["batch_size"]}, {r["parameters"]:,}'],
      ['median of steps', f'{r["seconds"]["median"]:.2f} s'],
      [
        'the same with huge pages (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`)',
        f'{huge["seconds"]["median"]:.2f} s, {huge["speedup"]:.2f} times as '
        'fast as the original',
      ],
      ['examples per second', f'{r["examples_per_second"]:.0f}'],
      [
        'the original, same kind of machine',
        f'{r["original_seconds"]:.1f} s; ours is {r["speedup"]:.2f} times '
        'as fast',
      ],
      ['compilation, once', f'{r["compile_seconds"]:.0f} s'],
      ['arithmetic, as compiled', f'{r["gflop"]:.0f} GFLOP'],
      [
        'rate',
        f'{r["gflops"]:.0f} GFLOP/s, {r["fraction_of_matmul_peak"]:.0%} of '
        f"this machine's matmul rate ({m['matmul_gflops']:.0f})",
      ],
      [
        'lower bound: matmuls at that rate',
        f'{r["seconds_of_matmul_at_peak"]:.2f} s',
      ],
      [
        "lower bound: the optimiser's memory traffic "
        f'({r["optimiser_bytes"] / 1e9:.1f} GB at '
        f'{m["memory_gbytes_per_second"]:.0f} GB/s)',
        f'{r["seconds_of_optimiser_at_bandwidth"]:.2f} s',
      ],
      ['peak memory', f'{r["peak_rss_bytes"] / 1e9:.1f} GB'],
    ],
  )


def input_pipeline():
  """The training stream without a model."""
  r = stored('input_pipeline')
  return grid(
    ['records', 'batch of 64', 'examples/s', 'to open'],
    [
      [
        name,
        f'{c["milliseconds_per_batch"]:.1f} ms',
        f'{c["examples_per_second"]:.0f}',
        f'{c["open_seconds"]:.1f} s',
      ]
      for name, c in r['caches'].items()
    ],
  )


def corpus():
  """The embedded corpus from nothing."""
  r = stored('shapes_build')
  return grid(
    ['clips', 'time on two cores', 'processor time', 'on disk'],
    [
      [
        f'{r["clips"]:,}',
        f'{r["seconds"]:.0f} s',
        f'{r["processor_seconds"]:.0f} s',
        f'{r["bytes"] / 1e6:.0f} MB',
      ]
    ],
  )


def evaluation():
  """Time of whole evaluations."""
  r = stored('eval_speed')
  e, m = r['evaluation'], r['metrics']
  return grid(
    ['', 'here', 'the original', 'of which unavoidable'],
    [
      [
        f'CE, {e["queries"]:,} captions x {e["items"]:,} videos, encoders '
        'included',
        f'{e["best"]:.2f} s',
        f'{e["original_seconds"]:.1f} s ({e["speedup"]:.1f} times ours)',
        f'{e["seconds_of_matmul_at_peak"]:.1f} s of matrix products at the '
        f"machine's rate ({sum(e['gflop'].values()):.0f} GFLOP)",
      ],
      [
        f'ranks and metrics of both directions, {m["queries"]:,} x '
        f'{m["items"]:,}',
        f'{m["best"]:.3f} s',
        f'{m["original_seconds"]:.1f} s ({m["speedup"]:.0f} times ours)',
        f'{m["seconds_of_one_read_at_bandwidth"]:.3f} s to read the matrix '
        'once',
      ],
    ],
  )


def memory():
  """Peak memory of large evaluations."""
  names = {
    'embedded': 'embeddings only',
    'ce': 'whole CE, weights (0.73 GB) and encoders included',
  }
  return grid(
    ['nine experts of 768', 'captions x videos', 'peak memory', 'time'],
    [
      [
        names[row['kind']],
        f'{row["captions"]:,} x {row["videos"]:,}',
        f'{row["peak_bytes"] / 1e9:.2f} GB',
        f'{row["seconds"]:.0f} s',
      ]
      for row in stored('eval_memory')['evaluations']
    ],
  )


def growth():
  """Evaluation of ever more items."""
  return grid(
    ['videos', 'time', 'peak memory'],
    [
      [
        f'{row["videos"]:,}',
        f'{row["seconds"]:.1f} s',
        f'{row["peak_bytes"] / 1e9:.2f} GB',
      ]
      for row in stored('eval_growth')['points']
    ],
  )


# Blocks name functions of all these files.
TABLES = {
  **vars(tables_eercf),
  **vars(tables_ranp),
  **vars(tables_reloclnet),
  **vars(tables_hap_vr),
  **globals(),
}


def render(text):
  """The page with all its tables made anew."""

  def make(match):
    name = match.group(1)
    return f'<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->'

  return re.sub(
    r'<!-- table: (\w+) -->\n.*?<!-- end -->', make, text, flags=re.DOTALL
  )


def main():
  PAGE.write_text(render(PAGE.read_text()))
  print(f'written: {PAGE}')


if __name__ == '__main__':
  main()
