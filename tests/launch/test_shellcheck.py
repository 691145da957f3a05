# SPDX-License-Identifier: Apache-2.0
"""Every shell script passes shellcheck."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.launch.shell import LAUNCH, ROOT

SCRIPTS = [
  *sorted(LAUNCH.glob('*.sh')),
  LAUNCH / 'slurm.sbatch',
  ROOT / '.ci' / 'run',
]


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.name)
def test_shellcheck(path):
  tool = shutil.which('shellcheck') or shutil.which(
    'shellcheck', path=os.path.dirname(sys.executable)
  )
  if tool is None:
    pytest.skip('shellcheck is not installed: pip install -e .[dev]')
  done = subprocess.run([tool, str(path)], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout
