# SPDX-License-Identifier: Apache-2.0
"""What CE takes in: expert and text descriptions, and checks of a batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vidret_jax.models.base import Array, Batch


@dataclasses.dataclass(frozen=True)
class Expert:
  """One feature stream.

  Attributes:
    name: upstream's name, e.g. 'scene.densenet161.0'.
    dim: width of a vector.
    max_tokens: number of vectors after padding; 0 for a single one.
    clusters: NetVLAD centres, where there are several vectors.
  """

  name: str
  dim: int
  max_tokens: int = 0
  clusters: int = 0

  def __post_init__(self):
    if bool(self.max_tokens) != bool(self.clusters):
      raise ValueError(
        f'expert {self.name!r}: a variable expert needs both max_tokens and '
        f'clusters, found max_tokens={self.max_tokens}, '
        f'clusters={self.clusters}.'
      )

  @property
  def key(self) -> str:
    """Name in parameter paths, where dots separate nothing."""
    return self.name.replace('.', '_')

  @property
  def pooled(self) -> int:
    return self.dim * (self.clusters or 1)

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one video's features."""
    return (self.max_tokens, self.dim) if self.max_tokens else (self.dim,)


@dataclasses.dataclass(frozen=True)
class Text:
  """Token features of a caption; clusters=0 concatenates them unpooled."""

  dim: int
  max_tokens: int
  clusters: int
  ghosts: int = 0

  @property
  def pooled(self) -> int:
    return self.dim * (self.clusters or self.max_tokens)


def parse_experts(experts) -> tuple[Expert, ...]:
  """Experts from (name, fields) pairs, sorted by name: upstream's order."""
  parsed = []
  for entry in experts:
    if isinstance(entry, Expert):
      parsed.append(entry)
      continue
    try:
      name, fields = entry
      parsed.append(Expert(name, **fields))
    except (TypeError, ValueError) as error:
      raise ValueError(
        f'model.experts: expected (name, dict(dim=, [max_tokens=, '
        f'clusters=])), found {entry!r}: {error}'
      ) from error
  keys = [e.key for e in parsed]
  twice = sorted({k for k in keys if keys.count(k) > 1})
  if not parsed or twice:
    raise ValueError(
      'model.experts: expected one or more distinct names, found '
      f'{[e.name for e in parsed]}, twice: {twice}.'
    )
  return tuple(sorted(parsed, key=lambda e: e.name))


def parse_text(text) -> Text:
  if isinstance(text, Text):
    return text
  known = {f.name for f in dataclasses.fields(Text)}
  fields = dict(text)
  # The data side keeps its own keys (the encoder's name) in the same dict.
  fields = {k: v for k, v in fields.items() if k in known}
  try:
    return Text(**fields)
  except TypeError as error:
    raise ValueError(
      'model.text: expected dict(dim=, max_tokens=, clusters=, ghosts=0), '
      f'found {dict(text)!r}.'
    ) from error


def check_choices(**choices) -> None:
  """Each option is (value, known values)."""
  for option, (value, known) in choices.items():
    if value not in known:
      raise ValueError(
        f'model.{option}={value!r}: expected one of {", ".join(known)}.'
      )


def check_options(options, cls) -> None:
  known = {f.name for f in dataclasses.fields(cls)} - {'name', 'parent'}
  unknown = sorted(set(options) - known)
  if unknown:
    raise ValueError(
      f'model: unknown option(s) {", ".join(unknown)}; '
      f'known: {", ".join(sorted(known))}.'
    )


def _entry(batch: Batch, key: str):
  if key not in batch:
    raise KeyError(
      f'batch[{key!r}] is missing; the batch has {", ".join(sorted(batch))}. '
      "Check `input.data` and the evaluator's `data.view`."
    )
  return batch[key]


def check_text(batch: Batch, text: Text) -> None:
  """Token features of the configured width and padded length."""
  shape = tuple(_entry(batch, 'text').shape)
  expected = (text.max_tokens, text.dim)
  if len(shape) not in (3, 4) or shape[-2:] != expected:
    raise ValueError(
      f"batch['text'] has shape {shape}, expected (batch, [captions,] "
      f'{expected[0]}, {expected[1]}): model.text says '
      f'max_tokens={text.max_tokens}, dim={text.dim}. Does the text encoder '
      'of input.data match?'
    )


def check_experts(batch: Batch, experts: tuple[Expert, ...]) -> None:
  """The configured experts, each of its width and padded length."""
  found = _entry(batch, 'experts')
  names = [e.name for e in experts]
  if sorted(found) != names:
    raise ValueError(
      f"batch['experts'] lacks {sorted(set(names) - set(found))} and has "
      f'unknown {sorted(set(found) - set(names))}; model.experts and '
      'input.data.experts must name the same experts.'
    )
  available = tuple(_entry(batch, 'available').shape)
  if len(available) != 2 or available[1] != len(experts):
    raise ValueError(
      f"batch['available'] has shape {available}, expected (batch, "
      f'{len(experts)}): one column per expert, sorted by name.'
    )
  for e in experts:
    shape = tuple(found[e.name].shape)
    if shape != (available[0], *e.shape):
      raise ValueError(
        f"batch['experts'][{e.name!r}] has shape {shape}, expected "
        f'{(available[0], *e.shape)}: model.experts says dim={e.dim}'
        + (f', max_tokens={e.max_tokens}' if e.max_tokens else '')
        + '. Is this the feature file the model was configured for?'
      )


def check_own(batch: Batch, count: int) -> None:
  """Availability of each caption's own video, for the leaky rule."""
  shape = tuple(_entry(batch, 'available').shape)
  if shape != (batch['text'].shape[0], count):
    raise ValueError(
      f"batch['available'] has shape {shape}, expected "
      f'{(batch["text"].shape[0], count)}: availability="legacy_2019" needs '
      "the experts of each caption's own video (data.own_available=True)."
    )


def check_teachers(batch: Batch) -> None:
  for key in ('teacher_text', 'teacher_video'):
    _entry(batch, key)


def batch_spec(model, rows: int) -> dict:
  """Shapes and types of a training batch, for shape evaluation."""

  def spec(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct((rows, *shape), dtype)

  batch = dict(
    text=spec(model.text.max_tokens, model.text.dim),
    text_mask=spec(model.text.max_tokens, dtype=np.bool_),
    experts={e.name: spec(*e.shape) for e in model.experts},
    experts_mask={
      e.name: spec(e.max_tokens, dtype=np.bool_)
      for e in model.experts
      if e.max_tokens
    },
    available=spec(len(model.experts), dtype=np.bool_),
    _mask=spec(dtype=np.bool_),
  )
  if model.distill:
    batch['teacher_text'] = batch['teacher_video'] = spec(1, 1)
  return batch


def fill(available: Array, batch: Batch) -> Array:
  """Lets padding rows have every expert: no 0 / 0 in rows nobody reads."""
  if '_mask' not in batch:
    return available
  return available | ~batch['_mask'][:, None]


def repeat(
  batch: Batch, valid: Array, captions: tuple[int, ...]
) -> Array | None:
  """Row validity per caption; None where no row is padding."""
  if '_mask' not in batch:
    return None
  return jnp.repeat(valid, captions[0]) if captions else valid
