# SPDX-License-Identifier: Apache-2.0
"""Starts the trainer as a user does: `python -m vidret_jax.main ...`."""

import json
import os
import pathlib
import socket
import subprocess
import sys

from tests.devices import flags
from tests.train.tiny import forks

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = 'tests/train/tiny/config.py'


def environment(devices=1, processes=None):
  """The environment of one process with virtual CPU devices."""
  env = dict(os.environ, JAX_PLATFORMS='cpu')
  env['XLA_FLAGS'] = flags(devices)
  if processes:
    port, count, index = processes
    env |= dict(
      VIDRET_COORDINATOR=f'localhost:{port}',
      VIDRET_NUM_PROCESSES=str(count),
      VIDRET_PROCESS_ID=str(index),
    )
  return env


def line(workdir, *args, config=CONFIG):
  """The command line."""
  return [
    sys.executable,
    '-m',
    'vidret_jax.main',
    '--config',
    config,
    '--workdir',
    str(workdir),
    *args,
  ]


def start(
  workdir, *args, config=CONFIG, devices=1, processes=None, interpreter=False
):
  """Starts one process; its output is one stream of text.

  It is a fork of a process that has loaded the libraries (`forks`), or, with
  `interpreter`, what a shell would start.
  """
  words = line(workdir, *args, config=config)
  env = environment(devices, processes)
  if not interpreter:
    return forks.Process(words[2:], env)
  return subprocess.Popen(
    words,
    cwd=ROOT,
    env=env,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def run(workdir, *args, expect=0, **kwargs):
  """Runs one process to its end and returns its output."""
  with start(workdir, *args, **kwargs) as process:
    text, _ = process.communicate(timeout=300)
  assert process.returncode == expect, text
  return text


def run_processes(workdir, count, *args, **kwargs):
  """Runs `count` processes that form one run; returns their outputs."""
  port = free_port()
  started = [
    start(workdir, *args, processes=(port, count, i), **kwargs)
    for i in range(count)
  ]
  texts = [p.communicate(timeout=300)[0] for p in started]
  assert [p.returncode for p in started] == [0] * count, '\n'.join(texts)
  return texts


def free_port():
  """A port that nobody listens on."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def rows(workdir):
  """The lines of metrics.jsonl."""
  with open(os.path.join(workdir, 'metrics.jsonl')) as f:
    return [json.loads(line) for line in f]


def steps(workdir):
  """Steps with a whole checkpoint, ascending."""
  folder = os.path.join(workdir, 'checkpoints')
  names = os.listdir(folder) if os.path.isdir(folder) else []
  return sorted(int(n) for n in names if n.isdigit())


def state(workdir, step=None):
  """Every array of one checkpoint (the newest): {name: bytes}."""
  import jax
  import numpy as np
  from orbax import checkpoint as ocp

  folder = os.path.join(
    os.path.abspath(workdir), 'checkpoints', str(step or steps(workdir)[-1])
  )
  out = {}
  for item in ('variables', 'opt'):
    with ocp.StandardCheckpointer() as reader:
      tree = reader.restore(os.path.join(folder, item))
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
      out[item + jax.tree_util.keystr(path)] = np.asarray(x).tobytes()
  assert len(out) > 10
  return out
