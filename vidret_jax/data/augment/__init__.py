# SPDX-License-Identifier: Apache-2.0
"""Two random versions of a clip, for training without labels."""
