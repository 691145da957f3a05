# SPDX-License-Identifier: Apache-2.0
"""A dataset of your own, named file by file in `paths`; no code is needed.

paths: annotations_train, annotations_val, annotations_test (JSON lines), video,
subtitle (if the context has 'sub') and query (HDF5); durations may be left out.
See docs/own_moments.md; for the formats, docs/data_formats.md.
"""

import functools

from vidret_jax.data.moments import layout, sets

LAYOUT = layout.FOLDER

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
