# SPDX-License-Identifier: Apache-2.0
"""Tests of models/ranp.py and its backbones: padding, options, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidret_jax.models import ranp

ROWS, FRAMES, WIDTH, WORDS, VERBS, NOUNS, VOCABULARY = 6, 4, 7, 5, 2, 3, 20
PLAIN = dict(word_dropout=0.0, video_dropout=0.0)
OPTIONS = dict(
  hgr=dict(dim=8, word_dim=6, graph_dropout=0.0, **PLAIN),
  eao=dict(
    dim=8, heads=2, projection_dim=10, max_frames=FRAMES, max_words=WORDS
  ),
  vse=dict(dim=8, word_dim=6, **PLAIN),
)
BACKBONES = tuple(OPTIONS)
MININGS = [
  dict(),
  dict(hardest=False),
  dict(topk=3),
  dict(semi_hard=True),
  dict(direction='v2t', margin=0.4),
  dict(direction='t2v'),
  dict(threshold=0.4),
  dict(threshold=0.4, semi_hard=True),
  dict(threshold=0.4, positives=True),
  dict(threshold=0.4, positives=True, hardest=False, margin_pos=0.1),
  dict(threshold=0.4, positives=True, negatives=False),
  dict(loss='softmax'),
  dict(loss='softmax', temperature=0.5),
  dict(loss='softmax', threshold=0.4, positives=True),
  dict(loss='softmax', threshold=0.4, positives=True, pairing='corrected'),
]
RANP = dict(threshold=0.4, positives=True)
# Most of the time would go into optimising programs that run once.
jit = functools.partial(
  jax.jit,
  compiler_options=dict(
    xla_backend_optimization_level=0, xla_llvm_disable_expensive_passes=True
  ),
)


def make(backbone, mining=RANP, **options):
  return ranp.make(
    backbone=backbone,
    mining=mining,
    num_words=VOCABULARY,
    **{**OPTIONS[backbone], **options},
  )


def graph(counts, rng):
  """Spans, roles and edges of one caption: verbs come from the sentence."""
  verbs, nouns, words = counts
  spans = np.zeros((VERBS + NOUNS, WORDS), bool)
  filled = [*range(verbs), *range(VERBS, VERBS + nouns)]
  for slot in filled:
    start = rng.integers(0, words)
    spans[slot, start : min(words, start + 2)] = True
  edges = np.zeros((1 + VERBS + NOUNS,) * 2, bool)
  edges[1 : 1 + verbs, 0] = True
  for noun in range(nouns):
    for verb in range(verbs):
      edges[1 + VERBS + noun, 1 + verb] = edges[1 + verb, 1 + VERBS + noun] = (
        True
      )
  roles = np.zeros(VERBS + NOUNS, np.int32)
  roles[filled] = rng.integers(0, 16, len(filled))
  return dict(
    verb_mask=spans[:VERBS],
    noun_mask=spans[VERBS:],
    roles=roles,
    edge_mask=edges,
  )


def make_batch(rows=ROWS, seed=0):
  """The second caption lacks verbs, the third nouns, the fourth words."""
  rng = np.random.default_rng(seed)
  words = rng.integers(2, WORDS + 1, rows)
  verbs = rng.integers(1, VERBS + 1, rows)
  nouns = rng.integers(1, NOUNS + 1, rows)
  verbs[[1, 3]] = nouns[[2, 3]] = words[3] = 0
  graphs = [graph(counts, rng) for counts in zip(verbs, nouns, words)]
  word_mask = np.arange(WORDS) < words[:, None]
  feature_mask = np.arange(FRAMES) < rng.integers(1, FRAMES + 1, (rows, 1))
  features = rng.normal(size=(rows, FRAMES, WIDTH)).astype('f')
  vectors = rng.normal(size=(rows, WORDS, 6)).astype('f')
  ids = rng.integers(2, VOCABULARY, (rows, WORDS)).astype(np.int32)
  classes = {
    f'{side}{kind}_classes': rng.integers(-1, 3, (rows, 2)).astype(np.int32)
    for side in ('', 'video_')
    for kind in ('verb', 'noun')
  }
  return dict(
    features=np.where(feature_mask[..., None], features, 0),
    feature_mask=feature_mask,
    words=np.where(word_mask, ids, 1),
    word_vectors=np.where(word_mask[..., None], vectors, 0),
    word_mask=word_mask,
    **{k: np.stack([g[k] for g in graphs]) for k in graphs[0]},
    **classes,
    _mask=np.ones(rows, bool),
  )


BATCH = make_batch()


@functools.cache
def variables_of(backbone):
  model = make(backbone)

  def init(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  variables = jit(init)(jax.random.key(0), BATCH)
  rng = np.random.default_rng(1)
  # Nothing stays at an initial zero or one.
  return jax.tree.map(
    lambda x: x + 0.1 * rng.normal(size=x.shape).astype('f'), variables
  )


@functools.cache
def compiled(model, method):
  """Compiled once per model: eager dispatch compiles every operation."""
  return jit(functools.partial(model.apply, method=method))


def call(model, variables, method, *args):
  return compiled(model, method)(variables, *args)


def encode(model, variables, batch):
  q = call(model, variables, 'encode_query', batch)
  return q, call(model, variables, 'encode_item', batch)


@functools.cache
def compiled_step(model):
  @jit
  def run(params, batch):
    def loss(params):
      return model.apply(
        {'params': params}, batch, step=0, train=True, method='loss'
      )

    return jax.value_and_grad(loss, has_aux=True)(params)

  return run


def step(model, variables, batch):
  return compiled_step(model)(variables['params'], batch)


def assert_near(got, want, atol=1e-5):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  leaves = jax.tree_util.tree_leaves_with_path(want)
  for (path, b), a in zip(leaves, jax.tree.leaves(got)):
    np.testing.assert_allclose(
      a, b, rtol=0, atol=atol * (0.1 + np.abs(b).max()), err_msg=str(path)
    )


def assert_finite(tree):
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    assert np.isfinite(x).all(), jax.tree_util.keystr(path)


# --------------------------------------------------------------------- masks


def with_garbage(batch, where):
  """NaN, other words and full masks in the rows outside where."""
  out = dict(batch)
  for key, x in batch.items():
    junk = np.full((), {'f': np.nan, 'i': 1, 'b': True}[x.dtype.kind], x.dtype)
    out[key] = np.where(where.reshape(-1, *[1] * (x.ndim - 1)), x, junk)
  return {**out, '_mask': where}


@pytest.mark.parametrize('backbone', BACKBONES)
def test_padding_rows_influence_nothing(backbone):
  model, variables = make(backbone), variables_of(backbone)
  where = np.array([True, True, False, True, False, True])
  small = {k: x[where] for k, x in BATCH.items()}
  want = step(model, variables, small)
  assert want[0][0] > 0
  for batch in ({**BATCH, '_mask': where}, with_garbage(BATCH, where)):
    assert_near(step(model, variables, batch), want)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_nothing_but_padding(backbone):
  where = np.zeros(ROWS, bool)
  for batch in ({**BATCH, '_mask': where}, with_garbage(BATCH, where)):
    found = step(make(backbone), variables_of(backbone), batch)
    for x in jax.tree.leaves(found):
      assert not np.asarray(x).any()


def longer(batch):
  """Two more places for frames and for words, one for verbs and for nouns."""
  out = dict(batch)
  for key in ('features', 'feature_mask', 'words', 'word_vectors', 'word_mask'):
    x = batch[key]
    out[key] = np.pad(x, [(0, 0), (0, 2)] + [(0, 0)] * (x.ndim - 2))
  for key in ('verb_mask', 'noun_mask'):
    out[key] = np.pad(batch[key], [(0, 0), (0, 1), (0, 2)])
  # Behind the verbs, and at the end.
  out['roles'] = np.insert(batch['roles'], [VERBS, VERBS + NOUNS], 0, axis=1)
  places = [1 + VERBS, 1 + VERBS + NOUNS]
  edges = np.insert(batch['edge_mask'], places, False, axis=1)
  out['edge_mask'] = np.insert(edges, places, False, axis=2)
  return out


def with_junk(batch):
  """Something else in every place that a mask excludes."""
  out = dict(batch)
  out['features'] = np.where(
    batch['feature_mask'][..., None], batch['features'], np.nan
  )
  out['words'] = np.where(batch['word_mask'], batch['words'], 7)
  out['word_vectors'] = np.where(
    batch['word_mask'][..., None], batch['word_vectors'], np.nan
  )
  spans = np.concatenate([batch['verb_mask'], batch['noun_mask']], 1)
  out['roles'] = np.where(spans.any(-1), batch['roles'], 5)
  return out


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('change', [with_junk, longer])
def test_padding_places_influence_nothing(backbone, change):
  model, variables = make(backbone), variables_of(backbone)
  want = step(model, variables, BATCH)
  assert_near(step(model, variables, change(BATCH)), want)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_captions_without_words_verbs_or_nouns(backbone):
  """They are in every batch of this file."""
  model, variables = make(backbone), variables_of(backbone)
  q, v = encode(model, variables, BATCH)
  assert_finite((q, v, step(model, variables, BATCH)))
  assert_finite(call(model, variables, 'score', q, v))
  if backbone == 'hgr':
    levels = call(model, variables, 'levels', q, v)
    for level in ('verb', 'noun'):
      empty = ~BATCH[f'{level}_mask'].any((1, 2))
      assert empty.sum() == 2
      assert not np.asarray(levels[level])[empty].any()
      assert np.asarray(levels[level])[~empty].any(1).all()


@pytest.mark.parametrize('backbone', BACKBONES)
def test_a_whole_batch_without_words(backbone):
  batch = dict(BATCH)
  for key in ('word_mask', 'verb_mask', 'noun_mask', 'edge_mask'):
    batch[key] = np.zeros_like(BATCH[key])
  assert_finite(step(make(backbone), variables_of(backbone), batch))


@pytest.mark.parametrize('backbone', BACKBONES)
def test_clips_without_frames_are_finite(backbone):
  batch = {**BATCH, 'feature_mask': BATCH['feature_mask'].copy()}
  batch['feature_mask'][:2] = False
  assert_finite(step(make(backbone), variables_of(backbone), batch))


# -------------------------------------------------------------------- scores


def test_score_is_the_mean_of_the_levels():
  model, variables = make('hgr'), variables_of('hgr')
  q, v = encode(model, variables, BATCH)
  levels = call(model, variables, 'levels', q, v)
  assert set(levels) == {'sentence', 'verb', 'noun'}
  mean = sum(np.float64(x) for x in levels.values()) / 3
  got = call(model, variables, 'score', q, v)
  np.testing.assert_allclose(got, mean, atol=1e-6)


@pytest.mark.parametrize('fusion', ['embed', 'sim'])
def test_levels_by_hand(fusion):
  model, variables = make('hgr', fusion=fusion), variables_of('hgr')
  q, v = jax.tree.map(np.float64, encode(model, variables, BATCH))
  got = call(model, variables, 'levels', *encode(model, variables, BATCH))

  def cosine(a, b):
    return a @ b / np.sqrt((a @ a + 1e-18) * (b @ b + 1e-18))

  for level in ('verb', 'noun'):
    want = np.zeros((ROWS, ROWS))
    for i, j in np.ndindex(ROWS, ROWS):
      frames = v[f'{level}_frames'][j][BATCH['feature_mask'][j]]
      filled = q[f'{level}s'][i][BATCH[f'{level}_mask'][i].any(1)]
      for phrase in filled:
        cosines = np.array([cosine(f, phrase) for f in frames])
        kept = np.maximum(cosines, 0)
        logits = 4 * kept / max(np.linalg.norm(kept), 1e-10)
        weights = np.exp(logits) / np.exp(logits).sum()
        found = weights @ cosines
        if fusion == 'embed':
          found = cosine(weights @ frames, phrase)
        want[i, j] += found / len(filled)
    np.testing.assert_allclose(got[level], want, atol=1e-5)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_blocks_and_candidates_score_as_the_whole(backbone):
  model, variables = make(backbone), variables_of(backbone)
  q, v = encode(model, variables, BATCH)
  want = np.asarray(call(model, variables, 'score', q, v))
  half = ROWS // 2

  def part(emb, start):
    return jax.tree.map(lambda x: x[start : start + half], emb)

  got = [
    np.hstack(
      [
        call(model, variables, 'score', part(q, i), part(v, j))
        for j in (0, half)
      ]
    )
    for i in (0, half)
  ]
  np.testing.assert_allclose(np.vstack(got), want, atol=1e-5)
  short = np.random.default_rng(0).integers(0, ROWS, (ROWS, 3))
  found = call(
    model, variables, 'rescore', q, jax.tree.map(lambda x: x[short], v)
  )
  np.testing.assert_allclose(
    found['score'], np.take_along_axis(want, short, 1), atol=1e-5
  )


@pytest.mark.parametrize('backbone', BACKBONES)
def test_text_and_video_embed_alone(backbone):
  """Views of queries lack the frames, views of items the text."""
  model, variables = make(backbone), variables_of(backbone)
  q, v = encode(model, variables, BATCH)
  video = {k: x for k, x in BATCH.items() if k.startswith('feature')}
  text = {k: x for k, x in BATCH.items() if k not in video}
  other = 'words' if backbone == 'eao' else 'word_vectors'
  text.pop(other)
  assert_near(call(model, variables, 'encode_query', text), q, 1e-6)
  assert_near(call(model, variables, 'encode_item', video), v, 1e-6)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_embeddings_have_length_one(backbone):
  q, v = encode(make(backbone), variables_of(backbone), BATCH)
  key = 'sentence' if backbone == 'hgr' else 'embed'
  lengths = np.linalg.norm(q[key], axis=-1)
  # Without words there is nothing to say, but EAO's masking token.
  known = BATCH['word_mask'].any(1) | (backbone != 'vse')
  np.testing.assert_allclose(lengths[known], 1, atol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(v[key], axis=-1), 1, atol=1e-5)


# ---------------------------------------------------------------------- loss


@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_mining_option_trains(backbone):
  model, variables = make(backbone), variables_of(backbone)

  def scores(params):
    bound = model.bind({'params': params})
    q = bound.encode_query(BATCH, train=True)
    return bound.score(q, bound.encode_item(BATCH, train=True))

  @jit
  def pull_back(params, slope):
    return jax.vjp(scores, params)[1](slope)[0]

  sims = jit(scores)(variables['params'])
  for options in MININGS:
    mined = make(backbone, options)

    def loss(sims, mined=mined):
      parts = mined.apply({}, sims, BATCH, method='mined')
      return sum(parts.values()), parts

    (value, parts), slope = jax.value_and_grad(loss, has_aux=True)(sims)
    wanted = {'negatives'} if options.get('negatives', True) else set()
    wanted |= {'positives'} if options.get('positives') else set()
    assert parts.keys() == wanted, options
    grads = pull_back(variables['params'], slope)
    assert_finite((value, grads))
    assert any(np.asarray(x).any() for x in jax.tree.leaves(grads)), options


def test_loss_of_the_fused_score_only():
  model, variables = make('hgr'), variables_of('hgr')
  (loss, logs), _ = step(model, variables, BATCH)
  q, v = encode(model, variables, BATCH)
  want = model.apply(
    {}, call(model, variables, 'score', q, v), BATCH, method='mined'
  )
  assert_near(logs, want)
  np.testing.assert_allclose(loss, sum(logs.values()), rtol=1e-6)


def matrices_of_levels():
  model, variables = make('hgr'), variables_of('hgr')
  q, v = encode(model, variables, BATCH)
  return call(model, variables, 'matrices', q, v)


@pytest.mark.parametrize('relevance', ['dummy', 'true'])
def test_weights_of_the_levels(relevance):
  weights = dict(fused=1.0, sentence=0.5, verb=2.0, noun=0.25)
  # Above one half, where the stand-ins do not make every pair relevant.
  model = make(
    'hgr',
    dict(threshold=0.6, positives=True),
    level_weights=weights,
    level_relevance=relevance,
  )
  sims = matrices_of_levels()
  loss, logs = model.apply({}, sims, BATCH, method='objective')
  parts = {
    'dummy': dict(verb='verb_dummy', noun='noun_dummy'),
    'true': dict(verb='verb', noun='noun'),
  }[relevance]
  want, total = {}, 0.0
  for name, weight in weights.items():
    found = model.apply(
      {}, sims[name], BATCH, parts.get(name, 'full'), method='mined'
    )
    want |= {f'{name}_{k}': x for k, x in found.items()}
    total += weight * sum(found.values())
  assert_near(logs, want)
  np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_relevance_of_stand_ins_silences_verbs_and_nouns():
  """Below one half every pair is relevant, as upstream: nothing is mined."""
  weights, sims = dict(verb=1.0, noun=1.0), matrices_of_levels()
  for relevance, silent in (('dummy', True), ('true', False)):
    model = make('hgr', level_weights=weights, level_relevance=relevance)
    loss, _ = model.apply({}, sims, BATCH, method='objective')
    assert (loss == 0) == silent


def test_classes_are_needed_where_relevance_is_used():
  batch = {k: x for k, x in BATCH.items() if not k.endswith('_classes')}
  variables = variables_of('vse')
  with pytest.raises(ValueError, match='threshold=0.4 needs .*video_verb_cl'):
    step(make('vse'), variables, batch)
  (loss, _), _ = step(make('vse', {}), variables, batch)
  assert np.isfinite(loss)


# ------------------------------------------------------------------- options


@pytest.mark.parametrize('backbone', ['hgr', 'vse'])
def test_dropout_in_training_only(backbone):
  rates = dict(word_dropout=0.3, video_dropout=0.3)
  if backbone == 'hgr':
    rates['graph_dropout'] = 0.3
  variables = variables_of(backbone)

  @functools.cache
  def compiled_loss(model, train):
    kwargs = dict(step=0, train=train, method='loss')
    return jit(
      lambda key: model.apply(
        variables, BATCH, rngs={'dropout': key}, **kwargs
      )[0]
    )

  def run(model, key, train):
    return compiled_loss(model, train)(key)

  one, two = jax.random.split(jax.random.key(0))
  dry = run(make(backbone), one, True)
  for name in rates:
    rate = {**dict.fromkeys(rates, 0.0), name: 0.3}
    model = make(backbone, **rate)
    wet = run(model, one, True)
    assert wet == run(model, one, True) != run(model, two, True), name
    assert wet != dry, name
  np.testing.assert_allclose(run(model, two, False), dry, rtol=1e-5)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_half_precision(backbone):
  variables = variables_of(backbone)
  model = make(backbone, dtype='bfloat16')
  (loss, logs), grads = step(model, variables, BATCH)
  want, _ = step(make(backbone), variables, BATCH)
  assert_finite((loss, logs, grads))
  for x in jax.tree.leaves((loss, grads)):
    assert x.dtype == jnp.float32
  np.testing.assert_allclose(loss, want[0], rtol=0.1)


VARIANTS = [
  dict(rnn='lstm', rnn_layers=2),
  dict(bidirectional=False, num_roles=0, graph_layers=2, graph_attention=False),
  dict(share_video=True, fusion='sim', sigma=9.0, fix_words=True),
  dict(backbone='eao', words='ids', positions=True, cls_token=True, depth=2),
  dict(backbone='eao', projection='minimal', individual=False, mlp_ratio=2.0),
  dict(backbone='eao', token_projection='minimal', projection=''),
  dict(backbone='eao', words='ids', fix_words=False),
  dict(backbone='vse', rnn='lstm', bidirectional=False, fix_words=True),
]


@pytest.mark.parametrize('options', VARIANTS)
def test_variants_train(options):
  options = dict(options)
  model = make(options.pop('backbone', 'hgr'), **options)

  @jit
  def run(key):
    kwargs = dict(step=0, train=False, method='loss')
    params = model.init(key, BATCH, **kwargs)['params']

    def loss(params):
      return model.apply({'params': params}, BATCH, **kwargs)[0]

    return params, jax.value_and_grad(loss)(params)

  params, (loss, grads) = run(jax.random.key(0))
  assert_finite((params, loss, grads))
  still = {
    jax.tree_util.keystr(path)
    for path, x in jax.tree_util.tree_leaves_with_path(grads)
    if not np.asarray(x).any()
  }
  frozen = options.get('fix_words', options.get('words') == 'ids')
  table = "['text']['embedding']"
  assert (table in still) == bool(frozen)
  # The last norm of EAO is never applied; biases of keys cancel in softmaxes.
  names = (table, "['fusion']['norm']", "['key']['bias']", 'frame_attn', 'word')
  assert all(any(n in path for n in names) for path in still), still


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(backbone='clip'), "backbone='clip': expected one of"),
    (dict(widht=3), "hgr has no option 'widht'; known are"),
    (dict(backbone='vse', sigma=4.0), "vse has no option 'sigma'"),
    (dict(rnn='rnn'), "rnn='rnn': expected one of"),
    (dict(fusion='max'), "fusion='max': expected one of"),
    (dict(level_relevance='some'), "level_relevance='some'"),
    (dict(level_weights=dict(verbs=1)), 'level_weights=.* expected weights of'),
    (dict(backbone='eao', projection='mlp'), "projection='mlp'"),
    (dict(backbone='eao', heads=3, dim=8), 'dim=8 .* heads=3'),
    (dict(backbone='eao', words='glove'), "words='glove'"),
    (dict(num_words=None), 'num_words=None: expected the size'),
    (dict(backbone='eao', words='ids', num_words=None), 'num_words=None'),
    (dict(mining=dict(hard=True)), "mining has no option 'hard'; known are"),
    (dict(mining=dict(topk=0)), 'mining.topk=0'),
    (dict(mining=dict(positives=True)), 'mining.threshold=None'),
    (dict(dtype='half'), "dtype='half'"),
  ],
)
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    ranp.make(**{'num_words': VOCABULARY, **options})


def count(model, width, word_dim):
  """Parameters of a model for clip features of a width."""
  batch = {k: x[:1] for k, x in BATCH.items()}
  batch['features'] = np.zeros((1, 20, width), 'f')
  batch['feature_mask'] = np.ones((1, 20), bool)
  batch['word_vectors'] = np.zeros((1, WORDS, word_dim), 'f')
  shapes = jax.eval_shape(
    lambda key: model.init(key, batch, step=0, train=False, method='loss'),
    jax.random.key(0),
  )
  assert list(shapes) == ['params']
  return sum(x.size for x in jax.tree.leaves(shapes))


def test_published_sizes():
  """EPIC-Kitchens-100's 3072 features, MSR-VTT's 4096."""
  for width, known in ((3072, 19_705_858), (4096, 22_851_586)):
    model = ranp.make(backbone='hgr', num_words=1000)
    assert count(model, width, 300) == known + 300 * 1000
  for width, known in ((3072, 273_969_152), (4096, 278_163_456)):
    assert count(ranp.make(backbone='eao'), width, 300) == known
