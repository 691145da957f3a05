# SPDX-License-Identifier: Apache-2.0
"""Flax blocks shared by the systems."""
