# SPDX-License-Identifier: Apache-2.0
"""Metrics find their row and column by name."""

import pytest

from vidret_jax.metrics import names


@pytest.mark.parametrize(
  'name, want',
  [
    ('t2v_R@1', ('t2v', 'R@1')),
    ('v2t_MdR', ('v2t', 'MdR')),
    ('t2v_R@10_leaky2019', ('t2v leaky2019', 'R@10')),
    ('coarse_t2v_R@5', ('coarse t2v', 'R@5')),
    ('dual_softmax_v2t_geom', ('dual_softmax v2t', 'geom')),
    ('sentence_v2t_mAP_binary', ('sentence v2t', 'mAP_binary')),
    ('t2v_rsum', ('t2v', 'rsum')),
    ('rsum', ('both', 'rsum')),
    ('nDCG_avg', ('both', 'nDCG')),
    ('mAP_binary_avg', ('both', 'mAP_binary')),
    ('verb_mAP_avg', ('verb both', 'mAP')),
    ('VR_r100', ('VR', 'R@100')),
    ('SVMR_0.7-r1', ('SVMR 0.7', 'R@1')),
    ('VCMR_vt-0.5-r10', ('VCMR vt 0.5', 'R@10')),
    ('VR_t-r5', ('VR t', 'R@5')),
    ('DSVR', ('DSVR/DSVD', 'mAP')),
    ('DAVD_h', ('DAVR/DAVD hard', 'uAP')),
    ('EVVE_uAP', ('EVVE', 'uAP')),
    ('SVD_mAP', ('SVD', 'mAP')),
    ('videos_found', None),
    ('VCMR_0.5-r7', None),
    ('VCMR_stop', None),
    ('loss', None),
    ('t2v_shortlisted', None),
    ('rerank_mflop', None),
  ],
)
def test_place(name, want):
  assert names.place(name) == want
