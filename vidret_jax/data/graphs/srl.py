# SPDX-License-Identifier: Apache-2.0
"""Semantic roles of a caption -> its role graph.

What goes in is the output of any tagger of semantic roles: the words of a
caption and, for each predicate, one BIO tag per word. What comes out is what
HGR reads (Chen et al., CVPR 2020): `[nodes, edges]`, a node for the caption,
one for each predicate and one for each argument. Follows HGR's
`role_graph` notebook, its special cases included.
"""

import collections
from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from vidret_jax.data.graphs import files

Graph = list  # [{id: {role, spans, words}}, [[verb id, argument id, role]]]

_NEXT = (
  'expected {"words": [...], "verbs": [{"tags": [one BIO tag per word]}, ...]}'
)


class BadSrl(ValueError):
  """Roles of one caption that no graph can be made of."""


def root(words: Sequence[str]) -> Graph:
  """The graph of a caption without a predicate."""
  words = list(words)
  node = {'role': 'ROOT', 'spans': list(range(len(words))), 'words': words}
  return [{'ROOT': node}, []]


def _groups(tags):
  """{(role, number): word indices} of one predicate, by first word."""
  count = collections.Counter()
  found = {}
  before = ''
  for i, tag in enumerate(tags):
    role = tag[2:]
    if tag != 'O':
      if tag[0] == 'B' or (i > 0 and before != role):
        count[role] += 1
      elif not count[role]:
        raise BadSrl(
          f'the first tag is {tag!r}; a group has to begin with B-{role}'
        )
      found.setdefault((role, count[role]), []).append(i)
    before = role
  return found


def _is_kept(groups):
  roles = [role for role, _ in groups]
  return len(set(roles)) > 1 and roles.count('V') == 1


def graph(srl: Mapping[str, Any]) -> Graph:
  """The role graph of one caption.

  A predicate is left out when it has no argument, when `V` is in several
  places, or when an earlier predicate has the same words. Arguments with the
  same words and the same role are one node.

  Args:
    srl: `words` and `verbs`; see `checked`.

  Raises:
    BadSrl: malformed, or a tag at the first word that goes on from nothing.
  """
  words, predicates = checked(srl)
  made = root(words)
  nodes, edges = made
  known = {}

  def node(role, spans):
    key = (role, *spans)
    if key not in known:
      known[key] = str(len(nodes))
      nodes[known[key]] = {
        'role': role,
        'spans': spans,
        'words': [words[i] for i in spans],
      }
    return known[key]

  kept = [g for g in map(_groups, predicates) if _is_kept(g)]
  for groups in kept:
    spans = groups.pop(('V', 1))
    if ('V', *spans) in known:
      continue
    verb = node('V', spans)
    for (role, _), spans in groups.items():
      edges.append([verb, node(role, spans), role])
  return made


def augment(
  made: Graph, tags: Sequence[str], chunks: Sequence[Sequence[int]] | None
) -> Graph:
  """Nodes from parts of speech for a graph that has nothing but its root.

  Args:
    made: of `graph`; returned as it is when it has other nodes.
    tags: fine (Penn Treebank) tags, one per word.
    chunks: [first, after last) of each noun phrase; without any, every noun is
      a node.

  Returns:
    A graph with `NOUN` nodes, then `V` nodes, and no edges.

  Raises:
    BadSrl: not one tag per word, or a phrase outside the caption.
  """
  nodes, edges = made
  if len(nodes) > 1:
    return made
  words = nodes['ROOT']['words']
  if len(tags) != len(words):
    raise BadSrl(f'{len(tags)} parts of speech for {len(words)} words')
  spans = [list(range(int(a), int(b))) for a, b in chunks or ()]
  if any(not s or s[0] < 0 or s[-1] >= len(words) for s in spans):
    raise BadSrl(f'noun phrases {chunks} in {len(words)} words')
  if not spans:
    spans = [[i] for i, tag in enumerate(tags) if tag.startswith('NN')]
  added = [('NOUN', s) for s in spans]
  added += [('V', [i]) for i, t in enumerate(tags) if t.startswith('VB')]
  new = {
    str(i): {'role': role, 'spans': s, 'words': [words[k] for k in s]}
    for i, (role, s) in enumerate(added, 1)
  }
  return [{**nodes, **new}, edges]


def graphs(
  sent2srl: Mapping[str, Any],
) -> tuple[dict[str, Graph], dict[str, str]]:
  """Graphs of many captions.

  Returns:
    ({caption: graph}, {caption: why it has none}). The original loses the
    latter without a word; `root` is a graph for them.
  """
  made, failed = {}, {}
  for caption, found in sent2srl.items():
    try:
      made[caption] = graph(found)
    except BadSrl as error:
      failed[caption] = str(error)
  return made, failed


def checked(srl: Any) -> tuple[list[str], list[list[str]]]:
  """(words, tags of each predicate) of one caption.

  A predicate is a list of tags, or an object that has one as `tags`. Tags of
  the kind BIOES are turned into BIO.

  Raises:
    BadSrl: anything else.
  """
  if not isinstance(srl, Mapping):
    raise BadSrl(f'found {type(srl).__name__}; {_NEXT}')
  words, verbs = srl.get('words'), srl.get('verbs')
  if not _is_strings(words) or not words or not isinstance(verbs, list):
    raise BadSrl(f'keys {sorted(map(str, srl))}; {_NEXT}')
  predicates = []
  for verb in verbs:
    tags = verb.get('tags') if isinstance(verb, Mapping) else verb
    if not _is_strings(tags) or len(tags) != len(words):
      size = len(tags) if isinstance(tags, list) else type(tags).__name__
      raise BadSrl(
        f'predicate {len(predicates)} has tags of length {size}, the '
        f'caption {len(words)} words'
      )
    for tag in tags:
      if tag != 'O' and not (tag[:2] in ('B-', 'I-', 'E-', 'S-') and tag[2:]):
        raise BadSrl(f'{tag[:40]!r} is no BIO tag')
    predicates.append([_BIO.get(t[0], t[0]) + t[1:] for t in tags])
  return words, predicates


_BIO = {'S': 'B', 'E': 'I'}


def _is_strings(value):
  return isinstance(value, list) and all(isinstance(v, str) for v in value)


def read(path: str | os.PathLike) -> dict[str, dict]:
  """Reads the output of a tagger; see `checked` for what a caption needs.

  A `.json` file is an object by caption; a `.jsonl` file has one object per
  line, as AllenNLP's `predict` writes it, known by its `sentence` or its
  words; any other file has one word per line with its tags in columns behind
  it, one per predicate, and empty lines between captions.

  Returns:
    {caption: {words, verbs}}; contents are not checked here, because one
    bad caption must not hide the others.

  Raises:
    ValueError: the file is none of these; names file and line.
  """
  path = pathlib.Path(path)
  if path.suffix == '.json':
    return files.json_object(path)
  with open(path, encoding='utf-8') as lines:
    try:
      rows = (
        _objects(path, lines)
        if path.suffix == '.jsonl'
        else _columns(path, lines)
      )
      return dict(rows)
    except UnicodeDecodeError as error:
      raise ValueError(f'{path}: no UTF-8 text ({error})') from None


def _objects(path, lines):
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      found = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
      raise ValueError(f'{path}:{number}: no JSON ({error})') from None
    words = found.get('words') if isinstance(found, dict) else None
    if not _is_strings(words):
      raise ValueError(f'{path}:{number}: {_NEXT}')
    caption = found.get('sentence', found.get('caption'))
    yield caption if isinstance(caption, str) else ' '.join(words), found


def _columns(path, lines):
  rows = []
  for number, line in enumerate([*lines, ''], 1):
    cells = line.split()
    if cells:
      rows.append(cells)
      if len(cells) != len(rows[0]):
        raise ValueError(
          f'{path}:{number}: {len(cells)} columns, the caption began with '
          f'{len(rows[0])}; expected a word and one BIO tag per predicate'
        )
    elif rows:
      words, *tags = map(list, zip(*rows))
      verbs = [{'verb': _verb(words, t), 'tags': t} for t in tags]
      yield ' '.join(words), {'words': words, 'verbs': verbs}
      rows = []


def _verb(words, tags):
  return ' '.join(w for w, t in zip(words, tags) if t[1:] == '-V')
