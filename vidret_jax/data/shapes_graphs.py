# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus as role graphs over clip features.

Captions, graphs and classes are those of its annotations, features what was
measured on the clips (docs/shapes.md), cut into snippets of time. In the
corpus folder lies, besides:

  word2int.json  words of the training captions -> ids, as upstream has it
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib

import numpy as np

from vidret_jax.data import source as source_lib
from vidret_jax.data import words as words_lib
from vidret_jax.data.graphs import classes as classes_lib
from vidret_jax.data.graphs import records, relevance, texts, views
from vidret_jax.data.shapes import annotations, concepts, corpus, snippets

SPLITS = ('train', 'val', 'test')
CLASSES = ('corpus', 'concepts')
# As in upstream's vocabularies; no caption has such words.
_RESERVED = ('<begin>', '<end>', '<unknown>')
_VOCABULARY = 'word2int.json'


def make(
  *,
  view: str,
  split: str,
  streams: Sequence[str] = snippets.STREAMS,
  max_frames: int = snippets.STEPS,
  max_words: int = 30,
  num_verbs: int = 4,
  num_nouns: int = 6,
  graphs: bool = True,
  words: str = 'ids',
  classes: str = 'corpus',
  pooled_share: float = 0.25,
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
) -> source_lib.Source:
  """Opens a view of a split; makes the corpus first if it is absent.

  Args:
    view: 'pairs', 'items' or 'queries'; see `graphs.views`.
    split: 'train', 'val' or 'test'.
    streams: experts laid side by side; see `shapes.snippets`.
    max_frames: snippets of a clip; there are twelve.
    max_words: words of a caption at most.
    num_verbs: verb phrases of a caption at most.
    num_nouns: its other phrases at most.
    graphs: whether batches hold role graphs.
    words: 'ids' of the training captions' vocabulary, or 'vectors', those of
      `data.words`, which any word has.
    classes: of captions, and so of relevance: 'corpus', its thirteen verbs and
      twelve nouns, or 'concepts', which tell more apart; see `shapes.concepts`.
    pooled_share: classes of a clip are those in this share of its captions;
      see `graphs.classes.pooled`.
    root: data folder; VIDRET_DATA_DIR or `data` by default.
    seed: of the corpus; see `shapes.corpus.prepare`, also for the next three.
    counts: videos per split.
    num_workers: processes that make clips.
    progress: shows a bar while they do.

  Raises:
    ValueError: an unknown option, or a corpus of another recipe.
  """
  if view not in views.VIEWS:
    raise ValueError(f'Unknown view {view!r}; choose from {views.VIEWS}.')
  if split not in SPLITS:
    raise ValueError(
      f'shapes_graphs has no split {split!r}; choose from {list(SPLITS)}.'
    )
  if words not in texts.WORDS:
    raise ValueError(f'Unknown words={words!r}; choose from {texts.WORDS}.')
  if classes not in CLASSES:
    raise ValueError(f'Unknown classes={classes!r}; choose from {CLASSES}.')
  snippets.check(streams)
  folder = corpus.prepare(
    root, seed=seed, counts=counts, num_workers=num_workers, progress=progress
  )
  rows = annotations.read(folder)
  table = _table(folder, rows, split, classes)
  sizes = {} if words == 'vectors' else {'num_words': table.num_words}
  if view == 'items':
    clips = snippets.Clips(folder, table.ids, streams, max_frames)
    videos = str(folder / 'videos')
    return views.Items(table, clips, videos=videos, sizes=sizes)
  where = f'{folder} [{split}]'
  captions = texts.Texts(
    table,
    max_words=max_words,
    num_verbs=num_verbs,
    num_nouns=num_nouns,
    graphs=graphs,
    vectors=_vectors(table.texts) if words == 'vectors' else None,
    where=where,
  )
  if view == 'queries':
    graded = _relevance(table, pooled_share)
    return views.Queries(table, captions, graded, where=where)
  clips = snippets.Clips(folder, table.ids, streams, max_frames)
  return views.Pairs(table, clips, captions, pooled_share=pooled_share)


def prepare(
  *,
  split: str,
  root: str | os.PathLike | None = None,
  seed: int | None = None,
  counts: Mapping[str, int] | None = None,
  num_workers: int | None = None,
  progress: bool = True,
  overwrite: bool = False,
  keep: Sequence[str | os.PathLike] = (),
  **others,
) -> pathlib.Path:
  """Makes the corpus and its vocabulary, unless they are there.

  Args:
    split: see `make`, as are root to progress.
    root: see `make`.
    seed: see `make`.
    counts: see `make`.
    num_workers: see `make`.
    progress: see `make`.
    overwrite: makes the corpus and all that lies in it anew.
    keep: corpus folders that `overwrite` spares: those just made.
    **others: further options of `make`, of which nothing is stored.

  Returns:
    The corpus folder.
  """
  film = {'seed': seed, 'counts': counts, 'num_workers': num_workers}
  film |= {'root': root, 'progress': progress}
  if overwrite:
    corpus.prepare(overwrite=True, keep=keep, **film)
  make(view='queries', split=split, **film, **others)
  return corpus.corpus_dir(root)


def _table(folder, rows, split, kind) -> records.Table:
  """Clips and captions of a split."""
  captions, graphs, classes = {}, {}, []
  for row in rows:
    if row['split'] != split:
      continue
    told = row['captions']
    captions[row['id']] = [c['text'] for c in told]
    classes.append([_classes(c, kind) for c in told])
    for caption in told:
      # Equal captions say the same of the same words.
      graphs.setdefault(caption['text'], caption['graph'])
  vocabulary = _learnt(folder, rows)
  return records.table(
    captions,
    graphs=graphs,
    classes=classes,
    vocabulary=vocabulary,
    num_words=len(vocabulary),
  )


def _classes(caption, kind: str) -> tuple[Sequence[int], Sequence[int]]:
  """Verb and noun classes of a caption."""
  if kind == 'concepts':
    return concepts.verbs(caption), concepts.nouns(caption)
  return caption['verb_classes'], caption['noun_classes']


def _learnt(folder: pathlib.Path, rows) -> dict[str, int]:
  """Ids of the words of the training captions: the reserved ones, then by
  alphabet."""
  path = folder / _VOCABULARY
  if not path.is_file():
    said = {
      word
      for row in rows
      if row['split'] == 'train'
      for caption in row['captions']
      for word in caption['text'].split()
    }
    found = {word: i for i, word in enumerate((*_RESERVED, *sorted(said)))}
    # Several processes may make it: they write equal files.
    part = path.with_suffix(f'.{os.getpid()}.part')
    part.write_text(json.dumps(found, indent=0), encoding='utf-8')
    os.replace(part, path)
  return json.loads(path.read_text(encoding='utf-8'))


def _vectors(said: Sequence[str]) -> tuple[dict[str, int], np.ndarray]:
  """Hashed vectors of all words of some captions: (word -> row, [n, d])."""
  found = sorted({word for text in said for word in text.split()})
  rows = {word: i for i, word in enumerate(found)}
  return rows, words_lib.embed_tokens(found)


def _relevance(table: records.Table, share: float) -> np.ndarray:
  """float32 [q, v]: classes of captions against the pooled ones of clips."""
  parts = []
  for part in range(2):
    said = [[one[part] for one in clip] for clip in table.classes]
    parts.append(
      (
        [classes_lib.pooled(clip, share) for clip in said],
        [one for clip in said for one in clip],
      )
    )
  (clip_verbs, verbs), (clip_nouns, nouns) = parts
  found = relevance.matrix(clip_verbs, clip_nouns, verbs, nouns)
  return np.ascontiguousarray(found.T, np.float32)
