# SPDX-License-Identifier: Apache-2.0
"""Datasets as random-access sources; the only home of TensorFlow's readers."""
