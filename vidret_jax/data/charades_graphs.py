# SPDX-License-Identifier: Apache-2.0
"""Charades with captions as role graphs.

Streams: 'ViT' (1,280) for HGR, 'ViT' and 'Swin3D' (768) for EAO. The release
has one relevance matrix, that of the test split, for 'val' and 'test': its
'val' numbers are test numbers unless you make a matrix of its own.
"""

import functools

from vidret_jax.data.graphs import layout, sets

LAYOUTS = {'full': layout.CHARADES}

make = functools.partial(sets.make, LAYOUTS)
prepare = functools.partial(sets.prepare, LAYOUTS)
