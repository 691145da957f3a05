# SPDX-License-Identifier: Apache-2.0
"""The shipped configs: which there are, and how tests load them."""

import math
import pathlib

import jax

from vidret_jax import config_lib as cl
from vidret_jax.train import defaults

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'

# Spec of a config -> parameters as published (None: not published).
CE = {
  'ce_msrvtt.py': 183_448_607,
  'ce_msrvtt.py:split=jsfusion': 183_448_607,
  'ce_msrvtt.py:split=miech': 92_434_235,
  'ce_msrvtt.py:split=miech,model=moee,moee_features': 43_976_282,
  'ce_msrvtt.py:model=moee': 400_410_129,
  'ce_msrvtt.py:model=moee_uniform': 246_219_775,
  'ce_msrvtt.py:model=mimic': 181_070_111,
  'ce_msrvtt.py:model=mimic,experts=scene': None,
  'ce_msrvtt.py:model=concat': 369_717,
  'ce_msrvtt.py:model=concat_mix': None,
  'ce_msrvtt.py:experts=scene+face': None,
  'ce_msrvtt.py:searched': 72_420_985,
  'ce_msrvtt.py:legacy_2019': None,
  'ce_msrvtt.py:legacy_2019,split=jsfusion': None,
  'ce_msrvtt.py:legacy_2019,split=miech': None,
  'ce_msrvtt.py:legacy_2019,split=miech,model=moee,moee_features': None,
  'ce_msrvtt.py:text=w2v': None,
  'ce_lsmdc.py': 116_857_599,
  'ce_lsmdc.py:model=moee': 159_776_655,
  'ce_lsmdc.py:legacy_2019': None,
  'ce_msvd.py': 84_043_645,
  'ce_msvd.py:model=moee': 131_374_381,
  'ce_msvd.py:legacy_2019': None,
  'ce_didemo.py': 79_285_025,
  'ce_didemo.py:model=moee': 107_257_953,
  'ce_didemo.py:legacy_2019': None,
  'ce_activitynet.py': 260_678_403,
  'ce_activitynet.py:model=moee': 330_415_875,
  'ce_activitynet.py:legacy_2019': None,
  'ce_shapes.py': None,
  'ce_shapes.py:model=moee': None,
  'ce_shapes.py:expert=colour': None,
  'ce_shapes.py:experts=colour+audio': None,
  'teachtext_msrvtt.py': 262_731_071,
  'teachtext_msrvtt.py:plus=False': None,
  'teachtext_msrvtt.py:plus=False,distill=False,text=w2v': None,
  'teachtext_msrvtt.py:denoise=less100': 262_731_071,
  'teachtext_msrvtt.py:denoise=less80': 262_731_071,
  'teachtext_msvd.py': None,
  'teachtext_msvd.py:denoise=less100': None,
  'teachtext_didemo.py': None,
  'teachtext_lsmdc.py': None,
  'teachtext_activitynet.py': None,
}
EERCF = {
  'eercf_msrvtt.py': 164_188_561,
  'eercf_msrvtt.py:split=7k': 164_188_561,
  'eercf_msrvtt.py:split=full,storage=records': 164_188_561,
  'eercf_msrvtt.py:clip=ViT-B/16': 162_531_985,
  'eercf_msrvtt.py:clip=ViT-L/14,update=adamw': 456_617_105,
  'eercf_msrvtt.py:linear_patch=3d': 168_907_153,
  'eercf_msrvtt.py:linear_patch=3d,freeze=12,update=adamw': 168_907_153,
  'eercf_msrvtt.py:update=adamw': 164_188_561,
  'eercf_msrvtt.py:freeze=-1': 164_188_561,
  'eercf_msrvtt.py:freeze=-1,update=adamw': 164_188_561,
  'eercf_msrvtt.py:freeze=6': 164_188_561,
  'eercf_msrvtt.py:freeze=12': 164_188_561,
  'eercf_msrvtt.py:freeze=12,update=adamw': 164_188_561,
  'eercf_msvd.py': 164_188_561,
  'eercf_lsmdc.py': 164_188_561,
  'eercf_vatex.py': 164_188_561,
  'eercf_didemo.py': 164_192_513,
  'eercf_activitynet.py': 164_192_513,
  'eercf_shapes.py': None,
  'eercf_shapes.py:linear_patch=3d': None,
}
# Without the table of words, which the vocabulary of a dataset decides.
RANP = {
  'ranp_epic_kitchens.py': 19_705_858,
  'ranp_epic_kitchens.py:loss=triplet': 19_705_858,
  'ranp_epic_kitchens.py:loss=ran': 19_705_858,
  'ranp_epic_kitchens.py:backbone=eao': 273_969_152,
  'ranp_epic_kitchens.py:backbone=eao,loss=nce_ranp': 273_969_152,
  'ranp_msrvtt.py': None,
  'ranp_msrvtt.py:features=resnet152+resnext101,mining=semi_all': 22_851_586,
  'ranp_msrvtt.py:backbone=eao,loss=nce': 278_163_456,
  'ranp_msrvtt.py:backbone=eao,split=1ka,loss=nce': 278_163_456,
  'ranp_msrvtt.py:backbone=vse,loss=triplet': None,
  'ranp_msvd.py': None,
  'ranp_msvd.py:backbone=eao,loss=rap': None,
  'ranp_charades.py': None,
  'ranp_charades.py:backbone=eao,loss=nce_ranp,mining=semi_hard': None,
  'ranp_shapes.py': None,
  'ranp_shapes.py:loss=triplet': None,
  'ranp_shapes.py:backbone=eao': None,
}
RELOCLNET = {
  'reloclnet_tvr.py': 7_765_650,
  'reloclnet_tvr.py:ctx=video_sub': 7_764_106,
  'reloclnet_tvr.py:ctx=video_tef': None,
  'reloclnet_tvr.py:contrast=False,task=retrieval': None,
  'reloclnet_tvr.py:task=localization': None,
  'reloclnet_tvr.py:model=xml': None,
  'reloclnet_tvr.py:model=xml,ctx=sub_tef': None,
  'reloclnet_tvr.py:test': None,
  'reloclnet_activitynet.py': None,
  'reloclnet_charades.py': None,
  'reloclnet_didemo.py': None,
  'reloclnet_shapes.py': None,
  'reloclnet_shapes.py:contrast=False': None,
  'reloclnet_shapes.py:model=xml': None,
  'reloclnet_shapes.py:ctx=sub_tef': None,
}
# Those that are trained: without the frozen networks.
HAP_VR = {
  'hap_vr_vcdb.py': 355_969,
  'hap_vr_vcdb.py:loss=video,negatives=global': 355_969,
  'hap_vr_vcdb.py:loss=s2vs,pool=chamfer': 355_969,
  'hap_vr_vcdb.py:labels=imagenet': 355_969,
  'hap_vr_vcdb.py:backbone=cache': 355_969,
  'hap_vr_vcdb.py:backbone=cache,loss=infonce': 355_969,
  'hap_vr_fivr5k.py': 355_969,
  'hap_vr_fivr5k.py:bits=128,audio': 92_801 + 512 * 128,
  'hap_vr_fivr200k.py:storage=records,visit=0.05': 355_969,
  'hap_vr_evve.py:pool=chamfer': 355_969,
  'hap_vr_svd.py': 355_969,
  'hap_vr_svd.py:split=labeled,features_only=True': 355_969,
  'hap_vr_shapes.py': None,
  'hap_vr_shapes.py:loss=infonce': None,
  'hap_vr_shapes.py:loss=none': None,
}
SPECS = {**CE, **EERCF, **RANP, **RELOCLNET, **HAP_VR}


def load(spec, *changes):
  """A config as the trainer gets it: locked, with all defaults."""
  config = cl.load(str(CONFIGS / spec), changes, defaults.DEFAULTS)
  return defaults.resolve(config)


def files(specs=None):
  """Names of the config files: all in the folder, or those of `specs`."""
  if specs is None:
    return sorted(p.name for p in CONFIGS.glob('*.py'))
  return sorted({spec.split(':')[0] for spec in specs})


def count(tree):
  """Numbers in a tree of arrays or of their shapes."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
