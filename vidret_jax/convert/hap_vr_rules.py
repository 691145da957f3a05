# SPDX-License-Identifier: Apache-2.0
"""Tables of HAP-VR's networks: keys of upstream, leaves of ours."""

from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.clip import CONV_2D, layer_norm
from vidret_jax.convert.rules import KERNEL, LEADING_ONE, Form, Rule
from vidret_jax.models import dino, regions
from vidret_jax.models.hap_vr_model import HapVr

# Where upstream keeps the CNN over frame matrices; S2VS and DnS: visil_head.
COMPARATOR = 'comparator_module'


def _drop_two(x):
  return x[0, 0] if x.shape[:2] == (1, 1) else x


# A class token: upstream [1, 1, w], a leaf [w].
TOKEN = Form('squeezed', _drop_two, lambda x: x[None, None])


def similarity(model: HapVr) -> tuple[Rule, ...]:
  """The trained network, in the order of upstream's state dict."""
  table = []
  if model.attention:
    table += rules_lib.linear('attention.transform', 'attention/transform')
    table.append(
      Rule(
        'attention.context_vector.weight',
        'params/attention/context/kernel',
        KERNEL,
      )
    )
  if model.bits:
    table.append(Rule('binarization.W', 'params/binarization/kernel'))
  for key, leaf in (*((f'conv{i}',) * 2 for i in (1, 2, 3)), ('fconv', 'head')):
    table += _conv(f'{COMPARATOR}.{key}', f'params/comparator/{leaf}')
  return tuple(table)


def _conv(key, leaf):
  return [
    Rule(f'{key}.weight', f'{leaf}/kernel', CONV_2D),
    Rule(f'{key}.bias', f'{leaf}/bias'),
  ]


def resnet(model: regions.Regions, leaf: str) -> tuple[Rule, ...]:
  """A ResNet of torchvision without its classifier; leaf with 'params'."""
  table = _convolved('conv1', 'bn1', f'{leaf}/conv1', f'{leaf}/bn1')
  for i, count in enumerate(model.stages, 1):
    for j in range(count):
      key, block = f'layer{i}.{j}', f'{leaf}/layer{i}_{j}'
      for k in (1, 2, 3):
        table += _convolved(
          f'{key}.conv{k}', f'{key}.bn{k}', f'{block}/conv{k}', f'{block}/bn{k}'
        )
      if not j:
        table += _convolved(
          f'{key}.downsample.0',
          f'{key}.downsample.1',
          f'{block}/shortcut_conv',
          f'{block}/shortcut_bn',
        )
  return tuple(table)


def _convolved(conv, norm, conv_leaf, norm_leaf):
  names = dict(
    weight='scale', bias='bias', running_mean='mean', running_var='var'
  )
  return [
    Rule(f'{conv}.weight', f'{conv_leaf}/kernel', CONV_2D),
    *(Rule(f'{norm}.{k}', f'{norm_leaf}/{v}') for k, v in names.items()),
  ]


def vit(model: dino.Dino, leaf: str) -> tuple[Rule, ...]:
  """A Vision Transformer of DINO; leaf with 'params'."""
  patch = 'patch_embed.proj'
  table = [
    Rule('cls_token', f'{leaf}/class_embedding', TOKEN),
    Rule('pos_embed', f'{leaf}/positional_embedding', LEADING_ONE),
    Rule(f'{patch}.weight', f'{leaf}/patch/kernel', CONV_2D),
    Rule(f'{patch}.bias', f'{leaf}/patch_bias'),
  ]
  for i in range(model.layers):
    key, block = f'blocks.{i}', f'{leaf}/block_{i}'
    table += layer_norm(f'{key}.norm1', f'{block}/ln_1')
    table += _linear(f'{key}.attn.qkv', f'{block}/attn/in_proj')
    table += _linear(f'{key}.attn.proj', f'{block}/attn/out_proj')
    table += layer_norm(f'{key}.norm2', f'{block}/ln_2')
    table += _linear(f'{key}.mlp.fc1', f'{block}/mlp/c_fc')
    table += _linear(f'{key}.mlp.fc2', f'{block}/mlp/c_proj')
  return (*table, *layer_norm('norm', f'{leaf}/norm'))


def _linear(key, leaf):
  return rules_lib.linear(key, leaf.removeprefix('params/'))
