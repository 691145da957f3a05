# SPDX-License-Identifier: Apache-2.0
"""EVVE: 620 queries of 13 events in 2,373 videos.

Revaud et al., Event retrieval in large video collections with circulant
temporal encoding, CVPR 2013.
"""

import functools

from vidret_jax.data.copies import layout, sets

LAYOUT = layout.EVVE

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
