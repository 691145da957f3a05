# SPDX-License-Identifier: Apache-2.0
"""ActivityNet Captions: moments in videos of everyday life, clips of 5 s.

Annotations by `tools.moment_annotations`; features are yours, under the names
that TVR's have.
"""

import functools

from vidret_jax.data.moments import layout, sets

LAYOUT = layout.ACTIVITYNET

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
