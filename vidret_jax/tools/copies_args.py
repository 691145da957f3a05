# SPDX-License-Identifier: Apache-2.0
"""What the commands of `tools.copies` take."""

import argparse
import math
import os
import pathlib

from vidret_jax.search import row_layout
from vidret_jax.tools import copies_page, copy_groups

THRESHOLD = 0.5  # Three quarters of the way from -1 to 1.
STDOUT = ('-', '/dev/stdout')  # As a file for JSON.


def parser(about: str) -> argparse.ArgumentParser:
  """Of the three tasks; `about` is the text above their options."""
  out = argparse.ArgumentParser(
    description=about, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  tasks = out.add_subparsers(dest='task', required=True)
  made = tasks.add_parser('index', help='looks at the videos of a folder')
  made.add_argument('--run', help='workdir of a run')
  made.add_argument('--config', help='FILE.py[:arg]; --config.key=value')
  made.add_argument('--weights', help='a workdir, or a file of the authors')
  made.add_argument('--videos', required=True, help='folder of videos')
  made.add_argument('--out', required=True, help='folder of the index')
  made.add_argument('--select', choices=('best', 'last'))
  made.add_argument('--fps', type=float, help='frames a second to look at')
  made.add_argument('--resize', type=int, help='shorter side, pixels')
  made.add_argument('--crop', type=int, help='square of its middle, pixels')
  made.add_argument(
    '--batch_size', type=_positive, default=4, help='times 32 frames'
  )
  made.add_argument('--threads', type=_positive, help='that decode videos')
  made.add_argument(
    '--dtype',
    choices=('float32', *row_layout.HALVES),
    default='float16',
    help='of the regions of a new index',
  )
  _frozen(made)
  some = tasks.add_parser('groups', help='groups of copies in the folder')
  some.add_argument(
    '--shortlist',
    type=_count,
    default=100,
    help='videos that each one is compared with, by the coarse score; 0: all',
  )
  some.add_argument(
    '--both',
    choices=tuple(copy_groups.BOTH),
    default='mean',
    help='of the two scores of a pair; max also joins a part with its whole',
  )
  some.add_argument(
    '--work_folder', help='keeps scores, so that a killed search goes on'
  )
  _asked(some, 'groups.json')
  one = tasks.add_parser('query', help='copies of clips')
  one.add_argument('files', nargs='+', metavar='CLIP', help='video files')
  one.add_argument('--top', type=_positive, default=10, help='videos to show')
  one.add_argument(
    '--shortlist',
    type=_count,
    default=100,
    help='videos that the network compares, by the coarse score; 0: all',
  )
  _asked(one, 'answers.json')
  return out


def _frozen(parser):
  parser.add_argument('--resnet', help='weights of torchvision, if not in run')
  parser.add_argument('--pca', help='PCA file of ViSiL, if not in the run')


def _asked(parser, name):
  parser.add_argument('--index', required=True, help='made by copies index')
  parser.add_argument(
    '--threshold',
    type=_finite,
    default=THRESHOLD,
    help='score from which videos count as copies (default: %(default)s)',
  )
  parser.add_argument('--json', help=f'file to write, as {name}; -: stdout')
  parser.add_argument('--html', help='FILE.html to write')
  parser.add_argument(
    '--run', '--weights', dest='weights', help='where the weights are now'
  )
  parser.add_argument('--select', choices=('best', 'last'))
  parser.add_argument('--videos', help='where the videos are now')
  parser.add_argument(
    '--gone',
    action='store_true',
    help='search also videos that are no longer in the folder',
  )
  parser.add_argument(
    '--clips',
    choices=copies_page.CLIPS,
    default='link',
    help='how the page gets at videos',
  )
  _frozen(parser)


def check_outputs(args: argparse.Namespace) -> None:
  """Makes the folders of what is to be written, before minutes of work.

  Raises:
    OSError: it cannot be written.
  """
  for name in (args.json, args.html):
    if not name or name in STDOUT:
      continue
    path = pathlib.Path(name)
    # A device would be replaced by a file, not written to.
    if path.exists() and not path.is_file():
      raise FileExistsError(f'{name} is no file; name another one.')
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
      raise PermissionError(f'{name}: its folder cannot be written to.')


def _count(text):
  number = int(text)
  if number < 0:
    raise argparse.ArgumentTypeError(f'{text}: expected 0 or more')
  return number


def _positive(text):
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f'{text}: expected 1 or more')
  return number


def _finite(text):
  number = float(text)
  if not math.isfinite(number):
    raise argparse.ArgumentTypeError(f'{text}: expected a number')
  return number
