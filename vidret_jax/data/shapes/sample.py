# SPDX-License-Identifier: Apache-2.0
"""Draws the scripts of a corpus: attributes, places, times."""

import dataclasses
import zlib

import numpy as np

from vidret_jax.data.shapes import script as script_lib
from vidret_jax.data.shapes import vocabulary as vocab


def _pick(rng: np.random.Generator, options):
  options = list(options)
  return options[int(rng.integers(len(options)))]


def _attributes(rng: np.random.Generator, knobs: script_lib.Difficulty) -> dict:
  """The choices that a distractor may copy from another video."""
  colours = list(vocab.COLOURS)
  first, second = rng.choice(len(colours), 2, replace=False)
  count = 2 if rng.random() < knobs.two_actors else 1
  events = 1 + int(rng.choice(len(knobs.events), p=knobs.events))
  return {
    'actors': count,
    'shapes': [_pick(rng, vocab.SHAPES) for _ in range(2)],
    'colours': [colours[first], colours[second]],
    'sizes': [_pick(rng, vocab.SIZES) for _ in range(2)],
    'verbs': [_pick(rng, vocab.ACTIONS) for _ in range(events)],
    'who': [int(rng.integers(count)) for _ in range(events)],
    'directions': [_pick(rng, vocab.DIRECTIONS) for _ in range(events)],
    'manners': [_pick(rng, ('', 'fast', 'slow')) for _ in range(events)],
    'texture': _pick(rng, vocab.TEXTURES),
    'tone': _pick(rng, vocab.TONES),
    'sound': _pick(rng, vocab.SOUNDS),
    'overlay': _pick(rng, vocab.OVERLAYS),
    'topic': _pick(rng, vocab.TOPICS),
  }


# What a distractor may draw anew, and how often, of 1.
ALTERABLE = (
  (('shapes',), 0.15),
  (('colours',), 0.3),
  (('verbs', 'who', 'directions', 'manners', 'actors'), 0.2),
  (('texture', 'tone'), 0.15),
  (('sound',), 0.08),
  (('overlay',), 0.06),
  (('topic',), 0.06),
)


def _choreography(rng, attributes) -> tuple[tuple, tuple, float]:
  """Places the actors and times the events so that nothing leaves the frame.

  Returns:
    (actors, events, duration in seconds).
  """
  count = attributes['actors']
  shapes, colours = attributes['shapes'], attributes['colours']
  actors = []
  for i in range(count):
    # Two actors keep to the two halves of the frame.
    left, right = (24, 104) if count == 1 else ((24, 48), (80, 104))[i]
    actors.append(
      script_lib.Actor(
        shapes[i],
        colours[i],
        attributes['sizes'][i],
        float(rng.uniform(left, right)),
        float(rng.uniform(30, 66)),
      )
    )
  place = [[a.x, a.y] for a in actors]
  now = float(rng.uniform(0.25, 0.6))
  events = []
  for verb, who, direction, manner in zip(
    attributes['verbs'],
    attributes['who'],
    attributes['directions'],
    attributes['manners'],
    strict=True,
  ):
    while (verb, shapes[who]) in vocab.INVISIBLE:
      verb = _pick(rng, vocab.ACTIONS)
    length = {'': 1.3, 'fast': 0.8, 'slow': 2.0}[manner]
    length *= float(rng.uniform(0.95, 1.05))
    dx = dy = 0.0
    if verb == 'move':
      sx, sy = vocab.DIRECTIONS[direction]
      dx, dy = _room(place[who], sx, sy)
      if abs(dx) + abs(dy) < 20:
        direction = {
          'left': 'right',
          'right': 'left',
          'up': 'down',
          'down': 'up',
        }[direction]
        dx, dy = _room(place[who], -sx, -sy)
      place[who][0] += dx
      place[who][1] += dy
    events.append(
      script_lib.Event(
        verb,
        who,
        round(now, 3),
        round(now + length, 3),
        direction if verb == 'move' else '',
        manner,
        dx,
        dy,
      )
    )
    now += length + float(rng.uniform(0.2, 0.4))
  duration = np.ceil(max(now + 0.2, 3.5) * script_lib.FPS) / script_lib.FPS
  return tuple(actors), tuple(events), float(duration)


def _room(place, sx, sy) -> tuple[float, float]:
  """The move from `place` along (sx, sy), at most 55 pixels, inside."""
  x = float(np.clip(place[0] + 55 * sx, 20, script_lib.WIDTH - 20))
  y = float(np.clip(place[1] + 40 * sy, 22, script_lib.HEIGHT - 22))
  return x - place[0], y - place[1]


def _one_script(name, split, seed, attributes, present) -> script_lib.Script:
  rng = script_lib.rng_of(seed, name, 'script')
  actors, events, duration = _choreography(rng, attributes)
  words = ()
  if present['overlay']:
    start = round(float(rng.uniform(0, 0.2)) * duration, 3)
    words = ((start, duration, attributes['overlay']),)
    if rng.random() < 0.3:
      half = round((start + duration) / 2, 3)
      other = _pick(rng, [w for w in vocab.OVERLAYS if w != words[0][2]])
      words = (
        (start, half, attributes['overlay']),
        (half, duration, other),
      )
  lines = ()
  if present['topic']:
    lines = _subtitles(rng, attributes['topic'], duration)
  return script_lib.Script(
    id=name,
    split=split,
    seed=zlib.crc32(f'{seed}:{name}'.encode()),
    duration=duration,
    texture=attributes['texture'],
    tone=attributes['tone'],
    actors=actors,
    events=events,
    sound=attributes['sound'] if present['sound'] else '',
    words=words,
    words_at=_pick(rng, ('top', 'bottom')),
    topic=attributes['topic'] if present['topic'] else '',
    lines=lines,
  )


def _subtitles(rng, topic: str, duration: float) -> tuple:
  nouns = vocab.TOPICS[topic]
  cut = round(duration * float(rng.uniform(0.4, 0.6)), 3)
  spans = ((0.1, cut - 0.05), (cut + 0.05, duration - 0.1))
  lines = []
  for start, end in spans[: 1 + int(rng.integers(2))]:
    first, second = rng.choice(len(nouns), 2, replace=False)
    text = _pick(rng, vocab.LINES).format(nouns[first], nouns[second])
    lines.append((round(start, 3), round(end, 3), text))
  return tuple(lines)


def _exact_share(rng, n: int, missing: float) -> np.ndarray:
  """bool [n], False for round(missing * n) rows in random places."""
  present = np.arange(n) >= round(missing * n)
  return rng.permutation(present)


def draw(recipe: script_lib.Recipe) -> list[script_lib.Script]:
  """Draws the scripts of train, val and test (copies: see copies.py)."""
  knobs = recipe.difficulty
  scripts = []
  for split in ('train', 'val', 'test'):
    n = int(recipe.counts.get(split, 0))
    rng = script_lib.rng_of(recipe.seed, split, 'attributes')
    shares = {
      'sound': knobs.silent,
      'topic': knobs.no_subtitle,
      'overlay': knobs.no_overlay,
    }
    present = {k: _exact_share(rng, n, v) for k, v in shares.items()}
    earlier = []
    for i in range(n):
      attributes = _attributes(rng, knobs)
      if earlier and rng.random() < knobs.distractors:
        twin = dict(_pick(rng, earlier))
        groups, chances = zip(*ALTERABLE, strict=True)
        for j in rng.choice(len(groups), knobs.altered, False, chances):
          twin.update({k: attributes[k] for k in groups[j]})
        # A copied event may ask for an actor that the twin does not have.
        twin['who'] = [min(w, twin['actors'] - 1) for w in twin['who']]
        attributes = twin
      earlier.append(attributes)
      scripts.append(
        _one_script(
          f'{split}{i:05d}',
          split,
          recipe.seed,
          attributes,
          {k: bool(v[i]) for k, v in present.items()},
        )
      )
  return scripts


def sequel(script: script_lib.Script, name: str) -> script_lib.Script:
  """The same actors on the same ground, doing something else."""
  rng = script_lib.rng_of(script.seed, 'sequel')
  count = len(script.actors)
  events = len(script.events)
  attributes = {
    'actors': count,
    'sizes': [a.size for a in script.actors],
    'verbs': [_pick(rng, vocab.ACTIONS) for _ in range(events)],
    'who': [int(rng.integers(count)) for _ in range(events)],
    'directions': [_pick(rng, vocab.DIRECTIONS) for _ in range(events)],
    'manners': [_pick(rng, ('', 'fast', 'slow')) for _ in range(events)],
    'shapes': [a.shape for a in script.actors],
    'colours': [a.colour for a in script.actors],
  }
  actors, events, duration = _choreography(rng, attributes)

  def cut(spans):
    return tuple(
      (a, min(b, duration), text) for a, b, text in spans if a < duration
    )

  return dataclasses.replace(
    script,
    id=name,
    split='copies',
    actors=actors,
    events=events,
    duration=duration,
    words=cut(script.words),
    lines=cut(script.lines),
  )
