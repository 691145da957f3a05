# SPDX-License-Identifier: Apache-2.0
"""DiDeMo: 8,392 / 1,065 / 1,004 videos; all captions of one are fused."""

import functools

from vidret_jax.data import layout, pack_builder, packs


def _text_files(encoder: str, split: str) -> list[list[str]]:
  del split
  name = 'openai-feats.pkl' if encoder == 'openai' else f'{encoder}.pkl'
  return [[f'aggregated_text_feats/{name}']]


def _video_id(line: str) -> str:
  """Lists carry a file extension, at times only its dot."""
  return line.strip().split('.')[0]


LAYOUT = layout.Layout(
  name='didemo',
  folder='DiDeMo',
  source='https://github.com/albanie/collaborative-experts (DiDeMo, 2.3 GiB)',
  sha1='6fd4bcc68c1611052de2499fd8ab3f488c7c195b',
  lists={
    'all': {
      'train': 'train_list.txt',
      'val': 'val_list.txt',
      'test': 'test_list.txt',
    },
  },
  experts={
    'audio': 'aggregated_audio_feats/vggish-audio-raw.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-feats.pkl',
    'speech': 'aggregated_speech_feats/stt_w2v.pickle',
    'face': 'aggregated_facefeats_25fps_256px_stride1/face-avg.pickle',
  },
  text_files=_text_files,
  video_id=_video_id,
)


class Didemo(pack_builder.ExpertPack):
  """Records of DiDeMo."""

  LAYOUT = LAYOUT
  name = LAYOUT.name


make = functools.partial(packs.make, LAYOUT)
prepare = functools.partial(packs.prepare, Didemo)
