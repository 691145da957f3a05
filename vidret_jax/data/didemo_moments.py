# SPDX-License-Identifier: Apache-2.0
"""DiDeMo: moments in unedited videos, by several annotators, clips of 2.5 s.

Annotations by `tools.moment_annotations`; features are yours, under the names
that TVR's have. The moment of the first annotator is learnt; an evaluation
takes all.
"""

import functools

from vidret_jax.data.moments import layout, sets

LAYOUT = layout.DIDEMO

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
