# SPDX-License-Identifier: Apache-2.0
"""MSR-VTT with captions as role graphs: 6,513 / 497 / 2,990 clips.

protocol='full'  splits of the release of RANP; graded relevance
protocol='1ka'   the 1k-A lists, for EAO: no graphs, one caption per clip

Streams: 'resnet152.pth' (2,048, results of the conference paper),
'EAO_resnet152.pth' and 'EAO_resnext101.pth' (2,048 each, of the journal's).
"""

import functools

from vidret_jax.data.graphs import layout, sets

LAYOUTS = {'full': layout.MSRVTT, '1ka': layout.MSRVTT_1KA}

make = functools.partial(sets.make, LAYOUTS)
prepare = functools.partial(sets.prepare, LAYOUTS)
