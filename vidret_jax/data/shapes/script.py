# SPDX-License-Identifier: Apache-2.0
"""What happens in each video of the `shapes` corpus, drawn from a seed.

A `Script` is the whole truth about one clip: who acts when, on what ground,
under which words, to which sound, with which subtitles. Frames, sound,
captions and role graphs are all made from it; experts are not (measure.py).
"""

from collections.abc import Mapping
import dataclasses
import json
import zlib

import numpy as np

# A new one wherever the same seed gives other files.
VERSION = '1.0.0'
SPLITS = ('train', 'val', 'test', 'copies')
COUNTS = {'train': 1000, 'val': 160, 'test': 400, 'copies': 160}
WIDTH, HEIGHT, FPS, RATE = 128, 96, 8, 16000


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """The knobs that decide how hard retrieval is.

  Attributes:
    distractors: share of videos that repeat an earlier video of their split
      with only `altered` attributes drawn again.
    altered: attributes that a distractor draws anew.
    two_actors: share of videos with a second coloured shape.
    events: chances of one, two and three events.
    contexts: chances that a caption tells 0, 1, 2 or 3 of ground, sound,
      overlaid word, subtitle topic.
    all_events: chance that a caption tells every event, not just one.
    say_colour: chance that a caption names an actor's colour.
    say_shape: chance that it names the shape (else "thing").
    say_manner: chance that it tells speed, where an event has one.
    say_size: chance that it tells the size.
    tint: how much the light that gives the ground its tone also changes the
      colours of the actors; 0 leaves them, 1 is diffuse reflection. The
      captions name the true colour.
    frame_noise: standard deviation of the camera noise, of 255.
    sound_noise: standard deviation of the noise under every sound, of 1.
    silent: share without sound.
    no_subtitle: share without subtitle.
    no_overlay: share without overlaid words.
  """

  distractors: float = 0.5
  altered: int = 2
  two_actors: float = 0.5
  events: tuple[float, ...] = (0.35, 0.45, 0.2)
  contexts: tuple[float, ...] = (0.1, 0.4, 0.35, 0.15)
  all_events: float = 0.5
  say_colour: float = 0.95
  say_shape: float = 0.85
  say_manner: float = 0.5
  say_size: float = 0.3
  tint: float = 1.8
  frame_noise: float = 3.0
  sound_noise: float = 0.01
  silent: float = 0.2
  no_subtitle: float = 0.4
  no_overlay: float = 0.6


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything that the bytes of a corpus depend on, code aside."""

  seed: int = 0
  counts: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: dict(COUNTS)
  )
  difficulty: Difficulty = Difficulty()

  def __post_init__(self):
    unknown = sorted(set(self.counts) - set(SPLITS))
    if unknown:
      raise ValueError(
        f'counts has unknown splits {unknown}; shapes has {list(SPLITS)}.'
      )
    for split in SPLITS:
      if int(self.counts.get(split, 0)) < 0:
        raise ValueError(
          f'counts[{split!r}] is {self.counts[split]}; give 0 or more videos.'
        )
    if self.counts.get('copies', 0) and not self.counts.get('test', 0):
      raise ValueError(
        "counts['copies'] needs counts['test'] > 0: copies are edits of test "
        'videos.'
      )

  def to_json(self) -> str:
    counts = {s: int(self.counts.get(s, 0)) for s in SPLITS}
    fields = {**dataclasses.asdict(self), 'counts': counts}
    return json.dumps(fields, sort_keys=True, indent=1)

  @classmethod
  def from_json(cls, text: str) -> 'Recipe':
    fields = json.loads(text)
    knobs = fields.pop('difficulty')
    tuples = {k: tuple(v) for k, v in knobs.items() if isinstance(v, list)}
    return cls(difficulty=Difficulty(**{**knobs, **tuples}), **fields)


@dataclasses.dataclass(frozen=True)
class Actor:
  """A coloured shape; `x`, `y` (pixels) is where it starts."""

  shape: str
  colour: str
  size: str
  x: float
  y: float


@dataclasses.dataclass(frozen=True)
class Event:
  """One act of one actor, in seconds; (dx, dy) in pixels for a move."""

  verb: str
  actor: int
  start: float
  end: float
  direction: str = ''
  manner: str = ''
  dx: float = 0.0
  dy: float = 0.0


@dataclasses.dataclass(frozen=True)
class Script:
  """One clip. `words` and `lines` hold (start, end, text) in seconds."""

  id: str
  split: str
  seed: int
  duration: float
  texture: str
  tone: str
  actors: tuple[Actor, ...]
  events: tuple[Event, ...]
  sound: str
  words: tuple[tuple[float, float, str], ...]
  words_at: str
  topic: str
  lines: tuple[tuple[float, float, str], ...]

  @property
  def frames(self) -> int:
    return int(round(self.duration * FPS))


def rng_of(seed: int, *names: str) -> np.random.Generator:
  """A generator that depends on the seed and the names, in any process."""
  return np.random.Generator(
    np.random.PCG64([seed, *(zlib.crc32(n.encode()) for n in names)])
  )
