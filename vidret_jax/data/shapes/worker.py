# SPDX-License-Identifier: Apache-2.0
"""Makes single clips of a corpus, one per line of standard input.

  python -m vidret_jax.data.shapes.worker FOLDER < ids

FOLDER holds recipe.json. For every id this writes videos/<id>.mp4,
subtitles/<id>.srt (if it has any) and, last, experts/<id>.npz, whose presence
says that the clip is done. Answers one JSON line per id.
"""

import os
import pathlib
import sys

import numpy as np

from vidret_jax.data.shapes import (
  copies,
  encode,
  measure,
  pool,
  reading,
  render,
  sample,
)
from vidret_jax.data.shapes import script as script_lib
from vidret_jax.data.shapes import sound as sound_lib


class Maker:
  """Knows a recipe and makes any clip of it."""

  def __init__(self, folder: str | os.PathLike, recipe: script_lib.Recipe):
    self._folder = pathlib.Path(folder)
    self._recipe = recipe
    scripts = sample.draw(recipe)
    self._scripts = {s.id: s for s in scripts}
    self._copies = {c.id: c for c in copies.plan(recipe, scripts)}

  def make(self, name: str) -> None:
    """Writes all files of one clip.

    Raises:
      KeyError: the recipe has no such clip.
    """
    if name in self._copies:
      film, sound, lines = self._copied(self._copies[name])
    else:
      film, sound, lines = self._filmed(self._scripts[name])
    clip = self._folder / 'videos' / f'{name}.mp4'
    encode.write(clip, film, sound)
    subtitle = self._folder / 'subtitles' / f'{name}.srt'
    if lines:
      reading.write_srt(subtitle, lines)
    found = measure.experts(clip, subtitle)
    done = self._folder / 'experts' / f'{name}.npz'
    part = done.with_suffix(f'.{os.getpid()}.part')
    with part.open('wb') as file:
      np.savez(file, **found)
    os.replace(part, done)

  def _filmed(self, script, **view):
    knobs = self._recipe.difficulty
    film = render.frames(script, knobs, **view)
    return film, sound_lib.track(script, knobs.sound_noise), script.lines

  def _copied(self, copy: copies.Copy):
    script = self._scripts[copy.source]
    if copy.edit == 'camera':
      return self._filmed(script, zoom=1.25, flip=True)
    if copy.edit == 'sequel':
      return self._filmed(sample.sequel(script, copy.id))
    film, sound = self._decoded(copy.source)
    other = self._decoded(copy.other) if copy.other else None
    film, sound = copies.apply(copy, self._recipe, film, sound, other)
    lines = script.lines
    if copy.edit == 'dub' and copy.other:
      lines = self._scripts[copy.other].lines
    end = len(film) / script_lib.FPS
    lines = tuple((a, min(b, end), s) for a, b, s in lines if a < end)
    return film, sound.astype(np.float32), lines

  def _decoded(self, name: str):
    film, sound = encode.read(self._folder / 'videos' / f'{name}.mp4', 'rgb24')
    # AAC rounds up to whole frames; the clip ends with its picture.
    return film, sound[: len(film) * script_lib.RATE // script_lib.FPS]


def main() -> None:
  folder = pathlib.Path(sys.argv[1])
  recipe = script_lib.Recipe.from_json((folder / 'recipe.json').read_text())
  pool.serve(Maker(folder, recipe).make)


if __name__ == '__main__':
  main()
