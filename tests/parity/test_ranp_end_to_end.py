# SPDX-License-Identifier: Apache-2.0
"""The original's runs, evaluated: published folder and checkpoint to metrics.

Each run is a folder with options, weights of every epoch, the validation log
that the original wrote of each and its scores on the test split.
"""

import csv
import importlib
import json
import pathlib

import numpy as np
import pytest

from tests.parity.conftest import root_of
from vidret_jax import sharding
from vidret_jax.convert import ranp as convert
from vidret_jax.convert import ranp_config, ranp_runs
from vidret_jax.data import pickles
from vidret_jax.data.graphs import layout
from vidret_jax.evaluators import graded, graded_files
from vidret_jax.models import ranp

# Tolerances of the golden README.
SCORE, JUDGED = 1e-5, 1e-4
_LAYOUTS = (layout.MSRVTT, layout.EPIC_KITCHENS, layout.MSVD, layout.CHARADES)
_LEVELS = ('sentence', 'verb', 'noun')  # Rows of upstream's scores.
# Names of the published set; whatever else a folder holds is tested as well.
_RUNS = (
  'tiny_epic/results/RET.released/mlmatch/epic_hgr',
  'tiny_msrvtt/results/RET.released/mlmatch/msrvtt_hgr',
  'tiny_msrvtt/results/RET.released/eaomatch/msrvtt_eao',
)


def pytest_generate_tests(metafunc):
  root = root_of(metafunc.config) / 'ranp'
  found = {str(p.parent.relative_to(root)) for p in root.rglob('model.json')}
  names = sorted({*found, *_told(root), *_RUNS})
  metafunc.parametrize('run', names, indirect=True, scope='module')


def _told(root):
  """Folder of a run -> what `e2e.json` says of it."""
  path = root / 'e2e.json'
  if not path.is_file():
    return {}
  runs = json.loads(path.read_text()).values()
  return {f'{run["toy"]}/{run["run"]}': run for run in runs}


class Run:
  """A run of the original, its model and its data.

  Attributes:
    folder: of the run.
    told: what `e2e.json` says of it.
    model: as its options say.
    items: split -> our view of the clips.
    queries: split -> our view of the captions.
  """

  def __init__(self, root, name):
    self.folder = root / name
    self.told = _told(root)[name]
    config = ranp_runs.read_json(self.folder / 'model.json')
    options = ranp_config.model_config(config)
    self.model = ranp.make(**options)
    toy = self.folder.parents[3]
    self._data = _data(
      toy, ranp_runs.read_json(self.folder / 'path.json'), config, options
    )
    self.items, self.queries = {}, {}
    for split in ('val', 'test'):
      self._open(split)

  def _open(self, split):
    given = dict(self._data)
    module = importlib.import_module(f'vidret_jax.data.{given.pop("name")}')
    lengths = ('max_words', 'num_verbs', 'num_nouns')
    read = {k: v for k, v in given.items() if k not in lengths}
    module.prepare(split=split, progress=False, **read)
    self.items[split] = module.make(view='items', split=split, **given)
    self.queries[split] = module.make(view='queries', split=split, **given)

  def judge(self, split):
    return graded.Evaluator(
      self.model,
      sharding.make_mesh(),
      items=self.items[split],
      queries=self.queries[split],
      # Blocks of one size for both splits, the last of them not full.
      query_block=7,
      item_block=4,
      levels=split == 'test',
    )

  def variables(self, path):
    variables, report = convert.load(path, self.model)
    report.check_whole(str(path))
    assert not report.notes
    return variables


def _data(toy, files, config, options):
  """Options of the dataset that the paths of a run name."""
  kind = next(x for x in _LAYOUTS if x.vocabulary in files['int2word_file'])
  used = dict(
    captions=files['ref_caption_file']['tst'],
    word2int=files['word2int_file'],
    int2word=files['int2word_file'],
    classes=files['dataset_file']['trn'],
    graphs=files['ref_graph_file']['tst'],
    relevance_val=files['val_relevance_file'],
    relevance_test=files['relevance_file'],
  )
  for ours, theirs in layout.SPLITS.items():
    used[f'names_{ours}'] = files['name_file'][theirs]
  streams = files['attn_ft_files']['tst']
  return dict(
    name=kind.name,
    root=str(toy),
    paths={k: str(pathlib.PurePosixPath(v)) for k, v in used.items()},
    streams=tuple(pathlib.PurePosixPath(s).parent.name for s in streams),
    max_frames=config['max_frames_in_video'],
    max_words=config['max_words_in_sent'],
    num_verbs=config['num_verbs'],
    num_nouns=config['num_nouns'],
    graphs=options['backbone'] == 'hgr',
    words=options.get('words', 'ids'),
  )


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('VIDRET_DATA_DIR', str(tmp_path_factory.mktemp('data')))
    yield


@pytest.fixture(scope='module')
def run(request, golden_root, data):
  root = golden_root / 'ranp'
  if not (root / request.param).is_dir():
    pytest.skip(f'{root / request.param} is absent')
  if request.param not in _told(root):
    pytest.skip(f'{root / "e2e.json"} says nothing of {request.param}')
  return Run(root, request.param)


@pytest.fixture(scope='module')
def tested(run):
  """The evaluator after the test split with the chosen weights, results."""
  judge = run.judge('test')
  return judge, judge.run(run.variables(ranp_runs.selected(run.folder)))


def _allowed(name, q, v):
  """The tolerance of one of upstream's metrics: one item more or less."""
  if name.startswith(('nDCG', 'mAP')):
    return JUDGED
  if name == 'rsum':
    return 3 * 100 / q + 3 * 100 / v
  if name.endswith('medr'):
    return 1
  n = q if name.startswith('i') else v
  return 1 / n if name.endswith('meanr') else 100 / n


def _compare(errors, where, got, want, sizes, rounding=0.0):
  for name, value in want.items():
    allowed = _allowed(name, *sizes) + rounding
    errors.close(f'{where}/{name}', got[name], value, allowed)


def test_validation_logs(run, errors):
  """The weights of every epoch, on the validation split's own matrix."""
  logs = ranp_runs.read_logs(run.folder)
  assert logs == run.told['val']
  for name, size in run.queries['val'].sizes.items():
    assert getattr(run.model, name) == size
  judge = run.judge('val')
  sizes = len(run.queries['val']), len(run.items['val'])
  for log, want in logs.items():
    path = run.folder / 'model' / ranp_runs.checkpoint(log)
    got = graded_files.upstream_names(judge.run(run.variables(path)))
    assert list(got) == list(want)
    _compare(errors, log, got, want, sizes)


def test_scores(run, tested, errors):
  judge, _ = tested
  chosen = ranp_runs.selected(run.folder)
  files = sorted(run.folder.glob('pred/tst/*.npz'))
  assert [file.stem for file in files] == [chosen.stem]
  with np.load(files[0]) as want:
    want = dict(want)
  assert want.pop('vid_names').tolist() == list(run.items['test'].ids)
  assert want.pop('cap_names').tolist() == run.queries['test'].texts
  scores = want.pop('scores')
  assert not want
  if scores.ndim == 3:
    for name, level in zip(_LEVELS, scores, strict=True):
      errors.close(name, judge.scores[name], level.T, SCORE)
    scores = scores.mean(0)
  errors.close('scores', judge.scores['score'], scores.T, SCORE)


def test_test_metrics(run, tested, errors):
  judge, results = tested
  got = graded_files.upstream_names(results)
  sizes = judge.scores['score'].shape
  name = ranp_runs.selected(run.folder).stem
  (exact,) = (v for k, v in run.told['exact'].items() if k == f'{name}.npz')
  _compare(errors, 'exact', got, exact, sizes)

  # Upstream prints three decimals; after these lines comes the table.
  for line in run.told['printed'][:-2]:
    metric, _, values = line.partition(': ')
    values = dict(value.split(':') for value in values.split())
    want = {f'{metric}_{k.lower()}': float(x) for k, x in values.items()}
    _compare(errors, 'printed', got, want, sizes, 5e-4)


def test_tables(run, tested, errors, tmp_path):
  """The table of the test, and our own writer of it and of the scores."""
  judge, results = tested
  recorded = (run.folder / 'pred' / 'tst' / 'scores.csv').read_text()
  assert recorded == run.told['scores_csv']
  assert recorded.splitlines() == run.told['printed'][-2:]
  graded_files.write_legacy(
    tmp_path,
    'ours',
    judge.scores,
    run.queries['test'].texts,
    run.items['test'].ids,
    results,
  )
  (names, want), (header, ours) = (
    list(csv.reader(text.splitlines()))
    for text in (recorded, (tmp_path / 'scores.csv').read_text())
  )
  assert header == names
  groups, checkpoint, *want = want
  assert checkpoint == ranp_runs.selected(run.folder).name
  assert 'rsum' in groups.split('-')
  want = dict(zip(names, map(float, want), strict=True))
  got = dict(zip(names, map(float, ours[2:]), strict=True))
  sizes = judge.scores['score'].shape
  # Both are rounded to two decimals, perhaps to different sides.
  _compare(errors, 'scores.csv', got, want, sizes, 0.01)

  ours = pickles.load_npy(tmp_path / 'ours.npy')
  for path in run.folder.glob('pred/tst/*.np[yz]'):
    theirs = _predictions(path)
    assert list(ours) == list(theirs)
    for name in ('vid_names', 'cap_names'):
      assert list(ours[name]) == list(theirs[name])
    errors.close(path.name, ours['scores'], theirs['scores'], SCORE)


def _predictions(path):
  """The scores of the original: npz, or npy that it pickled itself."""
  if path.suffix == '.npy':
    try:
      return pickles.load_npy(path)
    except pickles.UnsafePickle as error:
      # Names that come from a table of pandas; the npz has them as text.
      assert 'pandas' in str(error)
  with np.load(path.with_suffix('.npz')) as arrays:
    return {k: arrays[k] for k in ('vid_names', 'cap_names', 'scores')}
