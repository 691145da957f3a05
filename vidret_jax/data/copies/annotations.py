# SPDX-License-Identifier: Apache-2.0
"""Which videos of a database are copies or relatives of which queries.

Three protocols: that of FIVR-200K (arXiv 1809.04094), of EVVE (Revaud et al.,
CVPR 2013) and of SVD (Jiang et al., ICCV 2019). The JSON here is ours: sorted
lists, the same for all three, and the form in which your own data come.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import pathlib
from typing import Any

from vidret_jax.data import bad_file, clip_files, whole_files

# Protocol -> labels. FIVR: near-duplicate, duplicate scene, complementary
# scene, incident scene, duplicate audio. EVVE: positive. SVD: copy or not.
LABELS = {
  'fivr': ('ND', 'DS', 'CS', 'IS', 'DA'),
  'evve': ('P',),
  'svd': ('P', 'N'),
}


@dataclasses.dataclass(frozen=True)
class Annotations:
  """Queries, database and labels of one split; every tuple is sorted.

  Attributes:
    protocol: key of `LABELS`.
    queries: their ids.
    database: ids of what is searched; queries may be among them.
    labels: query -> label -> videos. FIVR: a label that a query does not have
      is no key, and labels may name videos outside the database. EVVE: 'P' has
      the positives of the query's event. SVD: 'P' and 'N' have its candidates.
    events: event -> queries; EVVE only.
    easy: videos that the hard measures leave out; FIVR only.
    unlabelled: videos of the database that are a copy of no query; SVD only.
  """

  protocol: str
  queries: tuple[str, ...]
  database: tuple[str, ...]
  labels: Mapping[str, Mapping[str, tuple[str, ...]]]
  events: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )
  easy: tuple[str, ...] = ()
  unlabelled: tuple[str, ...] = ()

  @property
  def videos(self) -> tuple[str, ...]:
    """All queries and videos of the database, sorted, each once."""
    return tuple(sorted({*self.queries, *self.database}))

  def outside(self) -> tuple[str, ...]:
    """Videos that labels name and that are not in the database, sorted."""
    named = {
      video
      for labels in self.labels.values()
      for videos in labels.values()
      for video in videos
    }
    return tuple(sorted(named - set(self.database)))

  def to_json(self) -> str:
    """The form that `read` reads."""
    return json.dumps(
      dataclasses.asdict(self), ensure_ascii=False, separators=(',', ':')
    )


def build(
  where: str,
  *,
  protocol: str,
  queries: Iterable[str],
  database: Iterable[str],
  labels: Mapping[str, Mapping[str, Iterable[str]]],
  events: Mapping[str, Iterable[str]] | None = None,
  easy: Iterable[str] = (),
  unlabelled: Iterable[str] = (),
) -> Annotations:
  """Sorts and checks what a file says.

  Args:
    where: the file, for errors.
    protocol: see `Annotations`, as are queries to unlabelled.
    queries: any order, repeats allowed, as in all that follow.
    database: see `queries`.
    labels: of queries; those of others are left out.
    events: see `Annotations`.
    easy: see `Annotations`.
    unlabelled: see `Annotations`.

  Raises:
    bad_file.BadFile: something that is no id, an unknown protocol or label, no
      query, no video, a query without labels, with two labels for one video, or
      of no event or two, or an unlabelled video outside of the database.
  """
  if not isinstance(protocol, str) or protocol not in LABELS:
    raise bad_file.BadFile(
      f'{where}: protocol {protocol!r}, expected one of {sorted(LABELS)}.'
    )
  queries = _ids(queries, where, 'queries')
  labels = _labels(where, protocol, queries, labels)
  events = {
    event: _ids(some, where, f'event {event!r}')
    for event, some in sorted(_mapping(events or {}, where, 'events').items())
  }
  out = Annotations(
    protocol=protocol,
    queries=queries,
    database=_ids(database, where, 'database'),
    labels=labels,
    events=events,
    easy=_ids(easy, where, 'easy'),
    unlabelled=_ids(unlabelled, where, 'unlabelled'),
  )
  for name in ('queries', 'database'):
    if not getattr(out, name):
      raise bad_file.BadFile(f'{where}: {name} is empty, expected video ids.')
  if protocol == 'evve':
    _check_events(out, where)
  if protocol == 'svd':
    _check_candidates(out, where)
  return out


def read(path: pathlib.Path) -> Annotations:
  """Reads our own JSON: the attributes of `Annotations`, as lists and dicts.

  Raises:
    ValueError: it is something else.
  """
  where = str(path)
  found = whole_files.read_json(path, dict)
  known = {f.name for f in dataclasses.fields(Annotations)}
  needed = {'protocol', 'queries', 'database', 'labels'}
  keys = set(found)
  if keys - known or needed - keys:
    raise bad_file.BadFile(
      f'{where}: has the keys {sorted(keys)[:10]}, expected '
      f'{sorted(needed)} and perhaps {sorted(known - needed)}.'
    )
  return build(where, **found)


def _mapping(value: Any, where: str, what: str) -> Mapping[str, Any]:
  if not isinstance(value, Mapping) or not all(
    isinstance(key, str) for key in value
  ):
    raise bad_file.BadFile(
      f'{where}: {what} is {_shown(value)}, expected names with values.'
    )
  return value


def _ids(value: Any, where: str, what: str) -> tuple[str, ...]:
  """Sorted ids, each once."""
  if isinstance(value, (str, bytes, Mapping)) or not isinstance(
    value, Iterable
  ):
    raise bad_file.BadFile(
      f'{where}: {what} is {_shown(value)}, expected a list of video ids.'
    )
  found = list(value)
  for name in found:
    if not isinstance(name, str):
      raise bad_file.BadFile(
        f'{where}: {what} has {_shown(name)}, expected video ids as strings.'
      )
    clip_files.check_key(name, f'{where}, {what}')
  return tuple(sorted(set(found)))


def _labels(where, protocol, queries, labels):
  _mapping(labels, where, 'labels')
  known, out = LABELS[protocol], {}
  for query in queries:
    if query not in labels:
      raise bad_file.BadFile(
        f'{where}: query {query!r} has no labels, expected one of '
        f'{list(known)} with videos. Add it there, or take it off the queries.'
      )
    own = _mapping(labels[query], where, f'labels of {query!r}')
    if unknown := sorted(set(own) - set(known)):
      raise bad_file.BadFile(
        f'{where}: query {query!r} has the label {unknown[0]!r}, expected '
        f'some of {list(known)} for protocol {protocol!r}.'
      )
    out[query] = {
      label: _ids(own[label], where, f'label {label} of query {query!r}')
      for label in known
      if label in own
    }
  return out


def _check_events(found, where):
  whose = {}
  for event, queries in found.events.items():
    for query in queries:
      if query in whose:
        raise bad_file.BadFile(
          f'{where}: query {query!r} is of the events {whose[query]!r} and '
          f'{event!r}, expected one. Take it out of one of them.'
        )
      whose[query] = event
  if alone := sorted(set(found.queries) ^ set(whose)):
    raise bad_file.BadFile(
      f'{where}: {alone[0]!r} is a query of '
      f'{"an event" if alone[0] in whose else "no event"}, but '
      f'{"not " if alone[0] in whose else ""}on the list of queries '
      f'({len(alone)} such); expected all queries to be on both.'
    )


def _check_candidates(found, where):
  for query, own in found.labels.items():
    if both := sorted(set(own.get('P', ())) & set(own.get('N', ()))):
      raise bad_file.BadFile(
        f'{where}: query {query!r} has {both[0]!r} with label 1 and with label '
        '0, expected one of them. Take one line out.'
      )
  if alone := sorted(set(found.unlabelled) - set(found.database)):
    raise bad_file.BadFile(
      f'{where}: unlabelled has {alone[0]!r}, which is not in the database '
      f'({len(alone)} such); expected all of them there. Put them on both.'
    )


def _shown(value: Any) -> str:
  return f'{type(value).__name__} {str(value)[:60]!r}'
