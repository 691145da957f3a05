# SPDX-License-Identifier: Apache-2.0
"""Options of upstream's ReLoCLNet and XML as ours, and back.

A checkpoint carries `model_cfg`, the arguments of upstream's model; beside it
lies `opt.json`, its command line. XML's are told by what they lack: the
weights of the contrastive objectives.
"""

from collections.abc import Mapping
from typing import Any

from vidret_jax.convert import fields
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models.reloclnet import RANKINGS, STREAMS, VARIANTS
from vidret_jax.models.reloclnet_model import Reloclnet

CONTEXTS = (
  'video',
  'sub',
  'video_sub',
  'tef',
  'video_tef',
  'sub_tef',
  'video_sub_tef',
)
# Upstream's name of a stream in keys of a state dict.
NAMES = {'video': 'video', 'subtitle': 'sub'}
# XML trains its own blocks only in this form; `opt.json` has the flags.
_XML = dict(
  encoder_type='transformer',
  span_predictor_type='conv',
  stack_conv_predictor_conv_kernel_sizes=-1,
  no_modular=False,
)
_TEF = 2


class ConfigMismatch(CheckpointMismatch):
  """An upstream config that describes a network we do not have."""


class _Fields(fields.Fields):
  error = ConfigMismatch
  hint = (
    'Take model_cfg as upstream stores it in model.ckpt, or the opt.json of '
    'its run.'
  )


def streams(context: str) -> tuple[str, ...]:
  """Streams of the model for a context mode; 'tef' alone is a 'video'."""
  return tuple(s for s in STREAMS if NAMES[s] in context) or STREAMS[:1]


def model_options(config: Mapping) -> dict[str, Any]:
  """Keyword arguments of `models.reloclnet.make` for a stored `model_cfg`.

  Negatives are hard from the first step on if they were when it was stored, or
  else never.

  Raises:
    ConfigMismatch: a key is missing, or describes another network.
  """
  root = _Fields(config, 'model_cfg')
  options = _options(root)
  if options['variant'] == 'xml':
    pair = len(options['streams']) > 1
    root.only('use_self_attention', True, True)
    root.only('cross_att', pair, True)
    root.only('merge_two_stream', pair, True)
  hard = root.flag('use_hard_negative', False)
  return dict(options, hard_start_epoch=0 if hard else -1)


def run_config(opt: Mapping) -> dict[str, dict[str, Any]]:
  """An `opt.json` as parts of a config of ours.

  Returns:
    model: keyword arguments of `models.reloclnet.make`; data: of datasets;
    search: of the evaluator.

  Raises:
    ConfigMismatch: a key is missing, or describes another network.
  """
  root = _Fields(opt, 'opt.json')
  options = _options(root)
  xml = options['variant'] == 'xml'
  if xml and len(options['streams']) > 1:
    # With one stream XML sets them itself, after writing the file.
    root.only('no_cross_att', False, False)
    root.only('no_merge_two_stream', False, False)
  if xml:
    root.only('no_self_att', False, False)
  # XML spells it otherwise.
  start = 'hard_negtiave_start_epoch' if xml else 'hard_negative_start_epoch'
  options.update(
    hard_start_epoch=root.whole(start, at_least=-1),
    span_start_epoch=root.whole('train_span_start_epoch', 0, at_least=-1),
  )
  out = data_config(opt)
  out['data'].update(
    norm_video=not root.flag('no_norm_vfeat', False),
    norm_text=not root.flag('no_norm_tfeat', False),
    clip_seconds=root.number('clip_length'),
  )
  out['search'].update(
    videos=root.whole('max_vcmr_video'),
    alpha=root.number('q2c_alpha'),
    before_nms=root.whole('max_before_nms'),
  )
  return dict(model=options, **out)


def data_config(config: Mapping) -> dict[str, dict[str, Any]]:
  """What `model_cfg`, like `opt.json`, tells beyond the model.

  Returns:
    data and search as `run_config`, what is not told left out.

  Raises:
    ConfigMismatch: a key is missing.
  """
  root = _Fields(config, 'model_cfg')
  xml = _is_xml(root)
  data = dict(
    context=root.choice('ctx_mode', CONTEXTS),
    max_clips=root.whole('max_ctx_l'),
    max_words=root.whole('max_desc_l'),
    sampling='first' if xml else 'mean',
  )
  # XML adds a clip to the end that it predicts.
  return dict(data=data, search=dict(end_offset=int(xml)))


def _is_xml(root):
  return 'lw_fcl' not in root


def _options(root):
  """What `model_cfg` and `opt.json` have in common."""
  xml = _is_xml(root)
  if xml:
    for key, value in _XML.items():
      root.only(key, value, value)
  root.only('conv_stride', 1, 1)
  weights = dict(span='lw_st_ed', neg_ctx='lw_neg_ctx', neg_q='lw_neg_q')
  if not xml:
    weights.update(frame='lw_fcl', video='lw_vcl')
  loss = {name: root.number(key) for name, key in weights.items()}
  return dict(
    variant='xml' if xml else 'reloclnet',
    streams=streams(root.choice('ctx_mode', CONTEXTS)),
    dim=root.whole('hidden_size'),
    heads=root.whole('n_heads'),
    max_clips=root.whole('max_ctx_l'),
    max_words=root.whole('max_desc_l'),
    kernel=root.whole('conv_kernel_size'),
    dropout=root.number('drop'),
    input_dropout=root.number('input_drop'),
    init_std=root.number('initializer_range'),
    loss=dict(dict(frame=0.0, video=0.0), **loss),
    margin=root.number('margin'),
    ranking=root.choice('ranking_loss_type', RANKINGS),
    hard_pool=root.whole('hard_pool_size'),
  )


def feature_sizes(opt: Mapping) -> dict[str, int]:
  """Widths of the model's inputs for an `opt.json`, which has them bare.

  Raises:
    ConfigMismatch: a key is missing.
  """
  root = _Fields(opt, 'opt.json')
  context = root.choice('ctx_mode', CONTEXTS)
  extra = _TEF if 'tef' in context else 0
  keys = dict(video='vid_feat_size', subtitle='sub_feat_size')
  sizes = {s: root.whole(keys[s]) + extra for s in streams(context)}
  if context == 'tef':
    sizes = dict(video=_TEF)
  return dict(query=root.whole('q_feat_size'), **sizes)


def shape_options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  """Options of `models.reloclnet.make` that shapes by upstream's key tell."""
  out = {}
  found = tuple(
    s for s in STREAMS if f'{NAMES[s]}_query_linear.weight' in shapes
  )
  if found:
    deeper = any(k.startswith('query_encoder1.') for k in shapes)
    out.update(variant='reloclnet' if deeper else 'xml', streams=found)
  for key, names in (
    ('ctx_pos_embed.position_embeddings.weight', ('max_clips', 'dim')),
    ('query_pos_embed.position_embeddings.weight', ('max_words', 'dim')),
  ):
    if len(shapes.get(key, ())) == 2:
      out.update(zip(names, shapes[key]))
  for key, shape in shapes.items():
    if key.endswith('_st_predictor.weight') and len(shape) == 3:
      out['kernel'] = shape[2]
  return out


def check_config(config: Mapping, told: Mapping[str, Mapping]) -> None:
  """Refuses a config whose optimiser and evaluation are of another network.

  Args:
    config: of ours, as a dict.
    told: model and data as `run_config` has them.

  Raises:
    ConfigMismatch: another variant, or other streams.
  """
  model, found = config['model'], told['model']
  have = model.get('variant', VARIANTS[0]), tuple(model.get('streams', STREAMS))
  if 'streams' not in found:
    return  # A part of a state dict; what it lacks is told by `to_flax`.
  want = found['variant'], tuple(found['streams'])
  if have == want:
    return
  usual = '_'.join(NAMES[s] for s in want[1])
  context = told['data'].get('context', f'{usual}, or {usual}_tef')
  raise ConfigMismatch(
    f'the file is of {want[0]} with the streams {list(want[1])}, the config is '
    f'of {have[0]} with {list(have[1])}; take FILE.py:model={want[0]},'
    f'ctx={context}'
  )


def upstream_config(
  model: Reloclnet, sizes: Mapping[str, int], context: str | None = None
) -> dict[str, Any]:
  """The `model_cfg` of a model, in upstream's order.

  Args:
    model: any of the system.
    sizes: widths of its inputs: query, and video or subtitle or both.
    context: the mode of its data; default: the streams without TEF.

  Raises:
    ValueError: the context has other streams than the model.
  """
  usual = '_'.join(NAMES[s] for s in model.streams)
  context = context or usual
  if context not in CONTEXTS or streams(context) != model.streams:
    raise ValueError(
      f'context={context!r}, but the model has the streams {model.streams}: '
      f'expected {usual!r} or {usual + "_tef"!r}.'
    )
  xml, pair = model.variant == 'xml', len(model.streams) > 1
  weights = model.weights
  out = dict(
    visual_input_size=sizes.get('video', 0),
    sub_input_size=sizes.get('subtitle', 0),
    query_input_size=sizes['query'],
    hidden_size=model.dim,
    conv_kernel_size=model.kernel,
    conv_stride=1,
    max_ctx_l=model.max_clips,
    max_desc_l=model.max_words,
    input_drop=model.input_dropout,
    drop=model.options.dropout,
    n_heads=model.options.heads,
    initializer_range=model.options.std,
    ctx_mode=context,
    margin=model.margin,
    ranking_loss_type=model.ranking,
    lw_neg_q=weights.neg_q,
    lw_neg_ctx=weights.neg_ctx,
    lw_st_ed=weights.span,
    # Upstream's training sets it at every epoch, nothing else reads it.
    use_hard_negative=False,
    hard_pool_size=model.hard_pool,
  )
  if not xml:
    return dict(out, lw_fcl=weights.frame, lw_vcl=weights.video)
  return dict(
    out,
    merge_two_stream=pair,
    cross_att=pair,
    use_self_attention=True,
    add_pe_rnn=False,
    pe_type='none',
    **_XML,
  )
