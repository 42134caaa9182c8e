"""Choosing the lowering of a recurrence for TFLite, by name or by cost.

The cost model of ``auto``: every unrolled step has a packed copy of the recurrent weights, and all
copies together must stay in the cache. Half a megabyte is what a core of a Raspberry Pi 5 has, and
half of what the four cores of a Pi 4 share. As many steps are unrolled as fit, but at least 4,
because below that the loop's own cost shows, and at most 10. A loop costs more than it saves if the
copies of all steps fit or the sequence has at most 32 steps. A loop copies the outputs so far in
every iteration, so sequences of more than 256 steps get two loops, the inner one with few outputs.

int8 weights have a quarter of the bytes. Unrolled, they may take a megabyte, which is the last
cache of a Raspberry Pi 4: beyond the half megabyte that a loop stays within, unrolled steps still
save more instructions than the slower cache costs.
"""

from functools import partial
from typing import Any

from edgeattn.errors import UsageError
from edgeattn_converters.lowering.rnn.chunked import Chunked
from edgeattn_converters.lowering.rnn.recurrence import Recurrence, RecurrenceLowering
from edgeattn_converters.lowering.rnn.steps import unrolled

NAMES = ("auto", "unrolled", "chunked")
FUSED = "fused"  # see edgeattn_converters.lowering.rnn.fused
FUSED_INTEGERS = "fused_integers"  # the same, before it is quantized for Lite Micro
CACHE_BYTES = 512 * 1024
UNROLLED_INT8_BYTES = 1024 * 1024
FLOAT32_BYTES, INT8_BYTES = 4, 1
MIN_CHUNK, MAX_CHUNK = 4, 10
ALWAYS_UNROLLED = 32
SINGLE_LOOP = 256
# Longest sequence that is unrolled however small the weights are: every operator takes conversion
# time and bytes.
MAX_UNROLLED = 64
# Approximate number of steps per iteration of the outer of two loops.
OUTER_STEPS = 80


def recurrence_lowering(name: str, weight_bytes: int = FLOAT32_BYTES) -> RecurrenceLowering:
    """The lowering called ``name``; :class:`UsageError` if it is none of :data:`NAMES`.

    ``weight_bytes`` is the size of a recurrent weight in the file.
    """
    lowerings: dict[str, RecurrenceLowering] = {
        "auto": partial(_auto, weight_bytes),
        "unrolled": unrolled,
        "chunked": partial(_chunked, weight_bytes),
    }
    if name not in lowerings:
        raise UsageError(
            f"Unknown lowering {name!r}.", hint=f"Choose one of {', '.join((*NAMES, FUSED))}."
        )
    return lowerings[name]


def _auto(
    weight_bytes: int, recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
) -> tuple[Any, list[Any]]:
    time = x.shape[1]
    copies = time * recurrence.cell.recurrent_kernel.size * weight_bytes
    largest = CACHE_BYTES if weight_bytes == FLOAT32_BYTES else UNROLLED_INT8_BYTES
    if time <= ALWAYS_UNROLLED or (time <= MAX_UNROLLED and copies <= largest):
        return unrolled(recurrence, x, states, mask)
    return _chunked(weight_bytes, recurrence, x, states, mask)


def _chunked(
    weight_bytes: int, recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
) -> tuple[Any, list[Any]]:
    sizes = chunk_sizes(x.shape[1], recurrence.cell.recurrent_kernel.size * weight_bytes)
    return Chunked(*sizes)(recurrence, x, states, mask)


def chunk_sizes(time: int, weight_bytes: int) -> tuple[int, ...]:
    """Steps per iteration of each loop, outermost first; the last is that of unrolled steps."""
    largest = max(MIN_CHUNK, min(MAX_CHUNK, CACHE_BYTES // max(1, weight_bytes)))
    # Of the sizes near the largest, the one that leaves the fewest steps outside the loop.
    size = min(range(largest, max(1, largest // 2) - 1, -1), key=lambda size: time % size)
    if time <= SINGLE_LOOP:
        return (size,)
    return (max(1, round(OUTER_STEPS / size)) * size, size)
