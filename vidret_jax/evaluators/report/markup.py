# SPDX-License-Identifier: Apache-2.0
"""HTML that cannot be broken out of: everything is escaped unless built here.

Captions, ids and paths come from datasets and are not trusted. Text is escaped,
characters that reorder or cut what is shown are replaced, and links take only
`Link` values, which are relative and quoted.
"""

import html
import math
import pathlib
import re
from typing import Any
import urllib.parse

# Controls except tab and newline, lone surrogates, and the marks that reverse
# the direction of the text that follows.
_UNSAFE = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069'
  '\ud800-\udfff\ufeff\ufffe\uffff]'
)
_LINKS = ('href', 'src', 'poster', 'data', 'action')
_VOID = ('meta', 'input', 'link', 'br', 'source')


class Markup(str):
  """Text that is HTML already; made by `tag` alone."""


class Link(str):
  """A quoted relative URL; made by `link` alone."""


def clean(text: Any) -> str:
  """Text with the characters replaced that would garble a page."""
  return _UNSAFE.sub('\ufffd', str(text))


def link(*parts: str) -> Link:
  """A relative link to a file below the page.

  Raises:
    ValueError: a part that leaves the folder.
  """
  path = pathlib.PurePosixPath(*parts)
  if path.is_absolute() or '..' in path.parts or not path.parts:
    raise ValueError(f'link {str(path)!r} must stay below the page.')
  # The dot keeps 'javascript:x' a file name and '//host/x' a path.
  return Link('./' + urllib.parse.quote(str(path).encode('utf-8')))


def moment(target: Link, start: float, end: float) -> Link:
  """A link to a span of a clip, in seconds (W3C Media Fragments).

  Raises:
    ValueError: seconds that are no times.
  """
  if not (0 <= start < math.inf and 0 <= end < math.inf):
    raise ValueError(f'[{start}, {end}] s is no span of a clip.')
  # Browsers ignore a fragment whose end is not after its start.
  stop = f',{end:.2f}' if end - start >= 0.01 else ''
  return Link(f'{target}#t={start:.2f}{stop}')


def tag(element: str, *children: Any, **attributes: Any) -> Markup:
  """One element.

  Args:
    element: its name.
    *children: `Markup`, text (escaped), None (left out), or lists of these.
    **attributes: `cls` is class, underscores become dashes; None and False are
      left out, True gives a bare attribute.

  Raises:
    TypeError: an event handler, inline style, or a link that is not a `Link`.
  """
  out = [f'<{element}']
  for name, value in attributes.items():
    name = {'cls': 'class', 'for_': 'for'}.get(name, name.replace('_', '-'))
    if name in _LINKS and not isinstance(value, Link):
      raise TypeError(f'{name} of <{element}> takes a Link, not {value!r}.')
    if name.startswith('on') or name == 'style':
      raise TypeError(f'{name} of <{element}>: pages carry no inline code.')
    if value is True:
      out.append(f' {name}')
    elif value is not None and value is not False:
      out.append(f' {name}="{html.escape(clean(value), quote=True)}"')
  out.append('>')
  if element in _VOID:
    return Markup(''.join(out))
  out.extend(_render(c) for c in children)
  out.append(f'</{element}>')
  return Markup(''.join(out))


def _render(child: Any) -> str:
  if child is None:
    return ''
  if isinstance(child, Markup):
    return child
  if isinstance(child, (list, tuple)):
    return ''.join(_render(c) for c in child)
  return html.escape(clean(child), quote=False)


def document(head: list[Markup], body: list[Markup]) -> str:
  """A whole page."""
  inner = tag('html', tag('head', head), tag('body', body), lang='en')
  return f'<!DOCTYPE html>\n{inner}\n'


def stylesheet(css: str) -> Markup:
  """A style element; `css` is ours, never data."""
  return _verbatim('style', css)


def script(code: str) -> Markup:
  """A script element; `code` is ours, never data."""
  return _verbatim('script', code)


def _verbatim(element, text):
  if '</' in text or '<!--' in text:
    raise ValueError(f'text of <{element}> cannot hold "</" or "<!--".')
  return Markup(f'<{element}>{text}</{element}>')
