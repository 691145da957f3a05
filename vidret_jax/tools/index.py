# SPDX-License-Identifier: Apache-2.0
"""Encodes a folder of videos, to be searched with sentences.

  python -m vidret_jax.tools.index --run runs/eercf --videos films --out index
  python -m vidret_jax.tools.index --config configs/eercf_msrvtt.py \\
      --weights pytorch_model.bin.0 --tokenizer bpe_simple_vocab_16e6.txt.gz ...
  python -m vidret_jax.tools.search --index index "a red circle grows"

All videos below the folder are taken, and are known by their paths relative to
it. What is encoded is on disk at once: a run that was stopped goes on where it
ended, and one that was finished adds what is new. Videos that cannot be read
are listed and left out.
"""

import argparse
import collections
import os
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)

from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.data import folder as folder_lib
from vidret_jax.evaluators.report import markup
from vidret_jax.search import bank as bank_lib
from vidret_jax.search import index as index_lib
from vidret_jax.search import row_layout
from vidret_jax.search.programs import programs
from vidret_jax.tools import trained as trained_lib
from vidret_jax.train import ckpt, defaults

TOKENIZER = 'tokenizer.json'


def open_index(out, trained, videos, tokenizer, dtype):
  """The index in `out`, or a new one.

  Args:
    out: its folder.
    trained: a `Trained`.
    videos: the folder of videos.
    tokenizer: path that overrides that of the config, or None.
    dtype: of the fine part of a new index.

  Raises:
    BadIndex: it is damaged, or of other weights, or of another folder.
    FileExistsError: `out` holds something else.
  """

  def write(folder):
    path = folder / TOKENIZER
    trained_lib.write_tokenizer(
      trained_lib.tokenizer_file(trained.config, tokenizer),
      path,
      trained.model,
    )
    return {TOKENIZER: path}

  return reopen_or_create(
    out, trained, videos, dtype, write, max_words=trained.max_words
  )


def reopen_or_create(out, trained, videos, dtype, write=lambda _: {}, **about):
  """The index in `out`, or a new one with the config of its network.

  Args:
    out: its folder.
    trained: what encodes videos: model, config, recipe, fingerprint, source.
    videos: the folder of videos.
    dtype: of the fine part of a new index.
    write: writes further files of a new index into a folder: {name: file}.
    **about: further facts of a new index.

  Raises:
    BadIndex: it is damaged, or of other weights, or of another folder.
    FileExistsError: `out` holds something else.
  """
  videos = str(pathlib.Path(videos).absolute())
  made = dict(recipe=trained.recipe, fingerprint=trained.fingerprint)
  index = reopen(out, videos, **made)
  if index is not None:
    return index
  with tempfile.TemporaryDirectory(prefix='vidret_index_') as folder:
    config = pathlib.Path(folder) / 'config.json'
    cl.save(trained.config, str(config))
    return index_lib.Index.create(
      out,
      coarse=trained.model.COARSE,
      dtype=dtype,
      about=dict(
        videos=videos,
        weights=trained.source,
        select=trained.select,
        **about,
      ),
      files={'config.json': config} | write(pathlib.Path(folder)),
      **made,
    )


def reopen(out, videos, **made):
  """The index in `out` for more of its videos; None if there is none yet.

  Args:
    out: its folder.
    videos: the folder of videos, absolute.
    **made: recipe and fingerprint, see `Index.require`.

  Raises:
    BadIndex: it is damaged, or of other weights, or of another folder.
  """
  if not (pathlib.Path(out) / 'index.json').exists():
    return None
  index = index_lib.Index.load(out)
  index.require(**made)
  before = index.about.get('videos')
  if before != videos:
    if before and os.path.isdir(before):
      raise index_lib.BadIndex(
        f'index {out} is of the videos in {before}, not of {videos}; give '
        'another --out.'
      )
    index.note(videos=videos)  # The folder has moved.
  return index


def progress(console):
  """A bar that also says how many videos are `bad`."""
  return Progress(
    TextColumn('{task.description}'),
    *(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
    *(TimeRemainingColumn(), TextColumn('{task.fields[bad]}')),
    console=console,
  )


def encode(trained, source, batch_size):
  """Yields (ids, embeddings, videos looked at) of one block after another.

  Videos that cannot be read are in none of them.
  """
  size = bank_lib.block_size(batch_size, len(source), trained.mesh)
  masks = collections.deque()

  def look(batch, rows):
    masks.append(batch['_mask'])
    return batch

  stream = bank_lib.encode(
    programs(trained.model, trained.mesh).encode_item,
    trained.variables,
    source,
    size,
    trained.mesh,
    look,
  )
  for first, emb in stream:
    rows = np.flatnonzero(masks.popleft())
    emb = jax.tree.map(lambda x, r=rows: x[r], sharding.fetch(emb))
    yield (
      [source.ids[first + i] for i in rows.tolist()],
      emb,
      min(size, len(source) - first),
    )


def fill(index, trained, source, batch_size, console):
  """Adds the videos of a source to an index, below a bar."""
  with progress(console) as bar:
    task = bar.add_task('encoding videos', total=len(source), bad='')
    for ids, emb, looked_at in encode(trained, source, batch_size):
      if ids:
        index.add(ids, emb)
      bad = len(source.unreadable)
      bar.update(task, advance=looked_at, bad=f'{bad} unreadable' * bool(bad))


def tell(index, source, before, seconds, console):
  """Prints what was done, and the videos that could not be read."""
  added = len(index) - before
  each = f', {seconds / added:.2f} s each' if added else ''
  size = sum(p.stat().st_size for p in index.folder.iterdir())
  console.print(
    f'{added:,} videos added{each}; {len(index):,} in the index, '
    f'{size / 2**20:,.1f} MiB in {index.folder}',
    **_PLAIN,
  )
  tell_unreadable(source.unreadable, console)


def tell_unreadable(unreadable, console):
  """Counts and names videos that could not be read, and says why."""
  if unreadable:
    console.print(f'{len(unreadable):,} could not be read:', **_PLAIN)
  for name, why in sorted(unreadable.items()):
    lines = why.splitlines()
    console.print(
      f'  {markup.clean(name)}: {markup.clean(lines[0] if lines else why)}',
      **_PLAIN,
    )


_PLAIN = dict(markup=False, highlight=False, soft_wrap=True)


def main(argv=None):
  """Returns the exit status."""
  argv = sys.argv[1:] if argv is None else list(argv)
  overrides = [a.removeprefix('--config.') for a in argv if _changes(a)]
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--run', help='workdir of a run')
  parser.add_argument('--config', help='FILE.py[:arg]; --config.key=value')
  parser.add_argument('--weights', help='a workdir, or a file of the authors')
  parser.add_argument('--videos', required=True, help='folder of videos')
  parser.add_argument('--out', required=True, help='folder of the index')
  parser.add_argument('--select', choices=('best', 'last'))
  parser.add_argument('--tokenizer', help='its file; default: as the config')
  parser.add_argument('--batch_size', type=int, default=8, help='videos')
  parser.add_argument('--threads', type=int, help='that decode videos')
  parser.add_argument(
    '--dtype',
    choices=('float32', *row_layout.HALVES),
    default='float16',
    help='of the part of a new index that only the second stage reads',
  )
  args = parser.parse_args([a for a in argv if not _changes(a)])
  if bool(args.run) == bool(args.config and args.weights):
    parser.error('give --run, or both --config and --weights')
  console = Console(stderr=True)
  try:
    path = args.config or os.path.join(args.run, 'config.json')
    config = trained_lib.read_config(path, overrides)
    folder_lib.find(args.videos)  # Before minutes of loading.
    defaults.use_compile_cache(config.compile_cache)
    trained = trained_lib.load(config, args.run or args.weights, args.select)
    return _run(args, trained, console)
  except (ValueError, OSError, ckpt.CheckpointError) as error:
    print(f'index: {error}', file=sys.stderr)
    return 1


def _run(args, trained, console):
  found = folder_lib.find(args.videos)
  if not found:
    raise ValueError(f'there is no video below {args.videos}')
  index = open_index(args.out, trained, args.videos, args.tokenizer, args.dtype)
  gone = len(set(index.ids) - set(found))
  source = folder_lib.make(
    root=args.videos, skip=index.ids, num_threads=args.threads, **trained.frames
  )
  before, began = len(index), time.monotonic()
  status = 0
  try:
    if len(source):
      fill(index, trained, source, args.batch_size, console)
  except KeyboardInterrupt:
    console.print('stopped; the same command goes on from here')
    status = 130
  out = Console(width=None if sys.stdout.isatty() else 100)
  tell(index, source, before, time.monotonic() - began, out)
  if gone:
    out.print(f'{gone:,} videos of the index are no longer there', **_PLAIN)
  index.close()
  if not len(index) and not status:
    print('index: no video could be read', file=sys.stderr)
    status = 1
  return status


def _changes(argument):
  return argument.startswith('--config.')


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
