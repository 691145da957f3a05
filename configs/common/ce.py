# SPDX-License-Identifier: Apache-2.0
"""What the configs of CE, MoEE and TeachText share.

A config file next door holds what belongs to its dataset, the recipe:

  batch_size epochs lr wd margin   of the training
  experts                          nicknames of the features, see NAMES
  face                             width of the face features
  text                             text encoder, see ENCODERS
  tokens clusters ghosts           padded lengths, NetVLAD centres (by
                                   nickname and 'text'), ghosts of the text

and this file turns it into a config. Facts: the configuration files of
https://github.com/albanie/collaborative-experts; docs/configs.md maps names.
"""

import ml_collections as mlc

from vidret_jax import config_lib as cl

# fmt: off
# Nicknames, as in the published tables -> names of the feature files.
NAMES = dict(
  scene='scene.densenet161.0',
  rgb='imagenet.senet154.0',
  inst='imagenet.resnext101_32x48d.0',
  flow='i3d.i3d.0',
  r2p1d='r2p1d.r2p1d-ig65m.0',
  r2p1d_kinetics='r2p1d.r2p1d-ig65m-kinetics.0',
  face='face',
  ocr='ocr',
  speech='speech',
  audio='audio',
  moee_rgb='antoine-rgb',
  moee_flow='flow',
)
DIMS = dict(
  scene=2208, rgb=2048, inst=2048, flow=1024, r2p1d=512, r2p1d_kinetics=512,
  ocr=300, speech=300, audio=128, moee_rgb=2048, moee_flow=1024,
)
SEQUENCES = ('audio', 'ocr', 'speech')
SILENT = ('audio', 'speech')  # What MSVD, without sound, does not have.
ALL = ('inst', 'rgb', 'scene', 'r2p1d', 'flow', 'face', 'ocr', 'audio',
       'speech')
# The tables of 2019 have no inst and r2p1d. Their feature files are gone; the
# same networks' files of 2020 stand in.
ALL_2019 = ('audio', 'face', 'flow', 'ocr', 'rgb', 'scene', 'speech')
# TeachText's: without motion, faces and letters.
REFINED = ('scene', 'speech', 'audio', 'r2p1d_kinetics', 'rgb', 'r2p1d',
           'inst')

# Text encoders -> width of a token.
ENCODERS = cl.find('data', 'encoders', 'DIMS')

# The rows of the published tables; other values of `--config.model.gating`,
# `.dim` and so on need no name.
MODELS = dict(
  ce=dict(gating='pairwise'),
  moee=dict(gating='none'),
  moee_uniform=dict(gating='none', mixture='uniform'),  # CE - MW, P, CG
  mimic=dict(gating='mimic'),  # CE - CG
  concat=dict(gating='concat'),
  concat_mix=dict(gating='concat_mix'),
)
_CONCAT_CLUSTERS = 39  # Of the text, for `concat` on every dataset.

# Structural choices that the config of every published dataset takes.
ARGS = dict(model='ce', experts='', text='', seed=0, runlocal=False)
# What 2019 used everywhere.
RECIPE_2019 = dict(
  experts=ALL_2019, face=512, text='openai', wd=0.0, margin=0.2, ghosts=0,
  tokens=dict(text=30, audio=30, ocr=30, speech=30),
  clusters=dict(text=32, audio=16, ocr=32, speech=32),
)

# The embedded corpus, on which `runlocal` runs any of the configs.
SHAPES = dict(
  dims=dict(audio=64, colour=128, layout=72, motion=96, ocr=64, shape=84,
            speech=64, texture=84),
  tokens=dict(audio=24, ocr=4, speech=20, text=40),
  text_dim=64,
)
_TINY = dict(audio=2, ocr=2, speech=2, text=4)
# fmt: on


def make(arg, recipe, *, train, evals, best, **data):
  """Builds the config of a published dataset.

  Args:
    arg: parsed argument, with at least ARGS.
    recipe: see the module.
    train: split to train on.
    evals: name -> arguments of `evaluation`.
    best: metric that chooses the weights; None takes the last ones.
    **data: of every split: name, fuse_captions, root, ...
  """
  recipe = dict(recipe)
  if arg.experts:
    recipe['experts'] = arg.experts.split('+')
  recipe['text'] = arg.text or recipe['text']
  if arg.model == 'concat':
    recipe['clusters'] = {**recipe['clusters'], 'text': _CONCAT_CLUSTERS}
  c = skeleton(arg.model, arg.seed, experts=experts(recipe), text=text(recipe))
  c.model.margin = recipe['margin']
  c.input.data.update(split=train, **data)
  c.input.batch_size = recipe['batch_size']
  c.total_epochs = recipe['epochs']
  c.optim.update(lr=recipe['lr'], wd=recipe['wd'])
  c.evals = {n: evaluation(c.model, **data, **e) for n, e in evals.items()}
  c.best = best
  c.select = 'best' if best else 'last'
  return c


def experts(recipe):
  """The list of (name, description) that model and data take."""
  out = []
  for nick in recipe['experts']:
    if nick not in NAMES or (
      nick in SEQUENCES and nick not in recipe['tokens']
    ):
      raise cl.ConfigError(
        f'experts: {nick!r} is none of this dataset; known: {", ".join(NAMES)}'
      )
    value = dict(dim=recipe['face'] if nick == 'face' else DIMS[nick])
    if nick in SEQUENCES:
      value.update(
        max_tokens=recipe['tokens'][nick], clusters=recipe['clusters'][nick]
      )
    out.append((NAMES[nick], value))
  return sorted(out, key=lambda e: e[0])


def text(recipe):
  """The description of captions that model and data take."""
  encoder = recipe['text']
  if encoder not in ENCODERS:
    raise cl.ConfigError(
      f'text={encoder!r}: expected one of {", ".join(ENCODERS)}'
    )
  return dict(
    encoder=encoder,
    dim=ENCODERS[encoder],
    max_tokens=recipe['tokens']['text'],
    clusters=recipe['clusters']['text'],
    ghosts=recipe['ghosts'],
  )


def skeleton(model, seed, *, experts, text):
  """What all configs of the family have in common."""
  if model not in MODELS:
    raise cl.ConfigError(
      f'model={model!r}: expected one of {", ".join(MODELS)}'
    )
  c = mlc.ConfigDict()
  c.system = 'ce'
  c.seed = seed
  c.model = dict(
    experts=experts,
    text=text,
    dim=768,
    gating='pairwise',
    mixture='learned',
    missing='renormalise',  # of a candidate's experts; 'keep' sums them all
    availability='candidate',
    include_self=True,
    g_layers=3,
    h_layers=0,
    g_norm=True,
    activation='mish',
    sequential=True,  # upstream updates experts in place, one by one
    legacy_concat_zero=False,  # True: upstream's concat, whose R@1 is 0.0
    margin=0.2,
    fix_norm=True,
    distill=0.0,
    dtype='float32',
  )
  c.model.update(MODELS[model])
  c.input = dict(
    data=dict(experts=experts, text=text, max_captions=None, cache='ram'),
    batch_size=64,
    epoch_end='pad',  # upstream keeps the last, partial batch
  )
  c.total_epochs = 100
  c.log_steps = 20
  c.ckpt_epochs = 1
  c.optim = dict(name='ranger', lr=0.1, wd=1e-3, b1=0.95, b2=0.999, eps=1e-5)
  c.schedule = [('.*', dict(decay='step', every_epochs=1, gamma=0.95))]
  if c.model.mixture == 'uniform' or model in ('concat', 'concat_mix'):
    # Upstream makes the mixture weights but gives them no gradient.
    c.schedule = [('mixing/.*', None), *c.schedule]
  c.mesh = [('data', -1)]
  c.sharding = [('.*', 'replicate')]
  return c


def evaluation(
  model, *, split, when='train', max_captions=None, num_samples=100, **data
):
  """One entry of `evals`: every epoch, or ('final') with the page at the end.

  Args:
    model: the model's part of the config, for its inputs.
    split: to evaluate.
    when: 'train' or 'final'.
    max_captions: queries per video, at most; None takes all.
    num_samples: queries on the page.
    **data: further arguments of the dataset.
  """
  final = when == 'final'
  return dict(
    type='retrieval',
    data=dict(
      experts=model.experts,
      text=model.text.to_dict(),
      split=split,
      max_captions=max_captions,
      cache=None if final else 'ram',  # What is read once stays on disk.
      **data,
    ),
    query_block=256,
    item_block=256,
    ties='mean',
    v2t='best_caption',
    when=when,
    report=final,
    num_samples=num_samples,
    **({} if final else dict(log_epochs=1)),
  )


def as_in_2019(c, amsgrad):
  """The network, rule and optimiser of the tables of July 2019.

  Its similarity tells a query which experts its own video has. Numbers made
  with it are marked wherever they are printed; they compare with nothing else.
  """
  c.model.dim = 512
  c.model.availability = 'legacy_2019'
  if c.model.gating == 'pairwise':
    c.model.gating = 'legacy_2019'
  c.optim = dict(name='adam', lr=c.optim.lr, wd=0.0, amsgrad=amsgrad)
  for e in c.evals.values():
    e.data.own_available = True
  if c.best:
    c.best += '_leaky2019'
  return c


def shapes_inputs(names, clusters, ghosts):
  """Experts and text of the embedded corpus, as model and data take them."""
  dims, tokens = SHAPES['dims'], SHAPES['tokens']
  for name in names:
    if name not in dims:
      raise cl.ConfigError(
        f'experts: unknown {name!r}; known: {", ".join(dims)}'
      )
  return dict(
    experts=[
      (
        n,
        dict(
          dim=dims[n],
          **(
            dict(max_tokens=tokens[n], clusters=clusters[n])
            if n in tokens
            else {}
          ),
        ),
      )
      for n in sorted(names)
    ],
    text=dict(
      dim=SHAPES['text_dim'],
      max_tokens=tokens['text'],
      clusters=clusters['text'],
      ghosts=ghosts,
    ),
  )


def finish(arg, c):
  """`:runlocal`: two small steps on the embedded corpus, else unchanged."""
  if not arg.runlocal:
    return c
  inputs = shapes_inputs(SHAPES['dims'], _TINY, c.model.text.ghosts)
  c.model.update(inputs, dim=32, distill=0.0)
  keep = ('max_captions', 'fuse_captions', 'own_available')
  for node, split in [
    (c.input, 'train'),
    *((e, 'test' if e.when == 'final' else 'val') for e in c.evals.values()),
  ]:
    kept = {k: node.data[k] for k in keep if k in node.data}
    node.data = dict(name='shapes', split=split, **inputs, **kept)
  c.input.batch_size = 16
  del c.total_epochs, c.ckpt_epochs
  c.total_steps = c.ckpt_steps = 2
  c.log_steps = 1
  for e in c.evals.values():
    if 'log_epochs' in e:
      del e.log_epochs
      e.log_steps = 2
  return c
