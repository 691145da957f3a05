# SPDX-License-Identifier: Apache-2.0
r"""Makes the relevance matrix that an evaluation with nDCG and mAP reads.

From classes of captions (the classes of a clip are those of a share of its
captions):

  python -m vidret_jax.tools.relevance --classes msrvtt_train.json \
      --captions ref_captions.json --names tst_names.npy --out relevance.hdf5

EPIC-Kitchens-100: clips of the official table and its sentences; without
--sentences, and with --names, the clips of that list and their own captions
(the validation split of RANP):

  python -m vidret_jax.tools.relevance --epic EPIC_100_retrieval_test.csv \
      --sentences EPIC_100_retrieval_test_sentence.csv --out epic100_rel_mat.pkl

From the words of captions (Wray et al., CVPR 2021):

  python -m vidret_jax.tools.relevance --by syn --parses sent2parse.json \
      --captions ref_captions.json --names tst_names.npy --out relevance.hdf5

Rows are clips in the order of the list, columns captions in the order of an
evaluation. The ending of --out says what is written: .hdf5, .npy or .pkl.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib
import sys
import time
from typing import Any

import numpy as np
from rich import progress as rich_progress
from rich.console import Console

from vidret_jax.data.graphs import (
  annotate,
  annotations,
  epic_sentences,
  files,
  layout,
  relevance,
  relevance_files,
  text_relevance,
)
from vidret_jax.data.graphs import captions as captions_lib
from vidret_jax.data.graphs import classes as classes_lib

_LAYOUTS = (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)


@dataclasses.dataclass(frozen=True)
class Sides:
  """What a matrix is made of: per kind of class (clips, captions)."""

  parts: list[tuple[list[Any], list[Any]]]

  @property
  def shape(self) -> tuple[int, int]:
    """Clips, captions."""
    return len(self.parts[0][0]), len(self.parts[0][1])

  def fill(self, out: Any, report: Any) -> None:
    """Computes all rows of `out`."""
    if len(self.parts) == 1:
      relevance.iou(*self.parts[0], out=out, report=report)
    else:
      (video_verbs, verbs), (video_nouns, nouns) = self.parts
      relevance.matrix(
        *(video_verbs, video_nouns, verbs, nouns), out=out, report=report
      )


def from_epic(args: argparse.Namespace) -> Sides:
  """Clips and sentences of EPIC-Kitchens-100."""
  clips = epic_sentences.read_clips(args.epic)
  rows = list(range(len(clips)))
  if args.names:
    where = {name: i for i, name in enumerate(clips.ids)}
    names = _names(args)
    absent = [n for n in names if n not in where]
    if absent:
      raise ValueError(
        f'{args.epic}: {len(absent)} of the {len(names)} clips of {args.names} '
        f'are not in it, such as {absent[0]!r}; give the table of their split'
      )
    rows = [where[n] for n in names]
  if args.sentences:
    columns = epic_sentences.read_sentences(args.sentences, clips)
  elif args.names:
    columns = rows
  else:
    columns = epic_sentences.sentence_table(clips)
  left, right = clips.take(rows), clips.take(columns)
  return Sides([(left.verbs, right.verbs), (left.nouns, right.nouns)])


def from_classes(args: argparse.Namespace) -> Sides:
  """Classes of captions, pooled for their clips."""
  kind = _layout(args)
  said = _captions(args, kind)
  found = captions_lib.read_classes(
    pathlib.Path(args.classes), said, by=kind.classes_by
  )
  return _pooled(
    [
      [[one[k] for one in found[clip]] for clip in said]
      for k in (0, 1)  # Verbs, nouns.
    ],
    args.share,
  )


def from_words(args: argparse.Namespace) -> Sides:
  """Sets of words of captions, pooled for their clips."""
  said = [list(x.values()) for x in _captions(args, _layout(args)).values()]
  if args.by == 'bow':
    stop = annotate.stop_words()
    return _pooled(
      [[text_relevance.word_sets(x, stop) for x in said]], args.share
    )
  parses = annotations.read_parses([args.parses])
  absent = [c for x in said for c in x if c not in parses]
  if absent:
    raise ValueError(
      f'{args.parses}: no parse of {len(absent)} captions, such as '
      f'{absent[0][:80]!r}; make them with python -m vidret_jax.tools.annotate'
    )
  parts = []
  for tag, file in (('VERB', args.verb_table), ('NOUN', args.noun_table)):
    table = annotations.read_table(file) if file else {}
    part = []
    for texts in said:
      found = [parses[c] for c in texts]
      words = [p.lemmas if args.by == 'syn' else p.words for p in found]
      sets = text_relevance.tagged_sets(words, [p.pos for p in found], tag)
      if args.by == 'syn':
        sets = text_relevance.class_sets(sets, table)
      part.append(sets)
    parts.append(part)
  return _pooled(parts, args.share)


def _pooled(parts, share):
  return Sides(
    [
      (
        [classes_lib.pooled(captions, share) for captions in part],
        [one for captions in part for one in captions],
      )
      for part in parts
    ]
  )


def _captions(args, kind):
  """{clip: {slot: caption}} in the order of an evaluation."""
  captions = captions_lib.Captions(
    pathlib.Path(args.captions), kind.captions_by
  )
  return {name: captions.slots(name) for name in _names(args)}


def _names(args):
  return files.strings(pathlib.Path(args.names), 'clips')


def _layout(args):
  """How keys are made: as said, or as the files are called."""
  path = pathlib.Path(args.classes or args.captions).absolute()
  for kind in _LAYOUTS:
    by_path = kind.annotation in path.parts or kind.classes == path.name
    if _short(kind) == args.layout or (not args.layout and by_path):
      return kind
  raise ValueError(
    f'{path}: neither its name nor its folder says which dataset it is of; '
    f'give --layout, one of {[_short(k) for k in _LAYOUTS]}'
  )


def _short(kind):
  return kind.annotation.removesuffix('RET')


def make(args: argparse.Namespace, console: Console) -> tuple[int, int]:
  """Writes the matrix; returns its shape.

  Raises:
    ValueError: a file that does not say what it has to, or another shape than
      expected.
    OSError: a file that is not there.
  """
  out = pathlib.Path(args.out)
  if out.exists() and not args.overwrite:
    raise ValueError(f'{out}: is there already; name another, or --overwrite')
  if args.epic:
    sides = from_epic(args)
  else:
    sides = from_words(args) if args.by else from_classes(args)
  found = 'x'.join(map(str, sides.shape))
  if args.expect and args.expect != found:
    raise ValueError(
      f'the lists make a matrix of {found}, expected {args.expect}; are they '
      'of one split, in the published order?'
    )
  bar = rich_progress.Progress(
    rich_progress.TextColumn('{task.description}'),
    *(rich_progress.BarColumn(), rich_progress.MofNCompleteColumn()),
    rich_progress.TimeRemainingColumn(),
    console=console,
  )
  with bar, relevance_files.create(out, sides.shape) as target:
    task = bar.add_task('clips', total=sides.shape[0])
    sides.fill(target, lambda done: bar.update(task, completed=done))
  relevance_files.read(out, sides.shape)
  return sides.shape


def tell(path: str, shape: tuple[int, int], seconds: float) -> None:
  """Prints what was made."""
  found = relevance_files.read(path, shape)
  # Of a part, if it is large: this is for the eye.
  part = np.asarray(found[:: max(1, shape[0] // 1000)])
  size = pathlib.Path(path).stat().st_size
  print(
    f'{path}: {shape[0]:,} clips x {shape[1]:,} captions, '
    f'{size / 2**20:,.1f} MiB in {seconds:.1f} s; '
    f'{(part > 0).mean():.1%} of the pairs relevant, '
    f'{(part == 1).mean():.2%} fully'
  )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line, checked for what belongs together."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--out', required=True, help='.hdf5, .h5, .npy or .pkl')
  add('--classes', help='JSON: classes of captions')
  add('--captions', help='JSON: {clip: [caption, ...]}')
  add('--names', help='npy list of the clips of the split')
  add('--layout', help='how keys are made: msvd, msr-vtt, charades, epic100')
  add('--share', type=float, default=0.25, help='of the captions of a clip')
  add('--epic', metavar='CSV', help='official clip table of the split')
  add('--sentences', metavar='CSV', help='official sentence table')
  add('--by', choices=('bow', 'pos', 'syn'), help='words instead of classes')
  add('--parses', help='JSON that tools.annotate writes')
  add('--verb_table', metavar='FILE', help='JSON: lemma -> class, for syn')
  add('--noun_table', metavar='FILE', help='JSON: lemma -> class, for syn')
  add('--expect', metavar='VxQ', help='shape that it must have, as 9668x3842')
  add('--overwrite', action='store_true')
  args = parser.parse_args(argv)
  if sum(map(bool, (args.epic, args.classes, args.by))) != 1:
    parser.error('give one of --classes, --epic and --by')
  if not args.epic and not (args.names and args.captions):
    parser.error('--names and --captions say what the rows and columns are')
  if args.by in ('pos', 'syn') and not args.parses:
    parser.error(f'--by {args.by} needs --parses')
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  began = time.monotonic()
  try:
    shape = make(args, Console(stderr=True))
  except (ValueError, OSError) as error:
    print(f'relevance: {error}', file=sys.stderr)
    return 1
  tell(args.out, shape, time.monotonic() - began)
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
