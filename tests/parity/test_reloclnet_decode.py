# SPDX-License-Identifier: Apache-2.0
"""ReLoCLNet from checkpoint to prediction files: spans, suppression, lists."""

import functools
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from tests.parity import reloclnet_goldens as goldens
from tests.parity.test_reloclnet_data import Tiny
from vidret_jax import sharding
from vidret_jax.convert import reloclnet as convert
from vidret_jax.convert import reloclnet_config
from vidret_jax.data import tvr_moments
from vidret_jax.evaluators import moment_files, moments
from vidret_jax.metrics import moments as metrics
from vidret_jax.models import reloclnet
from vidret_jax.ops import temporal
from vidret_jax.search import moment_programs, moments_upstream

_TIE = 1e-4  # Relative; rows nearer than that may be swapped.
_NAME = re.compile(
  r'inference_[a-z]+_(?P<split>.+)_[^_]+_predictions_'
  r'(?P<tasks>[A-Z]+(_[A-Z]+)*)(_nms_thd_(?P<nms>[0-9.]+))?\.json'
)


def said(golden_root, pattern, default):
  """A number that only the golden README tells."""
  readme = golden_root / 'reloclnet' / 'README.md'
  found = readme.exists() and re.search(pattern, readme.read_text())
  return int(found[1]) if found else default


def test_bands(golden):
  arrays = golden('decode.npz')
  cases = sorted(k[:-4] for k in arrays.under('') if k.endswith('_cfg'))
  for case in cases:
    length, least, most = arrays[f'{case}_cfg'].tolist()
    ones = np.ones(length, np.float32)
    band = np.asarray(temporal.band_products(ones, ones, least, most))
    got = np.zeros((length, length), np.float32)
    d, s = np.nonzero(band)
    got[s, s + least + d] = 1
    np.testing.assert_array_equal(got, arrays[case], err_msg=case)


def test_best_spans(golden, errors):
  arrays = golden('decode.npz')
  arrays.under('')  # The other arrays have tests of their own.
  start, end = arrays['svmr_st_prob'], arrays['svmr_ed_prob']
  clips = np.arange(start.shape[1]) < arrays['svmr_lens'][:, None]
  want, seconds = arrays['svmr_pred'], tvr_moments.LAYOUT.clip_seconds
  o = moment_programs.Options()
  top_spans = functools.partial(
    temporal.top_spans,
    k=want.shape[1],
    min_length=o.min_length,
    max_length=o.max_length,
  )
  score, _, first, last = jax.jit(top_spans)(
    *(np.where(clips, x, 0)[:, None] for x in (start, end))
  )
  for q, rows in enumerate(want):
    got = np.column_stack(
      [rows[:, 0], seconds * first[q], seconds * last[q], score[q]]
    )
    same_rows(errors, got[got[:, 3] > 0], rows)


def test_suppression(golden, golden_root):
  arrays = golden('decode.npz')
  keep = said(golden_root, r'score\] rows, (\d+) kept', 15)
  used = said(golden_root, r'first (\d+) rows used', 30)
  few = said(golden_root, r'rows used, (\d+) kept', 12)
  cases = [k[:-4] for k in arrays.under('') if re.fullmatch(r'nms\d+_thd', k)]
  for case in cases:
    threshold = float(arrays[f'{case}_thd'])
    rows, want = arrays[f'{case}_in'], arrays[f'{case}_out']
    stays = suppressed(rows[:, :2], rows[:, 2], threshold, keep)
    np.testing.assert_array_equal(rows[stays], want, err_msg=case)
    rows, want = (arrays[f'vcmr_{case}_{x}'] for x in ('in', 'out'))
    rows = rows[:used]
    stays = suppressed(
      rows[:, 1:3], rows[:, 3], threshold, few, group=rows[:, 0].astype(int)
    )
    np.testing.assert_array_equal(rows[stays], want, err_msg=f'vcmr {case}')
  rows, want = arrays['svmr_nms_in'], arrays['svmr_nms_out']
  stays = moments_upstream.suppress(rows, 0.5, len(rows))
  np.testing.assert_array_equal(rows[stays, :3], want)


def suppressed(spans, scores, threshold, keep, **options):
  suppress = jax.jit(temporal.suppress, static_argnums=3)
  stays = suppress(
    spans.astype('f'), scores.astype('f'), threshold, keep, **options
  )
  return np.asarray(stays)[np.asarray(stays) >= 0]


class Run:
  """Upstream's run on the small set: its data, and the model it kept."""

  def __init__(self, golden_root):
    self.tiny = Tiny(golden_root)
    self.results = self.tiny.root / 'results'
    config = reloclnet_config.run_config(self.tiny.opt)
    self.search = config['search'] | dict(
      min_length=self.tiny.opt['min_pred_l'],
      max_length=self.tiny.opt['max_pred_l'],
    )
    self.model = reloclnet.make(
      **config['model'] | dict(hard_start_epoch=-1, span_start_epoch=-1)
    )
    path = goldens.present(self.results / 'model.ckpt')
    self.variables, _ = convert.load(path, self.model)
    self._views, self._found = {}, {}

  def views(self, split):
    """(queries, items)."""
    if split in self._views:
      return self._views[split]
    path = pathlib.Path(self.tiny.opt['train_path'])
    path = path.with_name(path.name.replace('train', split))
    files = self.tiny.files | {f'annotations_{split}': str(path)}
    options = dict(self.tiny.options, paths=files)
    tvr_moments.prepare(split=split, progress=False, **options)
    self._views[split] = [
      tvr_moments.make(view=view, split=split, **options)
      for view in ('queries', 'items')
    ]
    return self._views[split]

  def found(self, split, nms=None):
    """The evaluator after a search with upstream's suppression, if any."""
    if (split, nms) in self._found:
      return self._found[split, nms]
    queries, items = self.views(split)
    evaluator = moments.Evaluator(
      self.model,
      sharding.make_mesh(),
      queries=queries,
      items=items,
      search=self.search | dict(nms=nms, nms_upstream=nms is not None),
      query_block=self.tiny.opt['eval_query_bsz'],
      item_block=self.tiny.opt['eval_context_bsz'],
    )
    evaluator.run(self.variables)
    self._found[split, nms] = evaluator
    return evaluator


@pytest.fixture(autouse=True)
def quick(quick_compiler):
  return quick_compiler


@pytest.fixture(scope='module')
def run(golden_root, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('VIDRET_DATA_DIR', str(tmp_path_factory.mktemp('data')))
    yield Run(golden_root)


def everything(source):
  index = np.arange(len(source))
  return source.gather(index, index)


def test_encoded_corpus(golden, errors, run):
  want = golden('tiny_tvr/results/val_encoded.npz')
  queries, items = run.views(run.tiny.opt['eval_split_name'])

  @jax.jit
  def encode(variables, queries, items):
    apply = functools.partial(run.model.apply, variables)
    q = apply(queries, method='encode_query')
    v = apply(items, method='encode_item')
    sim = apply(q, v, method='similarity')
    logits = apply(sim, v['mask'][None], method='boundaries')
    return q, v, apply(q, v, method='score'), logits

  place = {number: i for i, number in enumerate(queries.numbers.tolist())}
  asked = np.array([place[i] for i in want['query_desc_ids'].tolist()])
  q, v, score, logits = encode(
    run.variables, queries.gather(asked, asked), everything(items)
  )
  mask = want['video_mask'] > 0
  np.testing.assert_array_equal(v['mask'], mask)
  for ours, theirs in goldens.STREAMS.items():
    if ours not in q:
      continue
    errors.close(f'{ours} query', q[ours], want[f'{theirs}_query'], 5e-6)
    clips = np.asarray(v[ours])
    feat = want[f'{theirs}_feat']
    errors.close(ours, clips[mask], feat[mask], goldens.VALID)
    errors.close(f'{ours} pad', clips[~mask], feat[~mask], goldens.PADDED)
  errors.close('score', score, want['q2c'], goldens.SCORE)
  for name, got in zip(('st', 'ed'), logits):
    goldens.check_boundaries(errors, name, got, want[f'{name}_logits'], mask)


def files(run):
  """(path, split, tasks, threshold) of all files of predictions."""
  out = []
  for path in sorted(run.results.glob('inference_*_predictions_*.json')):
    told = _NAME.fullmatch(path.name)
    if told:
      nms = told['nms'] and float(told['nms'])
      out.append((path, told['split'], told['tasks'].split('_'), nms))
  if not out:
    pytest.skip(f'{run.results}: no predictions')
  return out


def test_prediction_files(errors, run, tmp_path):
  for path, split, tasks, nms in files(run):
    evaluator = run.found(split, nms)
    evaluator.write_predictions(tmp_path / path.name)
    got = json.loads((tmp_path / path.name).read_text())
    want = json.loads(path.read_text())
    assert got['video2idx'] == want['video2idx']
    for task in set(tasks) & set(want):
      assert [(x['desc_id'], x['desc']) for x in got[task]] == [
        (x['desc_id'], x['desc']) for x in want[task]
      ]
      lists = [
        [np.array(x['predictions'], np.float64) for x in side[task]]
        for side in (got, want)
      ]
      faulty = nms is not None and task == 'SVMR'
      if faulty:
        plain = run.found(split).predictions()['SVMR'].valid
        compare_faulty(*lists, plain)
        continue
      for ours, theirs in zip(*lists):
        same_rows(errors, ours, theirs)


def compare_faulty(got, want, valid):
  """Rows (video_idx, start, end) of the suppression that is at fault.

  Upstream fills up lists of short videos with cells that are no moments. Here
  they compete with the moments, so such lists cannot be compared.
  """
  whole = [i for i in range(len(want)) if valid[i].all()]
  assert whole
  for i in whole:
    assert want[i].shape[1] == 3
    np.testing.assert_array_equal(got[i][:, :3], want[i])


def test_metrics_of_predictions(run):
  for path, split, _, nms in files(run):
    told = path.with_name(f'{path.stem}_metrics.json')
    if not told.exists():
      continue
    want = json.loads(told.read_text())
    evaluator = run.found(split, nms)
    blocks = [name for name in want if not name.endswith('_by_type')]
    lists = {name: evaluator.predictions()[name] for name in blocks}
    queries, items = run.views(split)
    if nms is not None and 'SVMR' in lists:
      # See `compare_faulty`.
      theirs = moment_files.aligned(moment_files.read(path), queries.ids, '')
      whole = run.found(split).predictions()['SVMR'].valid.all(1)
      place = {number: i for i, number in enumerate(items.numbers.tolist())}
      lists['SVMR'] = mixed(lists['SVMR'], theirs['SVMR'], whole, place)
    cutoffs = {int(k.rpartition('r')[2]) for k in want[blocks[0]]}
    table = metrics.evaluate(
      lists, evaluator.truth, kinds=queries.kinds, cutoffs=sorted(cutoffs)
    )
    assert metrics.as_upstream(table) == want, path.name


def mixed(ours, theirs, which, place):
  """Our lists of the queries `which`, their lists of the others."""
  n = max(ours.items.shape[1], theirs.items.shape[1])
  places = [
    [place[i] if i in place else -1 for i in row]
    for row in theirs.items.tolist()
  ]
  theirs = theirs._replace(items=np.array(places))

  def pick(a, b):
    a, b = (
      np.pad(x, [(0, 0), (0, n - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
      for x in (a, b)
    )
    return np.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)

  return metrics.Lists(*(pick(a, b) for a, b in zip(ours[:3], theirs[:3])))


def same_rows(errors, got, want):
  """Rows (video_idx, start, end, score) but for swaps of near ties."""
  want = want[want[:, 3] > np.finfo(np.float32).tiny]
  errors.close('scores', got[:, 3], want[:, 3], atol=0, rtol=_TIE)
  last = want[-1, 3]
  for row, right in zip(got, want):
    near = np.abs(want[:, 3] - right[3]) <= 2 * _TIE * right[3]
    among = (want[near, :3] == row[:3]).all(1).any()
    # What ties with the last row may have replaced it.
    assert among or row[3] <= last * (1 + 2 * _TIE), (row, right)
