# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that opens a page and runs expressions in it."""

import json
import os
import select
import subprocess
import time

PATIENCE = 60  # Seconds; other tests may run on the same cores.


class Browser:
  """Speaks the DevTools protocol over a pair of pipes; a context manager."""

  def __init__(self, program, profile):
    """Starts it.

    Args:
      program: path of Chromium or Chrome.
      profile: folder for its files.
    """
    ours, self._write = os.pipe()
    self._read, theirs = os.pipe()
    # The browser reads from descriptor 3 and writes to 4.
    shell = f'exec {{r}}<&{ours} {{w}}>&{theirs}; exec "$0" "$@" 3<&$r 4>&$w'
    self._process = subprocess.Popen(
      [
        *('bash', '-c', shell, program, '--headless', '--no-sandbox'),
        *('--disable-gpu', '--disable-background-networking', '--mute-audio'),
        *('--no-first-run', '--autoplay-policy=no-user-gesture-required'),
        *(f'--user-data-dir={profile}', '--remote-debugging-pipe'),
      ],
      pass_fds=(ours, theirs),
      stderr=subprocess.DEVNULL,
    )
    os.close(ours)
    os.close(theirs)
    self._rest, self._number, self._session = b'', 0, None
    self._events = []

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._process.terminate()
    self._process.wait(PATIENCE)
    os.close(self._write)
    os.close(self._read)

  def open(self, address):
    """Opens a page and waits until it is loaded."""
    target = self._call('Target.createTarget', url='about:blank')['targetId']
    attached = self._call(
      'Target.attachToTarget', targetId=target, flatten=True
    )
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log'):
      self._call(f'{domain}.enable')
    self._call('Page.navigate', url=address)
    self.wait(
      "document.readyState === 'complete' && location.protocol !== 'about:'"
    )

  def run(self, code):
    """Value of the last expression."""
    answer = self._call(
      'Runtime.evaluate',
      expression=code,
      returnByValue=True,
      userGesture=True,
      replMode=True,
    )
    assert 'exceptionDetails' not in answer, answer
    return answer['result'].get('value')

  def wait(self, condition):
    """Waits until an expression is true."""
    deadline = time.monotonic() + PATIENCE
    while not self.run(condition):
      assert time.monotonic() < deadline, f'waited for {condition}'
      time.sleep(0.05)

  def complaints(self):
    """What was thrown or logged, breaches of the page's policy among it."""
    kinds = ('Runtime.exceptionThrown', 'Log.entryAdded')
    return [e['params'] for e in self._events if e['method'] in kinds]

  def _call(self, method, **params):
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._write, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._receive()
      if answer.get('id') == self._number:
        assert 'error' not in answer, answer
        return answer['result']
      if 'method' in answer:
        self._events.append(answer)

  def _receive(self):
    while b'\0' not in self._rest:
      ready, _, _ = select.select([self._read], [], [], PATIENCE)
      assert ready, 'the browser says nothing'
      part = os.read(self._read, 1 << 16)
      assert part, 'the browser is gone'
      self._rest += part
    message, self._rest = self._rest.split(b'\0', 1)
    return json.loads(message)
