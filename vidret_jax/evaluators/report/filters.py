# SPDX-License-Identifier: Apache-2.0
"""Filters of a report: radio buttons that its style sheet reads."""

from collections.abc import Mapping, Sequence

from vidret_jax.evaluators.report.markup import Markup, tag


def radios(
  name: str, label: str, texts: Mapping[str, str], keys: Sequence[str]
) -> Markup:
  """One filter: all queries, or those whose key it is; with their counts.

  Args:
    name: of the filter, for the style sheet.
    label: what it is about.
    texts: key -> what its button says.
    keys: of the queries.
  """
  counts = {'all': len(keys)} | {key: keys.count(key) for key in texts}
  return tag(
    'div',
    [
      tag(
        'label',
        tag(
          'input',
          type='radio',
          name=name,
          id=f'{name}-{key}',
          checked=key == 'all',
        ),
        tag('span', f'{text} ', tag('b', str(counts[key]))),
      )
      for key, text in ({'all': 'all'} | dict(texts)).items()
    ],
    cls='filters',
    role='radiogroup',
    aria_label=label,
  )
