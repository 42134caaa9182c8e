"""Steps that look values up in a vocabulary or hash them, as Keras' lookup layers do."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.hashing import farmhash_64, siphash_64
from edgeattn.frontend.numeric import Encoding, encode
from edgeattn.frontend.values import as_integers, as_strings, check_size, encoded
from edgeattn.printable import counted
from edgeattn.tensors import Array

LookupEncoding = Literal["int", "one_hot", "multi_hot", "count", "tf_idf"]
# The index of masked values in vectors, which have no position for them.
_DROPPED = np.iinfo(np.int64).max


def hash_bin(data: bytes, bins: int, salt: Sequence[int]) -> int:
    """The bin of ``data``: FarmHash, or SipHash with one or two integers as ``salt``."""
    if not salt:
        return farmhash_64(data) % bins
    return siphash_64(data, (salt[0], salt[-1])) % bins


def check_salt(salt: Sequence[int]) -> None:
    """Raise :class:`ValueError` unless ``salt`` has at most two integers."""
    if len(salt) > 2:
        raise ValueError(f"salt has {len(salt)} integers, not one or two")


class Vocabulary:
    """A vocabulary with its special tokens at the start, as Keras' ``IndexLookup`` numbers it.

    Index 0 is the mask token, if there is one and the mode is ``int``; the tokens for unknown
    values follow, and then the vocabulary.
    """

    def __init__(
        self,
        tokens: Sequence[Hashable],
        special: tuple[Hashable | None, Hashable],
        num_oov_indices: int,
        output_mode: str,
        idf_weights: Sequence[float] = (),
        max_tokens: int | None = None,
    ) -> None:
        self.mask, unknown = special
        self.mode, self.unknown_indices = output_mode, num_oov_indices
        self.unknown_start = int(self.mask is not None and output_mode == "int")
        start = self.unknown_start + num_oov_indices
        leading = [*([self.mask] * self.unknown_start), *([unknown] * num_oov_indices)]
        includes_special = bool(leading) and list(tokens[:start]) == leading
        words = tokens[start:] if includes_special else tokens
        self.indices = {word: start + index for index, word in enumerate(words)}
        if len(self.indices) != len(words):
            raise ValueError("the vocabulary has a token more than once")
        if self.mask is not None and self.mask in self.indices:
            raise ValueError(f"the vocabulary has the mask token {self.mask!r}")
        size = start + len(words)
        if max_tokens is not None and size > max_tokens:
            raise ValueError(f"the vocabulary has {size} tokens, over max_tokens = {max_tokens}")
        self.depth = max_tokens or size
        self.weights = self._weights(idf_weights, len(tokens), 0 if includes_special else start)

    def _weights(self, weights: Sequence[float], tokens: int, front: int) -> Array | None:
        """A weight for every position; those of special tokens are the mean of the others."""
        if self.mode != "tf_idf":
            if weights:
                raise ValueError("idf_weights need output_mode = 'tf_idf'")
            return None
        if len(weights) != tokens:
            raise ValueError(f"{len(weights)} idf_weights for {counted(tokens, 'token')}")
        values = np.asarray(weights, "float64")
        padded = np.zeros(self.depth)
        padded[:front] = values.mean()
        padded[front : front + len(values)] = values
        return padded.astype("float32")

    def encode(self, values: Array, unknown: Callable[[Any], int]) -> Array:
        """Look up and encode values; ``unknown`` numbers those outside the vocabulary."""
        indices = np.empty(values.shape, "int64")
        for position, value in np.ndenumerate(values):
            indices[position] = self._index(value, unknown)
        if self.weights is not None:
            return encode(indices, "count", self.depth) * self.weights
        return encode(indices, self.mode, self.depth)

    def _index(self, value: Any, unknown: Callable[[Any], int]) -> int:
        if self.mask is not None and value == self.mask:
            return 0 if self.mode == "int" else _DROPPED
        index = self.indices.get(value)
        if index is not None:
            return index
        if not self.unknown_indices:
            shown = repr(value) if isinstance(value, str) else value
            raise SampleError(
                f"{shown} is not in the vocabulary, which has no token for unknown values."
            )
        return self.unknown_start + (unknown(value) if self.unknown_indices > 1 else 0)


@dataclass(frozen=True)
class StringLookup:
    """Strings to indices or vectors. Unknown strings get one of ``num_oov_indices`` by their hash.

    ``vocabulary`` may begin with the special tokens. In ``tf_idf`` mode, ``idf_weights`` has a
    weight for each of its tokens. ``pad_to_max_tokens`` makes vectors of length ``max_tokens``.
    """

    vocabulary: tuple[str, ...]
    mask_token: str | None = None
    oov_token: str = "[UNK]"
    num_oov_indices: int = 1
    output_mode: LookupEncoding = "int"
    idf_weights: tuple[float, ...] = ()
    max_tokens: int | None = None
    pad_to_max_tokens: bool = False
    salt: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._vocabulary  # noqa: B018 - checks it

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return _vocabulary_of(self)

    def apply(self, value: Any) -> Array:
        return self._vocabulary.encode(as_strings(value), self._unknown)

    def _unknown(self, value: str) -> int:
        return hash_bin(encoded(value), self.num_oov_indices, self.salt)


@dataclass(frozen=True)
class IntegerLookup:
    """Integers to indices or vectors, as :class:`StringLookup`.

    Unknown integers get one of ``num_oov_indices``: the remainder of the division by it
    (``floormod``), or by the hash of their decimal digits (``farmhash``).
    """

    vocabulary: tuple[int, ...]
    mask_token: int | None = None
    oov_token: int = -1
    num_oov_indices: int = 1
    output_mode: LookupEncoding = "int"
    idf_weights: tuple[float, ...] = ()
    max_tokens: int | None = None
    pad_to_max_tokens: bool = False
    oov_method: Literal["floormod", "farmhash"] = "floormod"
    salt: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.salt and self.oov_method != "farmhash":
            raise ValueError("salt needs oov_method = 'farmhash'")
        self._vocabulary  # noqa: B018 - checks it

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return _vocabulary_of(self)

    def apply(self, value: Any) -> Array:
        return self._vocabulary.encode(as_integers(value), self._unknown)

    def _unknown(self, value: Any) -> int:
        if self.oov_method == "floormod":
            return int(value) % self.num_oov_indices
        return hash_bin(b"%d" % int(value), self.num_oov_indices, self.salt)


@dataclass(frozen=True)
class Hashing:
    """Strings or integers to one of ``num_bins`` by their hash.

    FarmHash without ``salt`` and SipHash-2-4 with it, of the text or the decimal digits. Numbers
    are truncated to integers. With ``mask_value`` bin 0 is for that value only.
    """

    num_bins: int
    mask_value: int | str | None = None
    salt: tuple[int, ...] = ()
    output_mode: Encoding = "int"

    def __post_init__(self) -> None:
        check_salt(self.salt)
        if not 1 <= self.num_bins < 2**63:
            raise ValueError(f"num_bins is {self.num_bins}")

    def apply(self, value: Any) -> Array:
        array = np.asarray(value)
        if array.dtype.kind in "buif":
            values = array if array.dtype.kind == "i" else array.astype("int64")
        else:
            values = as_strings(value)
        masked = self.mask_value is not None and self.num_bins > 1
        bins = np.empty(values.shape, "int64")
        for position, item in np.ndenumerate(values):
            if masked and array[position] == self.mask_value:
                bins[position] = 0
                continue
            data = encoded(item) if isinstance(item, str) else b"%d" % int(item)
            bins[position] = hash_bin(data, self.num_bins - masked, self.salt) + masked
        return encode(bins, self.output_mode, self.num_bins)


def _vocabulary_of(step: StringLookup | IntegerLookup) -> Vocabulary:
    """That of a lookup, whose other settings are checked. Raises :class:`ValueError`."""
    check_salt(step.salt)
    check_size("num_oov_indices", step.num_oov_indices, 0)
    check_size("max_tokens", step.max_tokens, 2)
    return Vocabulary(
        step.vocabulary,
        (step.mask_token, step.oov_token),
        step.num_oov_indices,
        step.output_mode,
        step.idf_weights,
        step.max_tokens if step.pad_to_max_tokens else None,
    )
