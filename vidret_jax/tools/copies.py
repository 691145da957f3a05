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
{video: score}}, and a page on which the videos play.
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
  copies_finder,
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
  out = Console(width=None if sys.stdout.isatty() else 100)
  try:
    if args.task == 'index':
      return _index(args, overrides, out)
    return dict(groups=_groups, query=_query)[args.task](args, overrides, out)
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
  index = copies_finder.open_index(args.out, trained, args.videos, args.dtype)
  try:
    before, began = len(index), time.monotonic()
    status, unreadable, added = copies_finder.fill(
      index,
      trained,
      args.videos,
      names,
      batch_size=args.batch_size,
      threads=args.threads,
      console=Console(stderr=True),
    )
    seconds = time.monotonic() - began
    known = copies_finder.names_of(index)
    each = f', {seconds / added:.2f} s each' if added else ''
    out.print(
      f'{copies_page.many(added, "video", "videos")} added{each}; '
      f'{len(known):,} in the index, '
      f'{copies_page.size(copies_finder.folder_bytes(index))} in {args.out}',
      **_PLAIN,
    )
    index_tool.tell_unreadable(unreadable, out)
    gone = len(known - set(names))
    if gone:
      out.print(f'{gone:,} of the index are no longer there', **_PLAIN)
    if len(index) == before == 0 and not status:
      print('copies: no video could be read', file=sys.stderr)
      status = 1
  finally:
    index.close()
  if status == 130:
    out.print('stopped; the same command goes on from here', **_PLAIN)
  return status


# --------------------------------------------------------------------- groups


def _groups(args, overrides, out):
  finder = _open(args, overrides)
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
    first = markup.clean(videos.ids[group[0].number])
    out.print(f'{number:>4}  {first}', **_PLAIN)
    for m in group[1:]:
      name = markup.clean(videos.ids[m.number])
      out.print(f'      {m.score:.3f}  {name}', **_PLAIN)
  if len(groups) > 20:
    out.print(f'      and {len(groups) - 20:,} further groups', **_PLAIN)
  if args.json:
    content = dict(
      threshold=args.threshold,
      both=args.both,
      groups=[[_member(m, videos.ids) for m in group] for group in groups],
      scores=_by_query(videos.ids, scores, visited),
    )
    _write_json(args.json, content, out)
  if args.html:
    page = pathlib.Path(args.html)
    shown = _shown(args, page, finder, videos)
    notes = [_meaning(args.threshold, args.both)]
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


def _member(m, names):
  return dict(
    video=names[m.number],
    score=m.score,
    as_query=m.back,
    as_target=m.forth,
    through=None if m.through is None else names[m.through],
  )


def _by_query(names, scores, visited):
  """{query: {video: score}} of what was compared, without a video itself."""
  there = ~np.isnan(scores)
  if visited is not None:
    there &= visited
  np.fill_diagonal(there, False)
  out = {}
  for query, row in enumerate(there):
    order = np.flatnonzero(row)
    order = order[np.argsort(-scores[query, order], kind='stable')]
    out[names[query]] = {names[i]: float(scores[query, i]) for i in order}
  return out


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
  if args.top < 1:
    raise ValueError('--top must be at least 1')
  missing = [clip for clip in args.files if not os.path.isfile(clip)]
  if missing:
    raise FileNotFoundError(f'{missing[0]}: no such file')
  finder = _open(args, overrides)
  began = time.monotonic()
  answers, unreadable = finder.ask(args.files, args.top, args.shortlist)
  seconds = time.monotonic() - began
  for query, matches in answers:
    out.print(markup.clean(query), **_PLAIN)
    table = Table(box=box.SIMPLE)
    table.add_column('rank', justify='right')
    table.add_column('video', overflow='fold')
    table.add_column('score', justify='right')
    table.add_column('')
    for rank, (name, score) in enumerate(matches, 1):
      copy = 'copy' if score >= args.threshold else ''
      table.add_row(str(rank), Text(markup.clean(name)), f'{score:.3f}', copy)
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
      'is called a copy.'
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


def _open(args, overrides):
  return copies_finder.Finder(
    args.index,
    weights=args.weights,
    select=args.select,
    videos=args.videos,
    parts=dict(resnet=args.resnet, pca=args.pca),
    overrides=overrides,
  )


def _shown(args, page, finder, videos):
  lengths = dict(zip(videos.ids, videos.lengths.tolist()))
  return copies_page.Shown(
    page,
    args.clips,
    lambda name: folder_lib.path(finder.folder, name),
    lambda name: lengths[name] / finder.trained.frames.fps,
  )


def _write_json(path, content, out):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  static_page.write_json(path, content)
  out.print(f'scores: {path}', **_PLAIN)


def _changes(argument):
  return argument.startswith('--config.')


def run():
  """Entry point."""
  sys.exit(main())


if __name__ == '__main__':
  run()
