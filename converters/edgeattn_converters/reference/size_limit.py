"""The limit on the size of a reference, which every device stores and reads."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.reference.usable_rows import UsableRows

# Bytes of all arrays before they are compressed, unless fewer than MIN_ROWS rows would remain.
MAX_BYTES = 16 * 2**20
MIN_ROWS = 12


def within_limit(rows: UsableRows, arrays: Iterable[Array]) -> UsableRows:
    """Fewer of ``rows``, evenly spaced, if those of ``arrays`` have more than :data:`MAX_BYTES`.

    At least half of what remains are samples, as far as there are enough of them.
    """
    row_bytes = sum(array[:1].nbytes for array in arrays)
    limit = max(MIN_ROWS, MAX_BYTES // max(1, row_bytes))
    edges = (rows.ordinary, rows.float16, rows.others)
    edge_count = sum(map(len, edges))
    if len(rows.samples) + edge_count <= limit:
        return rows
    samples = min(len(rows.samples), max(-(-limit // 2), limit - edge_count))
    share = (limit - samples) / max(1, edge_count)
    ordinary, float16, others = (_spread(part, round(share * len(part))) for part in edges)
    return replace(
        rows,
        samples=_spread(rows.samples, samples),
        ordinary=ordinary,
        float16=float16,
        others=others,
    )


def _spread(rows: Array, count: int) -> Array:
    """``count`` of ``rows``, evenly spaced; at least one if there are any."""
    count = min(len(rows), max(count, 1))
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else rows
