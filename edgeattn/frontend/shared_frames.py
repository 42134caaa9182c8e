"""Frames of sound that consecutive windows of a stream share, transformed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeattn.frontend.description import FrontEnd, Step
from edgeattn.frontend.numeric import Clip, Normalization, Rescaling
from edgeattn.frontend.spectra import Log, Mel, Mfcc, SignalStft, Stft
from edgeattn.tensors import Array

# Steps that compute each row, along the last axis, from this row alone.
_BY_ROW = (Mel, Log, Mfcc, Rescaling, Clip)


class SharedFrames:
    """Prepares consecutive windows; rows of frames that the next window has too are kept.

    The first step of ``name`` makes frames, and the ``by_row`` steps up to there a row of each. Of
    the ``count`` rows of a window, the next one has all but the first ``new``.
    """

    def __init__(self, front_end: FrontEnd, name: str, by_row: int, count: int, new: int) -> None:
        assert front_end.window is not None
        self._front_end, self._name, self._by_row, self._new = front_end, name, by_row, new
        # Where the readings of the new frames start.
        self._start = (count - new) * (front_end.window.hop or 0) // new
        self._kept: Array | None = None

    def prepare(self, window: Array, *, is_next: bool) -> Array:
        """The value of the input for one window, see :meth:`FrontEnd.apply`.

        ``is_next`` is whether it starts a hop after the window of the last call.
        """
        kept, self._kept = self._kept, None
        if kept is None or not is_next:
            rows = self._front_end.apply(self._name, window, end=self._by_row)
        else:
            new = self._front_end.apply(self._name, window[self._start :], end=self._by_row)
            rows = np.concatenate([kept, new])
        self._kept = rows[self._new :]
        prepared: Array = self._front_end.apply(self._name, rows, start=self._by_row)
        return prepared


def shared_frames(front_end: FrontEnd, name: str) -> SharedFrames | None:
    """For the input ``name``; None if its windows share no frames, or a step needs all of them."""
    window, steps = front_end.window, front_end.inputs.get(name, ())
    if window is None or window.columns is not None or window.normalization != "none":
        return None
    frames = steps[0].frames if steps and isinstance(steps[0], Stft | SignalStft) else None
    if frames is None:
        return None
    length, step = frames
    count, new = 1 + (window.length - length) // step, (window.hop or window.length) // step
    if new * step != window.hop or not 0 < new < count:
        return None
    return SharedFrames(front_end, name, 1 + _rows_alone(steps[1:]), count, new)


def _rows_alone(steps: Sequence[Step]) -> int:
    """The number of steps, from the first, that compute each row from this row alone."""
    for number, step in enumerate(steps):
        alone = isinstance(step, _BY_ROW) or (
            isinstance(step, Normalization) and (len(step.mean) == 1 or step.axis == (-1,))
        )
        if not alone:
            return number
    return len(steps)
