# SPDX-License-Identifier: Apache-2.0
"""MSVD with captions as role graphs: 1,200 / 100 / 670 clips.

Streams: 'ViT' (1,280) for HGR, 'ViT' and 'Swin3D' (768) for EAO.
"""

import functools

from vidret_jax.data.graphs import layout, sets

LAYOUTS = {'full': layout.MSVD}

make = functools.partial(sets.make, LAYOUTS)
prepare = functools.partial(sets.prepare, LAYOUTS)
