# SPDX-License-Identifier: Apache-2.0
"""The config in docs/data_formats.md opens a collection of one's own."""

import re

from tests.data import copy_sets
from tests.readme import markdown
from vidret_jax import config_lib
from vidret_jax.data import folder_copies
from vidret_jax.train import defaults


def test_the_config_opens_the_collection(tmp_path, monkeypatch):
  page = (markdown.ROOT / 'docs' / 'data_formats.md').read_text()
  (code,) = [
    block
    for block in re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    if 'folder_copies' in block
  ]
  root = str(copy_sets.write(tmp_path / 'mine', 'folder_copies'))
  file = tmp_path / 'mine.py'
  file.write_text(code)
  monkeypatch.chdir(markdown.ROOT)
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  c = config_lib.load(
    f'{file}:features_only=True',
    [f'evals.test.data.root={root}'],
    defaults.DEFAULTS,
  )
  assert c.model.features_only
  data = config_lib.to_dict(c.evals.test.data)
  assert data.pop('name') == 'folder_copies'
  view = folder_copies.make(view='items', **data)
  assert view.found.any() and view.annotations.protocol == 'fivr'
