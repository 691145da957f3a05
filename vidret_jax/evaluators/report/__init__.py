# SPDX-License-Identifier: Apache-2.0
"""Static HTML pages that show what the numbers mean."""
