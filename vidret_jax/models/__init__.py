# SPDX-License-Identifier: Apache-2.0
"""Retrieval systems, one module per paper, each with `make(**config)`."""
