# SPDX-License-Identifier: Apache-2.0
"""Table and ranking page of similarities that any program made.

  python -m vidret_jax.tools.report --matrix sims.npz --out runs/other_system

The npz file holds `sims` [q, v] and `item_of_query` [q]; optionally `item_ids`
[v], `texts` [q] and `videos` [v], paths relative to the npz file. Ranks, tables
and the page are those of our own systems.
"""

import argparse
import pathlib
import sys

import numpy as np
from rich.console import Console

from vidret_jax import sharding
from vidret_jax.evaluators import matrix, retrieval
from vidret_jax.metrics import ranks as ranks_lib


def load(path):
  """Reads and checks a matrix file.

  Returns:
    dict(sims, item_of_query, item_ids, texts or None, videos or None).

  Raises:
    ValueError: a missing array, or shapes that do not belong together.
  """
  path = pathlib.Path(path)
  with np.load(path, allow_pickle=False) as file:
    data = {k: file[k] for k in file.files}
  missing = {'sims', 'item_of_query'} - set(data)
  if missing or data['sims'].ndim != 2:
    raise ValueError(
      f'{path}: needs arrays sims [q, v] and item_of_query [q]; found '
      + ', '.join(f'{k} {list(x.shape)}' for k, x in sorted(data.items()))
    )
  q, v = data['sims'].shape
  lengths = dict(item_of_query=q, item_ids=v, texts=q, videos=v)
  for name, n in lengths.items():
    if name in data and data[name].shape != (n,):
      raise ValueError(
        f'{path}: {name} has shape {data[name].shape}, expected ({n},) beside '
        f'sims [{q}, {v}]'
      )
  item = data['item_of_query'].astype(np.int64)
  if q and not (0 <= item.min() and item.max() < v):
    raise ValueError(
      f'{path}: item_of_query lies in [{item.min()}, {item.max()}], expected '
      f'column numbers below {v}'
    )
  ids = data.get('item_ids', np.arange(v)).astype(str).tolist()
  if len(set(ids)) < v:
    raise ValueError(f'{path}: item_ids are not distinct')
  videos = data.get('videos')
  return dict(
    sims=data['sims'].astype(np.float32),
    item_of_query=item,
    item_ids=ids,
    texts=data['texts'].astype(str).tolist() if 'texts' in data else None,
    videos=videos
    if videos is None
    else [
      str(path.parent / name) if name else None for name in videos.astype(str)
    ],
  )


def main(argv=None):
  """Writes the page and prints the table; returns the metrics."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--matrix', required=True, help='npz file')
  parser.add_argument('--out', required=True, help='folder of the page')
  parser.add_argument('--title', default='')
  parser.add_argument('--num_samples', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0, help='of the sample')
  parser.add_argument('--ties', default='mean', choices=ranks_lib.TIES)
  parser.add_argument('--v2t', default='best_caption', choices=ranks_lib.V2T)
  parser.add_argument('--videos', default='link', help='link, copy or none')
  args = parser.parse_args(argv)
  data = load(args.matrix)
  model, variables = matrix.retriever(data.pop('sims'))
  queries, items = matrix.sources(**data)
  evaluator = retrieval.Evaluator(
    model,
    sharding.make_mesh(),
    queries=queries,
    items=items,
    ties=args.ties,
    v2t=args.v2t,
    videos=args.videos,
    num_samples=args.num_samples,
    report_seed=args.seed,
    title=args.title or pathlib.Path(args.matrix).stem,
  )
  metrics = evaluator.run(variables)
  page = evaluator.report(variables, args.out)
  console = Console()
  for direction in ('t2v', 'v2t'):
    row = [
      f'{name.removeprefix(direction + "_")} {value:.1f}'
      for name, value in metrics.items()
      if name.startswith(direction)
    ]
    console.print(f'{direction}  {"  ".join(row)}', highlight=False)
  console.print(f'ranked videos: {page}', highlight=False, soft_wrap=True)
  return metrics


def run():
  """Entry point of the command line."""
  try:
    main()
  except (ValueError, FileNotFoundError) as e:
    sys.exit(f'vidret report: {e}')


if __name__ == '__main__':
  run()
