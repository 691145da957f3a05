# SPDX-License-Identifier: Apache-2.0
"""Which tensors of a CLIP model upstream freezes, and which it keeps in half.

As regular expressions on our names of the tensors ('clip/visual/proj'), for
`c.schedule` and `c.optim.half`.
"""

# What `convert_weights` of CLIP makes float16: layers, and both projections.
# Norms, embeddings and the temperature stay float32.
HALF = (
  r'clip/visual/conv[12]/kernel',
  r'clip/(visual|text)/block_\d+/(attn|mlp)/.*',
  r'clip/visual/proj',
  r'clip/text/projection',
)


def frozen(
  layers: int, linear_patch: str, freeze_3d: bool = False
) -> list[str]:
  """What `--freeze_layer_num` of CLIP4Clip and EERCF freezes.

  The embeddings, the first norm of the image tower and the first blocks of
  both towers. Last norms, projections, the temperature and all that is not of
  CLIP are never frozen.

  Args:
    layers: blocks to freeze in each tower, or more than there are; 0 freezes
      the embeddings only, -1 nothing at all.
    linear_patch: '2d' or '3d', how frames become patches.
    freeze_3d: upstream freezes nothing with '3d', whatever `layers`, by a slip
      in a condition. True freezes what it meant to: all but the convolution.

  Returns:
    Regular expressions, each of which matches a tensor of every such model.

  Raises:
    ValueError: for a value out of range.
  """
  if layers < -1:
    raise ValueError(f'layers={layers}: expected -1 (freeze nothing) or more')
  if linear_patch not in ('2d', '3d'):
    raise ValueError(f"linear_patch={linear_patch!r}: expected '2d' or '3d'")
  if layers < 0 or (linear_patch == '3d' and not freeze_3d):
    return []
  regexes = [
    'clip/text/(token|positional)_embedding',
    'clip/visual/(class|positional)_embedding',
    'clip/visual/ln_pre/.*',
  ]
  if linear_patch == '2d':
    regexes.append('clip/visual/conv1/kernel')
  if layers:
    numbers = '|'.join(str(i) for i in range(layers))
    regexes.append(f'clip/(visual|text)/block_({numbers})/.*')
  return regexes
