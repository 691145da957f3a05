# SPDX-License-Identifier: Apache-2.0
"""EPIC-Kitchens-100, multi-instance retrieval, captions as role graphs.

67,217 annotated training clips, which the release splits into 'train' and
'val'; 9,668 test clips, searched with the 3,842 narrations of the challenge's
table. One caption per clip. Stream: 'TBN.pth' (3,072: 25 snippets of RGB, flow
and audio).
"""

import functools

from vidret_jax.data.graphs import layout, sets

LAYOUTS = {'full': layout.EPIC_KITCHENS}

make = functools.partial(sets.make, LAYOUTS)
prepare = functools.partial(sets.prepare, LAYOUTS)
