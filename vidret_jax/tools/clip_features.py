# SPDX-License-Identifier: Apache-2.0
r"""Makes the feature files of moment retrieval: clips, subtitles, queries.

Frames to clips of 1.5 s, and two kinds of features side by side:

  python -m vidret_jax.tools.clip_features pool resnet_3fps.h5 --out resnet.h5
  python -m vidret_jax.tools.clip_features join resnet.h5 i3d.h5 --out video.h5

From video files, frames by the image tower of CLIP:

  python -m vidret_jax.tools.clip_features frames videos/ --out frames.h5 \
      --weights ViT-B-32.pt

Subtitle files to clips, and queries. Instead of `words`, which needs no
download, `clip` takes CLIP's text tower, `text` a Hugging Face model:

  python -m vidret_jax.tools.clip_features srt subtitles/ --out subtitles.jsonl
  python -m vidret_jax.tools.clip_features words --subtitles subtitles.jsonl \
      --out sub_tokens.h5
  python -m vidret_jax.tools.clip_features subtitles sub_tokens.h5 \
      --lines subtitles.jsonl --videos video.h5 --out sub_clips.h5

  python -m vidret_jax.tools.clip_features words --out queries.h5 \
      --queries train.jsonl val.jsonl

All inputs are looked through before anything is written, a file appears when it
is whole, and one video is in memory at a time.
"""

import argparse
from collections.abc import Sequence
import os
import sys
import time

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vidret_jax.data import (
  clip_features,
  clip_frames,
  clip_pooling,
  clip_sentences,
  clip_text,
)


def pool(args: argparse.Namespace, report) -> clip_features.Made:
  """Frame features to clips."""
  return clip_features.pool(
    args.inputs,
    args.out,
    kind=args.pool,
    fps=args.fps,
    first=args.first,
    clip_seconds=args.clip_seconds,
    max_seconds=args.max_seconds,
    overwrite=args.overwrite,
    report=report,
  )


def frames(args: argparse.Namespace, report) -> clip_features.Made:
  """Features of the frames of videos."""
  from vidret_jax.tools import clip_towers

  return clip_frames.features(
    *(clip_towers.Towers(args.weights), args.videos, args.out),
    fps=args.fps,
    first=args.first,
    max_seconds=args.max_seconds,
    overwrite=args.overwrite,
    report=report,
  )


def align(args: argparse.Namespace, report) -> clip_features.Made:
  """As many rows as in another file."""
  return clip_features.align(
    *(args.inputs, args.like, args.out),
    overwrite=args.overwrite,
    report=report,
  )


def join(args: argparse.Namespace, report) -> clip_features.Made:
  """Features of several files side by side."""
  return clip_features.join(
    *(args.inputs, args.out),
    normalised=not args.no_normalise,
    overwrite=args.overwrite,
    report=report,
  )


def srt(args: argparse.Namespace, report) -> clip_features.Made:
  """Subtitle files to JSON lines."""
  return clip_sentences.subtitle_lines(
    *(args.folder, args.out),
    hours=not args.ignore_hours,
    encoding=args.encoding,
    overwrite=args.overwrite,
    report=report,
  )


def subtitles(args: argparse.Namespace, report) -> clip_features.Made:
  """Token features of subtitles to clips."""
  return clip_sentences.subtitle_clips(
    *(args.tokens, args.lines, args.videos, args.out),
    kind=args.pool,
    clip_seconds=args.clip_seconds,
    info=args.info,
    omit_silent=args.omit_silent,
    overwrite=args.overwrite,
    report=report,
  )


def words(args: argparse.Namespace, report) -> clip_features.Made:
  """Hashed words of queries or subtitles."""
  return _encode(args, lambda: clip_text.Words(args.dim), report)


def clip(args: argparse.Namespace, report) -> clip_features.Made:
  """Token features of queries or subtitles by the text tower of CLIP."""
  from vidret_jax.tools import clip_towers

  return _encode(
    args, lambda: clip_towers.Towers(args.weights, args.tokenizer), report
  )


def text(args: argparse.Namespace, report) -> clip_features.Made:
  """Hidden states of queries or subtitles."""

  def encoder():
    return clip_text.Transformer(
      args.model, max_tokens=args.max_tokens, device=args.device
    )

  return _encode(args, encoder, report)


def _encode(args, encoder, report):
  options = dict(overwrite=args.overwrite, report=report)
  if args.queries:
    make, inputs = clip_sentences.query_features, args.queries
  else:
    make, inputs = clip_sentences.subtitle_tokens, args.subtitles
  return make(encoder(), inputs, args.out, **options)


def tell(made: clip_features.Made, seconds: float, console: Console) -> None:
  """Prints what was made."""
  table = Table()
  table.add_column('file', overflow='fold')
  for column in (made.what, 'rows' if made.width else 'sentences', 'width'):
    table.add_column(column, justify='right')
  table.add_column('size', justify='right')
  size = os.path.getsize(made.path) / 2**20
  table.add_row(
    escape(str(made.path)),
    *(f'{made.names:,}', f'{made.rows:,}', str(made.width or '')),
    f'{size:,.1f} MiB',
  )
  console.print(table)
  for note in made.notes:
    console.print(escape(note), highlight=False, soft_wrap=True)
  console.print(f'in {seconds:.1f} s', highlight=False)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(function, summary):
    one = commands.add_parser(
      function.__name__, help=summary, description=summary
    )
    one.set_defaults(function=function)
    one.add_argument('--out', required=True, help='file to be written')
    one.add_argument('--overwrite', action='store_true')
    return one.add_argument

  def pooling(add):
    add('--pool', choices=sorted(clip_pooling.POOLS), default='max')
    add('--clip-seconds', type=float, default=1.5)

  def times(add):
    add('--fps', type=float, default=3.0, help='frames per second')
    add('--first', type=float, default=0.1, help='time of frame 0 in seconds')
    add('--max-seconds', type=float, default=300.0, help='cut videos here')

  add = command(frames, 'videos to frame features, by the tower of CLIP')
  add('videos', help='folder of video files')
  add('--weights', required=True, help='of CLIP: ViT-B-32.pt, or a folder')
  times(add)

  add = command(pool, 'frame features (HDF5) to clip features')
  add('inputs', nargs='+', metavar='FRAMES', help='HDF5: [frames, width]')
  pooling(add)
  times(add)

  add = command(align, 'cut or zero-pad videos to the rows of another file')
  add('inputs', nargs='+', metavar='CLIPS', help='HDF5, each of other videos')
  add('--like', required=True, help='HDF5 that has the wanted rows')

  add = command(join, 'align, L2-normalise and put features side by side')
  add('inputs', nargs='+', metavar='CLIPS', help='HDF5; rows as in the first')
  add('--no-normalise', action='store_true', help='join them as they are')

  add = command(srt, 'a folder of <video>.srt and .vtt to JSON lines')
  add('folder')
  add('--encoding', help='default: UTF-8, or Latin-1 where it is none')
  add('--ignore-hours', action='store_true', help='as the original does')

  add = command(subtitles, 'token features of subtitles to clip features')
  add('tokens', help='HDF5: [tokens, width] and "-lengths"')
  add('--lines', required=True, help='JSON lines that `srt` writes')
  add('--videos', required=True, help='HDF5 of the video clips')
  pooling(add)
  add('--info', action='store_true', help='also write <out>_sub_info.json')
  add(
    *('--omit-silent',),
    action='store_true',
    help='no zero rows for videos without subtitles, as the original',
  )

  def encoding(add):
    add('--queries', nargs='+', metavar='JSONL', help='annotations, all splits')
    add('--subtitles', metavar='JSONL', help='what `srt` writes')

  add = command(words, 'queries or subtitles to hashed word vectors')
  encoding(add)
  add('--dim', type=int, default=clip_text.words.DIM, help='width')

  add = command(clip, 'queries or subtitles to tokens of the tower of CLIP')
  encoding(add)
  add('--weights', required=True, help='of CLIP: ViT-B-32.pt, or a folder')
  add(
    *('--tokenizer',),
    required=True,
    help='bpe_simple_vocab_16e6.txt.gz, or a folder with tokenizer.json',
  )

  add = command(text, 'queries or subtitles to states of a language model')
  encoding(add)
  add('--model', required=True, help='folder of a Hugging Face model')
  add('--max-tokens', type=int, default=30, help='of a query, 2 are special')
  add('--device', default='cpu', help="PyTorch's name, such as cuda")

  args = parser.parse_args(argv)
  if 'queries' in args and bool(args.queries) == bool(args.subtitles):
    parser.error('give one of --queries and --subtitles')
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  began = time.monotonic()
  bar = rich_progress.Progress(
    rich_progress.TextColumn('{task.description}'),
    *(rich_progress.BarColumn(), rich_progress.MofNCompleteColumn()),
    rich_progress.TimeRemainingColumn(),
    console=Console(stderr=True),
  )
  try:
    with bar:
      task = bar.add_task(args.function.__name__, total=None)
      made = args.function(
        args, lambda done, total: bar.update(task, completed=done, total=total)
      )
  except (ValueError, OSError) as error:
    print(f'clip_features: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('stopped; nothing was written', file=sys.stderr)
    return 130
  tell(
    made,
    time.monotonic() - began,
    Console(width=None if sys.stdout.isatty() else 100),
  )
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
