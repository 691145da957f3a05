# SPDX-License-Identifier: Apache-2.0
"""Finds copies in a folder of videos: groups of them, or those of a clip.

  python -m vidret_jax.tools.copies index --run runs/hap_vr \\
      --videos films --out index
  python -m vidret_jax.tools.copies index --config configs/hap_vr_fivr5k.py \\
      --weights model.pth --resnet resnet50.pth --pca pca.pth ...
  python -m vidret_jax.tools.copies groups --index index --html groups.html
  python -m vidret_jax.tools.copies query --index index clip.mp4

`index` looks at every video once, a frame a second. What it has done is on disk
at once: a run that was stopped goes on where it ended, and one that was
finished adds what is new. Videos that cannot be read are listed and left out.

A score is between -1 and 1, or what the network gives. `groups` joins videos
whose score reaches --threshold, also by way of others; `query` lists videos of
the index by how well the clip is found in them. Both write JSON, {query:
{video: score}}, and a page on which the videos play. What is no longer in the
folder, or has changed since it was looked at, is left out.
"""

import os
import pathlib
import sys
import time

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vidret_jax.data import folder as folder_lib
from vidret_jax.evaluators.report import markup, static_page
from vidret_jax.tools import (
  copies_args,
  copies_fill,
  copies_finder,
  copies_index,
  copies_json,
  copies_page,
  copy_groups,
)
from vidret_jax.tools import index as index_tool
from vidret_jax.train import ckpt

_STEPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PLAIN = dict(markup=False, highlight=False, soft_wrap=True)


def main(argv=None):
  """Returns the exit status."""
  argv = sys.argv[1:] if argv is None else list(argv)
  overrides = [a.removeprefix('--config.') for a in argv if _changes(a)]
  parser = copies_args.parser(__doc__)
  args = parser.parse_args([a for a in argv if not _changes(a)])
  if args.task == 'index' and bool(args.run) == bool(
    args.config and args.weights
  ):
    parser.error('give --run, or both --config and --weights')
  # What programs read is not to be mixed with what people do.
  piped = args.task != 'index' and args.json in copies_args.STDOUT
  stream = sys.stderr if piped else sys.stdout
  out = Console(file=stream, width=None if stream.isatty() else 100)
  try:
    if args.task == 'index':
      return _index(args, overrides, out)
    copies_args.check_outputs(args)
    return dict(groups=_groups, query=_query)[args.task](args, overrides, out)
  except KeyboardInterrupt:
    print('copies: stopped', file=sys.stderr)
    return 130
  except (ValueError, OSError, ckpt.CheckpointError) as error:
    print(f'copies: {error}', file=sys.stderr)
    return 1


# ---------------------------------------------------------------------- index


def _index(args, overrides, out):
  names = folder_lib.find(args.videos)  # Before minutes of loading.
  if not names:
    raise ValueError(f'there is no video below {args.videos}')
  path = args.config or os.path.join(args.run, 'config.json')
  frames = dict(fps=args.fps, resize=args.resize, crop=args.crop)
  trained = copies_finder.read(
    path,
    overrides,
    args.run or args.weights,
    args.select,
    parts=dict(resnet=args.resnet, pca=args.pca),
    frames=frames,
  )
  index = copies_fill.open_index(args.out, trained, args.videos, args.dtype)
  try:
    before, began = copies_index.contents(index), time.monotonic()
    status, unreadable, added = copies_fill.fill(
      index,
      trained,
      args.videos,
      names,
      batch_size=args.batch_size,
      threads=args.threads,
      console=Console(stderr=True),
    )
    seconds = time.monotonic() - began
    each = f', {seconds / len(added):.2f} s each' if added else ''
    out.print(
      f'{_videos(len(added))} added{each}; '
      f'{len(copies_index.contents(index)):,} in the index, '
      f'{copies_page.size(copies_fill.folder_bytes(index))} in {args.out}',
      **_PLAIN,
    )
    index_tool.tell_unreadable(unreadable, out)
    again = sum(name in before for name in added)
    if again:
      out.print(f'{_videos(again)} had changed, looked at again', **_PLAIN)
    absent = _absent(copies_index.present(index, args.videos))
    if absent:
      out.print(absent, **_PLAIN)
    if not len(index) and not status:
      print('copies: no video could be read', file=sys.stderr)
      status = 1
  finally:
    index.close()
  if status == 130:
    out.print('stopped; the same command goes on from here', **_PLAIN)
  return status


def _absent(present, kept=False):
  """Which videos of the index are not searched, in words."""
  out = []
  if present.gone:
    out.append(
      f'{_videos(len(present.gone))} of the index no longer in the folder, '
      + ('searched all the same' if kept else 'left out of answers')
    )
  if present.changed:
    out.append(
      f'{_videos(len(present.changed))} changed since, left out until '
      'tools.copies index has looked again'
    )
  if present.links:
    out.append(f'{_videos(len(present.links))} by further names, left out')
  return '; '.join(out)


def _videos(count):
  return copies_page.many(count, 'video', 'videos')


# --------------------------------------------------------------------- groups


def _groups(args, overrides, out):
  finder, absent = _open(args, overrides, out)
  began = time.monotonic()
  videos, scores, visited = finder.all_pairs(args.shortlist, args.work_folder)
  found = copy_groups.pairs(scores, visited, args.both)
  groups = copy_groups.groups(found, args.threshold, finder.worth(videos))
  seconds = time.monotonic() - began
  inside = sum(map(len, groups))
  compared = len(found.first)
  facts = [
    ('videos', f'{len(videos):,}'),
    ('groups', f'{len(groups):,}'),
    ('videos in groups', f'{inside:,}'),
    ('threshold', f'{args.threshold:g}'),
    ('pairs compared', f'{compared:,}'),
    ('score of a pair', f'{args.both} of both directions'),
    ('scores', _range(found.score)),
    ('seconds', f'{seconds:.1f}'),
  ]
  table = Table(box=box.SIMPLE)
  for name in ('threshold', 'pairs', 'groups', 'videos in them'):
    table.add_column(name, justify='right')
  steps = sorted({*_STEPS, args.threshold})
  for step, *counts in copy_groups.table(found, len(videos), steps):
    mark = ' <' if step == args.threshold else ''
    table.add_row(f'{step:g}{mark}', *(f'{x:,}' for x in counts))
  out.print('  '.join(f'{k} {v}' for k, v in facts), **_PLAIN)
  out.print(table)
  for number, group in enumerate(groups[:20], 1):
    first = _name(videos.ids[group[0].number])
    out.print(f'{number:>4}  {first}', **_PLAIN)
    for m in group[1:]:
      name = _name(videos.ids[m.number])
      out.print(f'      {m.score:.3f}  {name}', **_PLAIN)
  if len(groups) > 20:
    out.print(f'      and {len(groups) - 20:,} further groups', **_PLAIN)
  if args.json:
    content = dict(
      threshold=args.threshold,
      both=args.both,
      groups=[
        [copies_json.member(m, videos.ids) for m in group] for group in groups
      ],
      scores=copies_json.by_query(videos.ids, scores, visited),
    )
    _write_json(args.json, content, out)
  if args.html:
    page = pathlib.Path(args.html)
    shown = _shown(args, page, finder, videos)
    notes = [_meaning(args.threshold, args.both), absent]
    if visited is not None:
      notes.append(
        f'Each video was compared with the {args.shortlist:,} that the coarse '
        'score puts first; --shortlist 0 compares all.'
      )
    copies_page.groups(
      page, groups, videos.ids, shown, facts=facts, notes=notes
    )
    out.print(f'page: {page}', **_PLAIN)
  return 0


def _range(scores):
  if not len(scores):
    return 'none'
  low, middle, high = np.percentile(scores, (0, 50, 100))
  return f'{low:.2f} to {high:.2f}, half of them below {middle:.2f}'


def _meaning(threshold, both):
  way = 'The score of a pair is the mean of both directions'
  if both == 'max':
    way = 'The score of a pair is the larger one of both directions'
  return (
    f'{way}; videos are joined from {threshold:g} on, also by way of others. 1 '
    'is a copy for the network, -1 nothing in common; look at a few groups '
    'before you trust a threshold.'
  )


# ---------------------------------------------------------------------- query


def _query(args, overrides, out):
  missing = [clip for clip in args.files if not os.path.isfile(clip)]
  if missing:
    raise FileNotFoundError(f'{missing[0]}: no such file')
  finder, absent = _open(args, overrides, out)
  began = time.monotonic()
  answers, unreadable = finder.ask(args.files, args.top, args.shortlist)
  seconds = time.monotonic() - began
  for query, matches in answers:
    out.print(_name(query), **_PLAIN)
    table = Table(box=box.SIMPLE)
    table.add_column('rank', justify='right')
    table.add_column('video', overflow='fold')
    table.add_column('score', justify='right')
    table.add_column('')
    for rank, (name, score) in enumerate(matches, 1):
      copy = 'copy' if score >= args.threshold else ''
      table.add_row(str(rank), Text(_name(name)), f'{score:.3f}', copy)
    out.print(table)
    if not matches:
      out.print('the index holds no other video', **_PLAIN)
  index_tool.tell_unreadable(unreadable, out)
  if args.json:
    _write_json(args.json, {q: dict(found) for q, found in answers}, out)
  if args.html and answers:
    page = pathlib.Path(args.html)
    videos = finder.videos()
    facts = [
      ('videos', f'{len(videos):,}'),
      ('clips', f'{len(answers):,}'),
      ('threshold', f'{args.threshold:g}'),
      ('seconds', f'{seconds:.1f}'),
    ]
    shown = _shown(args, page, finder, videos)
    notes = [
      'The score says how well the clip is found in a video: 1 is a copy for '
      f'the network, -1 nothing in common. From {args.threshold:g} on a video '
      'is called a copy.',
      absent,
    ]
    copies_page.answers(
      page,
      answers,
      shown,
      threshold=args.threshold,
      facts=facts,
      notes=notes,
    )
    out.print(f'page: {page}', **_PLAIN)
  return 0 if answers else 1


# --------------------------------------------------------------------- shared


def _open(args, overrides, out):
  """(index with its network, what a reader must know of absent videos)."""
  finder = copies_finder.Finder(
    args.index,
    weights=args.weights,
    select=args.select,
    videos=args.videos,
    parts=dict(resnet=args.resnet, pca=args.pca),
    overrides=overrides,
    gone=args.gone,
  )
  absent = _absent(finder.present, args.gone)
  if not os.path.isdir(finder.folder or ''):
    absent = (
      f'the folder of the videos, {_name(finder.folder)}, is not there: all of '
      'the index is searched, and no clip is shown; say with --videos where it '
      'is'
    )
  if absent:
    out.print(absent, **_PLAIN)
  return finder, absent


def _shown(args, page, finder, videos):
  lengths = dict(zip(videos.ids, videos.lengths.tolist()))
  return copies_page.Shown(
    page,
    args.clips,
    lambda name: folder_lib.path(finder.folder, name),
    lambda name: finder.seconds(name, lengths[name]),
  )


def _write_json(path, content, out):
  if path in copies_args.STDOUT:
    print(static_page.as_json(content))
    return
  static_page.write_json(pathlib.Path(path), content)
  out.print(f'scores: {path}', **_PLAIN)


def _name(text):
  """A name on one line of a terminal."""
  return markup.clean(text).replace('\n', '\ufffd')


def _changes(argument):
  return argument.startswith('--config.')


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
