# SPDX-License-Identifier: Apache-2.0
"""Upstream checkpoints to Flax variables and back, one table per system."""
