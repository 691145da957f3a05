# SPDX-License-Identifier: Apache-2.0
"""TVR: moments in videos of six TV shows, told by sight, by speech or both.

87,175 / 10,895 / 5,445 queries of 17,435 / 2,179 / 1,089 videos (train, val,
test_public); test_challenge was not released. Clips of 1.5 s. Features:
'resnet_i3d' (3,072), 'resnet' (2,048), 'i3d' (1,024).
"""

import functools

from vidret_jax.data.moments import layout, sets

LAYOUT = layout.TVR

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
