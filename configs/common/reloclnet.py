# SPDX-License-Identifier: Apache-2.0
"""What the configs of ReLoCLNet and XML share.

A config file next door holds what belongs to its dataset, the recipe:

  name      of the dataset module
  features  names of `features=`, the usual one first
  context   what of a video is read where `ctx=` is silent, of both models
  alpha     exponent of the score of videos in that of moments, by model
  short     clips of a video that is trained as a short one; of them there must
            be many (`plan` of the model)
  nms       overlap from which on the final evaluation suppresses a moment
  search    further options of the evaluator

Facts: `method_tvr/config.py` and `scripts/train.sh` of ReLoCLNet, and
`baselines/crossmodal_moment_localization` of TVRetrieval; docs/configs.md maps
their names.
"""

import ml_collections as mlc

from vidret_jax import config_lib as cl

# Structural choices that the config of every published dataset takes.
ARGS = dict(
  model='reloclnet',
  ctx='',
  features='',
  task='all',
  contrast=True,
  test=False,
  seed=0,
  runlocal=False,
)
MODELS = ('reloclnet', 'xml')
CONTEXTS = (
  *('video', 'sub', 'video_sub'),
  *('tef', 'video_tef', 'sub_tef', 'video_sub_tef'),
)
# Task -> the one that chooses the best weights.
TASKS = dict(all='VCMR', retrieval='VR', localization='SVMR')
_USUAL_CONTEXT = dict(reloclnet='video_sub_tef', xml='video_sub')
_SIZES = dict(
  reloclnet=dict(dim=384, heads=8, max_clips=128),
  xml=dict(dim=256, heads=4, max_clips=100),
)
# Parts of XML that rank no videos.
_DEEPER = '(span|(video|subtitle)/(enc_[23]|cross|cross_norm))'
# The embedded corpus, on which `runlocal` runs any of the configs.
_SNIPS = dict(name='shapes_moments', max_clips=32, max_words=30)


def make(arg, recipe):
  """Builds the config of a published dataset.

  Args:
    arg: parsed argument, with at least ARGS.
    recipe: see the module.
  """
  check(arg)
  features = arg.features or recipe['features'][0]
  if features not in recipe['features']:
    raise cl.ConfigError(
      f'features={features!r}: expected one of {", ".join(recipe["features"])}'
    )
  if not arg.ctx:
    arg.ctx = recipe.get('context', _USUAL_CONTEXT[arg.model])
  c = skeleton(arg)
  with c.ignore_type():
    c.model.short_clips = recipe.get('short')
  data = dict(
    name=recipe['name'],
    root=None,
    features=features,
    context=arg.ctx,
    max_clips=c.model.max_clips,
    max_words=c.model.max_words,
    sampling='first' if arg.model == 'xml' else 'mean',
    precision='float32',
    # The features of TVR's training set take 14 GB: they stay on disk.
    cache=None,
  )
  search = dict(
    alpha=recipe['alpha'][arg.model],
    end_offset=1 if arg.model == 'xml' else 0,
    **recipe.get('search', {}),
  )
  c.input.data = dict(split='train', **data)
  c.evals = dict(
    loss=dict(
      type='mean_loss',
      data=dict(split='val', **data),
      batch_size=c.input.batch_size,
      when='train',
      log_epochs=1,
    ),
    val=evaluation(arg, data=dict(split='val', **data), **search),
    nms=evaluation(
      arg,
      data=dict(split='val', **data),
      when='final',
      nms=recipe['nms'],
      **search,
    ),
  )
  if arg.test:
    c.evals.test = evaluation(
      arg, data=dict(split='test_public', **data), when='final', **search
    )
  return finish(arg, c)


def check(arg):
  """Refuses values that no config takes."""
  for name, allowed in (
    ('model', MODELS),
    ('ctx', ('', *CONTEXTS)),
    ('task', TASKS),
  ):
    if getattr(arg, name) not in allowed:
      raise cl.ConfigError(
        f'{name}={getattr(arg, name)!r}: expected one of '
        f'{", ".join(filter(None, allowed))}'
      )


def streams(name):
  """The model's streams for a context; upstream looks for parts of the name.

  The context 'tef' has the place of a clip only, as its picture.
  """
  both = ('video', 'sub' if 'sub' in name else '')
  if 'video' not in name:
    both = ('', 'sub') if 'sub' in name else ('video', '')
  return tuple(
    stream for stream, part in zip(('video', 'subtitle'), both) if part
  )


def loss_weights(arg):
  """Weights of the parts of the loss; train.sh names the tasks' zeros."""
  weights = dict(frame=0.03, video=0.03, span=0.01, neg_ctx=1.0, neg_q=1.0)
  if arg.model == 'xml' or not arg.contrast:
    weights |= dict(frame=0.0, video=0.0)
  if arg.task == 'retrieval':
    weights |= dict(span=0.0)
  if arg.task == 'localization':
    weights |= dict(neg_ctx=0.0, neg_q=0.0)
  return weights


def skeleton(arg):
  """System, model, optimiser: all but data and evaluators.

  Args:
    arg: parsed argument, with `ctx`.
  """
  c = mlc.ConfigDict()
  c.system = 'reloclnet'
  c.seed = arg.seed
  c.model = dict(
    variant=arg.model,
    streams=streams(arg.ctx),
    **_SIZES[arg.model],
    max_words=30,
    kernel=5,
    dropout=0.1,
    input_dropout=0.1,
    init_std=0.02,
    loss=loss_weights(arg),
    margin=0.1,
    ranking='hinge',
    hard_start_epoch=20,
    hard_pool=20,
    span_start_epoch=0,
    steps_per_epoch=None,  # filled in
    short_clips=None,
    dtype='float32',
    precision='highest',
  )
  c.input = dict(
    batch_size=128,
    epoch_end='pad',  # upstream keeps the last, partial batch
  )
  c.total_epochs = 100
  c.patience = 10
  c.log_steps = 50
  c.ckpt_epochs = 1
  c.best = f'val/{TASKS[arg.task]}_stop'
  c.select = 'best'
  c.optim = dict(
    name='bert_adam',
    lr=1e-4,
    b1=0.9,
    b2=0.999,
    eps=1e-6,
    wd=0.01,
    # By name, as upstream: a test for 'LayerNorm.weight' misses the two norms
    # called cross_layernorm (train.py).
    wd_mults=[
      ('.*/cross_norm/scale', 1.0),
      ('.*(bias|/scale)', 0.0),
      ('.*', 1.0),
    ],
    max_grad_norm=1.0,
  )
  if len(c.model.streams) < 2:
    c.optim.wd_mults = c.optim.wd_mults[1:]
  c.schedule = [('.*', dict(decay='warmup_linear', warmup=0.01))]
  if arg.task == 'retrieval':
    # Upstream's optimiser passes by tensors without a gradient.
    unused = 'span' if arg.model == 'reloclnet' else _DEEPER
    c.schedule = [(f'{unused}/.*', None), *c.schedule]
  c.mesh = [('data', -1)]
  c.sharding = [('.*', 'replicate')]
  return c


def evaluation(arg, *, data, when='train', **search):
  """One entry of `evals`.

  Args:
    arg: parsed argument.
    data: arguments of the dataset.
    when: 'train': every epoch; 'final': at the end, with page and predictions.
    **search: further options of the search.
  """
  final = when == 'final'
  return {
    'type': 'moments',
    'data': data,
    'tasks': ('VR',) if arg.task == 'retrieval' else ('VCMR', 'SVMR', 'VR'),
    'search': dict(
      videos=100,
      min_length=2,
      max_length=16,  # itself excluded: 15 clips at most
      before_nms=200,
    )
    | search,
    'by_kind': final,
    'query_block': 512,
    'item_block': 64,
    'when': when,
    'report': final,
    **({'predictions': 'json'} if final else {'log_epochs': 1}),
  }


def finish(arg, c):
  """`:runlocal`: two small steps on the embedded corpus, else unchanged."""
  if not arg.runlocal:
    return c
  c.model.update(
    dim=32,
    heads=4,
    max_clips=_SNIPS['max_clips'],
    max_words=_SNIPS['max_words'],
    short_clips=c.model.short_clips and 24,
  )
  small = dict(_SNIPS, context=arg.ctx)
  c.input.data = dict(split='train', **small)
  c.input.batch_size = 16
  del c.total_epochs, c.ckpt_epochs
  c.patience = None
  c.total_steps = c.ckpt_steps = 2
  c.log_steps = 1
  for e in c.evals.values():
    e.data = dict(split='test' if e.when == 'final' else 'val', **small)
    if 'batch_size' in e:
      e.batch_size = 16
    if 'log_epochs' in e:
      del e.log_epochs
      e.log_steps = 2
  return c
