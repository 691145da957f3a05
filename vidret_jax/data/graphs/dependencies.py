# SPDX-License-Identifier: Apache-2.0
"""Semantic roles from a dependency parse, by rules.

A stand-in for a tagger of semantic roles where none can be installed: its
output has the same form (words and BIO tags per predicate), so `srl.graph`
makes the graphs. The rules read the labels of spaCy's English pipelines
(ClearNLP) and those of Universal Dependencies. They are coarse: a trained
tagger knows that "with a knife" and "with a friend" differ.
"""

from collections.abc import Sequence
from typing import Any

from vidret_jax.data.graphs import annotate

_ARGUMENTS = {
  **dict.fromkeys(('nsubj', 'csubj', 'agent', 'obl:agent'), 'ARG0'),
  **dict.fromkeys(('nsubjpass', 'csubjpass', 'nsubj:pass'), 'ARG1'),
  **dict.fromkeys(('dobj', 'obj', 'ccomp', 'xcomp'), 'ARG1'),
  **dict.fromkeys(('dative', 'iobj', 'attr', 'acomp', 'oprd'), 'ARG2'),
  'neg': 'ARGM-NEG',
}
_SUBJECTS = ('nsubj', 'csubj', 'nsubjpass', 'csubjpass', 'nsubj:pass')
_AUXILIARIES = ('aux', 'auxpass', 'aux:pass', 'cop')
_PASSIVE = ('auxpass', 'aux:pass', 'nsubjpass', 'csubjpass', 'nsubj:pass')
_RELATIVE = ('acl', 'relcl', 'acl:relcl')
_PARTICLES = ('prt', 'compound:prt')


def _table(**words):
  return {w: f'ARGM-{role}' for role, text in words.items() for w in text}


_PREPOSITIONS = _table(
  LOC='in on at inside within under underneath beneath below above over near '
  'beside besides behind between among amongst around outside against atop '
  'upon next by opposite aboard amid'.split(),
  DIR='to into onto toward towards from through across off out along down up '
  'past away'.split(),
  MNR='with without like via using'.split(),
  TMP='during after before until till since while'.split(),
  PRP='for'.split(),
)
_ADVERBS = _table(
  TMP='then now today tonight tomorrow yesterday again always already soon '
  'later first finally often once twice still never afterwards eventually '
  'meanwhile sometimes suddenly'.split(),
  LOC='here there outside inside indoors outdoors everywhere somewhere nearby '
  'upstairs downstairs'.split(),
  DIR='away back down up forward forwards backward backwards home off out '
  'left right upward upwards downward downwards aside apart'.split(),
  MNR='fast well together hard alone carefully'.split(),
)
_TIMES = (
  *('today', 'tonight', 'tomorrow', 'yesterday', 'time', 'second', 'minute'),
  *('hour', 'day', 'week', 'month', 'year', 'morning', 'evening', 'night'),
)
_CLAUSES = _table(
  TMP='while when whenever after before until till since once as'.split(),
  PRP='so'.split(),
)


def roles(parse: annotate.Parse) -> dict[str, Any]:
  """The roles of a caption: `words` and `verbs`, as `srl.graph` takes them."""
  tree = _Tree(parse)
  verbs = []
  for i in range(len(parse.words)):
    if tree.is_predicate(i):
      tags = tree.tags(i)
      text = ' '.join(
        w for w, t in zip(parse.words, tags, strict=True) if t[1:] == '-V'
      )
      verbs.append({'verb': text, 'description': '', 'tags': tags})
  return {'words': parse.words, 'verbs': verbs}


class _Tree:
  """A parse with its edges turned round."""

  def __init__(self, parse):
    self.parse = parse
    self.children = [[] for _ in parse.words]
    for i, head in enumerate(parse.heads):
      if head != i:
        self.children[head].append(i)

  def is_predicate(self, i):
    """A verb, or what has a subject: taggers take many verbs for nouns."""
    deps = self.parse.deps
    below = [deps[c] for c in self.children[i]]
    named = any(d in _SUBJECTS for d in below) and 'cop' not in below
    verb = self.parse.tags[i].startswith('VB') or named
    return verb and deps[i] not in _AUXILIARIES

  def below(self, i, without=()):
    """Words of a subtree, in order; some branches may be cut off."""
    found, stack = set(), [i]
    while stack:
      i = stack.pop()
      if i not in found:
        found.add(i)
        stack += [c for c in self.children[i] if c not in without]
    return sorted(found)

  def tags(self, verb):
    """BIO tags of one predicate."""
    parse = self.parse
    tags = ['O'] * len(parse.words)
    tags[verb] = 'B-V'
    arguments = []
    for i in self.children[verb]:
      if parse.deps[i] in _PARTICLES and i == verb + 1:
        tags[i] = 'I-V'
      elif role := self.role(verb, i):
        arguments.append((role, self.below(i)))
    if not any(parse.deps[i] in _SUBJECTS for i in self.children[verb]):
      if subject := self.inherited(verb):
        arguments.append((self.subject_role(verb), subject))
    elif parse.deps[verb] in _RELATIVE:
      arguments = self.with_antecedent(verb, arguments)
    for role, words in sorted(arguments, key=lambda a: a[1]):
      _write(tags, role, self.trimmed(words))
    return tags

  def role(self, verb, i):
    """Role of a child of a predicate, or None."""
    parse = self.parse
    dep, lemma = parse.deps[i], parse.lemmas[i].lower()
    if dep == 'prep':
      return _PREPOSITIONS.get(lemma, 'ARGM-ADV')
    if dep in ('obl', 'nmod'):
      cases = [c for c in self.children[i] if parse.deps[c] == 'case']
      words = [parse.lemmas[c].lower() for c in cases]
      if 'by' in words and self.is_passive(verb):
        return 'ARG0'
      return _PREPOSITIONS.get(words[0] if words else '', 'ARGM-ADV')
    if dep == 'advmod':
      manner = 'ARGM-MNR' if lemma.endswith('ly') else 'ARGM-ADV'
      return _ADVERBS.get(lemma, manner)
    if dep in ('npadvmod', 'obl:tmod', 'obl:npmod'):
      time = 'ARGM-TMP' if lemma in _TIMES else 'ARGM-ADV'
      return _ADVERBS.get(lemma, time)
    if dep == 'aux':
      return 'ARGM-MOD' if parse.tags[i] == 'MD' else None
    if dep == 'advcl':
      marks = [
        parse.lemmas[c].lower()
        for c in self.children[i]
        if parse.deps[c] in ('mark', 'advmod')
      ]
      known = [_CLAUSES[m] for m in marks if m in _CLAUSES]
      return known[0] if known else self.clause_role(i)
    return _ARGUMENTS.get(dep)

  def clause_role(self, i):
    """ "to cut" is a purpose, other clauses are adverbial."""
    purpose = any(self.parse.tags[c] == 'TO' for c in self.children[i])
    return 'ARGM-PRP' if purpose else 'ARGM-ADV'

  def is_passive(self, verb):
    parse = self.parse
    if any(parse.deps[i] in _PASSIVE for i in self.children[verb]):
      return True
    if parse.tags[verb] != 'VBN':
      return False
    if parse.deps[verb] == 'conj':
      return self.is_passive(parse.heads[verb])
    return parse.deps[verb] == 'acl'

  def subject_role(self, verb):
    return 'ARG1' if self.is_passive(verb) else 'ARG0'

  def inherited(self, verb):
    """Words of the subject that another word lends to this predicate."""
    seen = {verb}
    i = verb
    while True:
      head = self.parse.heads[i]
      if self.parse.deps[i] in _RELATIVE:
        return self.antecedent(i)
      if self.parse.deps[i] not in ('conj', 'xcomp', 'advcl') or head in seen:
        return None
      for c in self.children[head]:
        if self.parse.deps[c] in _SUBJECTS:
          return self.below(c)
      seen.add(head)
      i = head

  def antecedent(self, verb):
    """ "a man" of "a man cutting an onion"."""
    words = self.below(self.parse.heads[verb], without=(verb,))
    return [w for w in words if w < verb]

  def with_antecedent(self, verb, arguments):
    """ "who" of "a man who runs" refers to "a man"."""
    parse = self.parse
    made = []
    for role, words in arguments:
      if len(words) == 1 and parse.tags[words[0]] in ('WP', 'WDT'):
        made.append((role, self.antecedent(verb)))
        role = f'R-{role}'
      made.append((role, words))
    return made

  def trimmed(self, words: Sequence[int]):
    """Without punctuation at its ends."""
    words = list(words)
    for end in (0, -1):
      while words and self.parse.deps[words[end]] == 'punct':
        words.pop(end)
    return words


def _write(tags, role, words):
  """Tags the words that are free; a second run of them goes on the first."""
  free = [i for i in words if tags[i] == 'O']
  runs = 0
  for n, i in enumerate(free):
    begins = n == 0 or free[n - 1] != i - 1
    runs += begins
    name = role if runs == 1 else f'C-{role}'
    tags[i] = f'{"B" if begins else "I"}-{name}'
