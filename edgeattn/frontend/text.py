"""Text to word indices or vectors, as Keras' ``TextVectorization`` does."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.lookup import LookupEncoding, Vocabulary
from edgeattn.frontend.values import as_strings, check_size, encoded
from edgeattn.tensors import Array

# TensorFlow changes and splits at ASCII characters only, unless it is given an encoding.
_LOWER = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_PUNCTUATION = {ord(letter): None for letter in "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"}


@dataclass(frozen=True)
class TextVectorization:
    """One text, or a list of strings if ``split`` is ``none``.

    ``standardize`` concerns ASCII letters and punctuation. ``whitespace`` splits at ASCII white
    space, ``character`` between code points. ``ngrams`` lists widths of groups of consecutive
    words, joined by spaces and sorted by width, then position. The mode ``int`` pads at the end
    or cuts to ``output_sequence_length``, if it is set.
    """

    vocabulary: tuple[str, ...]
    standardize: Literal["lower_and_strip_punctuation", "lower", "strip_punctuation", "none"] = (
        "lower_and_strip_punctuation"
    )
    split: Literal["whitespace", "character", "none"] = "whitespace"
    ngrams: tuple[int, ...] = ()
    output_mode: LookupEncoding = "int"
    output_sequence_length: int | None = None
    idf_weights: tuple[float, ...] = ()
    max_tokens: int | None = None
    pad_to_max_tokens: bool = False

    def __post_init__(self) -> None:
        if self.output_sequence_length is not None and self.output_mode != "int":
            raise ValueError("output_sequence_length needs output_mode = 'int'")
        if any(width < 1 for width in self.ngrams):
            raise ValueError(f"ngrams are {list(self.ngrams)}")
        check_size("output_sequence_length", self.output_sequence_length)
        check_size("max_tokens", self.max_tokens, 2)
        self._vocabulary  # noqa: B018 - checks it

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(
            self.vocabulary,
            ("", "[UNK]"),
            1,
            self.output_mode,
            self.idf_weights,
            self.max_tokens if self.pad_to_max_tokens else None,
        )

    def words(self, value: Any) -> list[str]:
        """The words and groups of words that are looked up."""
        strings = as_strings(value)
        if self.split != "none" and strings.size != 1:
            raise SampleError(f"Received {strings.size} texts instead of one.")
        if strings.ndim > 1:
            raise SampleError(f"Received texts of shape {strings.shape}.")
        for text in strings.reshape(-1):
            encoded(text)  # raises an error if it is not valid
        words = [self._standardized(text) for text in strings.reshape(-1)]
        if self.split == "whitespace":
            words = [word.decode() for word in encoded(words[0]).split()]
        elif self.split == "character":
            words = list(words[0])
        return _ngrams(words, self.ngrams) if self.ngrams else words

    def _standardized(self, text: str) -> str:
        if self.standardize in ("lower", "lower_and_strip_punctuation"):
            text = text.translate(_LOWER)
        if self.standardize in ("strip_punctuation", "lower_and_strip_punctuation"):
            text = text.translate(_PUNCTUATION)
        return text

    def apply(self, value: Any) -> Array:
        words = np.asarray(self.words(value), object)
        vectors = self._vocabulary.encode(words, lambda _: 0)
        length = self.output_sequence_length
        if length is None:
            return vectors
        padded: Array = np.zeros(length, "int64")
        padded[: len(vectors)] = vectors[:length]
        return padded


def _ngrams(words: list[str], widths: tuple[int, ...]) -> list[str]:
    return [
        " ".join(words[start : start + width])
        for width in widths
        for start in range(len(words) - width + 1)
    ]
