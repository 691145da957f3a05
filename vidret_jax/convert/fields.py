# SPDX-License-Identifier: Apache-2.0
"""Upstream's configs, read with suspicion: who knows who wrote them."""

from collections.abc import Mapping
from typing import Any

from vidret_jax.convert.rules import CheckpointMismatch

_HUGE = 2**31


class Fields:
  """A part of a config that knows its place and checks its values.

  Attributes:
    error: what a bad value raises.
    hint: how to come by a whole config, for a key that is missing.
  """

  error: type[ValueError] = CheckpointMismatch
  hint = ''

  def __init__(self, values: Any, place: str):
    if not isinstance(values, Mapping):
      raise self.error(
        f'{place}: expected an object, found {type(values).__name__}.'
      )
    self._values, self._place = values, place

  def __contains__(self, key):
    return key in self._values

  def node(self, key):
    return type(self)(self.any(key), f'{self._place}.{key}')

  def any(self, key, *default):
    if key in self._values:
      return self._values[key]
    if default:
      return default[0]
    raise self.error(f'{self._place}: key {key!r} is missing. {self.hint}')

  def number(self, key, *default, at_least=0.0):
    value = self.any(key, *default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      raise self.bad(key, value, 'a number')
    if not at_least <= value < _HUGE:
      raise self.bad(key, value, f'at least {at_least:g}, and no huge number')
    return float(value)

  def whole(self, key, *default, at_least=1):
    value = self.number(key, *default, at_least=at_least)
    if value != int(value):
      raise self.bad(key, value, 'a whole number')
    return int(value)

  def flag(self, key, *default):
    value = self.any(key, *default)
    if not isinstance(value, bool):
      raise self.bad(key, value, 'true or false')
    return value

  def choice(self, key, choices):
    value = self.any(key)
    if not isinstance(value, str) or value not in choices:
      raise self.bad(key, value, f'one of {", ".join(map(repr, choices))}')
    return value

  def only(self, key, value, *default):
    """Raises unless the value is the one that this network has."""
    found = self.any(key, *default)
    if found != value or isinstance(found, bool) != isinstance(value, bool):
      raise self.bad(key, found, f'{value!r}: another network')

  def bad(self, key, value, expected):
    return self.error(
      f'{self._place}.{key} is {str(value)[:60]!r}, expected {expected}.'
    )
