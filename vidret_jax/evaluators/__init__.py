# SPDX-License-Identifier: Apache-2.0
"""Evaluators: each takes a model and data, and answers `run(variables)`."""
