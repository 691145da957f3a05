# SPDX-License-Identifier: Apache-2.0
"""Fenced commands and links of Markdown files.

A comment before a block of `bash` says how the tests treat it:

  (none)                    run as written
  <!-- run: small -->       run on a small corpus, two steps (`:runlocal`)
  <!-- run: no, REASON -->  not run; the test says why
"""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[2]
_FENCE = re.compile(
  r'(?:<!-- run: (?P<how>.*?) -->\n)?```bash\n(?P<code>.*?)\n```', re.DOTALL
)
_LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')


@dataclasses.dataclass(frozen=True)
class Block:
  """One fenced block of commands.

  Attributes:
    file: path below the root.
    line: of the first command.
    how: '', 'small' or 'no, REASON'.
    commands: one string each, continued lines joined.
  """

  file: str
  line: int
  how: str
  commands: tuple[str, ...]


def files():
  """The Markdown files for users: at the root and in docs/."""
  return sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])


def blocks(path):
  """The `bash` blocks of a file."""
  text = path.read_text()
  out = []
  for match in _FENCE.finditer(text):
    code = match['code'].replace('\\\n', ' ')
    lines = [line.partition('  #')[0].strip() for line in code.splitlines()]
    out.append(
      Block(
        str(path.relative_to(ROOT)),
        text.count('\n', 0, match.start('code')) + 1,
        match['how'] or '',
        tuple(x for x in lines if x and not x.startswith('#')),
      )
    )
  return out


def links(path):
  """Targets of the links of a file that are not on the web or in the file."""
  targets = _LINK.findall(path.read_text())
  return [
    t.partition('#')[0]
    for t in targets
    if not re.match(r'#|https?:|mailto:', t)
  ]


def small(command):
  """The same command with `:runlocal`, for our configs."""

  def change(match):
    path, arg = match['path'], match['arg'] or ''
    if 'runlocal' in arg.split(','):
      return match[0]
    return f'{path}:{arg},runlocal' if arg else f'{path}:runlocal'

  pattern = r'(?P<path>configs/\w+\.py)(?::(?P<arg>[^\s\'"]+))?'
  return re.sub(pattern, change, command)


def option(command, name):
  """The value of `--name value` or `--name=value` in a command, or None."""
  words = shlex.split(command, comments=True)
  for i, word in enumerate(words):
    if word == f'--{name}':
      return words[i + 1]
    if word.startswith(f'--{name}='):
      return word.partition('=')[2]
  return None
