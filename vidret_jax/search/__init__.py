# SPDX-License-Identifier: Apache-2.0
"""Encoding collections once and searching them in blocks."""
