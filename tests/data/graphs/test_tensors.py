# SPDX-License-Identifier: Apache-2.0
"""Words, phrases and edges of captions, on examples made by hand."""

import numpy as np
import pytest

from vidret_jax.data.graphs import tensors

SIZES = dict(max_words=5, num_verbs=2, num_nouns=3)


def node(role, *spans):
  return {'role': role, 'spans': list(spans), 'words': ['w'] * len(spans)}


GRAPH = [
  {
    'ROOT': node('ROOT', *range(8)),
    '1': node('V', 1),
    '2': node('ARG1', 2, 3),
    '3': node('V', 4, 6),
    '4': node('C-V', 0),
    '5': node('ARGM-CAU', 3, 7),
  },
  [['1', '2', 'ARG1'], ['3', '5', 'ARGM-CAU'], ['1', '2', 'ARG1']],
]


def test_roles():
  assert len(tensors.ROLES) == 16
  assert [tensors.role_id(r) for r in ('V', 'ARG1', 'NOUN')] == [0, 1, 15]
  assert tensors.role_id('C-ARG2') == tensors.role_id('R-ARG2') == 3
  assert tensors.role_id('ARGM-CAU') == tensors.role_id('X-V') == 15


def test_sentence():
  ids, mask = tensors.sentence('the Cat  sat zz', {'the': 3, 'sat': 4}, 5)
  assert ids.dtype == np.int32 and mask.dtype == bool
  assert ids.tolist() == [3, 2, 4, 2, 1]  # Unknown words have id 2.
  assert mask.tolist() == [True] * 4 + [False]
  ids, mask = tensors.sentence('the the sat', {'the': 3, 'sat': 4}, 2)
  assert ids.tolist() == [3, 3] and mask.all()


def test_graph():
  out = tensors.graph(GRAPH, **SIZES)
  assert out['verb_mask'].astype(int).tolist() == [
    [0, 1, 0, 0, 0],
    [0, 0, 0, 0, 1],
  ]
  assert out['noun_mask'].astype(int).tolist() == [
    [0, 0, 1, 1, 0],
    [1, 0, 0, 0, 0],
    [0, 0, 0, 1, 0],
  ]
  assert out['roles'].dtype == np.int32
  assert out['roles'].tolist() == [0, 0, 1, 0, 15]
  # Rows receive: verbs (1, 2) from the root and nouns, nouns (3..5) from verbs.
  assert np.argwhere(out['edge_mask']).tolist() == [
    *([1, 0], [1, 3], [2, 0], [2, 5], [3, 1], [5, 2]),
  ]


def test_what_has_no_room_is_left_out():
  out = tensors.graph(GRAPH, max_words=4, num_verbs=1, num_nouns=1)
  assert out['verb_mask'].sum() == 1 and out['noun_mask'].sum() == 2
  assert np.argwhere(out['edge_mask']).tolist() == [[1, 0], [1, 2], [2, 1]]
  # A node that begins beyond the last word makes room for the next.
  late = [{'1': node('V', 9), '2': node('V', 0)}, []]
  out = tensors.graph(late, max_words=5, num_verbs=1, num_nouns=1)
  assert out['verb_mask'].tolist() == [[True] + [False] * 4]


@pytest.mark.parametrize(
  'nodes', [{}, {'ROOT': node('ROOT', 0)}, {'1': node('NOUN', 0)}]
)
def test_a_graph_without_verbs_has_no_edges(nodes):
  tensors.check([nodes, []], 1)
  out = tensors.graph([nodes, []], **SIZES)
  assert not out['verb_mask'].any() and not out['edge_mask'].any()
  assert out['noun_mask'].any() == ('1' in nodes)


@pytest.mark.parametrize(
  'graph, said',
  [
    (None, 'expected .nodes, edges.'),
    ([{}], 'expected .nodes, edges.'),
    ([[], []], 'expected .nodes, edges.'),
    ([{'1': {'spans': [0]}}, []], "node '1' has no role"),
    ([{'1': {'role': 'V', 'spans': []}}, []], "node '1' has no spans"),
    ([{'1': node('V', 3)}, []], 'from 0 to 2'),
    ([{'1': node('V', -1)}, []], "'-1' in its spans"),
    ([{'1': node('V', True)}, []], "'True' in its spans"),
    ([{'1': node('V', 0)}, [['1', '2', 'ARG1']]], 'nodes that the graph has'),
    ([{'1': node('V', 0)}, [['1', ['1'], 'ARG1']]], 'nodes that the graph has'),
    ([{'1': node('V', 0)}, [['1', '1']]], 'is not .node, node, role.'),
  ],
)
def test_malformed_graphs(graph, said):
  with pytest.raises(ValueError, match=said):
    tensors.check(graph, 3)
