# SPDX-License-Identifier: Apache-2.0
"""FIVR-200K: news incidents and their copies; split '200k' or '5k'.

100 queries in 225,960 videos, or 50 in 5,000. Labels: near-duplicate (ND),
duplicate, complementary and incident scene (DS, CS, IS), duplicate audio (DA).
Kordopatis-Zilos et al., IEEE Transactions on Multimedia 2019, arXiv 1809.04094.
"""

import functools

from vidret_jax.data.copies import layout, sets

LAYOUT = layout.FIVR

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
