# SPDX-License-Identifier: Apache-2.0
r"""Makes role graphs, vocabulary and classes from captions.

  python -m vidret_jax.tools.annotate --captions ref_captions.json \
      --out data/RANP/annotation/msvdRET --spacy en_core_web_sm \
      --names data/RANP/public_split_msvd/trn_names.npy --glove glove.42B.txt

Writes what `vidret_jax/data/graphs/` reads of a dataset, under the names of the
published release. Roles come from a file of any tagger (--srl), or from a
spaCy pipeline and rules on its parse (--spacy). Parts of speech, which classes
and graphs without a predicate are made of, come from the pipeline or from a
file (--parses). What an earlier run found is in the folder and is used again,
so a run that was stopped goes on where it ended.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import itertools
import os
import pathlib
import sys
from typing import Any

import numpy as np
from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vidret_jax.convert import torch_write
from vidret_jax.data.graphs import (
  annotate,
  annotations,
  epic_sentences,
  files,
  layout,
  lexicon,
  srl,
)

LAYOUTS = {
  x.annotation.removesuffix('RET'): x
  for x in (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)
}
SRL, PARSES = 'sent2srl.json', 'sent2parse.json'
GRAPHS, AUGMENTED = 'sent2rolegraph.json', 'sent2rolegraph.augment.json'
_SHOWN = 5  # Captions in a list of failures.


@dataclasses.dataclass
class Made:
  """What a run made.

  Attributes:
    files: (file, what it holds).
    failed: what is missing -> {caption: why}.
  """

  files: list[tuple[pathlib.Path, str]] = dataclasses.field(
    default_factory=list
  )
  failed: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

  def json(self, path: pathlib.Path, value: Any, what: str) -> None:
    """Writes a JSON file."""
    annotations.write_json(path, value)
    self.files.append((path, what))


def annotate_all(args: argparse.Namespace, console: Console) -> Made:
  """Does what the command line says.

  Raises:
    ValueError: a file that does not say what it has to.
    FileNotFoundError: a file that is not there.
  """
  out = pathlib.Path(args.out)
  kind = _layout(args.layout, out)
  slots = annotations.Slots(args.captions, kind.captions_by)
  clips = [
    n for p in args.names for n in files.strings(pathlib.Path(p), 'clips')
  ]
  train = slots.texts(clips or None)
  captions = list(dict.fromkeys(slots.texts()))
  # All that is given, before anything is written.
  parses = annotations.read_parses(_inputs(args, out / PARSES, args.parses))
  tagged = {}
  for path in _inputs(args, out / SRL, args.srl):
    tagged |= srl.read(path)
  official = epic_sentences.read_clips(args.epic) if args.epic else None
  tables = {
    name: annotations.read_table(path)
    for name, path in (('verb', args.verb_classes), ('noun', args.noun_classes))
    if path
  }
  bytes_of_vectors = (
    pathlib.Path(args.glove).stat().st_size if args.glove else 0
  )
  left = [c for c in captions if c not in parses] if args.spacy else []
  nlp = annotate.load(args.spacy) if left else None

  out.mkdir(parents=True, exist_ok=True)
  made = Made()
  with _bar(console) as bar:
    if left:
      task = bar.add_task('parsing captions', total=len(left))
      annotations.add_parses(
        *(parses, nlp, left, out / PARSES), lambda n: bar.advance(task, n)
      )
    _graphs(out, captions, tagged, parses, made)
    words = _vocabulary(args, kind, out, train, made)
    if official:
      _official_classes(out / kind.classes, official, made)
    else:
      _classes(args, kind, out, slots, parses, tables, made)
    if args.glove:
      task = bar.add_task('reading word vectors', total=bytes_of_vectors)
      _vectors(args, out, words, lambda n: bar.advance(task, n), made)
  return made


def _graphs(out, captions, tagged, parses, made):
  roles, no_roles = annotations.find_roles(tagged, captions, parses)
  plain, augmented, no_graph = annotations.make_graphs(roles, parses, captions)
  made.failed['graph is the caption alone, or its parts of speech'] = (
    no_roles | no_graph
  )
  made.json(out / SRL, roles, f'{len(roles):,} captions')
  made.json(out / GRAPHS, plain, _count(plain))
  made.json(out / AUGMENTED, augmented, _count(augmented))


def _inputs(args, known, given):
  """Files to read: what an earlier run left, then what is given."""
  reused = known.is_file() and not args.overwrite
  return [known] * reused + ([given] if given else [])


def _vocabulary(args, kind, out, train, made):
  ids, words = lexicon.vocabulary(train, args.min_count)
  made.json(
    out / f'word2int_{kind.vocabulary}.json', ids, f'{len(words):,} words'
  )
  path = out / f'int2word_{kind.vocabulary}.npy'
  np.save(path, words)
  made.files.append((path, 'the same, by id'))
  return words


def _official_classes(path, table, made):
  pairs = zip(table.ids, table.verbs, table.nouns, strict=True)
  database = {i: annotations.entry(v, n) for i, v, n in pairs}
  made.json(path, {'database': database}, f'classes of {len(table):,} clips')


def _classes(args, kind, out, slots, parses, tables, made):
  for name, lemmas in (('verb', lexicon.verbs), ('noun', lexicon.nouns)):
    if name not in tables and parses:
      # Of all splits: they are only compared, nothing is learned about them.
      rows = (lemmas(parses[c]) for c in slots.texts() if c in parses)
      tables[name] = lexicon.class_table(rows, args.min_class_count)
      path = out / f'{name}_classes.json'
      made.json(path, tables[name], f'{len(tables[name]):,} {name} lemmas')
  found, made.failed['no classes'] = annotations.make_classes(
    kind, slots, parses, tables.get('verb', {}), tables.get('noun', {})
  )
  if size := len(found['database']):
    made.json(out / kind.classes, found, f'classes of {size:,} captions')


def _vectors(args, out, words, report, made):
  table, unknown = lexicon.word_vectors(
    args.glove, words.tolist(), seed=args.seed, report=report
  )
  # Where the original looks for it: beside annotation/.
  root = out.parents[1] if out.parent.name == 'annotation' else out
  path = root / f'word_embeds.{glove_name(pathlib.Path(args.glove))}.th'
  torch_write.write(path, {'text_encoder': {'embedding.we.weight': table}})
  known = len(words) - len(unknown)
  made.files.append(
    (path, f'{known:,} of {len(words):,} words, width {table.shape[1]}')
  )


def glove_name(path: pathlib.Path) -> str:
  """'glove42b' of glove.42B.300d.txt."""
  parts = path.name.lower().split('.')[:-1]
  return ''.join(p for p in parts if not p.endswith('0d')) or 'vectors'


def _layout(name, out):
  name = name or out.name.removesuffix('RET')
  if name not in LAYOUTS:
    raise ValueError(
      f'--out {out}: its last part says how files are called, expected one of '
      f'{[x.annotation for x in LAYOUTS.values()]}; or give --layout, one of '
      f'{sorted(LAYOUTS)}'
    )
  return LAYOUTS[name]


def _count(graphs):
  alone = sum(len(nodes) == 1 for nodes, _ in graphs.values())
  return f'{len(graphs):,} graphs, {alone:,} of them the caption alone'


def _bar(console):
  return rich_progress.Progress(
    rich_progress.TextColumn('{task.description}'),
    rich_progress.BarColumn(),
    rich_progress.TaskProgressColumn(),
    rich_progress.TimeRemainingColumn(),
    console=console,
  )


def tell(made: Made, out: str, console: Console) -> None:
  """Prints what was made, and the captions with which something failed."""
  console.print(f'in {escape(out)}:', highlight=False, soft_wrap=True)
  table = Table()
  table.add_column('file', overflow='fold')
  table.add_column('what is in it')
  for path, what in made.files:
    table.add_row(escape(os.path.relpath(path, out)), what)
  console.print(table)
  for what, captions in made.failed.items():
    if captions:
      console.print(f'{len(captions):,} captions: {what}', highlight=False)
    for caption, why in itertools.islice(captions.items(), _SHOWN):
      console.print(
        f'  {escape(ascii(caption))}: {escape(why)}', highlight=False
      )
    if len(captions) > _SHOWN:
      console.print(f'  and {len(captions) - _SHOWN:,} more', highlight=False)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--captions', required=True, help='{clip: [caption, ...]} as JSON')
  add('--out', required=True, help='ROOT/annotation/<name>RET')
  add('--layout', help=f'{", ".join(LAYOUTS)}; default: by the name of --out')
  add(
    *('--names',),
    nargs='+',
    default=[],
    metavar='FILE',
    help='npy lists of the clips that the vocabulary is made of, those of '
    'training; default: all',
  )
  add('--srl', help='roles by a tagger: .json, .jsonl, or columns of BIO tags')
  add('--parses', help='JSON: caption -> fine tags, or what --spacy writes')
  add('--spacy', metavar='MODEL', help='name or folder of a spaCy pipeline')
  add('--min_count', type=int, default=1, help='of words in the vocabulary')
  add('--min_class_count', type=int, default=1, help='of lemmas with a class')
  add('--verb_classes', metavar='FILE', help='JSON: lemma -> class; else new')
  add('--noun_classes', metavar='FILE', help='JSON: lemma -> class; else new')
  add('--epic', metavar='CSV', help='take classes from the official clip table')
  add('--glove', metavar='FILE', help='text file of word vectors')
  add('--overwrite', action='store_true', help='use nothing of earlier runs')
  add('--seed', type=int, default=0, help='of vectors that --glove lacks')
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  args = parse_arguments(argv)
  try:
    made = annotate_all(args, Console(stderr=True))
  except (ValueError, OSError) as error:
    print(f'annotate: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('stopped; the same command goes on from here', file=sys.stderr)
    return 130
  tell(made, args.out, Console(width=None if sys.stdout.isatty() else 100))
  return 0


def run() -> None:
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
