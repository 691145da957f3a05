# SPDX-License-Identifier: Apache-2.0
"""A small spaCy pipeline, trained here in a few seconds.

English pipelines are no ordinary packages, so the tests make their own from
sentences of a small grammar: a tagger, a parser and a lemmatizer.
"""

import atexit
import functools
import random
import shutil
import tempfile

_NOUNS = ('man', 'woman', 'onion', 'ball', 'circle', 'square', 'kitchen')
# Lemma, as it is said, with an object or without.
_VERBS = (
  *(('cut', 'cuts', True), ('throw', 'throws', True), ('push', 'pushes', True)),
  *(('move', 'moves', False), ('run', 'runs', False)),
)
_ADVERBS = ('slowly', 'quickly', 'again')
_ADJECTIVES = ('red', 'large')


class _Sentence:
  def __init__(self):
    self.rows = []  # Word, tag, lemma, dependency, head.

  def add(self, word, tag, dep, head, lemma=None):
    self.rows.append([word, tag, lemma or word, dep, head])
    return len(self.rows) - 1

  def noun(self, rng, dep, head):
    """Determiner, adjectives, noun; returns the noun's place."""
    first = len(self.rows)
    self.add(rng.choice(('a', 'the')), 'DT', 'det', None)
    for _ in range(rng.choice((0, 0, 1))):
      self.add(rng.choice(_ADJECTIVES), 'JJ', 'amod', None)
    place = self.add(rng.choice(_NOUNS), 'NN', dep, head)
    for row in self.rows[first:place]:
      row[4] = place
    return place

  def clause(self, rng, dep='ROOT', head=None):
    subject = self.noun(rng, 'nsubj', None)
    adverb = None
    if rng.random() < 0.2:
      adverb = self.add(rng.choice(_ADVERBS[:2]), 'RB', 'advmod', None)
    lemma, word, has_object = rng.choice(_VERBS)
    verb = self.add(word, 'VBZ', dep, head, lemma)
    self.rows[verb][4] = verb if head is None else head
    for place in (subject, adverb):
      if place is not None:
        self.rows[place][4] = verb
    if has_object:
      self.noun(rng, 'dobj', verb)
    elif rng.random() < 0.5:
      self.add(rng.choice(_ADVERBS), 'RB', 'advmod', verb)
    if rng.random() < 0.5:
      preposition = rng.choice(('in', 'to', 'with'))
      place = self.add(preposition, 'IN', 'prep', verb)
      self.noun(rng, 'pobj', place)
    return verb


def _sentence(rng):
  made = _Sentence()
  verb = made.clause(rng)
  if rng.random() < 0.3:
    made.add('and', 'CC', 'cc', verb)
    made.clause(rng, 'conj', verb)
  return made.rows


@functools.cache
def folder() -> str:
  """Where a pipeline is that this process trained."""
  made = tempfile.mkdtemp(prefix='vidret_pipeline_')
  atexit.register(shutil.rmtree, made, ignore_errors=True)
  return train(made)


def train(folder, *, steps=30, seed=0):
  """Trains and saves; the pipeline's name is the folder."""
  import spacy
  from spacy import training

  spacy.util.fix_random_seed(seed)
  rng = random.Random(seed)
  nlp = spacy.blank('en')
  # Small enough to be learned at once.
  encoder = {
    '@architectures': 'spacy.HashEmbedCNN.v2',
    'pretrained_vectors': None,
    **dict(width=48, depth=2, embed_size=300, window_size=1),
    **dict(maxout_pieces=2, subword_features=True),
  }
  nlp.add_pipe('tok2vec', config={'model': encoder})
  listener = {'@architectures': 'spacy.Tok2VecListener.v1', 'width': 48}
  tagger = {'@architectures': 'spacy.Tagger.v2', 'tok2vec': listener}
  parser = {
    '@architectures': 'spacy.TransitionBasedParser.v2',
    **dict(state_type='parser', extra_state_tokens=False, hidden_width=32),
    **dict(maxout_pieces=2, use_upper=True, tok2vec=listener),
  }
  parser = {'model': parser, 'min_action_freq': 1}
  nlp.add_pipe('tagger', config={'model': tagger})
  nlp.add_pipe('parser', config=parser)
  nlp.add_pipe(
    'trainable_lemmatizer', config={'model': tagger, 'min_tree_freq': 1}
  )

  def example():
    words, tags, lemmas, deps, heads = map(list, zip(*_sentence(rng)))
    doc = spacy.tokens.Doc(nlp.vocab, words=words)
    said = dict(words=words, tags=tags, lemmas=lemmas, deps=deps, heads=heads)
    return training.Example.from_dict(doc, said)

  optimizer = nlp.initialize(lambda: [example() for _ in range(100)])
  optimizer.learn_rate = 0.01
  for _ in range(steps):
    nlp.update([example() for _ in range(24)], sgd=optimizer)
  nlp.to_disk(folder)
  return str(folder)
