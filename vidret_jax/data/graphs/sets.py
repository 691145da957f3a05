# SPDX-License-Identifier: Apache-2.0
"""The ways into clips with role graphs: `prepare` writes, `make` opens.

A dataset module binds both to its layouts, one per protocol.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib

from vidret_jax.data import row_store
from vidret_jax.data import source as source_lib
from vidret_jax.data.graphs import contents, records, store, texts, views
from vidret_jax.data.graphs import layout as layout_lib
from vidret_jax.data.graphs import word_vectors as vectors_lib
from vidret_jax.data.shapes import corpus

WORD_VECTORS = 'GoogleNews-vectors-negative300.bin'


def request(
  layouts: Mapping[str, layout_lib.Layout],
  split: str,
  *,
  protocol: str = 'full',
  streams: Sequence[str] | None = None,
  max_frames: int = 20,
  precision: str = 'float32',
  root: str | os.PathLike | None = None,
  paths: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> tuple[layout_lib.Layout, records.Request]:
  """Turns the data part of a config into a request; see `make`.

  Raises:
    ValueError: an unknown protocol or split, or a bad number.
  """
  if protocol not in layouts:
    name = next(iter(layouts.values())).name
    raise ValueError(
      f'{name}: unknown protocol={protocol!r}; known: {list(layouts)}.'
    )
  layout = layouts[protocol]
  if split not in layout_lib.SPLITS:
    raise ValueError(
      f'{layout.name}: unknown split={split!r}; known: '
      f'{list(layout_lib.SPLITS)}.'
    )
  given = [(str(k), str(v)) for k, v in dict(paths or ()).items()]
  given += [('root', str(root))] if root else []
  given += [('protocol', protocol)] if protocol != 'full' else []
  return layout, records.Request(
    dataset=layout.name,
    split=split,
    streams=tuple(streams or layout.streams),
    max_frames=max_frames,
    precision=precision,
    files=tuple(sorted(given)),
  )


def make(
  layouts: Mapping[str, layout_lib.Layout],
  *,
  view: str,
  split: str,
  protocol: str = 'full',
  streams: Sequence[str] | None = None,
  max_frames: int = 20,
  max_words: int = 30,
  num_verbs: int = 4,
  num_nouns: int = 6,
  graphs: bool = True,
  words: str = 'ids',
  word_vectors: str | os.PathLike = WORD_VECTORS,
  pooled_share: float = 0.25,
  precision: str = 'float32',
  cache: str | None = 'ram',
  root: str | os.PathLike | None = None,
  paths: Mapping[str, str] | Iterable[tuple[str, str]] = (),
  videos: str | None = None,
) -> source_lib.Source:
  """Opens a view of prepared records.

  Args:
    layouts: protocol -> where the published files are.
    view: 'pairs', 'items' or 'queries'.
    split: 'train', 'val' or 'test'.
    protocol: key of `layouts`.
    streams: folders of features, laid side by side in this order.
    max_frames: rows of a clip at most.
    max_words: words of a caption at most.
    num_verbs: verb phrases at most.
    num_nouns: other phrases at most.
    graphs: whether batches have role graphs.
    words: 'ids' of the vocabulary, or 'vectors' from a table of word2vec.
    word_vectors: that table, relative to the root folder.
    pooled_share: see `classes.pooled`.
    precision: of the features in the records, 'float32' or 'float16'.
    cache: see `store.open_clips`.
    root: folder of the published files; `<data folder>/RANP` by default, the
      data folder being VIDRET_DATA_DIR or `data`.
    paths: key -> file, relative to it, where it is not the usual one; see
      `layout.Layout.files`.
    videos: folder of clips that the reports play.

  Returns:
    A source, see `vidret_jax.data.source` and `views`.

  Raises:
    ValueError: an unknown option.
    MissingRecords: nothing was prepared for this config.
  """
  for name, value, known in (
    ('view', view, views.VIEWS),
    ('words', words, texts.WORDS),
    ('cache', cache, store.CACHES),
  ):
    if value not in known:
      raise ValueError(f'Unknown {name}={value!r}; choose from {known}.')
  layout, asked = request(
    layouts, split, protocol=protocol, streams=streams, max_frames=max_frames,
    precision=precision, root=root, paths=paths,
  )  # fmt: skip
  if graphs and not layout.graphs:
    raise ValueError(
      f'{layout.name}: protocol {protocol!r} has no role graphs; set '
      'graphs=False.'
    )
  opened = row_store.shared(
    asked.folder,
    lambda: records.open_records(asked, _root(root), layout.source),
  )
  where = str(opened.folder)
  said = None
  if view != 'items':
    vectors = None
    if words == 'vectors':
      vectors = vectors_lib.load(opened.folder, word_vectors)
    said = texts.Texts(
      opened.table, max_words=max_words, num_verbs=num_verbs,
      num_nouns=num_nouns, graphs=graphs, vectors=vectors, where=where,
    )  # fmt: skip
  if view == 'queries':
    return views.Queries(opened.table, said, opened.relevance, where=where)
  clips = row_store.shared(
    (asked.folder, cache), lambda: store.open_clips(opened, cache)
  )
  if view == 'items':
    sizes = {} if words == 'vectors' else {'num_words': opened.table.num_words}
    return views.Items(opened.table, clips, videos=videos, sizes=sizes)
  return views.Pairs(opened.table, clips, said, pooled_share=pooled_share)


def _root(root) -> pathlib.Path:
  if root:
    return pathlib.Path(root)
  return corpus.data_root() / layout_lib.FOLDER


def prepare(
  layouts: Mapping[str, layout_lib.Layout],
  *,
  split: str,
  protocol: str = 'full',
  streams: Sequence[str] | None = None,
  max_frames: int = 20,
  graphs: bool = True,
  words: str = 'ids',
  word_vectors: str | os.PathLike = WORD_VECTORS,
  precision: str = 'float32',
  root: str | os.PathLike | None = None,
  paths: Mapping[str, str] | Iterable[tuple[str, str]] = (),
  manual_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  keep: Sequence[pathlib.Path] = (),
  progress: bool = True,
) -> pathlib.Path:
  """Checks the published files of a split and writes records of them.

  What it costs: see `builder.write`, and `word_vectors.read` for
  words='vectors'.

  Args:
    layouts: see `make`, as are split to paths.
    split: see `make`.
    protocol: see `make`.
    streams: see `make`.
    max_frames: see `make`.
    graphs: role graphs are required; otherwise they are taken along if their
      file is there and complete.
    words: see `make`.
    word_vectors: see `make`.
    precision: see `make`.
    root: see `make`.
    paths: see `make`.
    manual_dir: replaces `root` as the folder that is read.
    overwrite: makes records anew.
    keep: folders that `overwrite` must leave.
    progress: shows a bar on standard error.

  Returns:
    The folder of the records.

  Raises:
    ValueError, FileNotFoundError: whatever is wrong, before anything is
      written.
  """
  if words not in texts.WORDS:
    raise ValueError(f'Unknown words={words!r}; choose from {texts.WORDS}.')
  layout, asked = request(
    layouts, split, protocol=protocol, streams=streams, max_frames=max_frames,
    precision=precision, root=root, paths=paths,
  )  # fmt: skip
  home = pathlib.Path(manual_dir) if manual_dir else _root(root)
  taken = []

  def open_files():
    found = contents.read(layout, asked, home, paths, graphs, progress)
    if words == 'vectors':
      taken.append(vectors_lib.take(home / word_vectors, found.table.texts))
    return found

  from vidret_jax.data.graphs import builder

  folder = builder.write(asked, open_files, overwrite=overwrite, keep=keep)
  if words == 'vectors' and not vectors_lib.there(folder, word_vectors):
    said = records.read_table(folder).texts
    taken = taken or [vectors_lib.take(home / word_vectors, said)]
    vectors_lib.save(folder, word_vectors, *taken[0])
  return folder
