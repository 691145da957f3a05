# SPDX-License-Identifier: Apache-2.0
"""Collections in which copies and relatives of videos are searched."""
