# SPDX-License-Identifier: Apache-2.0
"""Programs beside the trainer: `python -m vidret_jax.tools.NAME --help`."""
