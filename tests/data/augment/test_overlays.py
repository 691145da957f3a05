# SPDX-License-Identifier: Apache-2.0
"""Texts, pictures and blur; fonts and pictures of one's own."""

import numpy as np
from PIL import Image, ImageFont
import pytest

from tests.data import frame_folders
from vidret_jax.data.augment import emoji, fonts, overlays


@pytest.fixture(scope='module')
def own_fonts():
  return fonts.Fonts()


@pytest.fixture
def frame():
  pixels = frame_folders.picture(np.random.default_rng(0), 60, 80)
  return Image.fromarray(pixels)


def test_text_covers_a_part(own_fonts, frame):
  before, shares = np.asarray(frame), []
  for seed in range(20):
    image = frame.copy()
    overlays.text(image, own_fonts, np.random.RandomState(seed))
    shares.append((np.asarray(image) != before).any(-1).mean())
  assert 0 < min(shares) and max(shares) < 0.5


def test_nothing_fits_on_a_speck(own_fonts):
  # Letters are one or two pixels high, but a few are wider than the speck.
  speck = Image.new('RGB', (1, 3))
  for seed in range(10):
    overlays.text(speck, own_fonts, np.random.RandomState(seed))
    overlays.picture(speck, emoji.drawn(), np.random.RandomState(seed))


def test_pictures_keep_their_size(frame):
  before = np.asarray(frame)
  for seed in range(20):
    image = frame.copy()
    overlays.picture(image, emoji.drawn(), np.random.RandomState(seed))
    rows, columns = np.nonzero((np.asarray(image) != before).any(-1))
    for places in (rows, columns):
      # From 0.2 to 0.5 of 60 pixels, less a transparent rim.
      assert 4 < np.ptp(places) + 1 <= 30


def test_our_pictures_are_all_different():
  drawn = emoji.drawn()
  assert len({image.tobytes() for image in drawn}) == len(drawn) >= 30
  for image in drawn:
    ink = (np.asarray(image.getchannel('A')) > 127).mean()
    assert 0.1 < ink < 0.9


def test_frames_are_left_alone_or_changed(own_fonts, frame):
  pixels = np.asarray(frame)
  kept = dict(fonts=own_fonts, pictures=emoji.drawn())
  rng = np.random.RandomState(0)
  same = overlays.drawn_over(pixels, rng, overlay=0, blur=0, **kept)
  np.testing.assert_array_equal(same, pixels)
  other = overlays.drawn_over(pixels, rng, overlay=1, blur=1, **kept)
  assert (other != pixels).mean() > 0.05


def test_few_sizes_of_a_font_are_held(own_fonts):
  first = own_fonts.get(0, 20)
  assert own_fonts.get(0, 20) is first
  for size in range(40, 120):
    assert own_fonts.get(0, size).size == size
  assert len(own_fonts._opened.__dict__) <= 16
  assert own_fonts.get(0, 20).getmask('a').size == first.getmask('a').size


def test_a_folder_of_fonts(tmp_path, own_fonts, frame):
  data = ImageFont.load_default(12).font_bytes
  (tmp_path / 'deep').mkdir()
  (tmp_path / 'deep' / 'one.ttf').write_bytes(data)
  (tmp_path / 'readme.txt').write_text('not a font')
  found = fonts.Fonts(tmp_path)
  assert len(found) == 1
  assert found.characters(0) == own_fonts.characters(0)
  assert set('aZ09') <= set(found.characters(0))
  got = frame.copy()
  overlays.text(got, found, np.random.RandomState(1))
  want = frame.copy()
  overlays.text(want, own_fonts, np.random.RandomState(1))
  assert got.tobytes() == want.tobytes()


def test_bad_fonts_are_named(tmp_path):
  with pytest.raises(ValueError, match='no .ttf'):
    fonts.Fonts(tmp_path)
  (tmp_path / 'broken.ttf').write_bytes(b'\0\1\0\0' + b'x' * 99)
  with pytest.raises(ValueError, match='broken.ttf'):
    fonts.Fonts(tmp_path)


def test_a_folder_of_pictures(tmp_path):
  with pytest.raises(ValueError, match='no PNG'):
    emoji.folder(tmp_path)
  Image.new('RGBA', (300, 200), (255, 0, 0, 128)).save(tmp_path / 'a.png')
  Image.new('L', (5, 5), 9).save(tmp_path / 'b.png')
  first, second = emoji.folder(tmp_path)
  assert first.mode == second.mode == 'RGBA'
  assert max(first.size) == 128 and second.size == (5, 5)
  (tmp_path / 'c.png').write_bytes(b'\x89PNG\r\n\x1a\n broken')
  with pytest.raises(ValueError, match=r'c\.png'):
    emoji.folder(tmp_path)
  Image.new('1', (2000, 1)).save(tmp_path / 'c.png')
  with pytest.raises(ValueError, match='at most 1024'):
    emoji.folder(tmp_path)
