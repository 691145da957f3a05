# SPDX-License-Identifier: Apache-2.0
"""Captions of a script, with the role graph that each one spells out.

A caption is written as a list of phrases, each with its semantic role, so the
graph (predicates, arguments, word spans) is exact and needs no parser. Its
form is that of `sent2rolegraph.json` of HGR (arXiv 2003.00392) and RANP.
"""

from collections.abc import Sequence
import dataclasses

from vidret_jax.data.shapes import script as script_lib
from vidret_jax.data.shapes import vocabulary as vocab

MAX_WORDS = 40


@dataclasses.dataclass(frozen=True)
class Phrase:
  """Some words with one role under predicate number `clause` (None: glue)."""

  words: tuple[str, ...]
  role: str = ''
  clause: int | None = None


@dataclasses.dataclass(frozen=True)
class Caption:
  """One caption.

  Attributes:
    text: lower-case words with single spaces, no punctuation.
    graph: [nodes, edges]; nodes {id: {role, spans, words}} in order, edges
      [verb node, argument node, role].
    verb_classes: ids into `vocabulary.VERB_CLASSES`, in order of mention.
    noun_classes: ids into `vocabulary.NOUN_CLASSES`, in order of mention.
    events: indices of the events it tells.
    contexts: which of ground, sound, overlay, topic it tells.
  """

  text: str
  graph: list
  verb_classes: tuple[int, ...]
  noun_classes: tuple[int, ...]
  events: tuple[int, ...]
  contexts: tuple[str, ...]


class _Writer:
  """Collects phrases, classes and clauses of one caption."""

  def __init__(self, rng, knobs: script_lib.Difficulty):
    self.rng, self.knobs = rng, knobs
    self.phrases, self.verbs, self.nouns = [], [], []
    self.clauses = 0

  def word(self, options: Sequence[str]) -> tuple[str, ...]:
    return tuple(options[int(self.rng.integers(len(options)))].split())

  def chance(self, probability: float) -> bool:
    return bool(self.rng.random() < probability)

  def add(self, words: Sequence[str], role: str = '', clause=None) -> None:
    self.phrases.append(Phrase(tuple(words), role, clause))

  def noun(self, name: str) -> None:
    self.nouns.append(vocab.NOUN_CLASSES.index(name))

  def clause(self, verb: str) -> int:
    self.verbs.append(vocab.VERB_CLASSES.index(verb))
    self.clauses += 1
    return self.clauses - 1

  def actor(self, actor: script_lib.Actor, definite: bool = False) -> list[str]:
    """Noun phrase of an actor; what it leaves out is for others to tell."""
    words = []
    if self.chance(self.knobs.say_size):
      words += self.word(vocab.SIZES[actor.size])
    if self.chance(self.knobs.say_colour):
      words += self.word(vocab.COLOUR_WORDS[actor.colour])
    if self.chance(self.knobs.say_shape):
      words += self.word(vocab.SHAPES[actor.shape])
      self.noun(actor.shape)
    else:
      words += self.word(('thing', 'shape', 'figure'))
    return ['the', *words] if definite else _an(words)


def _an(words: Sequence[str]) -> list[str]:
  return ['an' if words[0][0] in 'aeiou' else 'a', *words]


def _tell_event(w: _Writer, script, event, said: set[int]) -> None:
  """One clause: who, does what, where to, how."""
  clause = w.clause(event.verb)
  role = 'ARG0' if event.verb in vocab.AGENTIVE else 'ARG1'
  who = script.actors[event.actor]
  if event.actor in said:
    subject = ['it'] if len(said) == 1 else w.actor(who, definite=True)
  else:
    subject = w.actor(who)
  said.add(event.actor)
  manner = ()
  if event.manner and w.chance(w.knobs.say_manner):
    manner = w.word(vocab.MANNERS[event.manner])
  before = manner and w.chance(0.5)
  w.add(subject, role, clause)
  if before:
    w.add(manner, 'ARGM-MNR', clause)
  w.add(w.word(vocab.ACTIONS[event.verb]), 'V', clause)
  if event.direction:
    w.add(w.word(vocab.DIRECTION_WORDS[event.direction]), 'ARGM-DIR', clause)
  if manner and not before:
    w.add(manner, 'ARGM-MNR', clause)


def _tell_ground(w: _Writer, script, clause: int | None) -> None:
  w.noun('ground')
  both = w.rng.random()
  tone = w.word(vocab.TONE_WORDS[script.tone]) if both < 0.8 else ()
  texture = w.word(vocab.TEXTURES[script.texture]) if both > 0.2 else ()
  where = w.word(('on', 'over', 'across'))
  ground = _an((*tone, *texture, *w.word(vocab.GROUND_WORDS)))
  w.add((*where, *ground), 'ARGM-LOC', clause)


def _tell_sound(w: _Writer, script, clause: int | None) -> None:
  w.noun('sound')
  name = w.word(vocab.SOUNDS[script.sound])
  if clause is None or w.chance(0.5):
    w.add(
      (*w.word(('to', 'with')), 'the', 'sound', 'of', *_an(name)),
      'ARGM-MNR',
      clause,
    )
    return
  w.add(w.word(('while', 'as')))
  other = w.clause('play')
  w.add(_an(name), 'ARG1', other)
  w.add(w.word(('plays', 'sounds')), 'V', other)


def _tell_overlay(w: _Writer, script, clause: int | None) -> None:
  w.noun('word')
  words = script.words
  text = words[int(w.rng.integers(len(words)))][2]
  if clause is None or w.chance(0.5):
    lead = ('under', 'below') if script.words_at == 'top' else ('above', 'over')
    w.add(
      (*w.word(lead), 'the', *w.word(('word', 'title', 'caption')), text),
      'ARGM-LOC',
      clause,
    )
    return
  w.add(w.word(('while', 'and')))
  other = w.clause('show')
  w.add(('the', *w.word(('word', 'title')), text), 'ARG1', other)
  w.add(w.word(('appears', 'shows')), 'V', other)


def _tell_topic(w: _Writer, script, clause: int | None) -> None:
  del clause  # Speech is always an act of its own.
  w.noun('voice')
  w.add(w.word(('while', 'as')))
  other = w.clause('talk')
  w.add(('a', *w.word(('voice', 'speaker', 'person'))), 'ARG0', other)
  w.add(w.word(('talks', 'speaks', 'chats')), 'V', other)
  w.add(('about', *w.word(vocab.TOPIC_WORDS[script.topic])), 'ARG1', other)


_CONTEXTS = {
  'ground': _tell_ground,
  'sound': _tell_sound,
  'overlay': _tell_overlay,
  'topic': _tell_topic,
}


def known_contexts(script: script_lib.Script) -> list[str]:
  """What there is to tell of a script besides its events."""
  has = {
    'ground': True,
    'sound': bool(script.sound),
    'overlay': bool(script.words),
    'topic': bool(script.topic),
  }
  return [name for name in _CONTEXTS if has[name]]


def _finish(w: _Writer, events, contexts) -> Caption:
  words = [word for phrase in w.phrases for word in phrase.words]
  nodes = {
    '0': {'role': 'ROOT', 'spans': list(range(len(words))), 'words': words}
  }
  edges, verb_node, members = [], {}, []
  position = 0
  for phrase in w.phrases:
    spans = list(range(position, position + len(phrase.words)))
    position += len(phrase.words)
    if phrase.clause is None:
      continue
    node = str(len(nodes))
    nodes[node] = {
      'role': phrase.role,
      'spans': spans,
      'words': list(phrase.words),
    }
    members.append((phrase.clause, node, phrase.role))
    if phrase.role == 'V':
      verb_node[phrase.clause] = node
  for clause, node, role in members:
    if role != 'V':
      edges.append([verb_node[clause], node, role])
  return Caption(
    text=' '.join(words),
    graph=[nodes, edges],
    verb_classes=tuple(w.verbs),
    noun_classes=tuple(dict.fromkeys(w.nouns)),
    events=tuple(events),
    contexts=tuple(contexts),
  )


def _caption(rng, script, knobs, events, contexts) -> Caption:
  w = _Writer(rng, knobs)
  # The ground may open the sentence; all else follows the events.
  front = bool(contexts) and contexts[0] == 'ground' and w.chance(0.35)
  if front:
    _tell_ground(w, script, 0)
  said = set()
  for i, event in enumerate(events):
    if i:
      w.add(w.word(('then', 'and then', 'before')))
    _tell_event(w, script, script.events[event], said)
  for name in contexts[1:] if front else contexts:
    _CONTEXTS[name](w, script, w.clauses - 1)
  return _finish(w, events, contexts)


def write(script: script_lib.Script, knobs: script_lib.Difficulty):
  """Two to four captions of a script.

  Returns:
    list of `Caption`, each about all or one of the events, in time order.
  """
  rng = script_lib.rng_of(script.seed, 'captions')
  known = known_contexts(script)
  captions = []
  for _ in range(2 + int(rng.integers(3))):
    events = list(range(len(script.events)))
    if rng.random() >= knobs.all_events:
      events = [int(rng.choice(events))]
    wanted = int(rng.choice(len(knobs.contexts), p=knobs.contexts))
    told = rng.permutation(len(known))[:wanted]
    contexts = [known[i] for i in sorted(told)]
    caption = _caption(rng, script, knobs, events, contexts)
    while len(caption.text.split()) > MAX_WORDS:
      contexts = contexts[:-1]
      caption = _caption(rng, script, knobs, events, contexts)
    captions.append(caption)
  return captions


def moments(script: script_lib.Script, knobs: script_lib.Difficulty):
  """One sentence for the time span of every event and subtitle line.

  Returns:
    list of (start, end, `Caption`, kind): kind 'v' needs the picture, 't' the
    subtitle, 'vt' both, as in TVR (arXiv 2001.09099).
  """
  rng = script_lib.rng_of(script.seed, 'moments')
  found = []
  for i, event in enumerate(script.events):
    spoken = any(a < event.end and b > event.start for a, b, _ in script.lines)
    both = spoken and rng.random() < 0.3
    caption = _caption(rng, script, knobs, [i], ['topic'] if both else [])
    found.append((event.start, event.end, caption, 'vt' if both else 'v'))
  for start, end, line in script.lines:
    w = _Writer(rng, knobs)
    clause = w.clause('talk')
    w.noun('voice')
    w.add(('a', *w.word(('voice', 'speaker', 'person'))), 'ARG0', clause)
    w.add(w.word(('talks', 'speaks', 'chats')), 'V', clause)
    nouns = [n for n in line.split() if n in vocab.TOPICS[script.topic]]
    w.add(
      ('about', 'the', nouns[int(rng.integers(len(nouns)))]), 'ARG1', clause
    )
    found.append((start, end, _finish(w, (), ('topic',)), 't'))
  return found
