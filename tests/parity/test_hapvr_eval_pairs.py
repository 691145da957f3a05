# SPDX-License-Identifier: Apache-2.0
"""HAP-VR's evaluation of videos of many lengths, padded and alone.

What is compared with was made of one pair at a time, without padding.
"""

import re

import jax
import numpy as np
import pytest

from tests.parity import hapvr_goldens as hg
from vidret_jax.convert import torch_file

pytestmark = pytest.mark.usefixtures('quick_compiler')

_CASE = re.compile(r'sim_(\w+)_chunk(\d+)(_featonly)?')


def numbered(io, prefix, lengths):
  """Features of all queries or targets."""
  found = [io[f'{prefix}{i}'] for i in range(len(lengths))]
  assert [len(x) for x in found] == lengths.tolist()
  return found


def state(golden_root):
  path = hg.present(hg.folder(golden_root) / 'ckpt_eval.pth')
  return torch_file.read(path)['model']


def whole(length, multiple=4):
  """Frames of a padded video."""
  return -(-length // multiple) * multiple


def test_padded_videos(golden, errors, golden_root):
  io, weights = golden('eval_pairs.npz'), state(golden_root)
  queries = numbered(io, 'q', io['q_lens'])
  targets = numbered(io, 't', io['t_lens'])
  # More than the longest has: a query of padding changes nothing either.
  query = hg.videos(queries, whole(int(io['q_lens'].max())) + 4)
  cases = [c for k in io.groups() if (c := _CASE.fullmatch(k))]
  assert cases
  for case in cases:
    rates, chunk, bare = case[1], int(case[2]), bool(case[3])
    frame_rate, video_rate = map(float, io[f'rates_{rates}'])
    model, variables = hg.make(
      weights,
      frame_rate=frame_rate,
      video_rate=video_rate,
      features_only=bare,
    )
    pieces = [
      (i, x[at : at + chunk])
      for i, x in enumerate(targets)
      for at in range(0, len(x), chunk)
    ]
    longest = max(len(x) for _, x in pieces)
    target = hg.videos([x for _, x in pieces], whole(longest))
    found = jax.jit(
      lambda v, q, t, m=model: m.apply(v, q, t, method=hg.evaluate)
    )(variables, query, target)
    of = np.asarray([i for i, _ in pieces])
    got = np.stack(
      [
        np.asarray(found, np.float64)[:, of == i].mean(1)
        for i in range(len(targets))
      ],
      1,
    )
    errors.close(case[0], got, io[case[0]], **hg.FORWARD)
  io.under('f2f_'), io.under('comparator_')  # Of the test below.


def test_alone(golden, errors, golden_root):
  """Neither of the two is padded; what a long target goes through."""
  io = golden('eval_pairs.npz')
  io.under('')
  model, variables = hg.make(state(golden_root))
  longest = int(io['t_lens'].argmax())

  def stages(model, query, target):
    q, t = (model.encode_item(x) for x in (query, target))
    frames = model.frame_similarity(q, t)[0, 0]
    rows, columns = q['length'], t['length']
    places = model.comparator(frames[None], rows, columns)[0]
    return frames, places, model.fine(q, t)[0, 0]

  query, target = (
    hg.videos([x], len(x)) for x in (io['q0'], io[f't{longest}'])
  )
  frames, places, score = jax.jit(
    lambda v, q, t: model.apply(v, q, t, method=stages)
  )(variables, query, target)
  errors.close('frames', frames, io['f2f_q0_tlong'], **hg.FORWARD)
  errors.close('comparator', places, io['comparator_q0_tlong'], **hg.FORWARD)
  names = [
    k
    for k in io.groups()
    if (c := _CASE.fullmatch(k))
    and not c[3]
    and int(c[2]) >= io['t_lens'].max()
    and np.allclose(io[f'rates_{c[1]}'], list(hg.PUBLISHED.values()))
  ]
  for name in names:
    errors.close(name, score, io[name][0, longest], **hg.FORWARD)
