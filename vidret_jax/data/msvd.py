# SPDX-License-Identifier: Apache-2.0
"""MSVD: 1,200 / 100 / 670 silent clips with up to 81 captions each."""

import functools

from vidret_jax.data import layout, pack_builder, packs


def _text_files(encoder: str, split: str) -> list[list[str]]:
  folder = 'aggregated_text_feats'
  if encoder == 'openai':
    return [[f'{folder}/openai-caption-{split}.pkl']]
  return [[f'{folder}/{encoder}.pkl']]


LAYOUT = layout.Layout(
  name='msvd',
  folder='MSVD',
  source='https://github.com/albanie/collaborative-experts (MSVD, 2.1 GiB)',
  sha1='6071827257c14de455b3a13fe1e885c2a7887c9e',
  lists={
    'all': {
      'train': 'train_list.txt',
      'val': 'val_list.txt',
      'test': 'test_list.txt',
    },
  },
  experts={
    'ocr': 'aggregated_ocr_feats/ocr-w2v.pickle',
    'face': 'aggregated_face_feats/face-avg.pickle',
  },
  aggregation={'r2p1d.r2p1d-ig65m-kinetics.0': {'stride': 8}},
  text_files=_text_files,
  # The openai features are keyed 'vid<n>', everything else by YouTube id.
  text_key='dict_youtube_mapping.pkl',
)


class Msvd(pack_builder.ExpertPack):
  """Records of MSVD."""

  LAYOUT = LAYOUT
  name = LAYOUT.name


make = functools.partial(packs.make, LAYOUT)
prepare = functools.partial(packs.prepare, Msvd)
