# SPDX-License-Identifier: Apache-2.0
"""Captions as graphs of semantic roles, over features of clips."""
