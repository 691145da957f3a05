# SPDX-License-Identifier: Apache-2.0
"""Whole networks: intermediates, similarities, loss, gradients, statistics."""

import jax

from tests.parity import goldens
from vidret_jax.convert import ce as convert
from vidret_jax.convert import ce_config, torch_file
from vidret_jax.models import ce

EVAL = dict(atol=2e-6)
GRAD = dict(atol=1e-6, rtol=1e-4)
# Running variances reach tens, where float32 resolves 2e-6.
STATS = dict(atol=2e-6, rtol=2e-6)
DOUBLE = dict(atol=1e-10)


def evaluate(model, variables, items, text, own=None):
  """Everything inference makes of a batch, in one compiled program."""

  @jax.jit
  def run(variables):
    def call(method, *args):
      return model.apply(variables, *args, method=method)

    pooled = call('pool_video', items)
    out = dict(pool={**pooled, 'text': call('pool_text', dict(text=text))})
    if model.projects:
      out['reduced'] = call('project', pooled)
    queries = dict(text=text)
    if own is not None:
      queries['available'] = own
    q = out['q'] = call('encode_query', queries)
    v = out['v'] = call('encode_item', items)
    out['averaged'] = call('score', q, v)
    out['sims'] = call('score', one_row_per_caption(q), v)
    return out

  return run(variables)


def one_row_per_caption(emb):
  return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), emb)


def train_step(model, variables, batch):
  """(similarities, loss), gradients and new statistics of one step."""

  def forward(params):
    variables_ = {**variables, 'params': params}
    (loss, _), state = model.apply(
      variables_,
      batch,
      step=0,
      train=True,
      method='loss',
      mutable=['batch_stats'],
    )
    return loss, state

  def sims(params):
    def run(module):
      q = module.encode_query(batch, train=True)
      return module.score(q, module.encode_item(batch, train=True))

    return model.apply(
      {**variables, 'params': params}, method=run, mutable=['batch_stats']
    )[0]

  @jax.jit
  def step(params):
    (loss, state), grads = jax.value_and_grad(forward, has_aux=True)(params)
    return sims(params), loss, grads, state

  return step(variables['params'])


def check_train(
  errors,
  io,
  model,
  variables,
  batch,
  *,
  moee=False,
  names=('sims', 'loss', 'grad', 'after'),
  tolerance=None,
):
  """Compares a training step with `train/*`; returns the new statistics."""
  sims, loss, grads, state = train_step(model, variables, batch)
  sims_name, loss_name, grad_name, after_name = (f'train/{n}' for n in names)
  errors.close(sims_name, sims, io[sims_name], **(tolerance or EVAL))
  errors.close(loss_name, loss, io[loss_name], **(tolerance or EVAL))
  ours = convert.to_torch(dict(params=grads, **state), model, moee=moee)
  for key, want in io.under(f'{grad_name}/').items():
    errors.close(f'{grad_name}/{key}', ours[key], want, **(tolerance or GRAD))
  for key, want in io.under(f'{after_name}/').items():
    errors.close(f'{after_name}/{key}', ours[key], want, **(tolerance or STATS))
  return {
    k: v
    for k, v in ours.items()
    if k.rsplit('.', 1)[-1]
    in ('running_mean', 'running_var', 'num_batches_tracked')
  }


def test_network(variant, golden_root, golden, errors):
  folder = golden_root / 'ce' / 'models' / variant
  io = golden(f'models/{variant}/io.npz')
  config, model, variables = goldens.load_model(
    golden_root / 'ce', folder / 'checkpoint.pth'
  )
  names = model.expert_names
  assert tuple(io['in/modalities']) == names
  text = io['in/text']
  captions = text.shape[1]
  # Upstream ignores the lengths; so do we.
  assert io['in/text_len'].shape == text.shape[:2]
  items = goldens.item_batch(io, names)

  out = evaluate(model, variables, items, text)
  for name, want in io.under('eval/pool/').items():
    errors.close(f'eval/pool/{name}', out['pool'][name], want, **EVAL)
  for name, want in io.under('eval/reduced/').items():
    errors.close(f'eval/reduced/{name}', out['reduced'][name], want, **EVAL)
  q, v = out['q'], out['v']
  errors.close('eval/moe_weights', q['weights'], io['eval/moe_weights'], **EVAL)
  if model.gating.startswith('concat'):
    # Upstream stores one text vector, under the first expert's name.
    text_embds, vid_embds = {names[0]: q['embed']}, out['pool']
  else:
    text_embds, vid_embds = model.split(q['embed']), model.split(v['embed'])
  for side, ours in (('vid', vid_embds), ('text', text_embds)):
    for name, want in io.under(f'eval/{side}_embds/').items():
      errors.close(f'eval/{side}_embds/{name}', ours[name], want, **EVAL)

  rule = 'averaged' if ce_config.averages_captions(config) else 'sims'
  errors.close('eval/sims', out[rule], io['eval/sims'], **EVAL)
  # The first texts against all videos.
  subset = io['eval/sims_text_subset']
  first = len(subset) // (1 if rule == 'averaged' else captions)
  errors.close(
    'eval/sims_text_subset',
    evaluate(model, variables, items, text[:first])[rule],
    subset,
    **EVAL,
  )
  if 'eval/sims_leaky_2019' in io:
    _, leaky, _ = goldens.load_model(
      golden_root / 'ce', folder / 'checkpoint.pth', availability='legacy_2019'
    )
    errors.close(
      'eval/sims_leaky_2019',
      evaluate(leaky, variables, items, text, items['available'])['sims'],
      io['eval/sims_leaky_2019'],
      **EVAL,
    )

  if 'train/loss' in io:
    assert io['train/text_len'].shape == io['train/text'].shape[:2]
    errors.close('train/margin', model.margin, io['train/margin'], 1e-12)
    check_train(
      errors, io, model, variables, dict(items, text=io['train/text'])
    )


def test_network_in_float64(precise_variant, golden_root, golden, errors):
  folder = f'models/{precise_variant}'
  want = golden(f'{folder}/io_float64.npz')
  io = goldens.Arrays(golden_root / 'ce' / folder / 'io.npz')
  with jax.enable_x64(True):
    _, model, variables = goldens.load_model(
      golden_root / 'ce',
      golden_root / 'ce' / folder / 'checkpoint.pth',
      dtype='float64',
    )
    items = goldens.item_batch(io, model.expert_names)
    out = evaluate(model, variables, items, io['in/text'])
    errors.close('eval/sims', out['sims'], want['eval/sims'], **DOUBLE)
    check_train(
      errors,
      want,
      model,
      variables,
      dict(items, text=io['train/text']),
      tolerance=DOUBLE,
    )


def test_original_moee(golden_root, golden, errors):
  io = golden('original_moee/io.npz')
  state = torch_file.read(
    golden_root / 'ce' / 'original_moee' / 'state_dict.pth'
  )
  param = io.under('param/')
  model = ce.make(
    **ce_config.moee_config(
      state,
      text_tokens=io['in/text'].shape[1],
      audio_tokens=io['in/video/audio'].shape[1],
    )
  )
  variables, _ = convert.to_flax(param, model)
  items = goldens.item_batch(io, model.expert_names, 'in/video/')
  out = evaluate(model, variables, items, io['in/text'])
  errors.close('eval/conf', out['sims'], io['eval/conf'], **EVAL)
  errors.close(
    'eval/moe_scores', out['q']['weights'], io['eval/moe_scores'], **EVAL
  )
  after = check_train(
    errors,
    io,
    model,
    variables,
    dict(items, text=io['in/text']),
    moee=True,
    names=('conf', 'loss', 'grad', 'after'),
  )
  # The file may have been written before the training step or after it.
  counter = 'text_pooling.batch_norm.num_batches_tracked'
  moved = state[counter] != param[counter]
  for key, value in state.items():
    now = after if moved and key in after else param
    errors.close(f'state_dict/{key}', now[key], value, **STATS)
