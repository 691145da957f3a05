"""Writes tiny feature packs in the form in which they are published.

Paths and formats are written out here, not taken from the package, so that
both can be wrong only in different ways.
"""

from collections.abc import Mapping, Sequence
import contextlib
import math
import pathlib
import pickle
import sys
import types

import numpy as np

FOLDERS = {
  'msrvtt': 'MSRVTT',
  'lsmdc': 'LSMDC',
  'msvd': 'MSVD',
  'didemo': 'DiDeMo',
  'activitynet': 'activity-net',
}
_FRAMES = 'aggregated_imagenet_25fps_256px_stride1_offset0/'
_R2P1D = 'aggregated_r2p1d_30fps_256px_stride32_offset0_inner_stride1/'
_VISUAL = {
  'imagenet.senet154.0': _FRAMES + 'senet154-avg.pickle',
  'imagenet.resnext101_32x48d.0': _FRAMES + 'resnext101_32x48d-avg.pickle',
  'scene.densenet161.0': (
    'aggregated_scene_25fps_256px_stride1_offset0/densenet161-avg.pickle'
  ),
  'i3d.i3d.0': (
    'aggregated_i3d_25fps_256px_stride25_offset0_inner_stride1/i3d-avg.pickle'
  ),
  'r2p1d.r2p1d-ig65m.0': _R2P1D + 'r2p1d-ig65m-avg.pickle',
  'r2p1d.r2p1d-ig65m-kinetics.0': _R2P1D + 'r2p1d-ig65m-kinetics-avg.pickle',
}
_FACE = 'aggregated_facefeats_25fps_256px_stride1/face-avg.pickle'
_FILES = {
  'msrvtt': {
    'audio': 'aggregated_audio_feats/Audio_MSRVTT_new.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-raw.pickle',
    'speech': 'aggregated_speech/speech-w2v.pickle',
    'face': 'aggregated_face_feats/facefeats-avg.pickle',
  },
  'miech': {
    'antoine-rgb': 'antoine/resnet_features.pickle',
    'audio': 'antoine/audio_features.pickle',
    'flow': 'antoine/flow_features.pickle',
    'face': 'antoine/facefeats-clone.pickle',
  },
  'lsmdc': {
    'audio': 'aggregated_audio/vggish-raw.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-w2v.pkl',
    'speech': 'aggregated_speech/speech-w2v.pickle',
    'face': 'antoine/face-max-with-blank-val.pickle',
  },
  'msvd': {
    'ocr': 'aggregated_ocr_feats/ocr-w2v.pickle',
    'face': 'aggregated_face_feats/face-avg.pickle',
    'r2p1d.r2p1d-ig65m-kinetics.0': (
      'aggregated_r2p1d_30fps_256px_stride8_offset0_inner_stride1/'
      'r2p1d-ig65m-kinetics-avg.pickle'
    ),
  },
  'didemo': {
    'audio': 'aggregated_audio_feats/vggish-audio-raw.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-feats.pkl',
    'speech': 'aggregated_speech_feats/stt_w2v.pickle',
    'face': _FACE,
  },
  'activitynet': {
    'audio': 'aggregated_audio/vggish-audio-raw.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-w2v.pkl',
    'speech': 'aggregated_speech/goog_w2v-speech-raw.pickle',
    'face': _FACE,
  },
}
_LISTS = {
  'full': {
    'train': 'train_list_full.txt',
    'val': 'val_list_full.txt',
    'test': 'test_list_full.txt',
  },
  'jsfusion': {
    'train': 'train_list_jsfusion.txt',
    'test': 'val_list_jsfusion.txt',
  },
  'miech': {'train': 'train_list_miech.txt', 'test': 'test_list_miech.txt'},
  'lsmdc': {s: f'{s}_list.txt' for s in ('train', 'val', 'test')},
  'msvd': {s: f'{s}_list.txt' for s in ('train', 'val', 'test')},
  'didemo': {s: f'{s}_list.txt' for s in ('train', 'val', 'test')},
  'activitynet': {'train': 'train_list.txt', 'val1': 'val_1_list.txt'},
}
_OPENAI = {
  'msrvtt': 'w2v_MSRVTT_openAIGPT.pickle',
  'lsmdc': 'openai-text.pickle',
  'didemo': 'openai-feats.pkl',
}
_FLAKY = ('audio', 'face', 'ocr', 'speech')
_WORDS = (
  'a man dog sings cooks plays runs the red guitar pan road in on'.split()
)


def video_ids(dataset: str, count: int) -> list[str]:
  """Ids as they look in a dataset."""
  make = {
    'msrvtt': 'video{}',
    'lsmdc': '1004_Juno_00.0{0}.01.{0}',
    'msvd': '-4wsuPCjDB{}_12_22',
    'didemo': '1001556{0}@N08_36550842{0}_d8b58466f{0}',
    'activitynet': 'v_QOlSCBRmf{}',
  }[dataset]
  return [make.format(i) for i in range(count)]


@contextlib.contextmanager
def _expert_store(module: str):
  """Yields a class that pickles as `<module>.ExpertStore`."""
  cls = type('ExpertStore', (), {'__module__': module})
  parts = module.split('.')
  names = ['.'.join(parts[: i + 1]) for i in range(len(parts))]
  for name in names:
    sys.modules[name] = types.ModuleType(name)
  sys.modules[module].ExpertStore = cls
  try:
    yield cls
  finally:
    for name in names:
      del sys.modules[name]


def dump(path: pathlib.Path, value, protocol: int = 2) -> None:
  """Writes a pickle, with its folders."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'wb') as stream:
    pickle.dump(value, stream, protocol=protocol)


def dump_store(
  path: pathlib.Path,
  table: Mapping[str, np.ndarray],
  missing: Sequence[str] = (),
  module: str = 'zsvision.zs_data_structures',
) -> None:
  """Writes an ExpertStore in float16."""
  with _expert_store(module) as cls:
    store = cls()
    store.keys = list(table)
    store.store = np.stack([np.ravel(v) for v in table.values()]).astype('f2')
    store.dim = store.store.shape[1]
    store.store_dtype = np.float16
    store.keymap = {key: i for i, key in enumerate(table)}
    store.missing = set(missing)
    dump(path, store)


def dump_hdf5(path: pathlib.Path, table) -> None:
  """Writes one dataset per id; lists become groups."""
  import h5py

  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, 'w') as file:
    for key, value in table.items():
      if isinstance(value, list):
        for i, item in enumerate(value):
          file[f'{key}/{i}'] = item
      else:
        file[key] = value


def dump_npy(path: pathlib.Path, table) -> None:
  """Writes a dict as a 0-d object array."""
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, np.array(table, dtype=object), allow_pickle=True)


def write_pack(
  dataset: str,
  root,
  *,
  experts,
  text: Mapping,
  protocol: str | None = None,
  seed: int = 0,
  feature_root: str = 'structured-symlinks',
  videos: Mapping[str, int] | None = None,
  captions: int = 4,
) -> pathlib.Path:
  """Writes everything a config needs, in `<root>/<folder>`.

  Args:
    dataset: 'msrvtt', 'lsmdc', 'msvd', 'didemo' or 'activitynet'.
    root: data folder, what $VIDRET_DATA_DIR names.
    experts: (name, {dim, max_tokens}) as in configs.
    text: {dim, encoder} as in configs.
    protocol: of msrvtt: 'full', 'jsfusion' or 'miech'; the first by default.
    seed: of all values.
    feature_root: folder of lists and features below the corpus folder.
    videos: split -> how many; 8 for training and 6 else.
    captions: per video; every fourth video has one fewer.

  Returns:
    The corpus folder.
  """
  rng = np.random.default_rng(seed)
  corpus = pathlib.Path(root) / FOLDERS[dataset]
  base = corpus / feature_root
  base.mkdir(parents=True, exist_ok=True)
  lists = _LISTS[(protocol or 'full') if dataset == 'msrvtt' else dataset]
  sizes = {s: 8 if s == 'train' else 6 for s in lists} | dict(videos or {})
  ids = video_ids(dataset, sum(sizes[s] for s in lists))
  splits, start = {}, 0
  for split, name in lists.items():
    splits[split] = ids[start : start + sizes[split]]
    start += sizes[split]
    lines = splits[split]
    if dataset == 'didemo':
      tails = ('.mov', '.', '.mp4')
      lines = [v + tails[i % 3] for i, v in enumerate(lines)]
    (base / name).write_text('\n'.join(lines) + '\n')

  counts = {v: captions - (i % 4 == 3) for i, v in enumerate(ids)}
  if dataset == 'lsmdc':
    counts = dict.fromkeys(ids, 1)
  spoken = {
    v: [
      [str(w) for w in rng.choice(_WORDS, rng.integers(3, 9))] for _ in range(n)
    ]
    for v, n in counts.items()
  }
  tokens = {
    v: [
      rng.normal(size=(len(c) + 1, text['dim'])).astype(np.float32)
      for c in said
    ]
    for v, said in spoken.items()
  }
  name = 'raw-captions'
  if dataset == 'activitynet':
    name += '-train-val_1'
  dump(base / f'{name}.pkl', spoken)
  _write_text(dataset, base, text.get('encoder', 'openai'), tokens, splits)
  if protocol == 'jsfusion':
    chosen = {v: int(rng.integers(counts[v])) for v in splits['test']}
    dump(base / 'jsfusion_val_caption_idx.pkl', chosen)

  files = {**_VISUAL, **_FILES[dataset]}
  if protocol == 'miech':
    files.update(_FILES['miech'])
  for i, (expert, value) in enumerate(sorted(dict(experts).items())):
    table = _features(rng, ids, expert, value)
    path = base / files[expert]
    if i % 3 == 1 and not value.get('max_tokens') and expert not in _FLAKY:
      dump_store(path, table)
    else:
      dump(path, table)
  return corpus


def _write_text(dataset, base, encoder, tokens, splits) -> None:
  folder = base / 'aggregated_text_feats'
  if encoder != 'openai':
    dump(folder / f'{encoder}.pkl', tokens)
  elif dataset in _OPENAI:
    dump(folder / _OPENAI[dataset], tokens)
  elif dataset == 'activitynet':
    for split, part in (('train', 'train'), ('val1', 'val1')):
      table = {v: tokens[v] for v in splits[split]}
      dump(folder / f'openai-{part}.pkl', table)
  else:
    keys = {v: f'vid{i}' for i, v in enumerate(tokens)}
    dump(base / 'dict_youtube_mapping.pkl', keys)
    for split, videos in splits.items():
      table = {keys[v]: tokens[v] for v in videos}
      dump(folder / f'openai-caption-{split}.pkl', table)


def _features(rng, ids, expert, value):
  dim, table = value['dim'], {}
  for i, video in enumerate(ids):
    if expert in _FLAKY and (i + len(expert)) % 3 == 0:
      table[video] = math.nan
    elif value.get('max_tokens'):
      n = rng.integers(0 if i == 0 else 1, value['max_tokens'] + 3)
      table[video] = rng.normal(size=(n, dim)).astype(np.float32)
    else:
      shape = (1, dim) if len(expert) % 2 else (dim,)
      table[video] = rng.normal(size=shape).astype(np.float32)
  return table


def write_teachers(
  corpus: pathlib.Path,
  names: Sequence[str],
  videos: Mapping[str, int],
  *,
  experts: Sequence[str],
  dim: int,
  seed: int = 0,
) -> None:
  """Writes teacher embeddings below a corpus folder.

  Args:
    corpus: folder of the dataset.
    names: paths relative to it.
    videos: id -> number of captions (1 where they are fused).
    experts: of the teachers.
    dim: width of an expert's embedding.
    seed: of all values.
  """
  rng = np.random.default_rng(seed)
  for name in names:
    table = {
      video: {
        'vid_embds': {e: rng.normal(size=dim).astype('f4') for e in experts},
        'text_embds': {
          e: [rng.normal(size=dim).astype('f4') for _ in range(count)]
          for e in experts
        },
      }
      for video, count in videos.items()
    }
    dump(corpus / name, table)


def write_masks(
  corpus: pathlib.Path, name: str, videos: Mapping[str, int], seed: int = 0
) -> dict[str, np.ndarray]:
  """Writes caption masks (id -> 0/1 array) and returns them."""
  rng = np.random.default_rng(seed)
  masks = {}
  for video, count in videos.items():
    masks[video] = rng.integers(0, 2, count)
    masks[video][rng.integers(count)] = 1
  dump(corpus / name, masks)
  return masks


def caption_counts(corpus: pathlib.Path) -> dict[str, int]:
  """Id -> number of captions of a pack that `write_pack` wrote."""
  file = next(corpus.rglob('raw-captions*.pkl'))
  with open(file, 'rb') as stream:
    return {video: len(said) for video, said in pickle.load(stream).items()}
