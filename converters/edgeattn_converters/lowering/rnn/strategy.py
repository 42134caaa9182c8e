"""Which graph a recurrence becomes in TFLite: by name, or by what the weights and steps cost.

The cost model of ``auto``. Every step that is written out has its own packed copy of the recurrent
weights. What they take must stay in the cache: half a megabyte is what a core of a Raspberry Pi 5
has, and half of what the four of a Pi 4 share. So as many steps are written out as fit, but no
fewer than 4, below which the loop's own cost shows, and no more than 10. Where the copies of all
steps fit, or there are no more than 32 steps, a loop costs more than it saves. And a loop copies
the outputs so far in every round: beyond 256 steps there are two loops, whose inner one has few.
"""

from __future__ import annotations

from typing import Any

from edgeattn.errors import UsageError
from edgeattn_converters.lowering.rnn.cells import Cell
from edgeattn_converters.lowering.rnn.chunked import Chunked
from edgeattn_converters.lowering.rnn.layers import Recurrence
from edgeattn_converters.lowering.rnn.unrolled import unrolled

NAMES = ("auto", "unrolled", "chunked")
FUSED = "fused"  # see edgeattn_converters.lowering.rnn.fused
CACHE_BYTES = 512 * 1024
FEWEST, MOST = 4, 10
SHORT = 32
LONG = 256
# However small the weights: converting an operator costs time, and it takes room in the file.
WRITTEN_OUT = 64
# Steps of a round of the outer loop, about.
SPAN = 80


def recurrence_for(name: str) -> Recurrence:
    """The lowering of that name; :class:`UsageError` tells those there are."""
    if name == "unrolled":
        return unrolled
    if name == "chunked":
        return _chunked
    if name == "auto":
        return _auto
    raise UsageError(f"No lowering {name!r}: there is {', '.join(NAMES)}, {FUSED}.")


def _auto(cell: Cell, x: Any, *rest: Any, **options: Any) -> tuple[Any, list[Any]]:
    time = x.shape[1]
    fits = time <= WRITTEN_OUT and time * cell.recurrent_kernel.nbytes <= CACHE_BYTES
    lowering = unrolled if time <= SHORT or fits else _chunked
    return lowering(cell, x, *rest, **options)


def _chunked(cell: Cell, x: Any, *rest: Any, **options: Any) -> tuple[Any, list[Any]]:
    return Chunked(*chunk_sizes(x.shape[1], cell.recurrent_kernel.nbytes))(
        cell, x, *rest, **options
    )


def chunk_sizes(time: int, weight_bytes: int) -> tuple[int, ...]:
    """Steps of a round of each loop, outermost first; the last are those written out."""
    most = max(FEWEST, min(MOST, CACHE_BYTES // max(1, weight_bytes)))
    # Of the sizes close to it the one that leaves the fewest steps over, which are written out too.
    size = min(range(most, max(1, most // 2) - 1, -1), key=lambda size: time % size)
    if time <= LONG:
        return (size,)
    return (max(1, round(SPAN / size)) * size, size)
