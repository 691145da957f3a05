# SPDX-License-Identifier: Apache-2.0
"""Token features of sentences."""

import sys

import numpy as np
import pytest

from vidret_jax.data import clip_text, words


def test_hashed_words():
  encoder = clip_text.Words(16)
  (found,) = encoder.queries(['A red ball.'])
  np.testing.assert_array_equal(found, words.embed('a red ball', 16))
  found = encoder.sentences(['...', 'A ball'])
  assert [x.shape for x in found] == [(0, 16), (2, 16)]
  with pytest.raises(ValueError, match='no word'):
    encoder.queries(['...'])
  with pytest.raises(ValueError, match='--dim 0'):
    clip_text.Words(0)


def test_chunks():
  sentences = [[1, 2], [3], [], [4, 5, 6], [7] * 7, [8]]
  assert clip_text.pack(sentences, 3) == [
    [1, 2, 3],
    [4, 5, 6],
    [7, 7, 7],
    [7, 7, 7],
    [7, 8],
  ]
  assert clip_text.pack([[], []], 3) == []


def test_a_folder_without_a_model(tmp_path):
  with pytest.raises(ValueError, match='config.json'):
    clip_text.Transformer(tmp_path)


def test_without_the_libraries(tmp_path, monkeypatch):
  (tmp_path / 'config.json').write_text('{}')
  monkeypatch.setitem(sys.modules, 'transformers', None)
  with pytest.raises(ValueError, match='pip install torch transformers'):
    clip_text.Transformer(tmp_path)


@pytest.fixture(scope='module')
def roberta(tmp_path_factory):
  """A folder with a small RoBERTa of random weights."""
  transformers = pytest.importorskip('transformers')
  tokenizers = pytest.importorskip('tokenizers')
  torch = pytest.importorskip('torch')
  folder = tmp_path_factory.mktemp('roberta')
  special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
  bpe = tokenizers.ByteLevelBPETokenizer()
  bpe.train_from_iterator(
    ['a man opens the red door', 'he says : no'], 300, special_tokens=special
  )
  bpe.save_model(str(folder))
  torch.manual_seed(0)
  config = transformers.RobertaConfig(
    vocab_size=bpe.get_vocab_size(),
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=260,
  )
  transformers.RobertaModel(config).save_pretrained(folder)
  (folder / 'tokenizer_config.json').write_text(
    '{"tokenizer_class": "RobertaTokenizer"}'
  )
  return folder


def test_states_of_the_layer_before_the_last(roberta):
  import torch
  import transformers

  texts = ['a man opens the door', 'no']
  found = clip_text.Transformer(roberta, max_tokens=6).queries(texts)
  model = transformers.RobertaModel.from_pretrained(roberta).eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(roberta)
  for text, rows in zip(texts, found):
    ids = tokenizer.encode(text)
    ids = ids[:5] + ids[-1:] if len(ids) > 6 else ids
    with torch.no_grad():
      out = model(torch.tensor([ids]), output_hidden_states=True)
    want = out.hidden_states[2][0, 1:-1].numpy()
    assert rows.shape == want.shape and rows.dtype == np.float32
    np.testing.assert_allclose(rows, want, atol=2e-6)


def test_subtitles_are_encoded_together(roberta):
  encoder = clip_text.Transformer(roberta)
  alone = encoder.sentences(['no'])
  found = encoder.sentences(['he says : no', '', 'no'])
  assert [len(x) for x in found][1:] == [0, len(alone[0])]
  assert all(x.shape[1] == encoder.width == 16 for x in found)
  assert np.abs(found[2] - alone[0]).max() > 1e-3
  many = encoder.sentences(['a man opens the red door'] * 100)
  assert len(many) == 100 and all(len(x) == len(many[0]) for x in many)


def test_a_damaged_model(roberta, tmp_path):
  (tmp_path / 'config.json').write_text('{"model_type": "no such"}')
  with pytest.raises(ValueError, match='cannot be loaded'):
    clip_text.Transformer(tmp_path)
