# SPDX-License-Identifier: Apache-2.0
"""Captions and role graphs as arrays of fixed size.

The rules are those of HGR (Chen et al., CVPR 2020; `readers/mpdata.py` and
`readers/rolegraphs.py`). Unlike there, edges are not normalised here: the
model divides every row by its sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PADDING, UNKNOWN = 1, 2  # Ids 0 and 1 also mark begin and end; never made.
ROLES = (
  *('V', 'ARG1', 'ARG0', 'ARG2', 'ARG3', 'ARG4', 'ARGM-LOC', 'ARGM-MNR'),
  *('ARGM-TMP', 'ARGM-DIR', 'ARGM-ADV', 'ARGM-PRP', 'ARGM-PRD', 'ARGM-COM'),
  *('ARGM-MOD', 'NOUN'),
)
_IDS = {
  prefix + r: i for i, r in enumerate(ROLES) for prefix in ('', 'C-', 'R-')
}


def role_id(name: str) -> int:
  """Id of a role; `C-x` and `R-x` count as x, unknown roles as NOUN."""
  return _IDS.get(name, _IDS['NOUN'])


def sentence(
  caption: str, word2int: Mapping[str, int], max_words: int
) -> tuple[np.ndarray, np.ndarray]:
  """Word ids of a caption.

  Words are what whitespace separates, as they are; words outside the
  vocabulary have id 2, words beyond `max_words` are dropped.

  Returns:
    ids int32 [l] padded with 1, mask bool [l], l = max_words.
  """
  words = caption.split()[:max_words]
  ids = np.full(max_words, PADDING, np.int32)
  ids[: len(words)] = [word2int.get(word, UNKNOWN) for word in words]
  return ids, np.arange(max_words) < len(words)


def graph(
  role_graph: Sequence[Any], *, max_words: int, num_verbs: int, num_nouns: int
) -> dict[str, np.ndarray]:
  """Phrases and edges of a role graph.

  Nodes are taken in file order while there is room; a node whose first word is
  beyond `max_words` is left out. A graph without verbs is fine: its root then
  has no edges, and the model uses the sentence and the nouns alone.

  Args:
    role_graph: [nodes {id: {'role', 'spans', ...}}, edges [[id of a verb, id of
      another node, role]]], as `check` accepts it.
    max_words: l.
    num_verbs: v, places for nodes with role V.
    num_nouns: p, places for all other nodes but ROOT.

  Returns:
    verb_mask bool [v, l], noun_mask bool [p, l]: the words of each phrase;
    roles int32 [v + p], 0 where there is no phrase;
    edge_mask bool [1 + v + p, 1 + v + p] over root, verbs, nouns: the row
    receives from the column. Verbs receive from the root and their nouns,
    nouns from their verbs, the root from nobody.
  """
  nodes, edges = role_graph
  near = {
    key: node for key, node in nodes.items() if min(node['spans']) < max_words
  }
  verbs = [k for k, node in near.items() if node['role'] == 'V'][:num_verbs]
  # C-V and R-V count as nouns here, though their role id is that of V.
  nouns = [k for k, n in near.items() if n['role'] not in ('ROOT', 'V')]
  nouns = nouns[:num_nouns]
  roles = np.zeros(num_verbs + num_nouns, np.int32)
  for i, key in enumerate(nouns):
    roles[num_verbs + i] = role_id(near[key]['role'])
  size = 1 + num_verbs + num_nouns
  edge_mask = np.zeros((size, size), bool)
  edge_mask[1 : 1 + len(verbs), 0] = True
  verb_row = {key: 1 + i for i, key in enumerate(verbs)}
  noun_row = {key: 1 + num_verbs + i for i, key in enumerate(nouns)}
  for source, target, _ in edges:
    if source in verb_row and target in noun_row:
      a, b = verb_row[source], noun_row[target]
      edge_mask[a, b] = edge_mask[b, a] = True
  return dict(
    verb_mask=_spans(near, verbs, num_verbs, max_words),
    noun_mask=_spans(near, nouns, num_nouns, max_words),
    roles=roles,
    edge_mask=edge_mask,
  )


def _spans(nodes, keys, rows, max_words):
  mask = np.zeros((rows, max_words), bool)
  for row, key in zip(mask, keys):
    row[[i for i in nodes[key]['spans'] if i < max_words]] = True
  return mask


def check(role_graph: Any, num_words: int):
  """Checks a graph that comes from a file.

  Args:
    role_graph: what the file holds for a caption.
    num_words: words of this caption.

  Raises:
    ValueError: it is not what `graph` takes; says what is wrong where.
  """
  if not (
    isinstance(role_graph, (list, tuple))
    and len(role_graph) == 2
    and isinstance(role_graph[0], Mapping)
    and isinstance(role_graph[1], (list, tuple))
  ):
    raise ValueError(
      f'found {str(role_graph)[:60]!r}, expected [nodes, edges], an object and '
      'a list'
    )
  nodes, edges = role_graph
  for key, node in nodes.items():
    if not isinstance(node, Mapping) or not isinstance(node.get('role'), str):
      raise ValueError(f'node {key!r} has no role, expected a string')
    spans = node.get('spans')
    if not isinstance(spans, (list, tuple)) or not spans:
      raise ValueError(f'node {key!r} has no spans, expected a list of words')
    for i in spans:
      if type(i) is not int or not 0 <= i < num_words:
        raise ValueError(
          f'node {key!r} has {str(i)[:20]!r} in its spans, expected numbers '
          f'of words from 0 to {num_words - 1}'
        )
  for edge in edges:
    if not (
      isinstance(edge, (list, tuple))
      and len(edge) == 3
      and all(isinstance(end, str) and end in nodes for end in edge[:2])
    ):
      raise ValueError(
        f'the edge {str(edge)[:60]} is not [node, node, role] of nodes that '
        'the graph has'
      )
