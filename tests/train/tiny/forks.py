# SPDX-License-Identifier: Apache-2.0
"""Processes of the trainer that need not load their libraries anew.

Loading TensorFlow, JAX and clu costs six seconds, most of a small run. One
process, the server, loads them and computes nothing; every run is a fork of
it that sets its own environment, reads its own flags and then runs
`vidret_jax.main` as `python -m` does. It has its own process number, is sent
real signals, and starts its own backend, threads and devices.
"""

import functools
import importlib
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[3]
# What every run imports before it reads its config.
LIBRARIES = (
  *('tensorflow', 'clu.metric_writers', 'clu.metric_writers.summary_writer'),
  *('vidret_jax.train.loop', 'vidret_jax.train.profile'),
)


class Process:
  """A started run, with the part of `subprocess.Popen` that tests use."""

  def __init__(self, argv, env):
    """Starts `python argv[0] ...`, where argv[0] is the name of a module."""
    self._output, output = os.pipe()
    self._told, told = os.pipe()
    request = json.dumps([argv, env]).encode()
    channel = _server()[0]
    head = len(request).to_bytes(4, 'big')
    socket.send_fds(channel, [head], [output, told])
    channel.sendall(request)
    os.close(output)
    os.close(told)
    self.args, self.returncode = argv, None
    self.pid = int.from_bytes(os.read(self._told, 4), 'big')
    assert self.pid, 'the server of the runs has ended'

  def poll(self):
    return self._wait(0)

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout):
    """Returns (all it wrote, None), after its end."""
    deadline, text = time.monotonic() + timeout, b''
    while True:
      left = max(0, deadline - time.monotonic())
      if not select.select([self._output], [], [], left)[0]:
        self.kill()
        raise subprocess.TimeoutExpired(self.args, timeout, text)
      part = os.read(self._output, 1 << 16)
      if not part:
        break
      text += part
    self._wait(max(1, deadline - time.monotonic()))
    os.close(self._output)
    return text.decode(), None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.kill()

  def _wait(self, seconds):
    ready = self.returncode is None and select.select(
      [self._told], [], [], seconds
    )
    if ready and ready[0]:
      told = os.read(self._told, 4)
      self.returncode = int.from_bytes(told, 'big', signed=True)
      os.close(self._told)
    return self.returncode


@functools.cache
def _server():
  """(channel, server); it leaves when this end of the channel is closed."""
  ours, theirs = socket.socketpair()
  # JAX reads its variables when it is loaded: each run brings its own.
  env = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
  server = subprocess.Popen(
    [sys.executable, '-m', __name__, str(theirs.fileno())],
    cwd=ROOT,
    env=env,
    pass_fds=[theirs.fileno()],
    stdin=subprocess.DEVNULL,
  )
  theirs.close()
  return ours, server


def _serve(channel):
  """Forks a run per request until the other end is closed."""
  for name in LIBRARIES:
    importlib.import_module(name)
  watches = []
  while True:
    head, files, _, _ = socket.recv_fds(channel, 4, 2)
    if not head:
      break
    request = b''
    while len(request) < int.from_bytes(head, 'big'):
      request += channel.recv(1 << 16)
    watch = os.fork()
    if not watch:
      channel.close()
      _watch(*json.loads(request), *files)
    for file in files:
      os.close(file)
    watches = [w for w in (*watches, watch) if not os.waitpid(w, os.WNOHANG)[0]]
  for watch in watches:
    os.waitpid(watch, 0)


def _watch(argv, env, output, told):
  """Forks the run and tells its process number, later its exit status."""
  run = os.fork()
  if not run:
    os.close(told)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    _run(argv, env)
  os.close(output)
  os.write(told, run.to_bytes(4, 'big'))
  status = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
  os.write(told, status.to_bytes(4, 'big', signed=True))
  os._exit(0)


def _run(argv, env):
  """Runs a module as `python -m` does, and ends this process as it ends."""
  import jax

  os.environ.clear()
  os.environ.update(env)
  for key, value in env.items():
    if key.startswith('JAX_'):
      value = {'0': False, '1': True}.get(value, value)
      jax.config.update(key.lower(), value)
  sys.argv = argv
  runpy.run_module(argv[0], run_name='__main__', alter_sys=True)
  sys.exit(0)


if __name__ == '__main__':
  _serve(socket.socket(fileno=int(sys.argv[1])))
