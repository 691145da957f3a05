# SPDX-License-Identifier: Apache-2.0
"""Upstream's JSON configs of CE and MoEE, as keyword arguments of `ce.make`."""

from collections.abc import Mapping

import numpy as np

from vidret_jax.convert.torch_file import Bag
from vidret_jax.data import encoders
from vidret_jax.models import ce

# Widths that upstream writes into its code instead of its configs.
_WIDTHS = {'audio': 128, 'audio.vggish.0': 128, 'ocr': 300, 'speech': 300}
_GATING = {
  '': 'none',
  'pairwise': 'pairwise',
  'pairwise-star': 'pairwise_star',
  'pairwise-star-specific': 'pairwise_star_specific',
  'pairwise-star-tensor': 'pairwise_star_tensor',
  'triplet': 'triplet',
}


class ConfigMismatch(ValueError):
  """An upstream config that describes a network we do not have."""


def stored_config(checkpoint: Mapping) -> dict | None:
  """The merged config inside a checkpoint; None where there is none.

  Upstream pickles its `ConfigParser` object, whose `_config` is the dict.
  """
  config = checkpoint.get('config')
  if isinstance(config, Bag):
    config = getattr(config, '_config', None)
  return config if isinstance(config, Mapping) and config else None


def model_config(config: Mapping, *, text_dim: int | None = None) -> dict:
  """Keyword arguments of `models.ce.make` for an upstream config.

  Args:
    config: merged config, as in the `config.json` beside a checkpoint.
    text_dim: width of the text encoder; default: from the table, by name.

  Raises:
    ConfigMismatch: an option outside the text-video retrieval network.
  """
  try:
    return _model_config(config, text_dim)
  except KeyError as error:
    raise ConfigMismatch(
      f'upstream config: key {error} is missing. Take the merged config.json '
      'that upstream writes beside its checkpoints (files under configs/ '
      'inherit from others).'
    ) from error


def _model_config(config, text_dim):
  experts, args = config['experts'], config['arch']['args']
  if config['arch'].get('type', 'CENet') != 'CENet':
    raise ConfigMismatch(
      f'upstream config: arch.type={config["arch"]["type"]!r}, expected CENet.'
    )
  if args.get('l2renorm'):
    # Upstream stops with an assertion, too.
    raise ConfigMismatch(
      'upstream config: l2renorm is unsupported there and '
      'here; set it to false.'
    )
  if args.get('trn_cat') or args.get('randomise_feats'):
    raise ConfigMismatch(
      'upstream config: trn_cat and randomise_feats are '
      'outside this port; clear them.'
    )
  tokens = config['data_loader']['args']['max_tokens']
  clusters = args['vlad_clusters']
  text_clusters = clusters['text']
  encoder = experts['text_feat']
  text_dim = text_dim or encoders.DIMS.get(encoder)
  if text_dim is None:
    raise ConfigMismatch(
      f'upstream config: text_feat={encoder!r} is not in the table of '
      'encoders; pass its width as text_dim.'
    )
  loss = config['loss']['args']
  gating = _gating(args)
  return dict(
    experts=tuple(
      (n, _expert(n, config, tokens, clusters)) for n in _names(experts)
    ),
    text=dict(
      dim=int(text_dim),
      max_tokens=tokens['text'],
      clusters=text_clusters,
      ghosts=args.get('ghost_clusters', {}).get('text', 0)
      if text_clusters
      else 0,
    ),
    dim=experts['ce_shared_dim'],
    gating=gating,
    include_self=bool(args['include_self']),
    g_layers=args['num_g_layers'],
    h_layers=args['num_h_layers'],
    g_norm=bool(args['use_bn_reason']),
    activation='mish' if args['use_mish'] else 'relu',
    mixture='uniform' if args.get('freeze_weights') else 'learned',
    missing='keep' if args.get('keep_missing_modalities') else 'renormalise',
    margin=float(loss.get('margin', 1.0)),
    fix_norm=bool(loss.get('fix_norm', True)),
    # Released numbers of the ablation were made with the zero matrix.
    legacy_concat_zero=gating.startswith('concat'),
    distill=float(bool(config.get('distil_loss'))),
  )


def _gating(args):
  """Upstream tests its switches in this order."""
  use = args['use_ce'] or ''
  if use not in _GATING:
    raise ConfigMismatch(
      f'upstream config: use_ce={use!r}, expected one of {list(_GATING)}.'
    )
  if not use:
    for switch, gating in (
      ('mimic_ce_dims', 'mimic'),
      ('concat_mix_experts', 'concat_mix'),
      ('concat_experts', 'concat'),
    ):
      if args.get(switch):
        return gating
  return _GATING[use]


def _names(experts):
  dropped = [n for n in experts.get('drop_feats', '').split(',') if n]
  return [n for n in sorted(experts['modalities']) if n not in dropped]


def _expert(name, config, tokens, clusters):
  settings = config['data_loader']['args']['feat_aggregation'][name]
  if name == 'face':
    dim = config['experts']['face_dim']
  elif name in _WIDTHS:
    dim = _WIDTHS[name]
  else:
    # Several aggregates ('avg-max') are stored side by side.
    parts = len(settings['temporal'].split('-'))
    dim = settings['feat_dims'][settings['type']] * parts
  if settings['temporal'] != 'vlad':
    return dict(dim=dim)
  return dict(dim=dim, max_tokens=tokens[name], clusters=clusters[name])


def differences(config: Mapping, model: ce.CollaborativeExperts) -> list[str]:
  """Where a model departs from a checkpoint's config in ways no shape shows.

  Options that only concern training are left out.
  """
  try:
    other = ce.make(**model_config(config, text_dim=model.text.dim))
  except ConfigMismatch as error:
    return [str(error)]
  fields = (
    'experts',
    'text',
    'gating',
    'include_self',
    'activation',
    'sequential',
    'mixture',
    'missing',
    'availability',
    'zero_missing',
    'masked_vlad',
  )
  if not model.relates:
    fields = tuple(
      f for f in fields if f not in ('include_self', 'activation', 'sequential')
    )
  return [
    f'{f}: the checkpoint was trained with {getattr(other, f)}, the '
    f'model has {getattr(model, f)}'
    for f in fields
    if getattr(other, f) != getattr(model, f)
  ]


def averages_captions(config: Mapping) -> bool:
  """Whether an upstream evaluation averages the captions of a video."""
  return config['arch']['args'].get('test_caption_mode', 'indep') == 'avg'


def moee_config(
  state: Mapping[str, np.ndarray], *, text_tokens: int, audio_tokens: int
) -> dict:
  """Keyword arguments of `ce.make` for a file of the original MoEE.

  Widths are read off the arrays; the padded lengths are not in the file (30
  words and 30 audio frames in the repository's scripts).
  """

  def width(index):
    return int(state[f'mee.video_GU.{index}.cg.fc.weight'].shape[0])

  audio_dim, audio_clusters = state['audio_pooling.clusters'].shape
  text_dim, text_clusters = state['text_pooling.clusters'].shape
  return dict(
    experts=(
      (
        'audio',
        dict(dim=audio_dim, max_tokens=audio_tokens, clusters=audio_clusters),
      ),
      ('face', dict(dim=width(0))),
      ('motion', dict(dim=width(3))),
      ('visual', dict(dim=width(2))),
    ),
    text=dict(dim=text_dim, max_tokens=text_tokens, clusters=text_clusters),
    gating='none',
    fix_norm=False,
    margin=0.2,
    zero_missing=False,
  )
