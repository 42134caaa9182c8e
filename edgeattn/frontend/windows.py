"""Windows over a stream of readings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.numeric import EPSILON
from edgeattn.frontend.values import check_size
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
            f"A reading has {self.columns or 1} values; received the shape {values.shape}.",
            hint="Set columns in [window] to the number of values of a reading.",
        )

    def normalized(self, readings: Array) -> Array:
        """One window ``(length, ...)`` as float32, normalized."""
        x = readings.astype("float32")
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
    """The readings since the start of the next window, at most ``length`` of them and one block."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._hop = window.hop or window.length
        self._readings: Array | None = None
        self._previous: Array | None = None
        self._skip = 0  # readings before the next window, if the hop is longer than the window

    def restart(self) -> None:
        """Begin a new window with the next reading."""
        self._readings, self._previous, self._skip = None, None, 0

    def extend(self, block: Array) -> Iterator[Array | SampleError]:
        """The windows that end in ``block``, readings along its first axis, or their errors.

        They are not normalized yet.
        """
        start = 0
        missing = ~np.isfinite(block).reshape(len(block), -1).all(1)
        for position in np.flatnonzero(missing).tolist():
            if self._window.missing == "previous":
                yield from self._append(block[start:position])
                if self._previous is not None:
                    filled = np.where(np.isfinite(block[position]), block[position], self._previous)
                    yield from self._append(filled[None])
                    start = position + 1
                    continue
            else:
                yield from self._append(block[start:position])
            start = position + 1
            self.restart()
            yield SampleError(
                "A reading has values that are not finite numbers; the window starts again.",
                hint='Set missing = "previous" in [window] to repeat the reading before it.',
            )
        yield from self._append(block[start:])

    def _append(self, block: Array) -> Iterator[Array]:
        if not len(block):
            return
        self._previous = block[-1]
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        block = block[skipped:]
        readings = block if self._readings is None else np.concatenate([self._readings, block])
        length = self._window.length
        while len(readings) >= length:
            yield readings[:length]
            self._skip = max(self._hop - len(readings), 0)
            readings = readings[self._hop :]
        self._readings = readings.copy()
