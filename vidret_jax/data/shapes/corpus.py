# SPDX-License-Identifier: Apache-2.0
"""Builds the corpus folder and its records, whole or not at all.

Clips are made by worker processes in `<version>.partial`, which a later call
takes up again after a kill; only the finished folder gets its real name.
"""

from collections.abc import Mapping, Sequence
import contextlib
import fcntl
import json
import os
import pathlib
import shutil

from vidret_jax.data.shapes import annotations, copies, pool, sample
from vidret_jax.data.shapes import script as script_lib

_RECIPE = 'recipe.json'
_WORKER = 'vidret_jax.data.shapes.worker'


def data_root(root: str | os.PathLike | None = None) -> pathlib.Path:
  """The data folder: the argument, VIDRET_DATA_DIR, or `data`."""
  return pathlib.Path(root or os.environ.get('VIDRET_DATA_DIR') or 'data')


def corpus_dir(root: str | os.PathLike | None = None) -> pathlib.Path:
  """Where the clips and annotations are."""
  return data_root(root) / 'shapes' / script_lib.VERSION


def records_dir(root: str | os.PathLike | None = None) -> pathlib.Path:
  """Where the records are."""
  return data_root(root) / 'records' / 'shapes' / script_lib.VERSION


def prepare(
  root: str | os.PathLike | None = None,
  *,
  seed: int | None = None,
  num_workers: int | None = None,
  counts: Mapping[str, int] | None = None,
  difficulty: script_lib.Difficulty | None = None,
  progress: bool = True,
  overwrite: bool = False,
  keep: Sequence[str | os.PathLike] = (),
) -> pathlib.Path:
  """Makes the corpus and its records unless they are there.

  Args:
    root: data folder; see `data_root`.
    seed: of everything; 0 for a new corpus. Given, it must be that of the
      corpus that is there. So must be the next two.
    num_workers: processes; one per core by default.
    counts: videos per split; see `script.COUNTS`.
    difficulty: knobs; see `script.Difficulty`.
    progress: shows a progress bar on standard error.
    overwrite: deletes what is there and makes it anew.
    keep: corpus folders that `overwrite` spares: those just made.

  Returns:
    The corpus folder.

  Raises:
    ValueError: there is a corpus of another recipe, or a bad argument.
    NotADirectoryError: the data folder is a file.
    RuntimeError: a clip cannot be made, for example because the disk is full.
  """
  root = data_root(root)
  if root.exists() and not root.is_dir():
    raise NotADirectoryError(
      f'The data folder {root} is a file; set VIDRET_DATA_DIR or root= to a '
      'folder.'
    )
  asked = {'seed': seed, 'counts': counts, 'difficulty': difficulty}
  asked = {k: v for k, v in asked.items() if v is not None}
  recipe = script_lib.Recipe(**asked)
  final = corpus_dir(root)
  final.parent.mkdir(parents=True, exist_ok=True)
  with locked(final.parent / '.lock'):
    if overwrite and str(final) not in map(str, keep):
      for folder in (final, records_dir(root)):
        shutil.rmtree(folder, ignore_errors=True)
    if final.is_dir():
      recipe = _check(final, recipe, asked)
    else:
      _build(final, recipe, num_workers, progress)
    _records(root, final, recipe)
  return final


@contextlib.contextmanager
def locked(path: pathlib.Path):
  """Lets one process at a time prepare; the others then find it done."""
  with path.open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _check(final, recipe, asked) -> script_lib.Recipe:
  """The recipe of a finished corpus, which must be the one asked for."""
  found = script_lib.Recipe.from_json((final / _RECIPE).read_text())
  mine = json.loads(found.to_json())
  for key in asked:
    want = json.loads(recipe.to_json())[key]
    if mine[key] != want:
      raise ValueError(
        f'{final} was made with {key}={mine[key]}, asked for is {want}. '
        'Delete that folder to make it anew, or choose another data folder '
        '(root= or VIDRET_DATA_DIR).'
      )
  return found


def _build(final, recipe, num_workers, progress) -> None:
  """Fills the partial folder and gives it its name."""
  part = final.with_name(final.name + '.partial')
  note = part / _RECIPE
  if part.is_dir() and not (
    note.is_file() and note.read_text() == recipe.to_json()
  ):
    shutil.rmtree(part)
  for name in ('videos', 'subtitles', 'experts'):
    (part / name).mkdir(parents=True, exist_ok=True)
  if not note.is_file():
    draft = part / (_RECIPE + '.part')
    draft.write_text(recipe.to_json())
    os.replace(draft, note)
  scripts = sample.draw(recipe)
  # Copies are made from finished clips.
  rounds = (
    [s.id for s in scripts],
    [c.id for c in copies.plan(recipe, scripts)],
  )
  with _bar(sum(map(len, rounds)), progress) as advance:
    for names in rounds:
      todo = []
      for name in names:
        if (part / 'experts' / f'{name}.npz').is_file():
          advance()
        else:
          todo.append(name)
      pool.run(_WORKER, part, todo, num_workers, advance)
  annotations.write(part / 'annotations.jsonl', recipe)
  for rest in part.glob('*/*.part'):  # Of workers that were killed.
    rest.unlink()
  os.replace(part, final)


@contextlib.contextmanager
def _bar(total: int, show: bool):
  """Yields a function to call once per finished clip."""
  if not show:
    yield lambda: None
    return
  import rich.console
  import rich.progress

  columns = (
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeElapsedColumn(),
  )
  console = rich.console.Console(stderr=True)
  with rich.progress.Progress(*columns, console=console) as bar:
    task = bar.add_task('shapes: filming clips', total=total)
    yield lambda: bar.advance(task)


def _records(root, corpus, recipe) -> None:
  """Writes the records of a finished corpus unless they are there."""
  folder = records_dir(root)
  note = folder / _RECIPE
  if note.is_file() and note.read_text() == recipe.to_json():
    return
  if folder.exists():
    shutil.rmtree(folder)
  from vidret_jax.data.shapes import builder

  builder.write(corpus, folder.parents[1])
  draft = folder / (_RECIPE + '.part')
  draft.write_text(recipe.to_json())
  os.replace(draft, note)
