# SPDX-License-Identifier: Apache-2.0
"""EERCF evaluated end to end: frames in, upstream's matrices and tables out.

Frames are those that upstream decoded, so that this is about the model and the
evaluation; decoding is compared in test_eercf_frames.
"""

import csv
import json

import numpy as np
import pytest

from tests.parity import eercf_goldens
from vidret_jax import sharding
from vidret_jax.data import source as source_lib
from vidret_jax.evaluators import two_stage
from vidret_jax.metrics import caption_ranks

SCORE = 2e-4  # The golden README's tolerance.
CHECKPOINT = 'a'
ROW = {'R1': 'R@1', 'R5': 'R@5', 'R10': 'R@10', 'MR': 'MdR', 'MeanR': 'MnR'}


class Arrays:
  """A source of arrays, and what a report reads of it."""

  def __init__(self, ids, arrays, **attributes):
    self.ids = tuple(ids)
    self._arrays = arrays
    self.spec = {k: (x.shape[1:], x.dtype) for k, x in arrays.items()}
    self.spec['_mask'] = ((), np.dtype(bool))
    self.__dict__.update(attributes)

  def __len__(self):
    return len(self.ids)

  def captions(self, i):
    return [self.ids[i]]

  def ground_truth(self, items):
    return source_lib.GroundTruth(self.ids, items.ids, self.item)

  def gather(self, index, seeds):
    index = np.asarray(index)
    rows = {k: x[np.maximum(index, 0)] for k, x in self._arrays.items()}
    return {**rows, '_mask': index >= 0}


class Case:
  """One evaluation of upstream: data, options and what came out."""

  def __init__(self, videos, text, frames, frame_mask, arrays, prefix):
    """videos: the video of each row; rows of one video are adjacent."""
    ids = list(dict.fromkeys(videos))
    item = np.array([ids.index(name) for name in videos])
    # Upstream encodes a video where its last caption is.
    last = np.array([np.flatnonzero(item == i)[-1] for i in range(len(ids))])
    if len(frames) == len(ids):
      last = np.arange(len(ids))
    self.items = Arrays(
      ids,
      dict(frames=frames[last], frame_mask=frame_mask[last] > 0),
      videos=[None] * len(ids),
    )
    self.queries = Arrays(
      [f'{name}#{i}' for i, name in enumerate(videos)],
      dict(text=text.astype(np.int32)),
      item=item,
      texts=list(videos),
    )
    self.sims = {
      k.removeprefix(f'{prefix}sim_'): x
      for k, x in arrays.items()
      if k.startswith(f'{prefix}sim_')
    }


def load(root, name):
  path = eercf_goldens.present(root / f'{name}_expected.npz')
  with np.load(path, allow_pickle=False) as found:
    arrays = {k: found[k] for k in found.files}
  return arrays, json.loads((root / f'{name}_expected.json').read_text())


def msrvtt(root):
  """(name, case, expectations of one k) of every evaluation."""
  arrays, want = load(root, 'msrvtt')
  names = [
    k.removesuffix('_ids') for k in arrays if f'{k[:-4]}_sim_main' in arrays
  ]
  for name in names:
    with open(root / 'msrvtt' / f'{name}.csv', newline='') as f:
      videos = [row['video_id'] for row in csv.DictReader(f)]
    case = Case(
      videos,
      arrays[f'{name}_ids'],
      arrays['test_video_uint8'],
      arrays['test_video_mask'],
      arrays,
      f'{name}_',
    )
    for key in (k for k in want if k in (name, f'{name}_smaller_topk')):
      yield key, case, want[key]


def msvd(root):
  arrays, want = load(root, 'msvd')
  videos = [video for video, _ in want['pairs']]
  names = ('ids', 'video_uint8', 'video_mask')
  yield 'msvd', Case(videos, *(arrays[n] for n in names), arrays, ''), want


@pytest.fixture(scope='module')
def root(golden_root):
  return golden_root / 'eercf'


@pytest.fixture(scope='module')
def system(root):
  return eercf_goldens.golden_model(root, CHECKPOINT)


def evaluator(model, case, **options):
  return two_stage.Evaluator(
    model,
    sharding.make_mesh(),
    queries=case.queries,
    items=case.items,
    query_block=4,
    item_block=3,
    count_costs=False,
    **options,
  )


def compare(errors, name, got, want):
  for direction in ('t2v', 'v2t'):
    for theirs, ours in ROW.items():
      value = want[direction][theirs]
      # Recalls of the caption form are float32 divisions upstream.
      atol = 1e-5 if 'Std_Rank' in want[direction] else 1e-9
      errors.close(
        f'{name}/{direction}_{ours}', got[f'{direction}_{ours}'], value, atol
      )
  if 'selection_score' in want:
    errors.close(f'{name}/rsum', got['t2v_rsum'], want['selection_score'], 3e-5)


@pytest.mark.parametrize('cases', [msrvtt, msvd])
def test_matrices_and_metrics(root, system, errors, cases, tmp_path):
  model, variables = system
  for name, case, want in cases(root):
    k, path = want['rerantopk'], tmp_path / name / 'sim_matrix.npy'
    judge = evaluator(model, case, mode='upstream', k=k, sim_matrix=str(path))
    compare(errors, name, judge.run(variables), want)
    found, sims = judge.matrices, case.sims
    errors.close(f'{name}/saved', np.load(path), sims['main'], SCORE)
    for level, got in found.levels.items():
      errors.close(f'{name}/{level}', got, sims[level], SCORE)
    if 'patch_strong' not in found.levels:
      # Upstream copies the frames' matrix where it does not look at patches.
      got = found.levels['frame_strong']
      errors.close(f'{name}/patch_strong', got, sims['patch_strong'], SCORE)
    errors.close(f'{name}/rerank', found.fused, sims['rerank'], SCORE)
    if 'smaller' not in name:
      got = caption_ranks.by_video(found.final, case.queries.item)
      real = np.isfinite(sims['final'])
      np.testing.assert_array_equal(np.isfinite(got), real)
      errors.close(f'{name}/final', got[real], sims['final'][real], SCORE)


@pytest.mark.parametrize('cases', [msrvtt, msvd])
def test_native_ranks_are_those_of_upstreams_matrix(root, system, cases):
  """No two scores are nearer than their errors, so ranks are equal."""
  model, variables = system
  for name, case, want in cases(root):
    judge = evaluator(model, case, k=want['rerantopk'])
    got = judge.run(variables)
    item = case.queries.item
    matrices = evaluator(model, case, mode='upstream', k=want['rerantopk'])
    matrices.run(variables)
    np.testing.assert_array_equal(judge.ranks.text, matrices.ranks.text, name)
    own = caption_ranks.by_video(matrices.matrices.final, item)
    ranks = caption_ranks.caption_ranks(own)
    assert got['t2v_MnR'] == ranks.mean() + 1, name
