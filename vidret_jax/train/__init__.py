# SPDX-License-Identifier: Apache-2.0
"""Training: the loop, the state, checkpoints, writers, optimisers."""
