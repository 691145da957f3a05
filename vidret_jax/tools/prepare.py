# SPDX-License-Identifier: Apache-2.0
"""Makes the records that a config trains and evaluates on.

  python -m vidret_jax.tools.prepare --config configs/ce_msrvtt.py
  python -m vidret_jax.tools.prepare --config configs/ce_msrvtt.py:split=miech \
      --manual_dir /path/to/MSRVTT --archive MSRVTT-experts.tar.gz

Everything is checked before the first record is written, and records that are
there already are left alone.
"""

import argparse
import hashlib
import inspect
import logging
import os
import pathlib
import sys

from vidret_jax import config_lib


def data_of(config) -> list[dict]:
  """The data arguments of training and of every evaluation, as plain dicts."""
  plain = config_lib.to_dict(config)
  found = [plain.get('input', {}).get('data')]
  found += [e.get('data') for e in plain.get('evals', {}).values()]
  return [dict(data) for data in found if data]


def check_archive(path: str, sha1: str) -> None:
  """Compares the checksum of a downloaded archive.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another checksum.
  """
  from rich import progress

  file = pathlib.Path(path)
  if not file.is_file():
    raise FileNotFoundError(f'--archive {path}: no such file.')
  digest = hashlib.sha1()
  with progress.open(file, 'rb', description='checking sha1') as stream:
    while chunk := stream.read(1 << 22):
      digest.update(chunk)
  if digest.hexdigest() != sha1:
    raise ValueError(
      f'--archive {path}: sha1 is {digest.hexdigest()}, expected {sha1}. The '
      'download is damaged or another release; fetch it again, or give the '
      'sum of your release with --sha1.'
    )


def prepare(config, args) -> list[pathlib.Path]:
  """Prepares everything a config names.

  Args:
    config: see `config_lib.load`.
    args: parsed command line.

  Returns:
    Folders, each once.
  """
  folders = []
  for data in data_of(config):
    name = data.pop('name')
    config_lib.find('data', name, 'make')  # There is such a module.
    try:
      make_records = config_lib.find('data', name, 'prepare')
    except config_lib.ConfigError:
      print(f'{name}: is read as it is, nothing to prepare', flush=True)
      continue
    given = {
      **data,
      'overwrite': args.overwrite,
      'verify': args.verify,
      'keep': tuple(folders),
      'beam_runner': args.beam_runner,
      'beam_options': [f'--{o}' for o in args.beam_options],
      'manual_dir': args.manual_dir or data.get('corpus'),
    }
    if args.archive and not folders:
      published = config_lib.find('data', name, 'LAYOUT').sha1
      check_archive(args.archive, args.sha1 or published)
    # What only a view reads (cache, fuse_captions, ...) makes no difference
    # to the records.
    taken = inspect.signature(make_records).parameters
    folder = make_records(**{k: v for k, v in given.items() if k in taken})
    if folder not in folders:
      folders.append(folder)
      print(f'{name}: {folder}', flush=True)
  return folders


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  """(arguments, overrides of config values)."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--config', required=True, help='FILE.py[:key=value,...]')
  add('--manual_dir', help='folder of the published files of the dataset')
  add('--archive', help='downloaded archive whose sha1 to check first')
  add('--sha1', help='its sum, if not that of the release in the docs')
  add('--overwrite', action='store_true', help='make existing records again')
  add(
    '--verify',
    action='store_true',
    help='read existing records of collections of copies and compare checksums',
  )
  add('--beam_runner', help='Apache Beam runner, for example DirectRunner')
  add(
    '--beam_options',
    nargs='*',
    default=[],
    metavar='NAME=VALUE',
    help='options of the runner',
  )
  add('--traceback', action='store_true', help='show where errors arise')
  changes = [a for a in argv if a.startswith('--config.')]
  args = parser.parse_args([a for a in argv if a not in changes])
  return args, [a.removeprefix('--config.') for a in changes]


def main(argv: list[str]) -> int:
  """Returns the exit code."""
  args, changes = parse(argv)
  try:
    prepare(config_lib.load(args.config, changes), args)
  except (ValueError, OSError, RuntimeError) as error:
    if args.traceback:
      raise
    print(f'\n{type(error).__name__}: {error}', file=sys.stderr)
    return 1
  return 0


def run() -> None:
  """Entry point."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # TFDS tells about every configuration that it does not know by name.
  logging.getLogger('absl').setLevel(logging.ERROR)
  sys.exit(main(sys.argv[1:]))


if __name__ == '__main__':
  run()
