# SPDX-License-Identifier: Apache-2.0
"""MSR-VTT: 10,000 videos, 20 captions each; three protocols of evaluation.

full      6,513 / 497 / 2,990 videos
jsfusion  9,000 / 1,000, one chosen caption per test video ('1k-A')
miech     6,656 / 1,000, the first caption of each test video ('1k-B')
"""

import functools

from vidret_jax.data import layout, pack_builder, packs


def _text_files(encoder: str, split: str) -> list[list[str]]:
  del split
  folder = 'aggregated_text_feats'
  if encoder == 'openai':
    return [[f'{folder}/w2v_MSRVTT_openAIGPT.pickle']]
  # One published archive adds the dataset to the name.
  return [[f'{folder}/{encoder}.pkl', f'{folder}/{encoder}_MSRVTT.pickle']]


LAYOUT = layout.Layout(
  name='msrvtt',
  folder='MSRVTT',
  source='https://github.com/albanie/collaborative-experts (MSRVTT, 19.6 GiB)',
  sha1='959bda588793ef05f348d16de26da84200c5a469',
  lists={
    'full': {
      'train': 'train_list_full.txt',
      'val': 'val_list_full.txt',
      'test': 'test_list_full.txt',
    },
    'jsfusion': {
      'train': 'train_list_jsfusion.txt',
      'test': 'val_list_jsfusion.txt',
    },
    'miech': {
      'train': 'train_list_miech.txt',
      'test': 'test_list_miech.txt',
    },
  },
  experts={
    'audio': 'aggregated_audio_feats/Audio_MSRVTT_new.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-raw.pickle',
    'speech': 'aggregated_speech/speech-w2v.pickle',
    'face': 'aggregated_face_feats/facefeats-avg.pickle',
  },
  overrides={
    # The 1k-B protocol was published with the features of MoEE.
    'miech': {
      'antoine-rgb': 'antoine/resnet_features.pickle',
      'audio': 'antoine/audio_features.pickle',
      'flow': 'antoine/flow_features.pickle',
      'face': 'antoine/facefeats-clone.pickle',
    },
  },
  text_files=_text_files,
  slots={
    ('jsfusion', 'test'): 'jsfusion_val_caption_idx.pkl',
    ('miech', 'test'): 0,
  },
)


class Msrvtt(pack_builder.ExpertPack):
  """Records of MSR-VTT."""

  LAYOUT = LAYOUT
  name = LAYOUT.name


make = functools.partial(packs.make, LAYOUT)
prepare = functools.partial(packs.prepare, Msrvtt)
