# SPDX-License-Identifier: Apache-2.0
"""One self-contained file: styles and scripts inside, nothing else allowed."""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import importlib.resources
import json
import math
import pathlib
from typing import Any

import numpy as np

from vidret_jax.evaluators.report import markup

STYLE = 'style.css'


def render(
  title: str,
  body: list[markup.Markup],
  *,
  styles: Sequence[str] = (STYLE,),
  script: str | None = None,
) -> str:
  """A whole page as text.

  Its policy admits these styles and this script by their hashes, and clips
  beside the page; the browser refuses everything else, the network included.

  Args:
    title: of the window.
    body: below it.
    styles: style sheets of this package, the later ones win.
    script: a script of this package, run when the page is there; or None.
  """
  css = '\n'.join(_read(name) for name in styles)
  code = None if script is None else _read(script)
  rules = ["default-src 'none'", f'style-src {_digest(css)}']
  if code is not None:
    rules.append(f'script-src {_digest(code)}')
  rules += ["media-src 'self' file:", "base-uri 'none'", "form-action 'none'"]
  head = [
    markup.tag('meta', charset='utf-8'),
    markup.tag(
      'meta', http_equiv='Content-Security-Policy', content='; '.join(rules)
    ),
    markup.tag('meta', name='viewport', content='width=device-width'),
    markup.tag('meta', name='referrer', content='no-referrer'),
    markup.tag('title', title),
    markup.stylesheet(css),
  ]
  if code is not None:
    body = [*body, markup.script(code)]
  return markup.document(head, body)


def write(path: pathlib.Path, text: str) -> None:
  """Writes a file of a report whole or not at all."""
  draft = path.with_name(path.name + '.part')
  draft.write_text(text, encoding='utf-8', errors='replace')
  draft.replace(path)


def write_json(
  path: pathlib.Path, value: Any, without: Sequence[str] = ()
) -> None:
  """Writes what a page shows for programs; see `as_json`."""
  write(path, as_json(value, without))


def as_json(value: Any, without: Sequence[str] = ()) -> str:
  """What a page shows, as text for programs.

  Args:
    value: mappings, sequences, data classes, numbers and text.
    without: fields of data classes to leave out.
  """
  return json.dumps(_plain(value, without), indent=1, allow_nan=False)


def _plain(value: Any, without: Sequence[str]) -> Any:
  """What JSON can hold: it has no infinity."""
  if dataclasses.is_dataclass(value):
    value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    value = {k: x for k, x in value.items() if k not in without}
  if isinstance(value, Mapping):
    return {k: _plain(x, without) for k, x in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(x, without) for x in value]
  if isinstance(value, (float, np.floating)):
    return float(value) if math.isfinite(value) else None
  return value


def _read(name: str) -> str:
  return (
    importlib.resources.files(__package__).joinpath(name).read_text('utf-8')
  )


def _digest(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"
