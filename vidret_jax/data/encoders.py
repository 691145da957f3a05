# SPDX-License-Identifier: Apache-2.0
"""Text encoders whose token features the published packs contain."""

import warnings

# Width of one token (spec of the Collaborative Experts packs).
DIMS = {
  'openai': 768,
  'openai-gpt': 768,
  'w2v': 300,
  'grovle': 300,
  'mt_grovle': 300,
  'hglmm_300d': 300,
  'hglmm_6kd': 6000,
  'howto100m_mil_nce': 512,
  'electra': 256,
  'gpt2': 768,
  'gpt2-medium': 1024,
  'gpt2-large': 1280,
  'gpt2-xl': 1600,
  'gpt2-xl-finetune': 1600,
  'bert-base-uncased': 768,
  't5-small': 512,
  't5-base': 768,
  't5-large': 1024,
  't5-3b': 1024,
  't5-11b': 1024,
  'albert-base-v2': 768,
  'albert-large-v2': 1024,
  'albert-xlarge-v2': 2048,
  'ctrl': 1280,
  'roberta-base': 768,
  'roberta-large': 1024,
  'xlnet-base-cased': 768,
  'xlnet-large-cased': 1024,
  'transfo-xl-wt103': 1024,
}


def check(encoder: str, dim: int, own_files: bool) -> None:
  """Checks the name of a text encoder and warns about an odd width.

  Args:
    encoder: name in a config.
    dim: the config's token width; the files decide, so a width that differs
      from the table only warns.
    own_files: the config names the files itself, any encoder name will do.

  Raises:
    ValueError: an encoder nobody knows.
  """
  if encoder not in DIMS:
    if own_files:
      return
    raise ValueError(
      f'text.encoder={encoder!r} is unknown; known are {sorted(DIMS)}. For '
      "features of your own, also set text.files=('folder/file.pkl',), "
      'relative to the feature folder.'
    )
  if DIMS[encoder] != dim and not own_files:
    warnings.warn(
      f'text.dim={dim}, but features of {encoder!r} are published with width '
      f'{DIMS[encoder]}.',
      stacklevel=3,
    )
