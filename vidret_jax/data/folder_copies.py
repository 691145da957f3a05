# SPDX-License-Identifier: Apache-2.0
"""A collection of your own: an HDF5 file and a JSON file, named in `paths`.

paths: features (HDF5, a float [frames, regions, width] dataset per video) and
annotations (JSON); docs/data_formats.md says how both look.
"""

import functools

from vidret_jax.data.copies import layout, sets

LAYOUT = layout.FOLDER

make = functools.partial(sets.make, LAYOUT)
prepare = functools.partial(sets.prepare, LAYOUT)
