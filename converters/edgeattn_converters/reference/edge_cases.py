"""Edge cases of a reference: rows that samples may lack, derived from the samples."""

from dataclasses import dataclass

import numpy as np

from edgeattn.tensors import Array, Tensors, TensorSpec

# Round extreme inputs are this many times the samples' range, to reveal clipping and saturation.
EXTREME_FACTOR = 3.0
# The number of round extreme rows: see _round_extremes.
ROUND_EXTREMES = 6
# Random extreme rows contain values of 10**DECADE to 10**(DECADE + 1) times the samples' range.
DECADES = (-1, 0, 1)
# The number of random rows of each decade: see _random_extremes.
RANDOM_EXTREMES = 4
# The share of a sample's values that an outlier row replaces.
OUTLIERS = 0.1
SEED = 20240607
EXTREMES = ROUND_EXTREMES + len(DECADES) * RANDOM_EXTREMES
# The largest number of rows for sequence lengths and vocabularies.
MAX_LENGTHS = 64
MAX_TOKEN_ROWS = 16


@dataclass(frozen=True)
class InputProperties:
    """The number of tokens, and the value of masked steps, of the inputs that have them."""

    vocabulary: dict[str, int]
    padding: dict[str, float]

    def is_exact(self, name: str, values: Array) -> Array:
        """Which ``values`` of an input stand for something else if they change in the last digit.

        These are tokens, which embeddings cast to integers, and padding.
        """
        if name in self.vocabulary:
            return np.ones(values.shape, bool)
        padding = self.padding.get(name)
        return np.zeros(values.shape, bool) if padding is None else values == padding


def edge_cases(
    inputs: Tensors, specs: tuple[TensorSpec, ...], properties: InputProperties
) -> tuple[dict[str, Array], int]:
    """Rows that samples may lack, and how many of them, from the first, could be samples."""
    vocabulary, padding = properties.vocabulary, properties.padding
    lengths = _lengths(inputs, padding)
    token_rows = max(
        (
            -(-size // max(1, inputs[name][0].size))
            for name, size in vocabulary.items()
            if name in inputs
        ),
        default=0,
    )
    ordinary = len(lengths) + min(token_rows, MAX_TOKEN_ROWS)
    generator = np.random.default_rng(SEED)
    rows = {}
    for spec in specs:
        values, size = inputs[spec.name], vocabulary.get(spec.name)
        if spec.state is not None:
            # Extreme states cannot result from a recurrence, so edge cases start from zeros.
            rows[spec.name] = np.zeros((ordinary + EXTREMES, *values.shape[1:]), values.dtype)
            continue
        parts = [
            _shortened(values, lengths, padding.get(spec.name)),
            _all_tokens(values, ordinary - len(lengths), size),
            _round_extremes(values, spec, size, padding.get(spec.name)),
            _random_extremes(values, spec, size, generator),
        ]
        rows[spec.name] = np.concatenate(parts).astype(values.dtype)
    return rows, ordinary


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


def _all_tokens(values: Array, count: int, vocabulary: int | None) -> Array:
    """Rows that contain every token of the vocabulary, so that the whole embedding is read."""
    rows = values[np.arange(count) % len(values)].copy()
    if vocabulary is None:
        return rows
    return (np.arange(rows.size) % vocabulary).reshape(rows.shape)


def _bounds(values: Array, spec: TensorSpec, vocabulary: int | None) -> tuple[float, float]:
    """The lowest and the highest value of extreme rows."""
    if vocabulary is not None:
        return 0.0, vocabulary - 1.0
    if np.dtype(spec.dtype).kind == "f":
        high = EXTREME_FACTOR * float(np.abs(values).max(initial=1.0))
        return -high, high
    return float(values.min()), float(values.max())


def _round_extremes(
    values: Array, spec: TensorSpec, vocabulary: int | None, padding: float | None
) -> Array:
    """Six rows: zeros, high, low, alternating, a scaled sample, and one padded at the front."""
    row = values[0]
    low, high = _bounds(values, spec, vocabulary)
    alternating = np.where(np.arange(row.size) % 2 == 0, low, high).reshape(row.shape)
    floats = vocabulary is None and np.dtype(spec.dtype).kind == "f"
    scaled = row * EXTREME_FACTOR if floats else row
    padded = values[-1].copy()
    if padding is not None and padded.ndim:
        padded[: len(padded) // 2] = padding
    rows = [np.zeros_like(row), np.full(row.shape, high), np.full(row.shape, low), alternating]
    return np.stack([*rows, scaled, padded]).astype(spec.dtype)


def _random_extremes(
    values: Array, spec: TensorSpec, vocabulary: int | None, generator: np.random.Generator
) -> Array:
    """Four rows for each decade: two of either sign, one positive, and a sample with outliers.

    Round numbers are exact in every format, and equal numbers cancel each other. Integers are
    drawn from the range of the samples.
    """
    shape = (RANDOM_EXTREMES, *values.shape[1:])
    if vocabulary is not None or np.dtype(spec.dtype).kind != "f":
        low, high = _bounds(values, spec, vocabulary)
        size = (len(DECADES) * RANDOM_EXTREMES, *values.shape[1:])
        return generator.integers(int(low), int(high) + 1, size=size).astype(spec.dtype)
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    parts = []
    for decade in DECADES:
        rows = largest * 10 ** generator.uniform(decade, decade + 1, shape)
        signs = generator.choice((-1.0, 1.0), shape)
        signs[2] = 1.0
        rows *= signs
        sample = values[int(generator.integers(len(values)))]
        rows[3] = np.where(generator.random(sample.shape) < OUTLIERS, rows[3], sample)
        parts.append(rows)
    return np.concatenate(parts).astype(spec.dtype)
