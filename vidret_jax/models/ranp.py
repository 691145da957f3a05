# SPDX-License-Identifier: Apache-2.0
"""RANP: relevance-aware mining, on one of three systems.

Falcon, Serra, Lanz, ICIAP 2022, https://arxiv.org/abs/2203.08688, and CVIU
2024, doi 10.1016/j.cviu.2024.104035.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from vidret_jax.layers import recurrent
from vidret_jax.layers.linear import Numerics
from vidret_jax.losses.mining import Mining
from vidret_jax.models import eao, hgr, mined, vse
from vidret_jax.ops import phrases

BACKBONES = {'hgr': hgr.Hgr, 'eao': eao.Eao, 'vse': vse.Vse}
_CHOICES = dict(
  rnn=tuple(recurrent.GATES),
  fusion=phrases.FUSIONS,
  level_relevance=tuple(hgr.RELEVANCE),
  token_projection=eao.PROJECTIONS,
  projection=eao.PROJECTIONS,
  words=('vectors', 'ids'),
)


def make(
  *,
  backbone: str = 'hgr',
  mining: Mapping[str, Any] | None = None,
  num_words: int | None = None,
  dtype: str = 'float32',
  precision: str | None = 'highest',
  **options: Any,
) -> mined.Mined:
  """Builds HGR, EAO or the global baseline from plain values.

  Args:
    backbone: 'hgr', 'eao' or 'vse'.
    mining: options of `losses.mining.Mining`.
    num_words: size of the vocabulary; not for word vectors.
    dtype: operand type of matrix products.
    precision: of them.
    **options: of the backbone:
      dim: width of embeddings (hgr, vse) or of tokens (eao).
      word_dim: width of the vector of a word id.
      fix_words: word vectors are not trained.
      rnn, rnn_layers, bidirectional: the text network of hgr and vse.
      word_dropout, video_dropout: of hgr and vse.
      num_roles, graph_layers, graph_attention, graph_dropout: the graph
        network of hgr; num_roles=0 leaves roles out.
      fusion, sigma: how phrases meet frames, see `ops.phrases`.
      share_video: one map for the three levels of a video.
      level_weights: dict of weights of the losses of 'fused', 'sentence',
        'verb' and 'noun'; None: fused only.
      level_relevance: 'dummy' (upstream) or 'true', see `models.hgr`.
      heads, depth, mlp_ratio: the transformer of eao.
      projection_dim, projection, individual, token_projection: its maps.
      positions, cls_token, max_frames, max_words: its places.
      words: 'vectors' or 'ids', what eao reads.

  Raises:
    ValueError: an unknown option or value.
  """
  if backbone not in BACKBONES:
    raise ValueError(
      f'backbone={backbone!r}: expected one of {tuple(BACKBONES)}.'
    )
  kind = BACKBONES[backbone]
  own = {f.name for f in dataclasses.fields(kind)}
  own -= {'num', 'mining', 'num_words', 'name', 'parent'}
  unknown = sorted(set(options) - own)
  if unknown:
    raise ValueError(
      f'{backbone} has no option {", ".join(map(repr, unknown))}; known are '
      f'{", ".join(sorted(own))}.'
    )
  for key, choices in _CHOICES.items():
    if key in options and options[key] not in choices:
      raise ValueError(f'{key}={options[key]!r}: expected one of {choices}.')
  reads_ids = backbone != 'eao' or options.get('words', 'vectors') == 'ids'
  if reads_ids and not num_words:
    raise ValueError(
      f'num_words={num_words!r}: expected the size of the vocabulary. The '
      'trainer takes it from the prepared data; elsewhere, give it.'
    )
  if options.get('level_weights') is not None:
    options['level_weights'] = _level_weights(options['level_weights'])
  if backbone == 'eao':
    _check_heads(options)
  return kind(
    mining=_mining(mining or {}),
    num_words=num_words or 0,
    num=Numerics(dtype, precision),
    **options,
  )


def _mining(options: Mapping[str, Any]) -> Mining:
  known = [f.name for f in dataclasses.fields(Mining)]
  unknown = sorted(set(options) - set(known))
  if unknown:
    raise ValueError(
      f'mining has no option {", ".join(map(repr, unknown))}; known are '
      f'{", ".join(known)}.'
    )
  return Mining(**options)


def _level_weights(weights: Mapping[str, float]):
  weights = dict(weights)
  unknown = sorted(set(weights) - set(hgr.WEIGHTS))
  if unknown or not weights:
    raise ValueError(
      f'level_weights={weights}: expected weights of {", ".join(hgr.WEIGHTS)}.'
    )
  return tuple((name, float(w)) for name, w in weights.items())


def _check_heads(options):
  dim = options.get('dim', eao.Eao.dim)
  heads = options.get('heads', eao.Eao.heads)
  if dim % heads:
    raise ValueError(f'dim={dim} does not divide into heads={heads}.')
