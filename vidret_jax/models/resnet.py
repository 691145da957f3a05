# SPDX-License-Identifier: Apache-2.0
"""ResNet with bottleneck blocks, frozen (He et al., 2016).

https://arxiv.org/abs/1512.03385, in the form of torchvision: the stride of a
block is that of its 3x3 convolution. Batch normalisation applies statistics
that are parameters like any other, so that nothing updates them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidret_jax.layers.linear import Numerics

Array = jax.Array

# Channels that leave a block, in widths of its 3x3 convolution.
EXPANSION = 4
_EPS = 1e-5
_HE = nn.initializers.variance_scaling(2.0, 'fan_out', 'truncated_normal')


class Norm(nn.Module):
  """Batch normalisation by given statistics, in float32.

  Attributes:
    num: numerics.
  """

  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., c] -> [..., c], of the type of x."""
    wide, c = self.num.wide, x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (c,), wide)
    bias = self.param('bias', nn.initializers.zeros, (c,), wide)
    mean = self.param('mean', nn.initializers.zeros, (c,), wide)
    var = self.param('var', nn.initializers.ones, (c,), wide)
    gain = scale / jnp.sqrt(var + _EPS)
    return ((x.astype(wide) - mean) * gain + bias).astype(x.dtype)


class Conv(nn.Module):
  """A convolution without bias, padded by half the kernel.

  Attributes:
    features: channels that leave it.
    window: side of the kernel.
    stride: step of the kernel.
    num: numerics.
  """

  features: int
  window: int
  stride: int = 1
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[n, H, W, c] -> [n, H / stride, W / stride, features]."""
    shape = (self.window, self.window, x.shape[-1], self.features)
    kernel = self.param('kernel', _HE, shape, self.num.wide)
    pad = self.window // 2
    return jax.lax.conv_general_dilated(
      x.astype(self.num.dtype),
      kernel.astype(self.num.dtype),
      (self.stride, self.stride),
      ((pad, pad), (pad, pad)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=self.num.precision,
    )


class Bottleneck(nn.Module):
  """relu(x + norm(1x1(relu(norm(3x3(relu(norm(1x1(x))))))))).

  Attributes:
    width: channels of the 3x3 convolution.
    stride: its step.
    num: numerics.
  """

  width: int
  stride: int = 1
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    num, out = self.num, EXPANSION * self.width
    y = Conv(self.width, 1, num=num, name='conv1')(x)
    y = jax.nn.relu(Norm(num, name='bn1')(y))
    y = Conv(self.width, 3, self.stride, num, name='conv2')(y)
    y = jax.nn.relu(Norm(num, name='bn2')(y))
    y = Conv(out, 1, num=num, name='conv3')(y)
    y = Norm(num, name='bn3')(y)
    if self.stride > 1 or x.shape[-1] != out:
      x = Conv(out, 1, self.stride, num, name='shortcut_conv')(x)
      x = Norm(num, name='shortcut_bn')(x)
    return jax.nn.relu(x + y)


class ResNet(nn.Module):
  """Images to the maps of all stages.

  Attributes:
    stages: blocks of each stage; (3, 4, 6, 3) is ResNet-50.
    width: of the first stage; each next one has twice as much.
    num: numerics.
  """

  stages: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  num: Numerics = Numerics()

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, ...]:
    """Applies the network without its classifier.

    Args:
      x: [n, H, W, 3], normalised.

    Returns:
      A map per stage, [n, H / 2^(i+2), W / 2^(i+2), 4 * 2^i * width].
    """
    x = Conv(self.width, 7, 2, self.num, name='conv1')(x)
    x = jax.nn.relu(Norm(self.num, name='bn1')(x))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    maps = []
    for i, count in enumerate(self.stages):
      for j in range(count):
        stride = 2 if i and not j else 1
        block = Bottleneck(
          self.width << i, stride, self.num, name=f'layer{i + 1}_{j}'
        )
        x = block(x)
      maps.append(x)
    return tuple(maps)


def channels(stages: tuple[int, ...], width: int) -> tuple[int, ...]:
  """Channels of the map of each stage."""
  return tuple(EXPANSION * width << i for i in range(len(stages)))
