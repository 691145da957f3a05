# SPDX-License-Identifier: Apache-2.0
"""What evaluators share: options, data by name, progress, the leak's mark.

An evaluator is `evaluators.<type>.Evaluator(model, mesh, **options)`; its
`run(variables)` returns {name: float}. It knows nothing of the trainer.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import importlib
import sys
from typing import Any, TypeVar

import jax

from vidret_jax.data import source as source_lib
from vidret_jax.models import base as models_base

T = TypeVar('T')

# Appended to the name of every number made under the leaky rule of 2019.
LEAK_MARK = '_leaky2019'
LEAK_CAVEAT = (
  "availability='legacy_2019': queries were told which experts their own "
  'video has. This leaks the answer; the numbers are an overestimate and do '
  'not compare with any others.'
)


def parse_options(kind: type[T], given: Mapping[str, Any], where: str) -> T:
  """An options dataclass from keywords.

  Raises:
    ValueError: unknown names; the message lists the known ones.
  """
  known = [f.name for f in dataclasses.fields(kind)]
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise ValueError(
      f'evaluator {where!r} has no option {", ".join(map(repr, unknown))}; '
      f'known are {", ".join(known)}.'
    )
  return kind(**given)


def make_source(data: Mapping[str, Any], view: str) -> source_lib.Source:
  """Opens one view of a dataset: `vidret_jax.data.<name>.make(view=...)`."""
  data = dict(data)
  if 'name' not in data:
    raise ValueError(
      f'evaluator data needs a `name` (a module of vidret_jax.data); found '
      f'{sorted(data)}.'
    )
  from vidret_jax import data as data_package

  name = data.pop('name')
  try:
    module = importlib.import_module(f'{data_package.__name__}.{name}')
  except ModuleNotFoundError as e:
    if e.name != f'{data_package.__name__}.{name}':
      raise
    raise ValueError(
      f'no dataset {name!r}: there is no module {e.name}.'
    ) from e
  return module.make(view=view, **data)


def is_leaky(model: models_base.Retriever) -> bool:
  """Whether the model ranks by the retired rule that leaks the answer."""
  return getattr(model, 'availability', None) == 'legacy_2019'


def marked(
  results: dict[str, float], model: models_base.Retriever
) -> dict[str, float]:
  """Results whose names say so if the model's rule leaks the answer."""
  if not is_leaky(model):
    return results
  return {name + LEAK_MARK: value for name, value in results.items()}


def progress(steps: Iterable[T], total: int, text: str) -> Iterator[T]:
  """Yields from `steps` below a bar, on the terminal of the first process."""
  if jax.process_index() or not sys.stderr.isatty():
    yield from steps
    return
  from rich.console import Console
  from rich.progress import track

  yield from track(
    steps,
    description=text,
    total=total,
    console=Console(stderr=True),
    transient=True,
  )
