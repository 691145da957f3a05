# SPDX-License-Identifier: Apache-2.0
"""HGR, EAO and the global baseline: features, scores, losses, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity import ranp_goldens
from vidret_jax.convert import ranp as convert
from vidret_jax.layers.recurrent import GATES
from vidret_jax.models import hgr
from vidret_jax.ops import relevance

OUTPUT = 1e-5
LOSS = 1e-5
GRAD = dict(atol=1e-7, rtol=1e-4)
# Of the README: training agrees to 3e-7 where gradients are not noise.
TRAINED = dict(atol=1e-6, rtol=1e-5)
LEVELS = dict(sentence='sent', verb='verb', noun='noun')


def apply(model, variables, method, *args, **kwargs):
  return jax.jit(
    lambda variables: model.apply(variables, *args, method=method, **kwargs)
  )(variables)


def embed(model, variables, batch):
  def both(model):
    return model.encode_query(batch), model.encode_item(batch)

  return apply(model, variables, both)


def mining_of(variant, threshold, margin_pos=0.2):
  """Options of a loss variant by its name in the files."""
  name, _, rest = variant.partition('_')
  if variant.startswith('rap_only'):
    name, rest = 'rap_only', variant.removeprefix('rap_only_')
  if '4loss' in rest:
    # RANP was measured with all negatives, but at the other threshold.
    rest = 'hn' if name != 'ranp' or 'thr' in rest else 'nohn'
  options = dict(hardest=rest != 'nohn', semi_hard='semi' in rest)
  if name != 'base' and name != 'triplet':
    options['threshold'] = threshold
  if name in ('ranp', 'rap_only'):
    options.update(positives=True, margin_pos=margin_pos)
  if name == 'rap_only':
    options['negatives'] = False
  if name == 'normsoftmax':
    options = dict(loss='softmax', positives='ranp' in variant)
    if options['positives']:
      options['threshold'] = threshold
  return options


def losses_and_gradients(model, variants, variables, batch):
  """{variant: loss} and {variant: gradient}: one forward pass for all."""

  def losses(variables):
    def matrices(model):
      q = model.encode_query(batch, train=True)
      return model.matrices(q, model.encode_item(batch, train=True))

    sims = model.apply(variables, method=matrices)
    return {
      name: variant.apply({}, sims, batch, method='objective')[0]
      for name, variant in variants.items()
    }

  def both(variables):
    found, pull = jax.vjp(losses, variables)
    names = list(found)
    each = jax.vmap(lambda row: pull(dict(zip(names, row)))[0])
    return found, each(jnp.eye(len(names)))

  found, stacked = jax.jit(both)(variables)
  grads = {
    name: jax.tree.map(lambda x, i=i: x[i], stacked)
    for i, name in enumerate(found)
  }
  return found, grads


def check_losses(errors, io, variants, given, variables, batch, **overrides):
  """Losses of all variants; gradients where the file has them."""
  models = {}
  for variant, options in variants.items():
    options = dict(options)
    changes = {}
    if 'level_weights' in options:
      changes['level_weights'] = options.pop('level_weights')
    models[variant] = ranp_goldens.model(
      given['config'], mining=options, **changes, **overrides
    )
  model = next(iter(models.values()))
  found, grads = losses_and_gradients(model, models, variables, batch)
  for variant, value in found.items():
    want = io[f'loss/{variant}']
    errors.close(f'loss {variant}', value, want, atol=LOSS)
    total = given['losses'].get(variant)
    if total is not None:
      total = total['total'] if isinstance(total, dict) else total
      errors.close(f'total {variant}', want, np.asarray(total), atol=LOSS)
    want = io.under(f'grad/{variant}/')
    if want:
      rest = ranp_goldens.check_tree(
        errors, f'grad {variant}', grads[variant], want, model, **GRAD
      )
      for key, slope in rest.items():
        assert not np.any(slope), f'{key} has a gradient in {variant}'


def variants_of(io, given):
  """Loss variants of a file -> mining options and weights of levels."""
  out = {}
  for variant in io.under('loss/'):
    high = float(variant.partition('thr0')[2] or 0) / 100
    options = mining_of(variant, high or given['threshold_pos'])
    margin = given['config'].get('margin', 0.2)
    if options.get('loss') != 'softmax':
      options['margin'] = margin
    if '4loss' in variant:
      weights = given['loss_weights_4loss']
      options['level_weights'] = dict(zip(hgr.WEIGHTS, weights))
    out[variant] = options
  return out


def test_hgr(golden_root, golden, errors, hgr_name):
  name = f'hgr_{hgr_name}'
  io, given = golden(f'{name}.npz'), ranp_goldens.description(golden_root, name)
  assert len(io['index']) == len(io['batch/attn_fts'])
  config = given['config']
  model = ranp_goldens.model(config)
  assert model.rnn in GATES
  variables = ranp_goldens.load(golden_root, f'{name}.pth', model)
  batch = ranp_goldens.batch(io, given['classes'])

  def inside(model):
    text = model.text(batch, train=False)
    return text, model.video(
      batch['features'], batch['feature_mask'], train=False
    )

  text, video = apply(model, variables, inside)
  errors.close('words', text['words'], io['out/word_hiddens'], atol=OUTPUT)
  check_attention(errors, io, model, variables, batch, text)
  check_nodes(errors, io, text, batch)
  for got, part in zip(video, ('sent', 'verb', 'noun')):
    want = io[f'out/vid_{part}_embeds']
    if part != 'sent':
      real = batch['feature_mask']
      got, want = got[real], want[real]
    errors.close(f'video {part}', got, want, atol=OUTPUT)
  q, v = embed(model, variables, batch)
  levels = apply(model, variables, 'levels', q, v)
  for level, part in LEVELS.items():
    want = io[f'out/{part}_scores'].T
    errors.close(f'score {level}', levels[level], want, atol=OUTPUT)
  got = apply(model, variables, 'score', q, v)
  errors.close('score', got, io['out/scores'].T, atol=OUTPUT)
  check_relevance(errors, io, batch, given)
  check_losses(errors, io, variants_of(io, given), given, variables, batch)


def check_attention(errors, io, model, variables, batch, text):
  """The weights of words, by what they do: they give the sentence node."""
  weights = io['out/word_attn']
  got = np.einsum('bl,bld->bd', weights, np.asarray(text['words']))
  errors.close('sentence', text['nodes'][:, 0], got, atol=OUTPUT)
  assert not weights[~batch['word_mask']].any()


def check_nodes(errors, io, text, batch):
  """Nodes of filled slots before and after the graph network."""
  verbs, nouns = batch['verb_mask'].any(-1), batch['noun_mask'].any(-1)
  np.testing.assert_array_equal(io['out/verb_lens'] > 0, verbs)
  np.testing.assert_array_equal(io['out/noun_lens'] > 0, nouns)
  filled = np.concatenate([np.ones((len(verbs), 1), bool), verbs, nouns], 1)
  for ours, theirs in (('nodes', 'gcn_in'), ('reasoned', 'gcn_out')):
    got, want = text[ours][filled], io[f'out/{theirs}'][filled]
    errors.close(ours, got, want, atol=OUTPUT)
  parts = np.split(text['reasoned'], [1, 1 + verbs.shape[1]], axis=1)
  errors.close(
    'sentence after', parts[0][:, 0], io['out/sent_embeds'], atol=OUTPUT
  )
  for got, mask, name in (
    (parts[1], verbs, 'verb'),
    (parts[2], nouns, 'noun'),
  ):
    want = io[f'out/{name}_embeds'][mask]
    errors.close(f'{name} after', got[mask], want, atol=OUTPUT)


def check_relevance(errors, io, batch, given):
  assert float(io['rel/threshold']) == given['threshold_pos']
  keys = ('video_verb_classes', 'video_noun_classes')
  keys += ('verb_classes', 'noun_classes')
  parts = dict(sent='full', verb='verb_dummy', noun='noun_dummy')
  for name, part in parts.items():
    got = relevance.relevance(*(batch[k] for k in keys), part=part)
    errors.close(f'relevance {name}', got, io[f'rel/{name}'], atol=1e-6)


def test_training_of_hgr(golden_root, golden, errors, hgr_training):
  """Six steps of Adam, dropout off, from the first weights to the last."""
  name = f'hgr_train_{hgr_training}'
  io, given = golden(f'{name}.npz'), ranp_goldens.description(golden_root, name)
  config = given['config']
  model = ranp_goldens.model(config)
  variables = ranp_goldens.load(golden_root, f'{name}.init.pth', model)
  tx = optax.adam(given.get('lr', 1e-3))
  state = tx.init(variables)
  assert len(io['index']) == len(io['losses']) == len(given['classes'])

  # Jitted once: batches of other widths compile again, but only a few do.
  @jax.jit
  def update(variables, state, batch):
    def loss(variables):
      return model.apply(variables, batch, step=0, train=True, method='loss')[0]

    value, grads = jax.value_and_grad(loss)(variables)
    updates, state = tx.update(grads, state)
    return optax.apply_updates(variables, updates), state, value

  for step, classes in enumerate(given['classes']):
    batch = ranp_goldens.batch(io, classes, f'step{step}/batch/')
    variables, state, value = update(variables, state, batch)
    errors.close(f'loss {step}', value, io['losses'][step], atol=LOSS)
  final = ranp_goldens.load(golden_root, f'{name}.final.pth', model)
  want = {
    f'{part}/{key}': value
    for part, tensors in convert.to_torch(final, model).items()
    for key, value in tensors.items()
  }
  rest = ranp_goldens.check_tree(
    errors, 'trained', variables, want, model, **TRAINED
  )
  assert not rest


def test_eao(golden_root, golden, errors, eao_name):
  name = f'eao_{eao_name}'
  io, given = golden(f'{name}.npz'), ranp_goldens.description(golden_root, name)
  config = given['config']
  words = 'ids' if 'ids' in given['text_input'] else 'vectors'
  model = ranp_goldens.model(config, words=words)
  variables = ranp_goldens.load(golden_root, f'{name}.pth', model)
  batch = ranp_goldens.batch(io, given)

  def inside(model):
    out = {}
    for kind in ('video', 'text'):
      x, mask = model.tokens(batch, kind)
      filled, after = model.fusion.fill(x, mask)
      if model.positions:
        filled = model.place(filled, kind)
      fused, pooled = model.fusion(filled, after)
      out[kind] = dict(
        tokens=x,
        mask=mask,
        after=after,
        fused=fused,
        embed=pooled,
        projected=model.project(pooled, kind),
      )
    return out

  for kind, got in apply(model, variables, inside).items():
    np.testing.assert_array_equal(got['mask'], io[f'out/{kind}_mask'] > 0)
    if f'out/{kind}_mask_after' in io:
      want = io[f'out/{kind}_mask_after'] > 0
      np.testing.assert_array_equal(got['after'], want)
    real = np.asarray(got['mask'])
    for ours, theirs, keep in (
      ('tokens', f'{kind}_tokens', real),
      ('fused', f'{kind}_fused', np.asarray(got['after'])),
      ('embed', f'{kind}_embed', slice(None)),
      ('projected', dict(video='vid', text='cap')[kind] + '_proj', slice(None)),
    ):
      want = io[f'out/{theirs}']
      errors.close(theirs, got[ours][keep], want[keep], atol=OUTPUT)
  q, v = embed(model, variables, batch)
  got = apply(model, variables, 'score', q, v)
  errors.close('score', got, io['out/scores'].T, atol=OUTPUT)
  keys = ('video_verb_classes', 'video_noun_classes')
  keys += ('verb_classes', 'noun_classes')
  got = relevance.relevance(*(batch[k] for k in keys))
  errors.close('relevance', got, io['rel/sent'], atol=1e-6)
  variants = variants_of(io, given)
  check_losses(errors, io, variants, given, variables, batch, words=words)


def test_global(golden_root, golden, errors):
  io = golden('global.npz')
  given = ranp_goldens.description(golden_root, 'global')
  model = ranp_goldens.model(given['config'])
  variables = ranp_goldens.load(golden_root, 'global.pth', model)
  features, words = io['batch/mp_fts'], io['batch/caption_ids']
  batch = dict(
    features=features[:, None],
    feature_mask=np.ones((len(features), 1), bool),
    words=words.astype(np.int32),
    word_mask=ranp_goldens.below(io['batch/caption_lens'], words.shape[1]),
  )
  q, v = embed(model, variables, batch)

  def raw(model):
    x, mask = batch['features'], batch['feature_mask']
    return model.text(batch, train=False), model.video(x, mask, train=False)

  text, video = apply(model, variables, raw)
  errors.close('text', text, io['out/cap_embeds'], atol=OUTPUT)
  errors.close('video', video, io['out/vid_embeds'], atol=OUTPUT)
  got = apply(model, variables, 'score', q, v)
  errors.close('score', got, io['out/scores'].T, atol=OUTPUT)
  found, grads = losses_and_gradients(
    model, {'base_hn': model}, variables, batch
  )
  errors.close('loss', found['base_hn'], io['loss/base_hn'], atol=LOSS)
  want = io.under('grad/base_hn/')
  rest = ranp_goldens.check_tree(
    errors, 'grad', grads['base_hn'], want, model, **GRAD
  )
  assert not rest
