# SPDX-License-Identifier: Apache-2.0
"""Single files of a published root: lists, JSON objects, vocabulary, tables.

They come from strangers: nothing in them is run, and what is not as expected
is an error that names the file.
"""

from collections.abc import Mapping
import csv
import json
import pathlib
from typing import Any

import numpy as np

from vidret_jax.data import pickles
from vidret_jax.data.bad_file import BadFile
from vidret_jax.data.graphs import tensors


def json_object(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file that holds an object.

  Raises:
    BadFile: it is damaged or holds something else.
  """
  try:
    with open(path, encoding='utf-8') as stream:
      found = json.load(stream)
  except (ValueError, RecursionError) as error:
    raise BadFile(
      f'{path}: cannot be read as JSON ({str(error)[:200]}). Fetch it again.'
    ) from None
  if not isinstance(found, dict):
    raise BadFile(
      f'{path}: expected a JSON object, found {type(found).__name__}. Fetch it '
      'again.'
    )
  return found


def strings(path: pathlib.Path, what: str) -> tuple[str, ...]:
  """Reads a npy file with a list of strings.

  Object arrays, which are pickles, are admitted if they hold nothing but
  strings.

  Args:
    path: of the file.
    what: it lists, for errors.

  Raises:
    BadFile: it holds something else, or nothing, or a string twice.
    pickles.UnsafePickle: the object array asks for anything but strings.
  """
  found = _array(path)
  if not isinstance(found, np.ndarray) or found.ndim != 1:
    shape = getattr(found, 'shape', type(found).__name__)
    raise BadFile(
      f'{path}: expected a list of {what}, found shape {shape}. Save a 1-D '
      'array of strings.'
    )
  values = found.tolist()
  if not values:
    raise BadFile(f'{path}: no {what}. Fetch the file again.')
  seen = set()
  for i, value in enumerate(values):
    if not isinstance(value, str) or not _is_text(value) or not value:
      raise BadFile(
        f'{path}: entry {i} is {str(value)[:60]!r} ({type(value).__name__}), '
        f'expected a string. Save a 1-D array of {what}.'
      )
    if value in seen:
      raise BadFile(
        f'{path}: {value!r} occurs twice among the {what}; expected each once. '
        'Remove one of them.'
      )
    seen.add(value)
  # Pickles may hold strings of a class of NumPy.
  return tuple(map(str, values))


def _array(path):
  try:
    return pickles.load_npy(path)
  except pickles.UnreadablePickle as error:
    raise BadFile(str(error)) from None
  except pickles.UnsafePickle:
    raise
  except (ValueError, OSError, EOFError, UnicodeError) as error:
    raise BadFile(
      f'{path}: cannot be read as npy ({str(error)[:200]}). Fetch it again.'
    ) from None


def vocabulary(
  word2int_path: pathlib.Path, int2word_path: pathlib.Path
) -> tuple[dict[str, int], tuple[str, ...]]:
  """Reads both files of a vocabulary and compares them.

  Returns:
    word -> id, and the words in order of their ids.

  Raises:
    BadFile: they do not belong together, or lack the reserved words.
  """
  words = strings(int2word_path, 'words')
  ids = json_object(word2int_path)
  if len(words) <= tensors.UNKNOWN:
    raise BadFile(
      f'{int2word_path}: {len(words)} words, expected more than '
      f'{tensors.UNKNOWN}: the ids 0, 1 and {tensors.UNKNOWN} stand for begin, '
      'end and unknown words. Fetch the file again.'
    )
  for word, i in ids.items():
    if type(i) is not int or not 0 <= i < len(words):
      raise BadFile(
        f'{word2int_path}: the id of {word[:60]!r} is {str(i)[:20]!r}, '
        f'expected an integer below {len(words)}, the number of words in '
        f'{int2word_path}. The two files do not belong together.'
      )
    if words[i] != word:
      raise BadFile(
        f'{word2int_path}: the id of {word[:60]!r} is {i}, but word {i} of '
        f'{int2word_path} is {words[i][:60]!r}. The two files do not belong '
        'together.'
      )
  return ids, words


def narrations(path: pathlib.Path) -> tuple[str, ...]:
  """Reads the column `narration` of a table of sentences (CSV).

  Raises:
    BadFile: there is none, or an entry is empty.
  """
  try:
    with open(path, encoding='utf-8-sig', newline='') as stream:
      reader = csv.DictReader(stream)
      columns = reader.fieldnames or []
      if 'narration' not in columns:
        raise BadFile(
          f'{path}: no column narration, found {str(columns)[:120]}. Take the '
          'table of test sentences from the retrieval annotations.'
        )
      rows = [row['narration'] for row in reader]
  except (UnicodeDecodeError, csv.Error) as error:
    raise BadFile(
      f'{path}: cannot be read as a table ({error}). Fetch it again.'
    ) from None
  if not rows:
    raise BadFile(f'{path}: no rows. Fetch it again.')
  for i, text in enumerate(rows):
    caption(text, f'{path}: narration {i}')
  return tuple(rows)


def role_graphs(
  path: pathlib.Path, wanted: Mapping[str, str]
) -> dict[str, Any]:
  """Reads the role graphs of captions; see `tensors.graph`.

  Args:
    path: {caption: graph}.
    wanted: caption -> whose it is, for errors.

  Raises:
    BadFile: a caption has none, or one that cannot be used.
  """
  found = json_object(path)
  for text, whose in wanted.items():
    if text not in found:
      raise BadFile(
        f'{path}: no role graph for {text[:120]!r}, {whose}. Make one (python '
        '-m vidret_jax.tools.annotate), take the clip off the list, or set '
        'graphs=False for a model that reads none.'
      )
    try:
      tensors.check(found[text], len(text.split()))
    except ValueError as error:
      raise BadFile(
        f'{path}: the role graph of {text[:120]!r}, {whose}: {error}. Make it '
        'again.'
      ) from None
  return {text: found[text] for text in wanted}


def caption(value: Any, where: str) -> str:
  """Checks one caption.

  Args:
    value: what a file holds.
    where: it was found, for the error.

  Raises:
    BadFile: it is no text, or has no words.
  """
  if not isinstance(value, str) or not _is_text(value):
    raise BadFile(f'{where} is {str(value)[:60]!r}, expected a string.')
  if not value.split():
    raise BadFile(
      f'{where} is empty; expected at least one word: a sentence without words '
      'cannot be encoded. Remove it, or take the clip off the list.'
    )
  return value


def _is_text(value):
  """Whether it can be stored: JSON can hold halves of characters."""
  try:
    value.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True
