# SPDX-License-Identifier: Apache-2.0
"""LSMDC: 101,079 / 7,408 / 1,000 movie clips with one caption each."""

import functools

from vidret_jax.data import layout, pack_builder, packs


def _text_files(encoder: str, split: str) -> list[list[str]]:
  del split
  name = 'openai-text.pickle' if encoder == 'openai' else f'{encoder}.pkl'
  return [[f'aggregated_text_feats/{name}']]


LAYOUT = layout.Layout(
  name='lsmdc',
  folder='LSMDC',
  source=(
    'https://github.com/albanie/collaborative-experts (LSMDC, 6.1 GiB; needs '
    'the licence of https://sites.google.com/site/describingmovies)'
  ),
  sha1='7ce018e981752db9e793e449c2ba5bc88217373d',
  lists={
    'all': {
      'train': 'train_list.txt',
      'val': 'val_list.txt',
      'test': 'test_list.txt',
    },
  },
  experts={
    'audio': 'aggregated_audio/vggish-raw.pickle',
    'ocr': 'aggregated_ocr_feats/ocr-w2v.pkl',
    'speech': 'aggregated_speech/speech-w2v.pickle',
    'face': 'antoine/face-max-with-blank-val.pickle',
  },
  text_files=_text_files,
)


class Lsmdc(pack_builder.ExpertPack):
  """Records of LSMDC."""

  LAYOUT = LAYOUT
  name = LAYOUT.name


make = functools.partial(packs.make, LAYOUT)
prepare = functools.partial(packs.prepare, Lsmdc)
