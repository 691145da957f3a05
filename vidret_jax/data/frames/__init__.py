# SPDX-License-Identifier: Apache-2.0
"""Clips as RGB frames: which frames, how they are read, resized and cropped."""
