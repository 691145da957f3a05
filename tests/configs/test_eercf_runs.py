# SPDX-License-Identifier: Apache-2.0
"""Configs of EERCF on files as they are published, made small.

Each trains two steps from a CLIP file of OpenAI's layout, evaluates as we and
as upstream do, and writes the page.
"""

import jax
from jax.experimental.compilation_cache import compilation_cache
import numpy as np
import pytest

from tests.configs.shipped import load
from tests.data import frame_sets
from tests.evaluators import page_reader
from tests.parity import conftest as parity
from vidret_jax import config_lib as cl
from vidret_jax import sharding
from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import eercf as eercf_convert
from vidret_jax.convert import rules as rules_lib
from vidret_jax.data import shapes
from vidret_jax.data import tokenizer as tokenizer_lib
from vidret_jax.evaluators import two_stage
from vidret_jax.models import eercf
from vidret_jax.models.clip import Sizes
from vidret_jax.tools import prepare as prepare_tool
from vidret_jax.train import ckpt, defaults, loop, optim
from vidret_jax.train import run as run_lib

BPE = 'bpe_simple_vocab_16e6'
# Every dataset, both storages, both ways to train. Those of a line differ in
# data only and share the compiled update, which takes most of the time.
RUNS = (
  *('eercf_msrvtt.py', 'eercf_lsmdc.py:storage=records'),
  'eercf_vatex.py:clip=ViT-B/16',
  *('eercf_activitynet.py:storage=records', 'eercf_didemo.py:clip=ViT-L/14'),
  pytest.param('eercf_msvd.py:freeze=12', marks=pytest.mark.slow),
  pytest.param(
    'eercf_msrvtt.py:split=full,storage=records,linear_patch=3d,update=adamw',
    marks=pytest.mark.slow,
  ),
)
SIZES = dict(
  vision_width=64,
  vision_layers=1,
  patch=16,
  image_size=32,
  text_width=64,
  text_layers=1,
  context=16,
  dim=64,
)


@pytest.fixture(scope='module')
def published(tmp_path_factory, request):
  """(folder of CLIP's files, its tokenizer, sizes of the towers)."""
  folder = tmp_path_factory.mktemp('clip')
  golden = parity.root_of(request.config) / 'eercf'
  found = sorted(golden.glob(f'{BPE}*.gz'))
  if found:
    words = folder / f'{BPE}.txt.gz'
    words.symlink_to(found[0])
  else:
    words = frame_sets.write_tokenizer(folder / 'tokenizer.json')
  vocab = tokenizer_lib.load(words).vocab_size
  sizes = Sizes(**SIZES, vocab=vocab)
  rng = np.random.default_rng(0)
  towers = jax.tree.map(
    lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype),
    clip_convert.variable_shapes(sizes),
  )
  first = folder / 'ViT-B-32.pt'
  clip_convert.save(first, towers, sizes, scalars=True, half=True)
  for name in ('ViT-B-16.pt', 'ViT-L-14.pt'):
    (folder / name).symlink_to(first)
  return folder, words, sizes


@pytest.fixture
def data(tmp_path, monkeypatch, published):
  """The data folder, which has CLIP's files where configs look for them."""
  root = tmp_path / 'data'
  root.mkdir()
  (root / 'CLIP').symlink_to(published[0])
  monkeypatch.setenv('VIDRET_DATA_DIR', str(root))
  return root


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  """Folder of compiled programs, in use by the time a run has begun."""
  yield str(tmp_path_factory.mktemp('programs'))
  jax.config.update('jax_compilation_cache_dir', None)
  compilation_cache.reset_cache()


def small(spec, published, **changes):
  """The config with small towers, few frames, and short lists of two."""
  _, words, sizes = published
  config = load(spec)
  clip = {k: getattr(sizes, k) for k in (*SIZES, 'vocab')}
  out = {'model.clip': clip, 'model.max_frames': 3, 'model.temporal_layers': 1}
  for node in ('input', *(f'evals.{name}' for name in config.evals)):
    path = f'{node}.data'
    out |= {f'{path}.max_frames': 3, f'{path}.image_size': sizes.image_size}
    out[f'{path}.max_words'] = 12
    out[f'{path}.vocab_size'] = sizes.vocab
    if words.suffix == '.json':
      out[f'{path}.tokenizer'] = str(words)
    if node != 'input':
      out[f'{node}.k'] = 2
  out |= {'compile_cache': False, **changes}
  return cl.shrink(config, steps=2, batch_size=4, **out)


def write_files(spec, root):
  """The published files of a config's dataset; returns its name."""
  dataset = spec.split('.')[0].removeprefix('eercf_')
  frame_sets.write_set(dataset, root)
  return dataset


def prepare(config):
  args, _ = prepare_tool.parse(['--config', ''])
  prepare_tool.prepare(config, args)


@pytest.mark.parametrize('spec', RUNS)
@pytest.mark.usefixtures('quick_compiler')
def test_trains_and_evaluates(spec, data, tmp_path, published, programs):
  write_files(spec, data)
  config = small(spec, published, compile_cache=programs)
  prepare(config)
  assert (data / 'records').exists() == ('storage=records' in spec)
  watched = cl.track(config)
  folder = tmp_path / 'run'
  defaults.use_compile_cache(watched.compile_cache)
  results = loop.train(watched, str(folder))
  assert watched.unread() == []
  assert all(np.isfinite(v) for v in results.values())
  for name, entry in config.evals.items():
    metrics = ['t2v_R@10', 'v2t_R@10', 'coarse_t2v_R@1', 't2v_rsum']
    if entry.mode == 'native':
      metrics.append('t2v_shortlisted')
    for metric in metrics:
      assert 0 <= results[f'{name}/{metric}'] <= 300
  assert_page(config, folder / 'report' / 'test' / 'index.html')
  assert_trained(config, folder)


def assert_page(config, path):
  """The page shows the captions that were asked, and clips of the split."""
  page = page_reader.read(path)
  data = dict(cl.freeze(config.evals.test.data))
  make = cl.find('data', data.pop('name'), 'make')
  queries = make(view='queries', **data)
  items = make(view='items', **data)
  said = dict(zip(queries.ids, queries.texts))
  assert {r['id']: r['text'] for r in page['rows']} == said
  shown = {card['id'] for r in page['rows'] for card in r['top']}
  assert shown and shown <= set(items.ids)


def assert_trained(config, folder):
  """What is frozen is as the file has it; something else has moved."""
  run = run_lib.Run(config)
  target = run.shapes()
  found, _ = ckpt.load_variables(str(folder), target, 'last')
  given, source = run.fresh(target)
  assert source == config.init.torch
  found, given = (rules_lib.flatten(x['params']) for x in (found, given))
  flags = rules_lib.flatten(optim.trained(config.schedule, target['params']))
  moved = {k for k, x in given.items() if not np.array_equal(x, found[k])}
  assert moved and moved <= {k for k, trained in flags.items() if trained}


@pytest.mark.usefixtures('quick_compiler')
def test_evaluates_weights_of_the_authors(data, tmp_path, published):
  """`--mode eval --config.init.torch=pytorch_model.bin.0`."""
  write_files('eercf_lsmdc.py', data)
  path = tmp_path / 'pytorch_model.bin.0'
  config = small('eercf_lsmdc.py', published, **{'init.torch': str(path)})
  model = eercf.make(**cl.freeze(config.model))
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype),
    eercf_convert.variable_shapes(model),
  )
  eercf_convert.save(path, variables, model)
  results = loop.evaluate(config, str(tmp_path / 'run'))
  for name, entry in config.evals.items():
    options = {
      k: v for k, v in cl.freeze(entry).items() if k not in defaults.EVAL_KEYS
    }
    direct = two_stage.Evaluator(model, sharding.make_mesh(), **options).run(
      jax.tree.map(jax.numpy.asarray, variables)
    )
    assert {k: results[f'{name}/{k}'] for k in direct} == direct


@pytest.mark.parametrize(
  'lost, word',
  [
    ('CLIP/ViT-B-32.pt', 'init.torch'),
    ('CLIP/{words}', BPE),
    ('MSVD/raw-captions.pkl', 'root='),
    ('MSVD/videos', 'videos='),
  ],
)
def test_a_missing_file_is_named_before_anything_is_written(
  lost, word, data, tmp_path, published
):
  write_files('eercf_msvd.py', data)
  if lost.startswith('CLIP'):
    (data / 'CLIP').unlink()
    (data / 'CLIP').mkdir()
    for path in published[0].iterdir():
      (data / 'CLIP' / path.name).symlink_to(path)
  words = published[1].name
  lost = data / lost.format(words=words)
  lost.rename(tmp_path / 'elsewhere')
  changes = {'input.data.tokenizer': str(data / 'CLIP' / words)}
  with pytest.raises((OSError, ValueError)) as error:
    config = small('eercf_msvd.py', published, **changes)
    loop.train(config, str(tmp_path / 'run'))
  assert str(lost) in str(error.value) and word in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_a_tokenizer_of_another_vocabulary_is_refused(
  data, tmp_path, published
):
  write_files('eercf_msvd.py', data)
  other = frame_sets.write_tokenizer(tmp_path / 'other.json', 520)
  changes = {'input.data.tokenizer': str(other)}
  config = small('eercf_msvd.py', published, **changes)
  with pytest.raises(ValueError) as error:
    loop.train(config, str(tmp_path / 'run'))
  assert str(other) in str(error.value)
  assert str(published[2].vocab) in str(error.value)
  assert not (tmp_path / 'run').exists()


COUNTS = dict(train=20, val=4, test=4, copies=0)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  """Data folder with a small embedded corpus."""
  root = tmp_path_factory.mktemp('corpus')
  shapes.prepare(root, counts=COUNTS, progress=False)
  return root


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compiler')
def test_the_config_of_the_embedded_corpus_runs(corpus, tmp_path):
  config = load('eercf_shapes.py')
  changes = {'compile_cache': False}
  for node in ('input', *(f'evals.{name}' for name in config.evals)):
    changes |= {f'{node}.data.root': str(corpus), f'{node}.data.counts': COUNTS}
  watched = cl.track(cl.shrink(config, steps=2, batch_size=4, **changes))
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  assert all(np.isfinite(v) for v in results.values())
  assert_page(watched, tmp_path / 'run' / 'report' / 'test' / 'index.html')


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compiler')
def test_runlocal_runs_and_compiles_once(
  corpus, tmp_path, monkeypatch, compilations
):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(corpus))
  config = load(
    'eercf_msrvtt.py:split=full,runlocal,update=adamw',
    'total_steps=4',
    'ckpt_steps=1',
    'evals.val.log_steps=1',
    'compile_cache=False',
  )
  seen = []
  real = two_stage.Evaluator.run

  def run(self, variables):
    results = real(self, variables)
    seen.append(len(compilations))
    return results

  monkeypatch.setattr(two_stage.Evaluator, 'run', run)
  watched = cl.track(config)
  results = loop.train(watched, str(tmp_path / 'run'))
  assert watched.unread() == []
  assert set(config.evals) == {k.split('/')[0] for k in results}
  print('compilations at the end of each evaluation', seen)
  assert seen[0] > 2 and len(seen) == 4 + 2
  assert len(set(seen[:4])) == 1
