"""The limits on the size of a reference, which every device stores and reads.

A row with the maps of a long sequence has many megabytes, so that the limits apply before Keras
computes the rows, too.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import prod

import numpy as np

from edgeattn.tensors import Array, Specs, Tensors
from edgeattn_converters.reference.usable_rows import UsableRows

# Bytes of all arrays before they are compressed, unless fewer than MIN_ROWS rows would remain.
MAX_BYTES = 16 * 2**20
MIN_ROWS = 12
# Bytes that MIN_ROWS rows may have, unless fewer than FEWEST_ROWS would remain.
MOST_BYTES = 24 * 2**20
FEWEST_ROWS = 4
# Some of the rows that are computed may turn out to be unusable.
SURPLUS = 2


def row_limit(row_bytes: int) -> int:
    """The largest number of rows of ``row_bytes`` each."""
    fewest = max(FEWEST_ROWS, MOST_BYTES // max(1, row_bytes))
    return max(min(MIN_ROWS, fewest), MAX_BYTES // max(1, row_bytes))


def bytes_of_row(inputs: Tensors, outputs: Specs) -> int:
    """The bytes of one row of ``inputs`` and of the outputs and maps with these specs."""
    size = sum(array[:1].nbytes for array in inputs.values())
    return size + sum(
        prod(axis or 1 for axis in spec.shape[1:]) * np.dtype(spec.dtype).itemsize
        for spec in outputs
    )


def rows_to_compute(counts: tuple[int, int], total: int, row_bytes: int) -> tuple[Array, Array]:
    """Rows of samples, and rows of ordinary edge cases and extremes, evenly spaced if not all.

    ``counts`` are the numbers of samples, and of samples and ordinary edge cases, among ``total``.
    """
    limit = max(SURPLUS * row_limit(row_bytes), MOST_BYTES // max(1, row_bytes))
    parts = [np.arange(counts[0]), np.arange(*counts), np.arange(counts[1], total)]
    samples, *edges = _thinned(parts, limit)
    return samples, np.concatenate(edges)


def within_limit(rows: UsableRows, arrays: Iterable[Array]) -> UsableRows:
    """Fewer of ``rows``, evenly spaced, if those of ``arrays`` have too many bytes.

    At least half of what remains are samples, as far as there are enough of them.
    """
    row_bytes = sum(array[:1].nbytes for array in arrays)
    parts = [rows.samples, rows.ordinary, rows.float16, rows.others]
    samples, ordinary, float16, others = _thinned(parts, row_limit(row_bytes))
    return replace(rows, samples=samples, ordinary=ordinary, float16=float16, others=others)


def _thinned(parts: list[Array], limit: int) -> list[Array]:
    """At most about ``limit`` of all rows; the first of ``parts`` are samples."""
    first, *edges = parts
    edge_count = sum(map(len, edges))
    if len(first) + edge_count <= limit:
        return parts
    samples = min(len(first), max(-(-limit // 2), limit - edge_count))
    share = (limit - samples) / max(1, edge_count)
    return [_spread(first, samples), *(_spread(part, round(share * len(part))) for part in edges)]


def _spread(rows: Array, count: int) -> Array:
    """``count`` of ``rows``, evenly spaced; at least one if there are any."""
    count = min(len(rows), max(count, 1))
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else rows
