# SPDX-License-Identifier: Apache-2.0
"""docs/results.md says what the stored results say."""

import json
import re

from benchmarks import machine, tables


def test_tables_are_those_of_the_stored_results():
  text = tables.PAGE.read_text()
  assert tables.render(text) == text, 'run python -m benchmarks.tables'


def test_every_table_is_on_the_page():
  names = re.findall(r'<!-- table: (\w+) -->', tables.PAGE.read_text())
  assert len(names) == len(set(names)) >= 8
  assert all(callable(tables.TABLES[name]) for name in names)


def test_every_result_names_its_machine():
  files = sorted(machine.RESULTS.glob('*.json'))
  assert files
  for path in files:
    facts = json.loads(path.read_text())['machine']
    assert facts['matmul_gflops'] > 0, path
    assert {'cpu', 'cores', 'jax', 'python', 'date'} <= set(facts), path
