# SPDX-License-Identifier: Apache-2.0
"""What the configs of EERCF share.

A config file next door holds what belongs to its dataset, the recipe:

  batch_size epochs       of the training
  max_words max_frames    padded lengths
  ranks                   processes of the original run, see `update`

Facts: the command lines of https://github.com/adxcreative/EERCF and of
https://github.com/ArrowLuo/CLIP4Clip, from which it stems; docs/configs.md.
"""

import math
import os

import ml_collections as mlc

from vidret_jax import config_lib as cl

DATA = os.environ.get('VIDRET_DATA_DIR') or 'data'
# Below it: what OpenAI publishes with CLIP.
_CLIP = os.path.join(DATA, 'CLIP')
TOKENIZER = os.path.join(_CLIP, 'bpe_simple_vocab_16e6.txt.gz')
VOCAB = 49408
WEIGHTS = {
  'ViT-B/32': 'ViT-B-32.pt',
  'ViT-B/16': 'ViT-B-16.pt',
  'ViT-L/14': 'ViT-L-14.pt',
}

_frozen = cl.find('models', 'clip_freezing', 'frozen')
_HALF = cl.find('models', 'clip_freezing', 'HALF')
_LOSS_WEIGHTS = cl.find('models', 'eercf_weights', 'LOSS_WEIGHTS')
_RANK_WEIGHTS = cl.find('models', 'eercf_weights', 'RANK_WEIGHTS')

# Structural choices that the config of every published dataset takes.
ARGS = dict(
  clip='ViT-B/32',
  linear_patch='2d',
  freeze=0,
  update='half_compat',
  seed=0,
  runlocal=False,
)
UPDATES = ('half_compat', 'adamw')
# Upstream clamps the temperature after every update.
LIMITS = [('clip/logit_scale', None, math.log(100))]
# The embedded corpus, on which `runlocal` runs any of the configs.
SHAPES = dict(
  vision_width=64,
  vision_layers=1,
  patch=16,
  image_size=32,
  text_width=64,
  text_layers=1,
  context=16,
  vocab=1000,
  dim=64,
)


def with_usual_splits(arg, recipe, *, name, val, test, form):
  """Builds the config of a dataset with one protocol, trained on `train`.

  Args:
    arg: argument of the config, not parsed.
    recipe: see the module.
    name: of the dataset.
    val: split that chooses the weights, or None: the last ones.
    test: split evaluated at the end.
    form: of upstream's metrics.
  """
  arg = cl.parse_arg(arg, storage='files', **ARGS)
  c = make(
    arg,
    recipe,
    name=name,
    root=None,
    storage=arg.storage,
    train='train',
    evals=published_evals(val, test, form=form),
    best='val/t2v_rsum' if val else None,
  )
  return finish(arg, c)


def make(arg, recipe, *, name, train, evals, best=None, **data):
  """Builds the config of a published dataset.

  Args:
    arg: parsed argument, with at least ARGS.
    recipe: see the module.
    name: of the dataset.
    train: split to train on.
    evals: name -> arguments of `evaluation`.
    best: metric that chooses the weights; None takes the last ones.
    **data: further arguments of the dataset, for all splits.
  """
  if arg.clip not in WEIGHTS:
    raise cl.ConfigError(
      f'clip={arg.clip!r}: expected one of {", ".join(WEIGHTS)}'
    )
  if arg.freeze < -1:
    raise cl.ConfigError(
      f'freeze={arg.freeze}: expected -1 (nothing), 0 (embeddings) or the '
      'number of first blocks in each tower'
    )
  frames = dict(
    max_frames=recipe['max_frames'],
    max_words=recipe['max_words'],
    image_size=224,
    **data,
  )
  c = skeleton(arg.seed, arg.linear_patch, name, frames)
  c.model.clip = dict(name=arg.clip)
  words = dict(tokenizer=TOKENIZER, vocab_size=VOCAB)
  c.input.data.update(split=train, transform='fast', captions='all', **words)
  c.input.batch_size = recipe['batch_size']
  c.total_epochs = recipe['epochs']
  c.init = dict(torch=os.path.join(_CLIP, WEIGHTS[arg.clip]))
  update(c, arg, recipe['ranks'])
  c.evals = {
    key: evaluation(name=name, **words, **frames, **e)
    for key, e in evals.items()
  }
  c.best = best
  c.select = 'best' if best else 'last'
  return c


def skeleton(seed, linear_patch, name, frames):
  """What all configs of the family have in common."""
  c = mlc.ConfigDict()
  c.system = 'eercf'
  c.seed = seed
  c.model = dict(
    max_frames=frames['max_frames'],
    temporal_layers=4,
    linear_patch=linear_patch,
    mask_padding=False,  # upstream: padded frames take part in the softmaxes
    remat=False,
    dtype='bfloat16',  # of the towers' products; the rest is float32
    precision='highest',
    loss_weights=dict(_LOSS_WEIGHTS),
    rank_weights=dict(_RANK_WEIGHTS),
  )
  c.input = dict(
    data=dict(name=name, **frames),
    batch_size=240,
    epoch_end='drop',  # upstream: drop_last
  )
  c.log_steps = 10
  c.ckpt_epochs = 1
  c.mesh = [('data', -1)]
  c.sharding = [('.*', 'replicate')]
  return c


def update(c, arg, ranks):
  """Optimiser, schedule and freezing; two regimes.

  half_compat   what the published weights were trained with: BertAdam, whose
                moments of CLIP's matrices are float16 and underflow, so that
                they move as with momentum SGD (models/clip_freezing.HALF), and
                gradients of all that lies before the gathering of features
                over `ranks` processes divided by their number.
  adamw         true gradients, AdamW in float32, CLIP at 1e-6 (as X-Pool).

  Which of the two is better on the published datasets is for a run with the
  data to decide; docs/results.md.
  """
  if arg.update not in UPDATES:
    raise cl.ConfigError(
      f'update={arg.update!r}: expected {" or ".join(UPDATES)}'
    )
  if arg.update == 'half_compat':
    gathered = 'video_map|frame_map|clip/logit_scale'
    c.optim = dict(
      name='bert_adam',
      lr=1e-4,
      wd=0.2,
      # By name, as upstream: gains of norms and the temperature decay, too.
      wd_mults=[('.*/bias', 0.0), ('.*', 1.0)],
      grad_mults=[(gathered, 1.0), ('.*', 1 / ranks)],
      clip_norm=1.0,
      half=list(_HALF),
      limits=LIMITS,
    )
    decay, clip = dict(decay='warmup_cosine', warmup=0.1), 1e-3
  else:
    c.optim = dict(
      name='adamw',
      lr=1e-4,
      wd=0.2,
      b2=0.98,
      wd_mults=[('.*/(bias|scale)|clip/logit_scale', 0.0), ('.*', 1.0)],
      clip_norm=1.0,
      limits=LIMITS,
    )
    decay, clip = dict(decay='cosine', warmup_percent=10), 1e-2
  c.schedule = [
    *((regex, None) for regex in _frozen(arg.freeze, arg.linear_patch)),
    ('clip/.*', dict(decay, mul=clip)),
    ('.*', decay),
  ]


def evaluation(*, split, when='train', mode='native', form=None, **data):
  """One entry of `evals`.

  Args:
    split: to evaluate.
    when: 'train': every epoch; 'final': at the end, with the page.
    mode: 'native', or 'upstream' for its numbers to the digit.
    form: of upstream's metrics, see `evaluators.two_stage`.
    **data: further arguments of the dataset.
  """
  out = dict(
    type='two_stage',
    data=dict(split=split, transform='exact', **data),
    k=50,
    mode=mode,
    v2t='from_t2v',
    query_block=256,
    item_block=32,
    when=when,
    report=when == 'final' and mode == 'native',
  )
  if form:
    out['form'] = form
  if when == 'train':
    out['log_epochs'] = 1
  return out


def published_evals(val, test, *, form='captions'):
  """Validation while training, then ours and upstream's evaluation of test.

  Args:
    val: split evaluated in every epoch, or None.
    test: split evaluated at the end.
    form: of upstream's metrics.
  """
  out = dict(val=dict(split=val)) if val else {}
  out['test'] = dict(split=test, when='final')
  out['upstream'] = dict(split=test, when='final', mode='upstream', form=form)
  return out


def finish(arg, c):
  """`:runlocal`: two small steps on the embedded corpus, else unchanged."""
  if not arg.runlocal:
    return c
  small = dict(max_frames=4, max_words=16, image_size=SHAPES['image_size'])
  c.model.clip = SHAPES
  c.model.update(max_frames=4, temporal_layers=1, dtype='float32')
  c.input.data = dict(name='shapes_frames', split='train', **small)
  c.input.batch_size = 16
  c.init = dict(torch=None)
  c.schedule = [rule for rule in c.schedule if rule[0] in ('clip/.*', '.*')]
  del c.total_epochs, c.ckpt_epochs
  c.total_steps = c.ckpt_steps = 2
  c.log_steps = 1
  for e in c.evals.values():
    split = 'test' if e.when == 'final' else 'val'
    e.data = dict(name='shapes_frames', split=split, **small)
    if 'form' in e:
      e.form = 'captions'  # shapes has several per video.
    if 'log_epochs' in e:
      del e.log_epochs
      e.log_steps = 2
  return c
