# SPDX-License-Identifier: Apache-2.0
"""Sentences that describe moments of videos, over features of short clips."""
