# SPDX-License-Identifier: Apache-2.0
"""Finds videos of an index by a sentence.

  python -m vidret_jax.tools.search --index index "a red circle grows"
  python -m vidret_jax.tools.search --index index --html answers.html

Without a sentence it asks for one after the other, until the end of the input.
The first stage compares one vector per video and keeps a short list, the second
one puts that in order by frames and patches. `--html` writes a page with the
videos, which play in any browser.
"""

import argparse
import os
import pathlib
import sys
import time

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vidret_jax import sharding
from vidret_jax.data import folder as folder_lib
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.evaluators.report import markup
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import index as index_lib
from vidret_jax.search import memory
from vidret_jax.search.programs import programs
from vidret_jax.tools import answers_page
from vidret_jax.tools import index as index_tool
from vidret_jax.tools import trained as trained_lib
from vidret_jax.train import ckpt, defaults


class Searcher:
  """An index with the system that it was made with."""

  def __init__(self, folder, *, weights=None, select=None, videos=None):
    """Opens an index and loads its system.

    Args:
      folder: of the index.
      weights: a workdir or file; default: where they were then.
      select: which weights of a run; default: as then.
      videos: folder of the videos; default: where they were then.

    Raises:
      BadIndex: the index is damaged, or of other weights.
      FileNotFoundError: no index, or no weights where they were.
    """
    self.index = index_lib.Index.load(folder)
    about = self.index.about
    weights = weights or about.get('weights')
    if not weights or not os.path.exists(weights):
      raise FileNotFoundError(
        f'the weights of index {folder} are no longer in {weights}; say with '
        '--run where they are'
      )
    config = trained_lib.read_config(self.index.path('config.json'))
    defaults.use_compile_cache(config.compile_cache)
    self._trained = trained_lib.load(
      config, weights, select or about.get('select')
    )
    self.index.require(
      recipe=self._trained.recipe, fingerprint=self._trained.fingerprint
    )
    self._words = tokenizer_lib.load(self.index.path(index_tool.TOKENIZER))
    self.videos = videos or about.get('videos')
    memory.give_back()  # What reading the weights took.

  def ask(self, sentence, top, *, shortlist=50, coarse_only=False):
    """The best videos for a sentence, as `answers_page.Asked`."""
    t = self._trained
    began = time.monotonic()
    rows = bank_lib.round_up(1, t.mesh)
    text = np.tile(self._words.row(sentence, t.max_words), (rows, 1))
    batch = {'text': text, '_mask': np.arange(rows) < 1}
    emb = programs(t.model, t.mesh).encode_query(
      t.variables, sharding.put_batch(batch, t.mesh)
    )
    emb = sharding.fetch(emb)
    seconds = {'sentence': time.monotonic() - began}
    # One query: the rows that fill up the devices are not searched again.
    found = self.index.query(
      t.model,
      t.mesh,
      t.variables,
      sharding.put_batch(emb, t.mesh),
      top,
      shortlist=shortlist,
      coarse_only=coarse_only,
    )
    hits = tuple(
      answers_page.Hit(
        id=self.index.ids[number],
        score=float(score),
        coarse=float(coarse),
        coarse_rank=int(rank),
        video=folder_lib.path(self.videos, self.index.ids[number]),
      )
      for number, score, coarse, rank in zip(
        found.numbers[0], found.scores[0], found.coarse[0], found.coarse_rank[0]
      )
    )
    return answers_page.Asked(
      sentence,
      hits,
      seconds | found.seconds,
      two_stages='fine' in found.seconds,
    )


def show(asked, console):
  """Prints the answers to one sentence, and how long each stage took."""
  table = Table(box=box.SIMPLE)
  table.add_column('rank', justify='right')
  table.add_column('video', overflow='fold')
  second = ('fine score', 'coarse rank') if asked.two_stages else ()
  for name in (*second, 'coarse score'):
    table.add_column(name, justify='right')
  for rank, hit in enumerate(asked.hits, 1):
    second = (
      (f'{hit.score:.3f}', str(hit.coarse_rank)) if asked.two_stages else ()
    )
    table.add_row(
      str(rank), Text(markup.clean(hit.id)), *second, f'{hit.coarse:.3f}'
    )
  console.print(table)
  if not asked.hits:
    console.print('the index is empty')
  console.print(
    '   '.join(f'{k} {1000 * s:.1f} ms' for k, s in asked.seconds.items()),
    highlight=False,
  )


def sentences(given, console):
  """Yields the given sentence, or those that are typed."""
  if given:
    yield given
    return
  prompt = 'sentence> ' if sys.stdin.isatty() else ''
  while True:
    try:
      line = console.input(prompt)
    except (EOFError, KeyboardInterrupt):
      return
    if line.strip():
      yield line.strip()


def main(argv=None):
  """Returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('sentence', nargs='*', help='default: asks for some')
  parser.add_argument('--index', required=True, help='made by tools.index')
  parser.add_argument('--top', type=int, default=10, help='videos to show')
  parser.add_argument(
    '--shortlist', type=int, default=50, help='videos for the second stage'
  )
  parser.add_argument(
    '--coarse_only', action='store_true', help='leave out the second stage'
  )
  parser.add_argument('--html', help='FILE.html to write the answers to')
  parser.add_argument(
    '--run', '--weights', dest='weights', help='where the weights are now'
  )
  parser.add_argument('--select', choices=('best', 'last'))
  parser.add_argument('--videos', help='where the videos are now')
  parser.add_argument(
    '--clips',
    choices=answers_page.CLIPS,
    default='link',
    help='how the page gets at videos',
  )
  args = parser.parse_args(argv)
  console = Console(width=None if sys.stdout.isatty() else 100)
  options = dict(shortlist=args.shortlist, coarse_only=args.coarse_only)
  asked = []
  try:
    if args.top < 1 or args.shortlist < 1:
      raise ValueError('--top and --shortlist must be at least 1')
    began = time.monotonic()
    searcher = Searcher(
      args.index, weights=args.weights, select=args.select, videos=args.videos
    )
    # Compiles, so that the times below are those of searching.
    searcher.ask('warm up', args.top, **options)
    console.print(
      f'{len(searcher.index):,} videos, ready in '
      f'{time.monotonic() - began:.1f} s',
      highlight=False,
    )
    for sentence in sentences(' '.join(args.sentence).strip(), console):
      asked.append(searcher.ask(sentence, args.top, **options))
      show(asked[-1], console)
      if args.html:
        page = pathlib.Path(args.html)
        answers_page.write(page, asked, len(searcher.index), clips=args.clips)
        console.print(f'page: {page}', highlight=False, soft_wrap=True)
  except (ValueError, OSError, ckpt.CheckpointError) as error:
    print(f'search: {error}', file=sys.stderr)
    return 1
  return 0


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
