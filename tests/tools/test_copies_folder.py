# SPDX-License-Identifier: Apache-2.0
"""An index of copies and its folder: files come, go, change, and are linked."""

import json
import re

import numpy as np
import pytest

from tests.tools import copies_run
from vidret_jax.search import index as index_lib
from vidret_jax.tools import copies, copies_finder, copies_index, copies_page

FILM, DARKER, PART = 'a/film.mp4', 'a/darker.mkv', 'part of <film>.mp4'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """See `copies_run.indexed`."""
  return copies_run.indexed(tmp_path_factory.mktemp('made'))


def test_a_second_run_adds_what_is_new(made, tmp_path, capsys):
  args = copies_run.copied(made, tmp_path)
  copies_run.film(tmp_path / 'films' / 'new.mp4', range(100, 107))
  (tmp_path / 'films' / FILM).unlink()
  before = (tmp_path / 'index' / 'fine.rows').read_bytes()
  assert copies.main(args) == 0
  text = capsys.readouterr().out
  assert '1 video added' in text and '8 in the index' in text
  assert '1 video of the index no longer in the folder' in text
  assert '2 could not be read' in text
  for name in ('broken.mp4', 'empty.avi'):
    assert re.search(rf'^  {name}: \S', text, re.M)
  after = (tmp_path / 'index' / 'fine.rows').read_bytes()
  assert after.startswith(before) and len(after) > len(before)
  (tmp_path / 'films').rename(tmp_path / 'moved')
  args[4] = str(tmp_path / 'moved')
  assert copies.main(args) == 0
  finder = copies_finder.Finder(tmp_path / 'index')
  assert finder.folder == str(tmp_path / 'moved')


def test_names_of_pieces_tell_the_video(tmp_path):
  name = 'a#1:2/3@4.5\n.mp4'
  rows = copies_index.row_names(name, [32, 5], '7.-8')
  assert rows == [f'{name}#0:32/37@7.-8', f'{name}#32:37/37@7.-8']
  index = index_lib.Index.create(
    tmp_path / 'i', coarse=['vector'], recipe={}, fingerprint='x'
  )
  more = [*rows, *copies_index.row_names(name, [3], '')]
  ones = np.ones((len(more), 4, 9, 4))
  index.add(more, dict(vector=ones[:, 0, 0], regions=ones))
  assert copies_index.contents(index) == {
    name: {'7.-8': [(0, 32, 37, 0), (32, 37, 37, 1)], '': [(0, 3, 3, 2)]}
  }
  index.close()


def test_seconds_are_those_of_the_file(made):
  """Two frames are repeated until there are four; a film is as long."""
  finder = copies_finder.Finder(made[0] / 'index')
  lengths = dict(zip(finder.videos().ids, finder.videos().lengths.tolist()))
  assert finder.seconds('short.mp4', lengths['short.mp4']) == 2
  assert finder.seconds('absent.mp4', 4) == 4
  assert finder.seconds(FILM, lengths[FILM]) == 40
  assert (
    copies_page.length(0.4) == '0.4 s' and copies_page.length(59.6) == '1:00'
  )


class TestFolderThatChanges:
  """An index is asked about what the folder holds now."""

  def groups(self, tmp_path, *more):
    line = ['groups', '--index', str(tmp_path / 'index'), '--threshold', '0.8']
    line += ['--clips', 'none', '--json', str(tmp_path / 'g')]
    assert copies.main([*line, *more]) == 0
    content = json.loads((tmp_path / 'g').read_text())
    return {frozenset(m['video'] for m in g) for g in content['groups']}

  def test_videos_that_are_gone_are_no_copies(self, made, tmp_path, capsys):
    """Else the last copy might be deleted for one that is not there."""
    copies_run.copied(made, tmp_path)
    (tmp_path / 'films' / FILM).unlink()
    again = {'b ü.avi', 'b again.mov'}
    page = ['--html', str(tmp_path / 'g.html')]
    assert self.groups(tmp_path, *page) == {frozenset(again)}
    left_out = '1 video of the index no longer in the folder, left out'
    assert left_out in capsys.readouterr().out
    assert left_out in (tmp_path / 'g.html').read_text()
    both = {frozenset(again), frozenset({FILM, DARKER})}
    assert self.groups(tmp_path, '--gone') == both
    clip = str(tmp_path / 'films' / PART)
    line = ['query', '--index', str(tmp_path / 'index'), clip]
    line += ['--top', '1', '--shortlist', '1', '--json', str(tmp_path / 'q')]
    for more, want in (([], DARKER), (['--gone'], FILM)):
      assert copies.main([*line, *more]) == 0
      (found,) = json.loads((tmp_path / 'q').read_text()).values()
      assert list(found) == [want]

  def test_without_the_folder_all_is_searched(self, made, tmp_path, capsys):
    copies_run.copied(made, tmp_path)
    (tmp_path / 'films').rename(tmp_path / 'elsewhere')
    assert len(self.groups(tmp_path)) == 2
    assert 'is not there: all of the index' in capsys.readouterr().out
    line = ['groups', '--index', str(tmp_path / 'index'), '--videos', 'absent']
    assert copies.main(line) == 1
    assert 'absent: no such folder' in capsys.readouterr().err

  def test_a_changed_file_is_looked_at_again(self, made, tmp_path, capsys):
    args = copies_run.copied(made, tmp_path)
    kept = tmp_path / 'films' / 'b again.mov'
    kept.rename(tmp_path / 'kept')
    # Another video of the same length takes the name.
    copies_run.film(kept, range(400, 407))
    assert self.groups(tmp_path) == {frozenset({FILM, DARKER})}
    assert '1 video changed since' in capsys.readouterr().out
    assert copies.main(args) == 0
    text = capsys.readouterr().out
    assert '1 video added' in text and '7 in the index' in text
    assert '1 video had changed' in text
    copies_run.film(tmp_path / 'films' / 'new.mkv', range(400, 407), light=9)
    assert copies.main(args) == 0
    new = {frozenset({FILM, DARKER}), frozenset({'b again.mov', 'new.mkv'})}
    assert self.groups(tmp_path) == new
    # The former file comes back: what the index has of it counts again.
    (tmp_path / 'kept').replace(kept)
    capsys.readouterr()
    assert copies.main(args) == 0
    assert '0 videos added' in capsys.readouterr().out
    old = {frozenset({FILM, DARKER}), frozenset({'b ü.avi', 'b again.mov'})}
    assert self.groups(tmp_path) == old

  def test_links_are_no_copies(self, made, tmp_path, capsys):
    """Who deletes the file that a link leads to has nothing left."""
    args = copies_run.copied(made, tmp_path)
    (tmp_path / 'films/a/0.mp4').symlink_to(tmp_path / 'films/short.mp4')
    (tmp_path / 'films/1.mp4').hardlink_to(tmp_path / 'films/other#1:2/3.mp4')
    assert copies.main(args) == 0
    assert '9 in the index' in capsys.readouterr().out
    old = {frozenset({FILM, DARKER}), frozenset({'b ü.avi', 'b again.mov'})}
    assert self.groups(tmp_path) == old
    assert '2 videos by further names, left out' in capsys.readouterr().out
    scores = json.loads((tmp_path / 'g').read_text())['scores']
    assert set(scores) == set(copies_run.FILMS)

  def test_kept_scores_are_not_those_of_other_files(
    self, made, tmp_path, capsys, monkeypatch
  ):
    monkeypatch.setattr('vidret_jax.search.copy_shards._SAMPLE', 1)
    args = copies_run.copied(made, tmp_path)
    more = ['--work_folder', str(tmp_path / 'work')]
    assert len(self.groups(tmp_path, *more)) == 2
    copies_run.film(tmp_path / 'films' / 'b again.mov', range(400, 407))
    assert copies.main(args) == 0
    line = ['groups', '--index', str(tmp_path / 'index'), *more]
    assert copies.main(line) == 1
    assert 'work' in capsys.readouterr().err
