# SPDX-License-Identifier: Apache-2.0
"""ActivityNet Captions: 10,009 / 4,917 videos; captions are fused."""

import functools

from vidret_jax.data import layout, pack_builder, packs


def _text_files(encoder: str, split: str) -> list[list[str]]:
  del split
  folder = 'aggregated_text_feats'
  if encoder == 'openai':
    return [[f'{folder}/openai-train.pkl'], [f'{folder}/openai-val1.pkl']]
  return [[f'{folder}/{encoder}.pkl']]


LAYOUT = layout.Layout(
  name='activitynet',
  folder='activity-net',
  source=(
    'https://github.com/albanie/collaborative-experts (ActivityNet, 3.8 GiB)'
  ),
  sha1='b16685576c97cdec2783fb89ea30ca7d17abb021',
  lists={
    'all': {
      'train': 'train_list.txt',
      'val1': 'val_1_list.txt',
      'val': 'val_list.txt',
    },
  },
  optional=('val',),
  captions='raw-captions-train-val_1.pkl',
  experts={
    'audio': 'aggregated_audio/vggish-audio-raw.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-w2v.pkl',
    'speech': 'aggregated_speech/goog_w2v-speech-raw.pickle',
    'face': 'aggregated_facefeats_25fps_256px_stride1/face-avg.pickle',
  },
  text_files=_text_files,
)


class Activitynet(pack_builder.ExpertPack):
  """Records of ActivityNet Captions."""

  LAYOUT = LAYOUT
  name = LAYOUT.name


make = functools.partial(packs.make, LAYOUT)
prepare = functools.partial(packs.prepare, Activitynet)
