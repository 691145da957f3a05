# SPDX-License-Identifier: Apache-2.0
"""Writes tiny sets of clip features with captions as role graphs.

Everything that a config of RANP reads, in the form in which it is published.
Names and formats are written out here, not taken from the package, so that
both can be wrong only in different ways.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
import pickle
import struct

import h5py
import numpy as np

from vidret_jax.convert import torch_write

DATASETS = ('msrvtt', 'epic_kitchens', 'msvd', 'charades')
SPLITS = {'train': 'trn', 'val': 'val', 'test': 'tst'}
_ANNOTATION = {
  'msrvtt': 'msr-vttRET',
  'epic_kitchens': 'epic100RET',
  'msvd': 'msvdRET',
  'charades': 'charadesRET',
}
_SUFFIX = {
  'msrvtt': 'msr-vtt',
  'epic_kitchens': 'epic100',
  'msvd': 'msvd',
  'charades': 'charades',
}
_LISTS = {
  'msrvtt': 'public_split_msrvtt',
  'epic_kitchens': 'public_split_epic100',
  'msvd': 'public_split_msvd',
  'charades': 'public_split_charades',
}
_FEATURES = {
  'msrvtt': 'msrvttSA/{stream}/{split}_ft.hdf5',
  'epic_kitchens': 'epic100SA/{stream}/EPIC100_TBN_feats_SA_{split}.hdf5',
  'msvd': 'MSVD/{stream}/{split}_ft.hdf5',
  'charades': 'Charades/{stream}/{split}_ft.hdf5',
}
# Widths as published; `widths` of `write_root` makes them smaller.
STREAMS = {
  'msrvtt': {
    'resnet152.pth': 2048,
    'EAO_resnet152.pth': 2048,
    'EAO_resnext101.pth': 2048,
  },
  'epic_kitchens': {'TBN.pth': 3072},
  'msvd': {'ViT': 1280, 'Swin3D': 768},
  'charades': {'ViT': 1280, 'Swin3D': 768},
}
_CLASSES = {
  'msrvtt': 'msrvtt_train.json',
  'epic_kitchens': 'epic100_train.json',
  'msvd': 'msvd_train.json',
  'charades': 'charades_train.json',
}
_MATRICES = {
  'msrvtt': {
    'val': 'sorted_MSRVTT-Full_rel_mat_wordsets0.25_val.hdf5',
    'test': 'sorted_MSRVTT-Full_rel_mat_wordsets0.25.hdf5',
  },
  'epic_kitchens': {
    'val': 'validation_rel_mat_epic100_iciap.pkl',
    'test': 'epic100_rel_mat.pkl',
  },
  'msvd': {
    'val': 'msvd_val_relevance.pkl',
    'test': 'msvd_test_relevance.pkl',
  },
  # Both splits are published with the matrix of the test split.
  'charades': {'test': 'charades_test_relevance_SYN.pkl'},
}
NARRATIONS = 'EPIC_100_retrieval_test_sentence.csv'
GLOVE = 'word_embeds.glove42b.th'
WORD2VEC = 'GoogleNews-vectors-negative300.bin'
UNKNOWN = 'zzunknown'  # In captions, in no vocabulary and in no table.
# Words without a vector: some captions have no other ones.
UNHEARD = ('the', 'plate', UNKNOWN)
_WHO = ('man', 'woman', 'dog', 'chef')
_VERBS = ('cuts', 'washes', 'throws', 'opens')
_WHAT = ('onion', 'plate', 'ball', 'door', 'pan')
_WHERE = ('kitchen', 'sink', 'park')
_ARTICLE = 'the'


def clip_ids(dataset: str, count: int) -> list[str]:
  """Ids as they look in a dataset."""
  make = {
    'msrvtt': lambda i: f'video{i}.mp4',
    'epic_kitchens': lambda i: f'P0{1 + i % 3}_0{1 + i % 2}_{i}',
    'msvd': lambda i: f'-4wsuPCjDB{i}_{i}_{i + 9}',
    'charades': lambda i: f'{"ABC"[i % 3]}X{i}',
  }[dataset]
  return [make(i) for i in range(count)]


def caption(rng: np.random.Generator, kind: int):
  """(caption, its role graph, verb classes, noun classes)."""
  verb, what, who, where = (
    int(rng.integers(len(some))) for some in (_VERBS, _WHAT, _WHO, _WHERE)
  )
  if kind == 1:  # Without a predicate.
    words = [_ARTICLE, _WHAT[what], UNKNOWN]
    return ' '.join(words), _graph(words, [('NOUN', [0, 1])], []), [], [what]
  words = [_ARTICLE, _WHO[who], _VERBS[verb], _ARTICLE, _WHAT[what]]
  nodes = [('V', [2]), ('ARG0', [0, 1]), ('ARG1', [3, 4])]
  edges = [(0, 1), (0, 2)]
  nouns = [what, len(_WHAT) + who]
  if kind == 2:
    words += ['in', _ARTICLE, _WHERE[where]]
    nodes.append(('ARGM-LOC', [5, 6, 7]))
    edges.append((0, 3))
    nouns.append(len(_WHAT) + len(_WHO) + where)
  return ' '.join(words), _graph(words, nodes, edges), [verb], nouns


def _graph(words, nodes, edges):
  table = {
    'ROOT': {
      'role': 'ROOT', 'spans': list(range(len(words))), 'words': words
    }
  }  # fmt: skip
  for i, (role, spans) in enumerate(nodes):
    table[str(i + 1)] = {
      'role': role, 'spans': spans, 'words': [words[s] for s in spans]
    }  # fmt: skip
  return [
    table,
    [[str(a + 1), str(b + 1), nodes[b][0]] for a, b in edges],
  ]


def _iou(a, b) -> float:
  return len(a & b) / max(1, len(a | b))


def relevance(clips: Sequence, captions: Sequence) -> np.ndarray:
  """float64 [v, q] of (verbs, nouns) of clips and of captions."""
  out = np.zeros((len(clips), len(captions)))
  for i, (verbs, nouns) in enumerate(clips):
    for j, (v, n) in enumerate(captions):
      both = _iou(set(verbs), set(v)) + _iou(set(nouns), set(n))
      out[i, j] = 0.5 * both
  return out


def pooled(said: Sequence) -> tuple[list, list]:
  """Classes that a quarter of a clip's captions have."""
  out = []
  for part in (0, 1):
    every = [c for one in said for c in one[part]]
    keep = dict.fromkeys(c for c in every if every.count(c) >= len(said) / 4)
    out.append(list(keep))
  return out[0], out[1]


def write_word2vec(path: pathlib.Path, table: Mapping[str, np.ndarray]) -> None:
  """Writes the binary form of word2vec."""
  dim = len(next(iter(table.values())))
  with path.open('wb') as file:
    file.write(f'{len(table)} {dim}\n'.encode())
    for word, row in table.items():
      file.write(word.encode('utf-8') + b' ')
      file.write(struct.pack(f'<{dim}f', *row) + b'\n')


def write_root(
  dataset: str,
  root,
  *,
  clips: Mapping[str, int] | None = None,
  captions: int = 3,
  widths: Mapping[str, int] | int | None = None,
  word_dim: int = 300,
  seed: int = 0,
) -> pathlib.Path:
  """Writes what a config needs.

  Args:
    dataset: one of `DATASETS`.
    root: folder that gets `annotation`, `ordered_feature` and so on.
    clips: how many for 'train', 'val' and 'test'; 6, 3 and 4 by default.
    captions: per clip; every fourth clip has one fewer, the second clip has the
      first caption of the first one, too. EPIC-Kitchens has one.
    widths: of the streams: of all, or by name; as published by default.
    word_dim: of the vectors of words.
    seed: of everything.

  Returns:
    The root.
  """
  rng = np.random.default_rng(seed)
  root = pathlib.Path(root)
  home = root / 'annotation' / _ANNOTATION[dataset]
  home.mkdir(parents=True, exist_ok=True)
  sizes = {'train': 6, 'val': 3, 'test': 4} | dict(clips or {})
  ids = clip_ids(dataset, sum(sizes.values()))
  splits, start = {}, 0
  for split in SPLITS:
    splits[split] = ids[start : start + sizes[split]]
    start += sizes[split]
  captions = 1 if dataset == 'epic_kitchens' else captions
  told = {}
  for split in SPLITS:
    for i, clip in enumerate(splits[split]):
      number = max(captions - (i % 4 == 3), 1)
      kinds = [(i + k) % 4 for k in range(number)]
      told[clip] = [caption(rng, kind) for kind in kinds]
      if i == 1:
        told[clip][0] = told[splits[split][0]][0]
  _write_captions(dataset, home, told)
  _write_vocabulary(dataset, home, told)
  _write_classes(dataset, home, {c: told[c] for c in splits['train']})
  _write_matrices(dataset, home, splits, told)
  lists = [_LISTS[dataset]]
  if dataset == 'msrvtt':
    lists.append(_LISTS[dataset] + '_1kA')
    _write_1ka(home, splits['test'], told)
  for name in lists:
    (root / name).mkdir(exist_ok=True)
    for split, short in SPLITS.items():
      kind = object if dataset == 'charades' else np.str_
      names = np.asarray(splits[split], kind)
      np.save(root / name / f'{short}_names.npy', names)
  for stream, width in STREAMS[dataset].items():
    if isinstance(widths, int):
      width = widths
    elif widths:
      width = widths.get(stream, width)
    for split, short in SPLITS.items():
      name = _FEATURES[dataset].format(stream=stream, split=short)
      _write_features(
        root / 'ordered_feature' / name, splits[split], width, dataset, rng
      )
  words = np.load(home / f'int2word_{_SUFFIX[dataset]}.npy').tolist()
  rows = rng.normal(size=(len(words), word_dim)).astype(np.float32)
  torch_write.write(
    root / GLOVE, {'text_encoder': {'embedding.we.weight': rows}}
  )
  # Some words of no caption, and not all of the captions.
  table = {f'word{i}': rows[0] + i for i in range(3)}
  for row, word in zip(rows[3:], words[3:], strict=True):
    if word not in UNHEARD:
      table[word] = row
  write_word2vec(root / WORD2VEC, table)
  return root


def _write_captions(dataset, home, told) -> None:
  said = {clip: [one[0] for one in rows] for clip, rows in told.items()}
  graphs = {one[0]: one[1] for rows in told.values() for one in rows}
  if dataset == 'charades':
    said = {f'{c}_{k}': [t] for c, ts in said.items() for k, t in enumerate(ts)}
  (home / 'ref_captions.json').write_text(json.dumps(said))
  file = home / 'sent2rolegraph.augment.json'
  file.write_text(json.dumps(graphs))


def _write_vocabulary(dataset, home, told) -> None:
  words = {w for rows in told.values() for one in rows for w in one[0].split()}
  words = ['<BOS>', '<EOS>', '<UNK>', *sorted(words - {UNKNOWN})]
  suffix = _SUFFIX[dataset]
  np.save(home / f'int2word_{suffix}.npy', np.asarray(words))
  table = {word: i for i, word in enumerate(words)}
  (home / f'word2int_{suffix}.json').write_text(json.dumps(table))


def _write_classes(dataset, home, told) -> None:
  database = {}
  for i, (clip, rows) in enumerate(told.items()):
    for slot, (_, _, verbs, nouns) in enumerate(rows):
      key = f'{clip.removesuffix(".mp4")}_{slot}'
      if dataset == 'epic_kitchens':
        key, verbs = clip, (verbs or [0])[0]
        nouns = str(nouns) if i % 2 else nouns
      row = {'verb_class': verbs, 'noun_classes': nouns}
      database[key] = {'annotations': [row]}
  text = json.dumps({'database': dict(reversed(database.items()))})
  (home / _CLASSES[dataset]).write_text(text)


def _write_matrices(dataset, home, splits, told) -> None:
  for split, name in _MATRICES[dataset].items():
    rows = [told[clip] for clip in splits[split]]
    asked = [one for said in rows for one in said]
    if dataset == 'epic_kitchens' and split == 'test':
      # Distinct narrations, in an order of their own.
      asked = list({one[0]: one for one in reversed(asked)}.values())
      lines = [f'S{i},{one[0]}' for i, one in enumerate(asked)]
      text = '\n'.join(['narration_id,narration', *lines]) + '\n'
      (home / NARRATIONS).write_text(text)
    matrix = relevance(
      [pooled([one[2:] for one in said]) for said in rows],
      [one[2:] for one in asked],
    )
    if name.endswith('.hdf5'):
      with h5py.File(home / name, 'w') as file:
        file['rel_mat'] = matrix
    else:
      (home / name).write_bytes(pickle.dumps(matrix, protocol=4))


def _write_1ka(home, test, told) -> None:
  said = {clip: [one[0] for one in told[clip]] for clip in test}
  file = home / 'ref_captions_msrvtt_val_1kA.json'
  file.write_text(json.dumps(said))
  # Some clips are evaluated with another caption than their first.
  wrong = {c.removesuffix('.mp4'): said[c][-1] for c in test[::2]}
  (home / 'caps_msrvtt_1kA_wrong.json').write_text(json.dumps(wrong))


def _write_features(path, ids, width, dataset, rng) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, 'w') as file:
    for clip in ids:
      length = 25 if dataset == 'epic_kitchens' else int(rng.integers(3, 40))
      value = rng.normal(size=(length, width)).astype(np.float32)
      if dataset == 'msvd' and len(STREAMS[dataset]) == 1:
        value = value[None]
      file[clip.replace('/', '_')] = value
