# SPDX-License-Identifier: Apache-2.0
r"""Submission to EPIC-Kitchens-100, multi-instance retrieval; and its check.

From a trained run, or from the scores that an evaluation wrote:

  python -m vidret_jax.tools.submission --workdir runs/epic \
      --clips EPIC_100_retrieval_test.csv \
      --sentences EPIC_100_retrieval_test_sentence.csv --out submission.zip
  python -m vidret_jax.tools.submission --predictions test-predictions.npz ...

Of a file that is there already:

  python -m vidret_jax.tools.submission --check submission.zip --clips ...

A submission is a pickle (`test.pkl`, alone in a zip file) of a dict: version,
challenge, sim_mat [clips, sentences], vis_ids and txt_ids in the order of the
two official tables, and the supervision levels sls_pt, sls_tl and sls_td.
"""

import argparse
from collections.abc import Sequence
import io
import os
import pathlib
import sys
import zipfile

import numpy as np

from vidret_jax.data.graphs import epic_sentences
from vidret_jax.tools import submission_file


def tables(args: argparse.Namespace) -> submission_file.Tables:
  """The two official tables."""
  clips = epic_sentences.read_clips(args.clips)
  return submission_file.read_tables(args.clips, clips, args.sentences)


def of_predictions(path: str) -> dict[str, np.ndarray]:
  """Scores [q, v], texts and item_ids of an evaluation's npz file.

  Raises:
    ValueError: an array is missing, or shapes do not belong together.
  """
  with np.load(path, allow_pickle=False) as file:
    data = {k: file[k] for k in ('scores', 'texts', 'item_ids') if k in file}
  missing = {'scores', 'texts', 'item_ids'} - set(data)
  if missing:
    raise ValueError(
      f'{path}: has no {", ".join(sorted(missing))}; expected what the graded '
      "evaluator writes with predictions='npz'"
    )
  return data


def of_run(workdir: str, name: str) -> dict[str, np.ndarray]:
  """Scores of the selected weights of a run on one of its evaluations."""
  from vidret_jax import config_lib as cl
  from vidret_jax.train import ckpt, defaults
  from vidret_jax.train import run as run_lib

  config = defaults.resolve(cl.load_json(os.path.join(workdir, 'config.json')))
  kinds = {k: e.type for k, e in config.evals.items()}
  if kinds.get(name) != 'graded':
    raise ValueError(
      f'{workdir}: no graded evaluation {name!r}; its evaluations are {kinds}'
    )
  run = run_lib.Run(config)
  evaluator = run.evaluators([name])[name]
  variables, _ = ckpt.load_variables(workdir, run.shapes(), config.select)
  evaluator.run(variables)
  return dict(
    scores=evaluator.scores['score'],
    texts=np.array(evaluator.queries.texts),
    item_ids=np.array(evaluator.items.ids),
  )


def write(path: pathlib.Path, content: dict) -> None:
  """Writes a pickle, or a zip file with it; whole or not at all."""
  draft = path.with_name(f'{path.name}.part')
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with open(draft, 'wb') as file:
      if path.suffix != '.zip':
        submission_file.dump(content, file)
      else:
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as whole:
          with whole.open(submission_file.MEMBER, 'w', force_zip64=True) as one:
            submission_file.dump(content, one)
    os.replace(draft, path)
  finally:
    draft.unlink(missing_ok=True)


def read(path: pathlib.Path):
  """The pickle in a file or a zip file, without running what is in it."""
  from vidret_jax.data import pickles

  if not zipfile.is_zipfile(path):
    return pickles.load(path)
  with zipfile.ZipFile(path) as whole:
    names = whole.namelist()
    if names != [submission_file.MEMBER]:
      raise ValueError(
        f'{path}: holds {names[:5]}, expected {submission_file.MEMBER!r} alone'
      )
    limit = submission_file.MAX_BYTES
    if whole.getinfo(names[0]).file_size > limit:
      raise ValueError(f'{path}: {names[0]} is larger than {limit:,} bytes')
    with whole.open(names[0]) as one:
      content = io.BytesIO(one.read(limit))
  return pickles.load_stream(content, f'{path}:{names[0]}')


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--workdir', help='of a trained run')
  add('--eval', default='test', help='evaluation of the run')
  add('--predictions', help='npz file of the graded evaluator')
  add('--check', metavar='FILE', help='only check this submission')
  add('--clips', required=True, help='EPIC_100_retrieval_test.csv')
  add('--sentences', required=True, help='..._test_sentence.csv')
  add('--out', help='.pkl or .zip')
  add('--unit_range', action='store_true', help='scale scores to [0, 1]')
  add('--sls_pt', type=int, default=2, help='supervision level: pretraining')
  add('--sls_tl', type=int, default=3, help='training labels')
  add('--sls_td', type=int, default=3, help='training data')
  add('--overwrite', action='store_true')
  args = parser.parse_args(argv)
  if sum(map(bool, (args.workdir, args.predictions, args.check))) != 1:
    parser.error('give one of --workdir, --predictions and --check')
  if not args.check and pathlib.Path(args.out or '').suffix not in (
    '.pkl',
    '.zip',
  ):
    parser.error('--out names a .pkl or .zip file')
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  try:
    official = tables(args)
    if args.check:
      path = pathlib.Path(args.check)
    else:
      path = pathlib.Path(args.out)
      if path.exists() and not args.overwrite:
        raise ValueError(f'{path}: is there already; add --overwrite')
      if args.predictions:
        found, where = of_predictions(args.predictions), args.predictions
      else:
        found, where = of_run(args.workdir, args.eval), args.workdir
      sim_mat = submission_file.arrange(official, where=where, **found)
      if args.unit_range:
        sim_mat = submission_file.unit_range(sim_mat)
      content = submission_file.make(
        official, sim_mat, args.sls_pt, args.sls_tl, args.sls_td
      )
      submission_file.check(content, official, str(path))
      write(path, content)
    warnings = submission_file.check(read(path), official, str(path))
  except (ValueError, OSError, zipfile.BadZipFile) as error:
    print(f'submission: {error}', file=sys.stderr)
    return 1
  shape = f'{len(official.clips):,} clips x {len(official.sentences):,}'
  print(f'{path}: a valid submission of {shape} sentences')
  for text in warnings:
    print(f'note: {text}')
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
