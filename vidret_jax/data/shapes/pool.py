# SPDX-License-Identifier: Apache-2.0
"""Worker processes that make one thing per name, each the next when free."""

from collections.abc import Callable, Sequence
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys

from vidret_jax.data.frames import store


def run(
  module: str,
  folder: str | os.PathLike,
  names: Sequence[str],
  num_workers: int | None,
  advance: Callable[[], None],
) -> None:
  """Has every name made by `python -m module folder`; see `serve`.

  Args:
    module: with a `main` that serves.
    folder: its argument.
    names: of what is to be made.
    num_workers: processes; None: one per core.
    advance: called once for each that is made.

  Raises:
    RuntimeError: something cannot be made, for example because the disk is
      full. What is done is kept.
  """
  if not names:
    return
  left = queue.SimpleQueue()
  for name in names:
    left.put(name)
  num_workers = max(1, min(num_workers or store.cores(), len(names)))
  with contextlib.ExitStack() as stack:
    workers = [
      stack.enter_context(_worker(module, folder)) for _ in range(num_workers)
    ]
    with concurrent.futures.ThreadPoolExecutor(num_workers) as threads:
      jobs = [threads.submit(_feed, w, left, advance) for w in workers]
      for job in concurrent.futures.as_completed(jobs):
        if job.exception():
          while not left.empty():
            left.get()
          raise job.exception()


@contextlib.contextmanager
def _worker(module, folder):
  """A process of its own: forking a process that runs JAX is not safe."""
  package = pathlib.Path(__file__).resolve().parents[3]
  path = [str(package), os.environ.get('PYTHONPATH', '')]
  environment = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(p for p in path if p),
    'OMP_NUM_THREADS': '1',
    'OPENBLAS_NUM_THREADS': '1',
  }
  process = subprocess.Popen(
    [sys.executable, '-m', module, str(folder)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env=environment,
  )
  try:
    yield process
  finally:
    process.stdin.close()
    process.terminate()
    process.wait()
    process.stdout.close()


def _feed(worker, left: queue.SimpleQueue, advance) -> None:
  while True:
    try:
      name = left.get_nowait()
    except queue.Empty:
      return
    try:
      worker.stdin.write(name + '\n')
      worker.stdin.flush()
      line = worker.stdout.readline()
    except BrokenPipeError:
      line = ''
    answer = json.loads(line) if line else {'error': 'the worker died'}
    if 'error' in answer:
      raise RuntimeError(
        f'shapes: clip {name} could not be made: {answer["error"]}. What is '
        'done is kept; the same command goes on from there.'
      )
    advance()


def serve(make: Callable[[str], None]) -> None:
  """The worker's side: makes the names of standard input, one a line.

  Answers one JSON line per name.
  """
  for line in sys.stdin:
    answer = {'id': line.strip()}
    try:
      make(answer['id'])
    except Exception as error:  # The parent reports it and stops.
      answer['error'] = f'{type(error).__name__}: {error}'
    sys.stdout.write(json.dumps(answer) + '\n')
    sys.stdout.flush()
