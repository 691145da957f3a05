# SPDX-License-Identifier: Apache-2.0
"""Subtitle files of players, and the JSON lines made of them."""

import json

import pytest

from vidret_jax.data import subtitles

SRT = """1
00:00:00,862 --> 00:00:01,862
( Chase: ) That's all
this is?

2
01:02:03,5 --> 01:02:04,000 X1:10
Yeah.

there is more

"""
VTT = """WEBVTT - a title

NOTE nothing
of this

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start
<v Chase>A &amp; B<00:01.500><i> C</i>

00:00:03.000 --> 00:00:04.000
x < y > z
"""


def write(path, text, encoding='utf-8', newline='\n'):
  path.write_bytes(text.replace('\n', newline).encode(encoding))
  return path


def test_cleaned_text():
  assert subtitles.clean("( Chase: ) That's\nall") == " Chase : That's all"
  assert subtitles.clean(' a\t\tb ') == ' a b '


@pytest.mark.parametrize('newline', ['\n', '\r\n', '\r'])
def test_srt(tmp_path, newline):
  found = subtitles.read(write(tmp_path / 'a.srt', SRT, newline=newline))
  assert [x['text'] for x in found] == [
    " Chase : That's all this is?",
    'Yeah. there is more',
  ]
  assert [x['start'] for x in found] == pytest.approx([0.862, 3723.5])
  found = subtitles.read(tmp_path / 'a.srt', hours=False)
  assert found[1]['start'] == pytest.approx(123.5)


def test_vtt(tmp_path):
  found = subtitles.read(write(tmp_path / 'a.vtt', VTT))
  assert found == [
    {'text': 'A & B C', 'start': 1.0, 'end': 2.5},
    {'text': 'x < y > z', 'start': 3.0, 'end': 4.0},
  ]


def test_encodings(tmp_path):
  text = '1\n00:00:01,000 --> 00:00:02,000\ncafé\n'
  for encoding in ('utf-8', 'utf-8-sig', 'latin-1'):
    path = write(tmp_path / 'a.srt', text, encoding)
    assert subtitles.read(path)[0]['text'] == 'café'
  path = write(tmp_path / 'a.srt', text, 'utf-16')
  assert subtitles.read(path, encoding='utf-16')[0]['text'] == 'café'
  with pytest.raises(ValueError, match='a.srt: is not ascii'):
    subtitles.read(path, encoding='ascii')
  with pytest.raises(ValueError, match='not known'):
    subtitles.read(path, encoding='no-such')


@pytest.mark.parametrize(
  'text, parts',
  [
    ('', ('a.srt', 'no sentence')),
    ('no times\n', ('a.srt:1', 'no times')),
    ('1\n00:00:0x,000 --> 00:00:02,000\nx\n', ('a.srt:2', '0x')),
    ('1\n00:00:05,000 --> 00:00:02,000\nx\n', ('a.srt:2', 'before its start')),
  ],
)
def test_bad_files(tmp_path, text, parts):
  path = write(tmp_path / 'a.srt', text)
  with pytest.raises(ValueError) as error:
    subtitles.read(path)
  assert all(part in str(error.value) for part in parts), error.value


def test_ignored_hours_may_turn_times_round(tmp_path):
  text = '1\n00:59:59,000 --> 01:00:01,000\nx\n'
  path = write(tmp_path / 'a.srt', text)
  assert subtitles.read(path)[0]['end'] == 3601
  with pytest.raises(ValueError, match='count hours'):
    subtitles.read(path, hours=False)


def test_files_of_a_folder(tmp_path):
  with pytest.raises(ValueError, match='no subtitle file'):
    subtitles.files_of(tmp_path)
  for name in ('b.srt', 'a.VTT', 'notes.txt'):
    (tmp_path / name).touch()
  assert list(subtitles.files_of(tmp_path)) == ['a', 'b']
  (tmp_path / 'a.srt').touch()
  with pytest.raises(ValueError, match="both of video 'a'"):
    subtitles.files_of(tmp_path)
  with pytest.raises(FileNotFoundError, match='no such folder'):
    subtitles.files_of(tmp_path / 'absent')


SAID = {'text': 'x', 'start': 0, 'end': 1.5}


def test_lines(tmp_path):
  path = tmp_path / 'subtitles.jsonl'
  rows = [{'vid_name': 'a', 'sub': [SAID]}, {'vid_name': 'b', 'sub': []}]
  path.write_text('\n'.join(map(json.dumps, rows)))
  found = dict(subtitles.read_lines(path))
  assert found == {'a': [SAID], 'b': []}
  assert subtitles.times(found['a']).tolist() == [[0, 1.5]]
  assert subtitles.times(found['b']).shape == (0, 2)


@pytest.mark.parametrize(
  'row, parts',
  [
    ({'vid_name': 'a'}, ("'sub'",)),
    ({'vid_name': 1, 'sub': []}, ('int and list',)),
    ({'vid_name': 'a/b', 'sub': []}, ("'a/b'", 'Rename')),
    ({'vid_name': 'ok', 'sub': []}, ("'ok' was there before",)),
    ({'vid_name': 'a', 'sub': ['x']}, ("sentence 0 of 'a'",)),
    ({'vid_name': 'a', 'sub': [{**SAID, 'text': 1}]}, ('sentence 0',)),
    ({'vid_name': 'a', 'sub': [{**SAID, 'end': -1}]}, ('-1', 'start <= end')),
    ({'vid_name': 'a', 'sub': [{**SAID, 'end': 10**400}]}, ('sentence 0',)),
    (
      {'vid_name': 'a', 'sub': [SAID, {**SAID, 'start': float('nan')}]},
      ('sentence 1', 'nan'),
    ),
    ([], ('list',)),
  ],
)
def test_bad_lines(tmp_path, row, parts):
  path = tmp_path / 'subtitles.jsonl'
  first = json.dumps({'vid_name': 'ok', 'sub': []})
  path.write_text(f'{first}\n{json.dumps(row)}\n')
  with pytest.raises(ValueError) as error:
    list(subtitles.read_lines(path))
  message = str(error.value)
  assert 'subtitles.jsonl:2' in message
  assert all(part in message for part in parts), message
