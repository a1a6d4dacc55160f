"""The encoder of sentences."""

import importlib.util

import pytest
import torch

from anomalib_memd.components import sentences
from anomalib_memd.components.backbones import BackboneError
from anomalib_memd.components.sentences import EncodedText, SentenceEncoder

needs_package = pytest.mark.skipif(importlib.util.find_spec(sentences.PACKAGE) is None, reason="needs 'language'")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a BERT of random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "polyp", "colon", "normal"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_a_local_model_encodes_as_transformers_does(tiny):
    transformers = pytest.importorskip("transformers")
    encoder = SentenceEncoder(tiny)
    texts = ["a polyp", "a normal colon a polyp"]
    found = encoder(texts)
    model, tokenizer = (
        transformers.BertModel.from_pretrained(tiny).eval(),
        transformers.AutoTokenizer.from_pretrained(tiny),
    )
    assert encoder.width == 16
    for row, text in enumerate(texts):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(found.tokens[row, : len(expected)], expected)
        assert found.mask[row].tolist() == [place < len(expected) for place in range(found.tokens.shape[1])]
        torch.testing.assert_close(found.mean()[row], expected.mean(0))


def test_a_sentence_is_encoded_once(tiny, monkeypatch):
    encoder = SentenceEncoder(tiny)
    encoder(["a polyp", "a polyp"])
    monkeypatch.setattr(encoder, "_encode", None)
    assert encoder(["a polyp"]).tokens.shape[0] == 1


def test_padding_does_not_count():
    text = EncodedText(torch.tensor([[[1.0], [3.0], [100.0]]]), torch.tensor([[True, True, False]]))
    assert text.mean().tolist() == [[2.0]]


@needs_package
def test_the_packaged_encoder_puts_close_what_means_the_same():
    encoder = SentenceEncoder()
    first, second, third = torch.nn.functional.normalize(
        encoder(["a polyp in the colon", "a growth in the large bowel", "a bicycle in the rain"]).mean(), dim=1
    )
    assert first @ second > first @ third + 0.2


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(BackboneError, match=str(tmp_path)):
        SentenceEncoder(tmp_path)(["a polyp"])


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="language"):
        SentenceEncoder()(["a polyp"])
