import numpy as np
import pytest

from vidret_jax.data import words


def test_vectors_are_unit_length_and_fixed():
  vector = words.word_vector('circle')
  assert vector.shape == (words.DIM,) and vector.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-6)
  # Frozen numbers: records made elsewhere must fit queries embedded here.
  np.testing.assert_allclose(vector[:4], FROZEN, rtol=1e-5)
  words.word_vector.cache_clear()
  np.testing.assert_array_equal(words.word_vector('circle'), vector)


FROZEN = [-0.00694589, -0.0688127, 0.0156991, 0.1022314]


def test_spelling_is_close_but_meaning_is_not():
  spins, spin, twirls = (
    words.word_vector(w) for w in ('spins', 'spin', 'twirls')
  )
  assert spins @ spin > 0.25
  assert abs(spins @ twirls) < 0.35
  assert not np.array_equal(spins, spin)


def test_free_text_is_lower_cased_and_stripped_of_punctuation():
  loud = words.embed('A RED circle, moving!')
  np.testing.assert_array_equal(loud, words.embed('a red circle moving'))
  assert loud.shape == (4, words.DIM)


def test_unknown_words_and_other_widths_have_vectors():
  assert np.isfinite(words.embed('zxqv 42', dim=16)).all()
  assert words.embed('zxqv 42', dim=16).shape == (2, 16)


def test_a_sentence_without_words_is_an_error():
  with pytest.raises(ValueError, match='no word'):
    words.embed(' ?! ')


def test_embed_all_lays_captions_end_to_end():
  tokens, lengths = words.embed_all(['a red star', 'it grows'])
  assert lengths.tolist() == [3, 2] and tokens.shape == (5, words.DIM)
  np.testing.assert_array_equal(tokens[3:], words.embed('it grows'))
  nothing, none = words.embed_all([])
  assert nothing.shape == (0, words.DIM) and none.shape == (0,)
