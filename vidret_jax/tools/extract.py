# SPDX-License-Identifier: Apache-2.0
r"""Frames, or region features, of a folder of videos; one frame per second.

  python -m vidret_jax.tools.extract --what frames --videos films --out frames
  python -m vidret_jax.tools.extract --what regions --videos films \
      --out films.hdf5 --resnet resnet50.pth --pca pca_resnet50_vcdb_1M.pth
  python -m vidret_jax.tools.extract --what regions --labels --dino dino.pth ...

Frames are what `configs/hap_vr_vcdb.py` trains on, <out>/<video>/00000.jpg and
so on. Regions are what collections are evaluated by, a dataset [frames, 9, 512]
per video at the root of an HDF5 file; with --labels, groups `regions` and
`labels`, to train on without the frozen networks.

All videos below the folder are taken. Those that cannot be read are listed and
left out. A run that was stopped, or killed, goes on where it was. With --beam
the work is a pipeline of Apache Beam.
"""

import argparse
from collections.abc import Sequence
import contextlib
import os
import pathlib
import sys
import time

from rich import progress as rich_progress
from rich.console import Console

from vidret_jax.data import whole_files
from vidret_jax.data.copies import feature_parts, video_frames, video_names
from vidret_jax.data.frames import encode
from vidret_jax.evaluators.report import markup
from vidret_jax.tools import extract_beam, extract_jobs, extract_networks
from vidret_jax.train import ckpt

_PLAIN = dict(markup=False, highlight=False, soft_wrap=True)


def extract(job, names, args, console) -> extract_jobs.Result:
  """Does what is left of a job, and puts the results together.

  Args:
    job: see `extract_jobs`.
    names: id -> path below the folder of the videos.
    args: the command line.
    console: for the bar.

  Returns:
    What is there afterwards.

  Raises:
    ValueError, OSError: what the job raises.
  """
  with job.begun():
    done = job.result(names).done
    left = {name: path for name, path in names.items() if name not in done}
    if done and left:
      console.print(f'{len(done):,} videos are done; going on', **_PLAIN)
    if left and args.beam:
      options = [f'--{text}' for text in args.beam_options]
      extract_beam.pipeline(job, left, args.beam, options, args.beam_group)
    elif left:
      with _bar(console, args.what, len(names), len(done)) as look:
        job.extract(left, look)
    result = job.result(names)
    if result.done:
      with _bar(console, 'joining', len(result.done), 0) as look:
        job.finish(result, look)
  return result


@contextlib.contextmanager
def _bar(console, text, total, done):
  columns = (
    rich_progress.TextColumn('{task.description}'),
    *(rich_progress.BarColumn(), rich_progress.MofNCompleteColumn()),
    *(rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn()),
  )
  with rich_progress.Progress(*columns, console=console, transient=True) as bar:
    task = bar.add_task(text, total=total, completed=done)
    yield lambda *_: bar.advance(task)


def tell(result, names, left_out, out, seconds) -> None:
  """Prints what is there, and the videos that could not be read."""
  console = Console(width=None if sys.stdout.isatty() else 100)
  console.print(
    f'{len(result.done):,} of {len(names) + len(left_out):,} videos in {out}, '
    f'in {seconds:.1f} s',
    **_PLAIN,
  )
  bad = sorted([*result.unreadable.values(), *_texts(left_out)])
  if bad:
    console.print(f'{len(bad):,} could not be read:', **_PLAIN)
  for text in bad:
    lines = text.splitlines()
    console.print(f'  {markup.clean(lines[0] if lines else text)}', **_PLAIN)


def _texts(left_out):
  return [f'{path} {why}' for path, why in left_out.items()]


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; `--config.key=value` go to `overrides`."""
  changes = [a for a in argv if a.startswith('--config.')]
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--what', required=True, choices=('frames', 'regions'))
  add('--videos', required=True, help='folder of videos')
  add('--out', required=True, help='folder of frames, or HDF5 file')
  add(
    *('--names',),
    choices=tuple(video_names.NAMES),
    default='stem',
    help='what videos are called: file name without its ending (stem), up to '
    'its first dot, the whole (file), or with its folders (path)',
  )
  add('--fps', type=float, default=1.0, help='frames per second')
  add('--threads', type=int, help='that decode videos; default: all cores')
  add('--report', help='JSON file about what was done, and what could not be')
  add('--overwrite', action='store_true', help='of regions: replace --out')
  frames = parser.add_argument_group('frames').add_argument
  frames('--shorter_side', type=int, help='shrink larger frames; default: no')
  frames('--quality', type=int, default=encode.QUALITY, help='of JPEG, 1-95')
  regions = parser.add_argument_group('regions')
  extract_networks.add_arguments(regions.add_argument)
  add = regions.add_argument
  add('--layout', choices=feature_parts.LAYOUTS, help='of the file')
  add('--dtype', choices=('float32', 'float16'), help='of features')
  add('--resize', type=int, default=video_frames.RESIZE, help='shorter side')
  add('--crop', type=int, default=video_frames.CROP, help='of its middle')
  add('--max_frames', type=int, default=86_400, help='of a video')
  spread = parser.add_argument_group('pipeline').add_argument
  spread('--beam', metavar='RUNNER', help='of Apache Beam, as DirectRunner')
  spread('--beam_options', nargs='*', default=[], metavar='NAME=VALUE')
  spread('--beam_group', type=int, default=16, help='videos of a unit of work')
  args = parser.parse_args([a for a in argv if a not in changes])
  args.overrides = [a.removeprefix('--config.') for a in changes]
  for name in ('threads', 'shorter_side', 'max_frames', 'beam_group'):
    if getattr(args, name) is not None and getattr(args, name) < 1:
      parser.error(f'--{name} {getattr(args, name)}: expected 1 or more')
  if not 1 <= args.quality <= 95:
    parser.error(f'--quality {args.quality}: expected 1 to 95')
  if not 0 < args.fps <= video_frames.MAX_FPS:
    parser.error(f'--fps {args.fps}: expected a number above 0')
  if not 1 <= args.crop <= args.resize:
    parser.error(f'--crop {args.crop}: expected 1 to --resize {args.resize}')
  return args


def job_of(
  args: argparse.Namespace,
) -> extract_jobs.Frames | extract_jobs.Regions:
  """What a command line asks for.

  Raises:
    ConfigError, FileNotFoundError, ValueError: networks that cannot be had.
  """
  common = dict(
    videos=os.path.abspath(args.videos),
    out=os.path.abspath(args.out),
    fps=args.fps,
    threads=args.threads,
  )
  if args.what == 'frames':
    return extract_jobs.Frames(
      **common,
      shorter_side=args.shorter_side,
      quality=args.quality,
      names=args.names,
    )
  layout = args.layout or ('cache' if args.labels else 'flat')
  return extract_jobs.Regions(
    **common,
    networks=extract_networks.of_arguments(args, args.overrides),
    resize=args.resize,
    crop=args.crop,
    dtype=args.dtype or ('float32' if layout == 'flat' else 'float16'),
    layout=layout,
    max_frames=args.max_frames,
    overwrite=args.overwrite,
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status: 1 where not one video could be read."""
  args = parse(sys.argv[1:] if argv is None else argv)
  console, began = Console(stderr=True), time.monotonic()
  try:
    names, left_out = video_names.named(args.videos, args.names)
    job = job_of(args)
    if args.report:
      whole_files.refuse_existing(args.report, overwrite=True)
    result = extract(job, names, args, console)
    tell(result, names, left_out, args.out, time.monotonic() - began)
    if args.report:
      report = dict(
        done=sorted(result.done),
        unreadable=result.unreadable | left_out,
        settings=extract_jobs.settings_of(job),
      )
      whole_files.write_json(pathlib.Path(args.report), report, overwrite=True)
  except KeyboardInterrupt:
    print('stopped; the same command goes on from here', file=sys.stderr)
    return 130
  except (ValueError, OSError, ckpt.CheckpointError) as error:
    print(f'extract: {error}', file=sys.stderr)
    return 1
  if not result.done:
    print('extract: no video could be read', file=sys.stderr)
    return 1
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
