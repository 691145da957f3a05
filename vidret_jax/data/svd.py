# SPDX-License-Identifier: Apache-2.0
"""SVD: short near-duplicate videos; split 'all' or 'labeled'.

206 queries; 5,951 labelled videos, with split 'all' also those that are known
to be a copy of none. Jiang et al., SVD: A Large-Scale Short Video Dataset for
Near-Duplicate Video Retrieval, ICCV 2019.
"""

import functools

from vidret_jax.data.copies import layout, sets

LAYOUT = layout.SVD

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
