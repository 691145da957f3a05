# SPDX-License-Identifier: Apache-2.0
"""Measures of retrieval quality. Numpy only: usable where JAX is not."""
