"""TeachText's files: embeddings of teachers and masks of captions."""

import numpy as np
import pytest

from tests.data import packs
from vidret_jax.data import didemo, msrvtt, pickles

EXPERTS = (('face', dict(dim=4)), ('audio', dict(dim=3, max_tokens=2)))
TEXT = dict(dim=8, max_tokens=4, encoder='openai')
FILES = ('teachers/a.pkl', 'teachers/b.pkl')
pytestmark = pytest.mark.filterwarnings('ignore:text.dim')


@pytest.fixture
def corpus(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  corpus = packs.write_pack('msrvtt', tmp_path, experts=EXPERTS, text=TEXT)
  counts = packs.caption_counts(corpus)
  packs.write_teachers(corpus, FILES[:1], counts, experts=('x', 'a'), dim=2)
  packs.write_teachers(corpus, FILES[1:], counts, experts=('z',), dim=3, seed=1)
  msrvtt.prepare(split='full/train', experts=EXPERTS, text=TEXT)
  return corpus


def pairs(dataset=msrvtt, split='full/train', **options):
  kw = dict(split=split, experts=EXPERTS, text=TEXT)
  return dataset.make(view='pairs', **kw, **options)


def test_embeddings_of_the_drawn_caption(corpus):
  source = pairs(teachers=FILES)
  index, seeds = np.array([3, 0, -1, 5]), np.array([9, 8, 7, 6])
  batch = source.gather(index, seeds)
  assert batch['teacher_text'].shape == (4, 2, 4)
  assert source.spec['teacher_text'] == ((2, 4), np.dtype(np.float32))
  slots = source.picks(index, seeds)
  for t, file in enumerate(FILES):
    table = pickles.load(corpus / file)
    for row in (0, 1, 3):
      entry = table[source.ids[index[row]]]
      names = sorted(entry['vid_embds'])
      text = [entry['text_embds'][n][slots[row]] for n in names]
      video = [entry['vid_embds'][n] for n in names]
      for key, value in (('text', text), ('video', video)):
        got = batch[f'teacher_{key}'][row, t]
        want = np.concatenate(value)
        np.testing.assert_array_equal(got[: len(want)], want)
        assert not got[len(want) :].any()
  assert not batch['teacher_text'][2].any()


def test_fused_captions_have_one_embedding(tmp_path, monkeypatch):
  monkeypatch.setenv('VIDRET_DATA_DIR', str(tmp_path))
  corpus = packs.write_pack('didemo', tmp_path, experts=EXPERTS, text=TEXT)
  ones = dict.fromkeys(packs.caption_counts(corpus), 1)
  packs.write_teachers(corpus, FILES[:1], ones, experts=('x',), dim=2)
  didemo.prepare(split='train', experts=EXPERTS, text=TEXT)
  source = pairs(didemo, 'train', teachers=FILES[:1], fuse_captions=True)
  got = source.gather(np.arange(2), np.arange(2))['teacher_text']
  assert got.shape == (2, 1, 2) and got.any(axis=(1, 2)).all()


def test_masks_choose_captions(corpus):
  counts = packs.caption_counts(corpus)
  masks = packs.write_masks(corpus, 'masks/m.pkl', counts)
  source = pairs(caption_masks='masks/m.pkl')
  n = 2000
  for row, video in enumerate(source.ids):
    drawn = np.bincount(
      source.picks(np.full(n, row), np.arange(n)), minlength=counts[video]
    )
    kept = masks[video] > 0
    np.testing.assert_array_equal(drawn > 0, kept)
    share = n / kept.sum()
    assert np.abs(drawn[kept] - share).max() < 6 * np.sqrt(share)


@pytest.mark.parametrize(
  'change, want',
  [
    (lambda m: m.pop('video0'), "no entry for video 'video0'"),
    (lambda m: m.update(video1=np.zeros(4)), 'keeps none of its 4'),
    (lambda m: m.update(video1=np.ones(2)), 'expected 4 values of 0 or 1'),
    (lambda m: m.update(video1=np.full(4, 0.5)), 'expected 4 values of 0'),
  ],
)
def test_masks_that_are_refused(corpus, change, want):
  counts = packs.caption_counts(corpus)
  masks = packs.write_masks(corpus, 'm.pkl', counts)
  change(masks)
  packs.dump(corpus / 'm.pkl', masks)
  with pytest.raises(ValueError, match=want) as error:
    pairs(caption_masks='m.pkl')
  assert str(corpus / 'm.pkl') in str(error.value)


@pytest.mark.parametrize(
  'change, want',
  [
    (lambda t: t.pop('video0'), "no entry for video 'video0'"),
    (lambda t: t['video1']['text_embds'].update(x=[np.ones(2)]), 'expected 4'),
    (lambda t: t['video1']['vid_embds'].pop('a'), "no expert 'a'"),
    (
      lambda t: t['video1']['vid_embds'].update(a=np.full(2, np.nan)),
      'finite',
    ),
    (
      lambda t: t['video2']['vid_embds'].update(a=np.ones(3)),
      'width 4 .text. and 5 .video.',
    ),
  ],
)
def test_teachers_that_are_refused(corpus, change, want):
  table = pickles.load(corpus / FILES[0])
  change(table)
  packs.dump(corpus / FILES[0], table)
  with pytest.raises(ValueError, match=want) as error:
    pairs(teachers=FILES[:1])
  assert FILES[0] in str(error.value)


def test_absent_file(corpus):
  with pytest.raises(FileNotFoundError, match='teachers/none.pkl'):
    pairs(teachers=('teachers/none.pkl',))
