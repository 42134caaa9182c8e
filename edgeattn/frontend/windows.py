"""Windows over a stream of readings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.numeric import EPSILON
from edgeattn.frontend.values import check_size
from edgeattn.printable import counted
from edgeattn.tensors import Array


@dataclass(frozen=True)
class Window:
    """``length`` consecutive readings make one sample; the next starts ``hop`` readings later.

    ``normalization`` is that of each column within the window: ``mean`` subtracts the mean,
    ``standard`` also divides by the standard deviation, ``range`` scales to 0 to 1. Divisors are at
    least 1e-7. A missing reading (NaN) is an error and restarts the window, or becomes the
    ``previous`` reading. A reading has ``columns`` values, or is a single value without them.
    ``sampling_rate`` (Hz) is that of sound, whose 16-bit values are divided by 32768.
    """

    length: int
    hop: int | None = None
    columns: int | None = None
    sampling_rate: int | None = None
    normalization: Literal["none", "mean", "standard", "range"] = "none"
    missing: Literal["error", "previous"] = "error"

    def __post_init__(self) -> None:
        for name in ("length", "hop", "columns", "sampling_rate"):
            check_size(name, getattr(self, name))

    def block(self, values: Array) -> Array:
        """One or more readings, along the first axis; :class:`SampleError` if they do not fit."""
        shape = () if self.columns is None else (self.columns,)
        if values.shape == shape:
            return values[None]
        if values.shape[1:] == shape and values.ndim == len(shape) + 1:
            return values
        raise SampleError(
            f"A reading has {counted(self.columns or 1, 'value')}; received the shape "
            f"{values.shape}.",
            hint="Set columns in [window] to the number of values of a reading.",
        )

    def normalized(self, readings: Array) -> Array:
        """One window ``(length, ...)`` as float32, normalized."""
        x = readings.astype("float32", copy=False)
        if self.normalization == "none":
            return x
        if self.normalization == "range":
            low = x.min(0)
            scaled: Array = (x - low) / np.maximum(x.max(0) - low, np.float32(EPSILON))
            return scaled
        centered: Array = x - x.mean(0)
        if self.normalization == "mean":
            return centered
        standard: Array = centered / np.maximum(x.std(0), np.float32(EPSILON))
        return standard


class WindowBuffer:
    """The readings since the start of the next window, in memory that is allocated once."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._hop = window.hop or window.length
        self._memory: Array | None = None
        # The readings are memory[start:end].
        self._start, self._end = 0, 0
        self._previous: Array | None = None
        self._skip = 0  # readings before the next window, if the hop is longer than the window
        # Windows since the last restart, each a hop after the one before it.
        self.consecutive = 0

    def restart(self) -> None:
        """Begin a new window with the next reading."""
        self._start, self._end, self._previous, self._skip = 0, 0, None, 0
        self.consecutive = 0

    def extend(self, block: Array) -> Iterator[tuple[int, Array | SampleError]]:
        """The windows that end in ``block``, readings along its first axis, or their errors.

        Each comes with the number of readings of the block up to its end. Windows are not
        normalized yet.
        """
        finite = np.isfinite(block)
        missing: list[int] = []
        if not finite.all():
            missing = np.flatnonzero(~finite.reshape(len(block), -1).all(1)).tolist()
        start = 0
        for position in missing:
            yield from self._append(block, start, position)
            start = position + 1
            if self._window.missing == "previous" and self._previous is not None:
                filled = np.where(finite[position], block[position], self._previous)
                for _, window in self._append(filled[None], 0, 1):
                    yield start, window
                continue
            self.restart()
            error = SampleError(
                "A reading has values that are not finite numbers; the window starts again.",
                hint='Set missing = "previous" in [window] to repeat the reading before it.',
            )
            yield start, error
        yield from self._append(block, start, len(block))

    def _append(self, block: Array, start: int, end: int) -> Iterator[tuple[int, Array]]:
        """The windows that end in ``block[start:end]``, each with its end."""
        if start == end:
            return
        self._previous = block[end - 1]
        length = self._window.length
        memory = self._memory
        if memory is None:
            memory = self._memory = np.empty((2 * length, *block.shape[1:]), block.dtype)
        while start < end:
            skipped = min(self._skip, end - start)
            self._skip -= skipped
            start += skipped
            if self._end == len(memory):
                memory[: self._end - self._start] = memory[self._start : self._end].copy()
                self._start, self._end = 0, self._end - self._start
            count = min(end - start, length - (self._end - self._start), len(memory) - self._end)
            memory[self._end : self._end + count] = block[start : start + count]
            self._end += count
            start += count
            if self._end - self._start == length:
                self.consecutive += 1
                yield start, memory[self._start : self._end].copy()
                kept = max(length - self._hop, 0)
                self._start, self._skip = self._end - kept, max(self._hop - length, 0)
