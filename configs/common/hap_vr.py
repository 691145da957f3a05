# SPDX-License-Identifier: Apache-2.0
"""What the configs of HAP-VR share.

Facts: `scripts/train.sh`, `train.py` and `evaluation.py` of HAP-VR,
https://github.com/yafeng19/HAP-VR; docs/configs.md maps their names.
"""

import ml_collections as mlc

from vidret_jax import config_lib as cl

# Structural choices of training.
TRAINING = dict(
  loss='hap',
  pool='topk',
  negatives='local',
  backbone='step',
  labels='raw255',
  seed=0,
  runlocal=False,
)
# And of an evaluation of published features.
EVALUATION = dict(
  pool='topk',
  features_only=False,
  bits=0,
  storage='files',
  visit=1.0,
  seed=0,
  runlocal=False,
)
# Parts of the loss; S2VS had the last three.
LOSSES = dict(
  hap=dict(frame=6.0, video=4.0, nce=1.0, sshn=3.0, reg=1.0),
  video=dict(frame=0.0, video=4.0, nce=1.0, sshn=3.0, reg=1.0),
  s2vs=dict(frame=0.0, video=0.0, nce=1.0, sshn=3.0, reg=1.0),
  infonce=dict(frame=0.0, video=0.0, nce=1.0, sshn=0.0, reg=0.0),
)
_CHOICES = dict(
  loss=tuple(LOSSES),
  pool=('topk', 'chamfer'),
  negatives=('local', 'global'),
  backbone=('step', 'cache'),
  labels=('raw255', 'imagenet'),
  storage=('files', 'records'),
)
# The width of DINO's ViT-S/16, whose features label frames.
_LABELS = 384
# The embedded corpus, on which `runlocal` runs any of the configs, and
# networks that are small enough for it.
FILMS = dict(name='shapes_copies', image_size=64, store_size=72)
SMALL_BACKBONE = dict(stages=(1, 1, 1), width=16, dims=64, kernels=(8, 4, 2))
SMALL_LABELLER = dict(image_size=64, patch=16, width=48, layers=2, heads=3)
FROZEN = [('(backbone|labeller)/.*', None)]


def check(arg):
  """Refuses values that no config takes."""
  for name, allowed in _CHOICES.items():
    value = getattr(arg, name, allowed[0])
    if value not in allowed:
      raise cl.ConfigError(
        f'{name}={value!r}: expected one of {", ".join(allowed)}'
      )


def skeleton(arg):
  """System, model and devices: all but data, optimiser and evaluators.

  Args:
    arg: parsed argument; what it lacks is as in TRAINING.
  """
  c = mlc.ConfigDict()
  c.system = 'hap_vr'
  c.seed = arg.seed
  c.model = dict(
    dim=512,
    attention=True,
    bits=None,
    frame_pool=getattr(arg, 'pool', 'topk'),
    video_pool=getattr(arg, 'pool', 'topk'),
    frame_rate=0.1,
    video_rate=0.03,
    max_frames=2048,
    features_only=False,
    loss=dict(LOSSES[getattr(arg, 'loss', 'hap')]),
    video_sigma=0.05,
    video_rho=0.1,
    frame_sigma=0.05,
    frame_rho=5.0,
    top_rate=0.35,
    bottom_rate=0.35,
    temperature=0.03,
    groups=1,
    backbone=None,
    labeller=None,
    antialias=False,
    kernel='auto',
    dtype='float32',
    precision='highest',
  )
  c.mesh = [('data', -1)]
  c.sharding = [('.*', 'replicate')]
  return c


def networks(c, arg):
  """Adds the frozen networks, in 16 bit, as upstream runs them."""
  with c.model.ignore_type():
    c.model.backbone = dict(
      stages=(3, 4, 6, 3),
      width=64,
      dims=c.model.dim,
      kernels=(28, 14, 6, 3),
      chunk=512,
      dtype='bfloat16',
      precision=None,
    )
    if c.model.loss.frame:
      c.model.labeller = dict(
        image_size=224,
        patch=16,
        width=_LABELS,
        layers=12,
        heads=6,
        # Upstream hands pixels from 0 to 255 to DINO (`train.py`).
        input=arg.labels,
        chunk=512,
        dtype='bfloat16',
        precision=None,
      )
  c.init = dict(
    # Files, to be named before anything is trained; '' draws a part instead.
    parts=dict(resnet=None, pca=None, labeller=None),
    # In place of its file: batches of training clips to fit it to.
    fit=dict(pca=None),
  )


def evaluation(*, data, when='final', visit=1.0, **options):
  """One entry of `evals`.

  Args:
    data: arguments of the dataset.
    when: 'train' or 'final': at the end, with a page.
    visit: share of the database that the network looks at.
    **options: further ones of the evaluator.
  """
  return dict(
    type='copies',
    data=data,
    # All but `chunk` and `visit` change no number: memory, and what a killed
    # search loses (`search/copy_plan.py`).
    search=dict(
      visit=visit,
      chunk=2048,
      storage='float32',
      batch_frames=16384,
      shard_frames=2**19,
      readers=4,
    ),
    shards='',
    missing='ignore',
    when=when,
    report=when == 'final',
    **options,
  )


def published(arg, name, split, **options):
  """The config of an evaluation of published features, without training."""
  check(arg)
  c = skeleton(arg)
  c.model.features_only = arg.features_only
  if arg.bits:
    with c.model.ignore_type():
      c.model.bits = arg.bits
    c.model.attention = False
  c.input = dict(
    data=dict(
      name='evaluation_only',
      dim=c.model.get_ref('dim'),
      shapes=dict(
        weak=(28, 9, None),
        strong=(28, 9, None),
        weak_labels=(28, _LABELS),
        strong_labels=(28, _LABELS),
      ),
    ),
    batch_size=1,
  )
  c.total_steps = c.log_steps = c.ckpt_steps = 1
  c.optim = dict(name='adamw', lr=4e-5)
  c.schedule = [('.*', dict(decay='constant'))]
  data = dict(
    name=name,
    split=split,
    storage=arg.storage,
    root=None,
    empty='error',
    min_frames=8,
  )
  options = dict(similarities_top=0) | options
  c.evals = dict(
    test=evaluation(data=data, visit=arg.visit, similarities='json', **options)
  )
  return local(arg, c)


def local(arg, c):
  """`:runlocal`: two small steps on the embedded corpus, else unchanged."""
  if not arg.runlocal:
    return c
  c.model.update(dim=SMALL_BACKBONE['dims'], groups=1)
  with c.model.ignore_type():
    c.model.backbone = dict(SMALL_BACKBONE)
    c.model.labeller = dict(SMALL_LABELLER) if c.model.loss.frame else None
  c.init = dict(fit=dict(pca=1))
  c.schedule = [*FROZEN, ('.*', dict(decay='constant'))]
  c.input.data = dict(split='train', window=8, **FILMS)
  c.input.batch_size = 8
  for key in cl.duration_keys('total') + cl.duration_keys('ckpt'):
    if key in c:
      del c[key]
  c.total_steps = c.ckpt_steps = 2
  c.log_steps = 1
  for e in c.evals.values():
    e.data = dict(split='copies', **FILMS)
    e.when = 'final'
    for key in cl.duration_keys('log'):
      if key in e:
        del e[key]
  c.best, c.select = None, 'last'
  return c
