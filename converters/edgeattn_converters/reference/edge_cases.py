"""Edge cases of a reference: rows that samples may lack, derived from the samples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeattn.tensors import Array, Tensors, TensorSpec
from edgeattn_converters.tracing.tokens import TokenLimits

# Round extreme inputs are this many times the samples' range, to reveal clipping and saturation.
EXTREME_FACTOR = 3.0
# The number of round extreme rows: see _round_extremes.
ROUND_EXTREMES = 6
# Random extreme rows contain values of 10**DECADE to 10**(DECADE + 1) times the samples' range.
DECADES = (-1, 0, 1)
# The number of random rows of each decade: see _random_extremes.
RANDOM_EXTREMES = 4
# Random integers are drawn from this far below the samples to this far above them, per decade.
INTEGER_MARGINS = (0, 10, 300)
# The share of a sample's values that an outlier row replaces.
OUTLIERS = 0.1
SEED = 20240607
EXTREMES = ROUND_EXTREMES + len(DECADES) * RANDOM_EXTREMES
# The largest number of rows for sequence lengths and vocabularies.
MAX_LENGTHS = 64
MAX_TOKEN_ROWS = 16


@dataclass(frozen=True)
class InputProperties:
    """The limits of tokens, and the value of masked steps, of the inputs that have them.

    ``constant`` are inputs with the same number in all samples, such as a length: edge cases have
    it, too, because the model may fail for any other number.
    """

    vocabulary: dict[str, TokenLimits]
    padding: dict[str, float]
    constant: frozenset[str] = frozenset()

    def is_exact(self, name: str, values: Array) -> Array:
        """Which ``values`` of an input stand for something else if they change in the last digit.

        These are tokens, which embeddings cast to integers, and padding.
        """
        limits = self.vocabulary.get(name)
        tokens = np.broadcast_to(False if limits is None else limits.known, values.shape)
        padding = self.padding.get(name)
        return tokens if padding is None else tokens | (values == padding)


def edge_cases(
    inputs: Tensors, specs: tuple[TensorSpec, ...], properties: InputProperties
) -> tuple[dict[str, Array], int]:
    """Rows that samples may lack, and how many of them, from the first, could be samples."""
    vocabulary, padding = properties.vocabulary, properties.padding
    lengths = _lengths(inputs, padding)
    token_rows = max(
        (
            -(-int(limits.counts.max()) // int(np.count_nonzero(limits.known)))
            for name, limits in vocabulary.items()
            if name in inputs
        ),
        default=0,
    )
    ordinary = len(lengths) + min(token_rows, MAX_TOKEN_ROWS)
    generator = np.random.default_rng(SEED)
    rows = {}
    for spec in specs:
        values = inputs[spec.name]
        none = np.zeros(values.shape[1:], np.int64)
        limits = vocabulary.get(spec.name, TokenLimits(none, none))
        if spec.state is not None:
            # Extreme states cannot result from a recurrence, so edge cases start from zeros.
            rows[spec.name] = np.zeros((ordinary + EXTREMES, *values.shape[1:]), values.dtype)
            continue
        if spec.name in properties.constant:
            rows[spec.name] = np.repeat(values[:1], ordinary + EXTREMES, axis=0)
            continue
        parts = [
            _shortened(values, lengths, padding.get(spec.name)),
            _all_tokens(values, ordinary - len(lengths), limits),
            _round_extremes(values, spec, limits, padding.get(spec.name)),
            _random_extremes(values, spec, limits, generator),
        ]
        rows[spec.name] = np.concatenate(parts).astype(values.dtype)
    return rows, ordinary


def constant_numbers(inputs: Tensors, vocabulary: Mapping[str, TokenLimits]) -> frozenset[str]:
    """The inputs of one integer, other than a token, that is the same in several samples."""
    return frozenset(
        name
        for name, array in inputs.items()
        if array.dtype.kind in "iu"
        and name not in vocabulary
        and array.size == len(array) > 1
        and (array == array[0]).all()
    )


def _lengths(inputs: Tensors, padding: dict[str, float]) -> list[int]:
    """Sequence lengths below the full one, evenly spaced if there are many, if the model masks."""
    steps = {inputs[name].shape[1] for name in padding if inputs[name].ndim > 1}
    if not steps or min(steps) < 2:
        return []
    full = min(steps)
    return [int(n) for n in np.unique(np.linspace(1, full - 1, min(full - 1, MAX_LENGTHS)))]


def _shortened(values: Array, lengths: list[int], padding: float | None) -> Array:
    """Samples, padded from each of ``lengths`` on if the input has padding."""
    rows = values[np.arange(len(lengths)) % len(values)].copy()
    if padding is not None:
        for row, length in zip(rows, lengths, strict=True):
            row[length:] = padding
    return rows


def _all_tokens(values: Array, count: int, limits: TokenLimits) -> Array:
    """Rows that contain every token of the vocabulary, so that the whole embedding is read."""
    rows = values[np.arange(count) % len(values)].copy()
    tokens, first, counts = (
        np.broadcast_to(item, rows.shape) for item in (limits.known, limits.first, limits.counts)
    )
    rows[tokens] = first[tokens] + np.arange(np.count_nonzero(tokens)) % counts[tokens]
    return rows


def _bounds(values: Array, spec: TensorSpec, limits: TokenLimits) -> tuple[Array, Array]:
    """The lowest and the highest value of extreme rows, for every value of a sample."""
    if np.dtype(spec.dtype).kind == "f":
        high = EXTREME_FACTOR * float(np.abs(values[:, ~limits.known]).max(initial=1.0))
        low = -high
    else:
        low, high = float(values.min()), float(values.max())
    known = limits.known
    return np.where(known, limits.first, low), np.where(known, limits.stop - 1.0, high)


def _round_extremes(
    values: Array, spec: TensorSpec, limits: TokenLimits, padding: float | None
) -> Array:
    """Six rows: zeros, high, low, alternating, a scaled sample, and one padded at the front."""
    row = values[0]
    low, high = _bounds(values, spec, limits)
    zeros = np.where(limits.known, np.clip(0, low, high), 0)
    alternating = np.where(np.arange(row.size).reshape(row.shape) % 2 == 0, low, high)
    floats = np.dtype(spec.dtype).kind == "f"
    scaled = np.where(limits.known, row, row * EXTREME_FACTOR) if floats else row
    padded = values[-1].copy()
    if padding is not None and padded.ndim:
        padded[: len(padded) // 2] = padding
    rows = [zeros, high, low, alternating, scaled, padded]
    return np.stack(rows).astype(spec.dtype)


def _random_extremes(
    values: Array, spec: TensorSpec, limits: TokenLimits, generator: np.random.Generator
) -> Array:
    """Four rows for each decade: two of either sign, one positive, and a sample with outliers.

    Round numbers are exact in every format, and equal numbers cancel each other. Integers that are
    no tokens have other signs and sizes than those of the samples, too: indices outside a table are
    defined for some operations.
    """
    floats = np.dtype(spec.dtype).kind == "f"
    low, high = _bounds(values, spec, limits)
    known = limits.known
    if floats:  # values that are no tokens are drawn below
        low, high = np.where(known, low, 0.0), np.where(known, high, 0.0)
    drawn = []
    for margin in INTEGER_MARGINS:
        lowest, highest = _widened(low, high, np.where(known, 0, margin), spec.dtype)
        size = (RANDOM_EXTREMES, *values.shape[1:])
        drawn.append(generator.integers(lowest, highest + 1, size=size))
    integers = np.concatenate(drawn)
    if not floats or known.all():
        return integers.astype(spec.dtype)
    shape = (RANDOM_EXTREMES, *values.shape[1:])
    largest = float(np.abs(values[:, ~known]).max(initial=0.0)) or 1.0
    parts = []
    for decade in DECADES:
        rows = largest * 10 ** generator.uniform(decade, decade + 1, shape)
        signs = generator.choice((-1.0, 1.0), shape)
        signs[2] = 1.0
        rows *= signs
        sample = values[int(generator.integers(len(values)))]
        rows[3] = np.where(generator.random(sample.shape) < OUTLIERS, rows[3], sample)
        parts.append(rows)
    return np.where(known, integers, np.concatenate(parts)).astype(spec.dtype)


def _widened(low: Array, high: Array, margins: Array, dtype: str) -> tuple[Array, Array]:
    """Integer bounds that are ``margins`` further apart on both sides, if ``dtype`` has them."""
    low, high = low.astype(np.int64), high.astype(np.int64)
    if np.dtype(dtype).kind not in "iu":
        return low, high
    limits = np.iinfo(dtype)
    lowest, highest = max(limits.min, -(2**62)), min(limits.max, 2**62)
    return np.maximum(low - margins, lowest), np.minimum(high + margins, highest)
