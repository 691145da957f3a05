# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of RANP, HGR and EAO.

Upstream (`aranciokov/ranp`, and `cshizhe/hgr_v2t` before it) saves
{submodule: {parameter: tensor}}; a key here is 'submodule.parameter'. Its
loader copies what both sides have by name and says nothing of the rest. Ours
takes such files too, as the start of a training run, and says what they lack.
"""

from collections import OrderedDict
from collections.abc import Mapping
import dataclasses
import os
import pathlib

import jax
import numpy as np

from vidret_jax.convert import clip as clip_convert
from vidret_jax.convert import (
  ranp_config,
  ranp_rules,
  ranp_runs,
  ranp_shapes,
  torch_file,
  torch_write,
)
from vidret_jax.convert import rules as rules_lib
from vidret_jax.convert.ranp_rules import rules
from vidret_jax.convert.rules import CheckpointMismatch
from vidret_jax.models import eao, hgr, mined, vse

# Names of the code of EAO (Shvetsova et al.) -> those of RANP's copy of it.
_ORIGINAL = (
  *(
    (f'{side}_{part}.', f'{side}_encoder.{part}.')
    for side in ('video', 'text')
    for part in ('norm_layer', 'token_proj')
  ),
  ('video_pos_embed', 'fusion.vid_pos_embed'),
  ('text_pos_embed', 'fusion.txt_pos_embed'),
  *((f'{m}.', f'fusion.{m}.') for m in ('video_proj', 'text_proj', 'proj')),
  ('fusion.', 'fusion.fusion.'),
)
_AUDIO = ('audio_', 'davenet.')
# Of its variant with a transformer for each kind of input.
_SEVERAL = ('fusion_text.', 'fusion_video.')


def variable_shapes(
  model: mined.Mined, leaves: Mapping[str, tuple[int, ...]] | None = None
) -> dict:
  """Shapes and types of the model's variables, without computing any.

  Args:
    model: any of the system ranp.
    leaves: shapes of a run's variables by path. The model does not know how
      wide clip features are; without `leaves` that axis is 1.
  """
  leaves = leaves or {}
  known = [leaves[name] for name in ranp_rules.FEATURE_MAPS if name in leaves]
  width = known[0][0] if known and len(known[0]) == 2 else 1
  if isinstance(model, eao.Eao) and not model.token_projection:
    width = model.dim
  frames, length = 1, 1
  if isinstance(model, eao.Eao) and model.positions:
    frames, length = model.max_frames, model.max_words
  spec = jax.ShapeDtypeStruct
  word_width = getattr(model, 'word_dim', 1)
  batch = dict(
    features=spec((2, frames, width), np.float32),
    feature_mask=spec((2, frames), np.bool_),
    words=spec((2, length), np.int32),
    word_vectors=spec((2, length, word_width), np.float32),
    word_mask=spec((2, length), np.bool_),
    verb_mask=spec((2, 1, length), np.bool_),
    noun_mask=spec((2, 1, length), np.bool_),
    roles=spec((2, 2), np.int32),
    edge_mask=spec((2, 3, 3), np.bool_),
  )
  for name in ('verb_classes', 'noun_classes'):
    batch[name] = batch[f'video_{name}'] = spec((2, 1), np.int32)
  key = jax.eval_shape(lambda: jax.random.key(0))

  def init(key, batch):
    return model.init(key, batch, step=0, train=False, method='loss')

  return jax.eval_shape(init, key, batch)


# ------------------------------------------------------------------- reading


def load(
  path: str | os.PathLike, model: mined.Mined
) -> tuple[dict, rules_lib.Report]:
  """Reads a checkpoint, or a part of one, into variables of `model`.

  Args:
    path: a `.th` or `.pth` file of RANP or HGR, the word vectors that their
      runs start from, or a checkpoint of the original EAO.
    model: of the system ranp.

  Returns:
    The variables that the file has, and a report; `report.drawn` are those
    that it has not.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: a shape differs, or nothing fits.
  """
  source = os.fspath(path)
  state, notes = read(path)
  variables, report = to_flax(state, model, source=source)
  notes = (*notes, *report.notes, *beside(path, model))
  return variables, dataclasses.replace(report, notes=notes)


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], list[str]]:
  """The arrays of a file by 'submodule.parameter', and notes about it.

  Raises:
    FileNotFoundError, torch_file.TorchFileError: the file itself.
    CheckpointMismatch: no such arrays in it.
  """
  source = os.fspath(path)
  parts = torch_file.read(path)
  if isinstance(parts, Mapping) and isinstance(
    parts.get('state_dict'), Mapping
  ):
    parts = parts['state_dict']
  parts = parts if isinstance(parts, Mapping) else {}
  if parts and all(isinstance(v, np.ndarray) for v in parts.values()):
    state, notes = _from_original(parts, source)
  else:
    state, notes = _join(parts), []
  if not state:
    raise CheckpointMismatch(
      f'{source}: expected {{submodule: {{parameter: tensor}}}}, as RANP and '
      'HGR save it, or a state dict of EAO; found '
      f'the keys {[str(k)[:40] for k in list(parts)[:6]]}.'
    )
  clip_convert.check_numbers(state, source)
  return state, notes


def _join(parts):
  state = {}
  for name, part in parts.items():
    if not isinstance(part, Mapping) or not all(
      isinstance(k, str) and isinstance(v, np.ndarray) for k, v in part.items()
    ):
      return {}
    part = rules_lib.strip_module(part)
    state.update({f'{name}.{key}': value for key, value in part.items()})
  return state


def _from_original(parts, source):
  """A state dict of EAO's own code under RANP's names; audio stays as it is."""
  parts = rules_lib.strip_module({str(k): v for k, v in parts.items()})
  if any(key.startswith(_SEVERAL) for key in parts):
    raise CheckpointMismatch(
      f'{source}: EAO with one transformer per kind of input; the model has '
      'one for both. Take the checkpoint of the shared one.'
    )
  state, audio = {}, 0
  for key, value in parts.items():
    for old, new in _ORIGINAL:
      if key.startswith(old):
        key = new + key.removeprefix(old)
        break
    else:
      audio += key.startswith(_AUDIO)
    state[key] = value
  return state, [
    f'a checkpoint of the original EAO: {audio} arrays of its audio parts are '
    'left out. It was trained with up to 20 words and with features that were '
    'normalised per stream'
  ]


def to_flax(
  state: Mapping[str, np.ndarray],
  model: mined.Mined,
  *,
  source: str = 'checkpoint',
) -> tuple[dict, rules_lib.Report]:
  """Arrays by 'submodule.parameter' as variables of `model`, and a report.

  What the state lacks is absent from the variables, too, and named in the
  report; see `load`.
  """
  table = rules(model)
  known = {r.key: r for r in table}
  taken = [r for r in table if r.key in state]
  arrays = {r.leaf: r.form.to_flax(np.asarray(state[r.key])) for r in taken}
  leaves = {leaf: tuple(x.shape) for leaf, x in arrays.items()}
  shapes = rules_lib.flatten(variable_shapes(model, leaves))
  rules_lib.check_table(table, shapes)
  found = ranp_shapes.options({k: np.shape(v) for k, v in state.items()})
  options = _differences(found, model)
  wrong = [
    f'{r.key} {tuple(np.shape(state[r.key]))}, model '
    f'{r.form.to_torch(np.broadcast_to(False, shapes[r.leaf].shape)).shape}'
    for r in taken
    if arrays[r.leaf].shape != shapes[r.leaf].shape
  ]
  missing = [r.key for r in table if r.key not in state]
  foreign = [k for k in state if k not in known]
  if wrong or not taken:
    raise CheckpointMismatch(
      rules_lib.mismatch(
        source, missing, foreign, wrong, _advice(options, taken)
      )
    )
  variables = {
    leaf: np.array(x, shapes[leaf].dtype, order='C')
    for leaf, x in arrays.items()
  }
  notes = []
  if options and (missing or foreign):
    notes.append('another configuration: ' + '; '.join(options))
  elif strange := [k for k in foreign if not k.startswith(_AUDIO)]:
    notes.append(f'ignored, RANP has no such parts: {", ".join(strange)}')
  # Foreign arrays are of no concern, those of another configuration are.
  report = rules_lib.report(taken, state, variables, () if options else foreign)
  return rules_lib.unflatten(variables), dataclasses.replace(
    report,
    drawn=tuple(r.leaf for r in table if r.key not in state),
    unused=tuple(foreign) if options else (),
    notes=tuple(notes),
  )


def _differences(found, model):
  """Options that the shapes of a file contradict, as text."""
  backbone = found.get('backbone')
  own = {hgr.Hgr: 'hgr', eao.Eao: 'eao', vse.Vse: 'vse'}[type(model)]
  if backbone not in (None, own):
    return [f"model.backbone: file '{backbone}', model '{own}'"]
  return [
    f'model.{name}: file {value!r}, model {getattr(model, name)!r}'
    for name, value in found.items()
    if hasattr(model, name) and getattr(model, name) != value
  ]


def _advice(options, taken):
  if options:
    return '\n  '.join(['Options that the file contradicts:', *options])
  if not taken:
    return 'Nothing in the file has a place in the model.'
  return (
    'The width of clip features is that of the dataset: check '
    'input.data.streams.'
  )


def sizes(path: str | os.PathLike) -> dict[str, int]:
  """Options of `models.ranp.make` that a config leaves open, from a file."""
  state, _ = read(path)
  shape = np.shape(state[ranp_rules.WORDS]) if ranp_rules.WORDS in state else ()
  return dict(num_words=int(shape[0])) if len(shape) == 2 else {}


def beside(path: str | os.PathLike, model: mined.Mined) -> list[str]:
  """Notes about what only the model.json of upstream's run folder tells."""
  folder = pathlib.Path(path).absolute().parent
  for file in (folder / 'model.json', folder.parent / 'model.json'):
    if file.is_file():
      try:
        return ranp_config.differences(ranp_runs.read_json(file), model)
      except ValueError as error:
        return [f'{file} was not compared: {error}']
  return []


# ------------------------------------------------------------------- writing


def to_torch(variables: Mapping, model: mined.Mined) -> OrderedDict:
  """Variables as {submodule: {parameter: array}}, in upstream's order."""
  out = OrderedDict()
  for key, value in rules_lib.to_torch(variables, rules(model)).items():
    part, _, name = key.partition('.')
    out.setdefault(part, OrderedDict())[name] = value
  return out


def save(
  path: str | os.PathLike, variables: Mapping, model: mined.Mined
) -> rules_lib.Report:
  """Writes a `.th` file that upstream's --resume_file loads."""
  saved = to_torch(variables, model)
  torch_write.write(path, saved)
  return rules_lib.report(
    rules(model), _join(saved), rules_lib.flatten(variables)
  )
