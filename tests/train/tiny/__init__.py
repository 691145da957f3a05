# SPDX-License-Identifier: Apache-2.0
"""A small, real system: two linear towers on vectors, a retrieval evaluator.

It has what a trainer can trip over (dropout, running statistics, a padded
batch) and compiles in a second. Configs name it by module path.
"""
