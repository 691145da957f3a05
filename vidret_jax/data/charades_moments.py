# SPDX-License-Identifier: Apache-2.0
"""Charades-STA: moments in indoor videos, clips of 3 s.

Annotations by `tools.moment_annotations`; features are yours, under the names
that TVR's have.
"""

import functools

from vidret_jax.data.moments import layout, sets

LAYOUT = layout.CHARADES

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
