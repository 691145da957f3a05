# SPDX-License-Identifier: Apache-2.0
"""What the configs of RANP share, with its backbones HGR, EAO and VSE++.

A config file next door holds what belongs to its dataset, the recipe:

  name         of the dataset module
  features     names of `features=` -> folders of the streams
  usual        backbone -> what it takes of them
  thresholds   backbone -> relevance threshold of the published numbers
  mining       that of the published numbers

Facts: the 51 configuration scripts of https://github.com/aranciokov/RANP;
docs/configs.md maps their names.
"""

import ml_collections as mlc

from vidret_jax import config_lib as cl

# Structural choices that the config of every published dataset takes.
ARGS = dict(
  backbone='hgr',
  loss='ranp',
  mining='',
  threshold=0.0,
  features='',
  honour_semi=False,
  seed=0,
  runlocal=False,
)
BACKBONES = ('hgr', 'eao', 'vse')
# What a loss is made of; those with `threshold` read the relevance of pairs.
LOSSES = dict(
  triplet=dict(),
  ran=dict(threshold=True),
  ranp=dict(threshold=True, positives=True),
  rap=dict(threshold=True, positives=True, negatives=False),
  nce=dict(loss='softmax'),
  nce_ranp=dict(loss='softmax', threshold=True, positives=True),
)
# Upstream's names: All, Hard, Semi, Semi+All and Semi+Hard. The last two are
# All and Hard, begun with the weights of a finished Semi run.
MININGS = dict(
  all=dict(hardest=False),
  hard=dict(hardest=True),
  semi=dict(hardest=True, semi_hard=True),
  semi_all=dict(hardest=False),
  semi_hard=dict(hardest=True),
)

# What upstream's scripts write for every dataset.
_HGR = dict(
  dim=1024,
  word_dim=300,
  rnn='gru',
  rnn_layers=1,
  bidirectional=True,
  num_roles=16,
  graph_layers=1,
  graph_attention=True,
  fusion='embed',
  sigma=4.0,
  share_video=False,
  fix_words=False,
  word_dropout=0.2,
  video_dropout=0.2,
  graph_dropout=0.5,
  level_weights=None,  # or dict(fused=, sentence=, verb=, noun=)
  # Upstream: at the verb and noun level any pair is half relevant.
  level_relevance='dummy',
)
_EAO = dict(
  dim=4096,
  word_dim=300,
  heads=64,
  depth=1,
  mlp_ratio=1.0,
  projection_dim=6144,
  token_projection='gated',
  projection='gated',
  individual=True,
  positions=False,
  cls_token=False,
  words='vectors',  # 'ids': a table, with input.data.words='ids'
  fix_words=True,
  max_frames=20,  # of positions
  max_words=30,
)
_VSE = dict(
  dim=1024,
  word_dim=300,
  rnn='gru',
  rnn_layers=1,
  bidirectional=True,
  fix_words=False,
  word_dropout=0.2,
  video_dropout=0.2,
)
_OPTIONS = dict(hgr=_HGR, eao=_EAO, vse=_VSE)
# How captions become words: EAO reads a table of word2vec.
WORDS = dict(hgr='ids', eao='vectors', vse='ids')
# Where the Semi+ trainings look for their Semi run; --config.init.run=...
_SEMI_RUN = 'runs/semi'
_BATCH = dict(hgr=64, eao=64, vse=128)
# The embedded corpus, on which `runlocal` runs any of the configs.
_SNIPPETS = dict(max_frames=12, max_words=30, num_verbs=4, num_nouns=6)
_TINY = dict(
  hgr=dict(dim=32, word_dim=16),
  eao=dict(dim=32, word_dim=64, heads=4, projection_dim=32, max_frames=12),
  vse=dict(dim=32, word_dim=16),
)


def make(arg, recipe, *, validate=True, **data):
  """Builds the config of a published dataset.

  Args:
    arg: parsed argument, with at least ARGS.
    recipe: see the module.
    validate: the split 'val' chooses the weights; else the last are taken.
    **data: further arguments of the dataset, for all splits.
  """
  check(arg)
  features = arg.features or recipe['usual'][arg.backbone]
  if features not in recipe['features']:
    raise cl.ConfigError(
      f'features={features!r}: expected one of {", ".join(recipe["features"])}'
    )
  c = skeleton(
    arg,
    loss=arg.loss,
    mining=arg.mining or recipe['mining'],
    threshold=arg.threshold or recipe['thresholds'][arg.backbone],
  )
  data = dict(
    name=recipe['name'],
    root=None,
    streams=recipe['features'][features],
    max_frames=20,
    max_words=30,
    num_verbs=4,
    num_nouns=6,
    graphs=arg.backbone == 'hgr',
    words=WORDS[arg.backbone],
    precision='float32',
    # EPIC-Kitchens' training clips take 16.5 GB; 'ram16' half of it, None none.
    cache='ram',
    **data,
  )
  if arg.backbone == 'eao':
    data['word_vectors'] = 'GoogleNews-vectors-negative300.bin'
  if arg.mining in ('semi_all', 'semi_hard'):
    c.init = dict(run=_SEMI_RUN)
  c.input.data.update(split='train', **data)
  c.evals = dict(test=evaluation(split='test', when='final', **data))
  c.best, c.select = None, 'last'
  if validate:
    c.evals.val = evaluation(split='val', **data)
    # As upstream, even where a script's name says val-nDCG; by nDCG:
    # --config.best=val/nDCG_avg
    c.best, c.select = 'val/rsum', 'best'
  return finish(arg, c)


def check(arg):
  """Refuses values that no config takes."""
  for name, allowed in (
    ('backbone', BACKBONES),
    ('loss', LOSSES),
    ('mining', ('', *MININGS)),
  ):
    if getattr(arg, name) not in allowed:
      raise cl.ConfigError(
        f'{name}={getattr(arg, name)!r}: expected one of '
        f'{", ".join(filter(None, allowed))}'
      )
  if arg.threshold and 'threshold' not in LOSSES[arg.loss]:
    raise cl.ConfigError(
      f'threshold={arg.threshold} has no meaning with loss={arg.loss}, which '
      'does not read relevance; take loss=ran, ranp, rap or nce_ranp'
    )
  if not 0 <= arg.threshold < 1:
    raise cl.ConfigError(
      f'threshold={arg.threshold}: expected a relevance between 0 and 1; for '
      "none (1.0 in upstream's files) take loss=triplet or nce"
    )


def mining_options(loss, mining, threshold, *, semi_hard):
  """The model's `mining`: what is a negative, a positive, and which count.

  Args:
    loss: key of LOSSES.
    mining: key of MININGS; the softmax losses look at all negatives anyway.
    threshold: relevance from which on a pair is no negative.
    semi_hard: whether mining 'semi' is what it says.
  """
  kind = dict(LOSSES[loss])
  out = dict(
    loss='triplet',
    hardest=True,
    semi_hard=False,
    topk=1,
    direction='bi',
    margin=0.2,
    threshold=threshold if kind.pop('threshold', False) else None,
    positives=False,
    negatives=True,
    margin_pos=0.2,
    temperature=0.05,
    # Upstream takes the hardest clip of a caption for a caption; 'corrected'
    # does not. Read by nce_ranp only.
    pairing='published',
  )
  out.update(kind)
  if out['loss'] == 'triplet':
    out.update(MININGS[mining])
    out['semi_hard'] &= semi_hard
  return out


def skeleton(arg, *, loss, mining, threshold):
  """What all configs of the family have in common; `arg` as ARGS."""
  c = mlc.ConfigDict()
  c.system = 'ranp'
  c.seed = arg.seed
  c.model = dict(
    backbone=arg.backbone,
    mining=mining_options(
      loss,
      mining,
      threshold,
      # Upstream's HGR never hands the flag to its loss (matching.py), so its
      # "Semi" runs train with the hardest negatives.
      semi_hard=arg.honour_semi or arg.backbone != 'hgr',
    ),
    num_words=None,  # from the data
    dtype='float32',
    precision='highest',
    **_OPTIONS[arg.backbone],
  )
  c.input = dict(
    data=dict(),
    batch_size=_BATCH[arg.backbone],
    epoch_end='pad',  # upstream keeps the last, partial batch
  )
  c.total_epochs = 50
  c.log_steps = 100
  c.ckpt_epochs = 1
  c.optim = dict(name='adam', lr=1e-4, wd=0.0, b1=0.9, b2=0.999, eps=1e-8)
  c.schedule = [('.*', dict(decay='constant'))]
  c.mesh = [('data', -1)]
  c.sharding = [('.*', 'replicate')]
  return c


def evaluation(*, split, when='train', **data):
  """One entry of `evals`.

  Args:
    split: to evaluate.
    when: 'train': every epoch; 'final': at the end, with the page.
    **data: further arguments of the dataset.
  """
  final = when == 'final'
  if final and 'cache' in data:
    data['cache'] = None  # What is read once stays on disk.
  return dict(
    type='graded',
    data=dict(split=split, **data),
    query_block=256,
    item_block=256,
    when=when,
    report=final,
    **({} if final else dict(log_epochs=1)),
  )


def shapes_inputs(backbone, **changes):
  """Arguments of the embedded corpus but the split."""
  return {
    'name': 'shapes_graphs',
    **_SNIPPETS,
    'graphs': backbone == 'hgr',
    'words': WORDS[backbone],
    **changes,
  }


def finish(arg, c):
  """`:runlocal`: two small steps on the embedded corpus, else unchanged."""
  if not arg.runlocal:
    return c
  c.model.update(_TINY[arg.backbone])
  small = shapes_inputs(arg.backbone)
  c.input.data = dict(split='train', **small)
  c.input.batch_size = 16
  c.init = dict(run=None, torch=None)
  del c.total_epochs, c.ckpt_epochs
  c.total_steps = c.ckpt_steps = 2
  c.log_steps = 1
  for e in c.evals.values():
    e.data = dict(split='test' if e.when == 'final' else 'val', **small)
    if 'log_epochs' in e:
      del e.log_epochs
      e.log_steps = 2
  return c
