# SPDX-License-Identifier: Apache-2.0
"""Reads HTML the way a browser does, and what a ranking report says."""

import html.parser
import pathlib

_VOID = ('meta', 'input', 'link', 'br', 'source')


class Node:
  """An element: name, attributes, children (nodes and strings)."""

  def __init__(self, name, attributes=()):
    self.name, self.attributes = name, dict(attributes)
    self.children = []

  @property
  def classes(self):
    return (self.attributes.get('class') or '').split()

  def walk(self):
    """This element and all below it."""
    yield self
    for child in self.children:
      if isinstance(child, Node):
        yield from child.walk()

  def find(self, name=None, cls=None):
    """All elements below with this name and class."""
    return [
      n
      for n in self.walk()
      if name in (None, n.name) and (cls is None or cls in n.classes)
    ]

  @property
  def text(self):
    parts = [c if isinstance(c, str) else c.text for c in self.children]
    return ''.join(parts)


class _Builder(html.parser.HTMLParser):
  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.root = Node('root')
    self._open = [self.root]

  def handle_starttag(self, tag, attrs):
    node = Node(tag, attrs)
    self._open[-1].children.append(node)
    if tag not in _VOID:
      self._open.append(node)

  def handle_endtag(self, tag):
    if tag in [n.name for n in self._open[1:]]:
      while self._open.pop().name != tag:
        pass

  def handle_data(self, data):
    self._open[-1].children.append(data)


def parse(path):
  """The tree of an HTML file."""
  builder = _Builder()
  builder.feed(pathlib.Path(path).read_text('utf-8'))
  return builder.root


def read(path):
  """What one of our pages shows.

  Returns:
    dict(title, facts, metrics {'t2v_R@1': text}, rows): each row is dict(id,
    text, rank, truth, top) with cards dict(id, place, sim, captions, correct,
    video, without).
  """
  root = parse(path)
  metrics = {
    n.attributes['data-metric']: n.children[0]
    for n in root.find('td')
    if 'data-metric' in n.attributes
  }
  facts = {
    d.find('dt')[0].text: d.find('dd')[0].text
    for d in root.find(cls='facts')[0].find('div')
  }
  return dict(
    title=root.find('title')[0].text,
    facts=facts,
    metrics=metrics,
    rows=[_row(a) for a in root.find('article')],
  )


def _row(article):
  cards = [_card(s) for s in article.find('section')]
  return dict(
    id=article.find(cls='query')[0].find('code')[0].text,
    text=article.find('q')[0].text,
    rank=float(article.find(cls='rank')[0].find('b')[0].text),
    truth=cards[0],
    top=cards[1:],
  )


def _card(section):
  without = section.find(cls='without')
  sources = section.find('source')
  return dict(
    id=section.attributes['data-id'],
    place=section.find(cls='place')[0].text,
    sim=section.find(cls='sim')[0].text.removeprefix('sim '),
    captions=[
      li.text for u in section.find(cls='captions') for li in u.find('li')
    ],
    correct='right' in section.classes,
    video=sources[0].attributes['src'] if sources else None,
    without=without[0].text if without else '',
  )
