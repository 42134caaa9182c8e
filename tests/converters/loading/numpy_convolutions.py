"""Convolutions and pooling of Keras 1 and 2 in NumPy, by their definitions.

Arrays are (rows, *positions, channels), kernels (*positions, channels, filters).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np


def windows(
    x: Any,
    before: Sequence[int],
    after: Sequence[int],
    size: Sequence[int],
    strides: Any,
    rate: Any,
) -> Any:
    """(rows, *positions, channels) -> (rows, *windows, *size, channels); NaN is padding."""
    x = np.pad(x, [(0, 0), *zip(before, after, strict=True), (0, 0)], constant_values=np.nan)
    spans = [(k - 1) * d + 1 for k, d in zip(size, rate, strict=True)]
    counts = [(n - s) // t + 1 for n, s, t in zip(x.shape[1:-1], spans, strides, strict=True)]
    result = np.empty((len(x), *counts, *size, x.shape[-1]))
    for place in itertools.product(*map(range, counts)):
        cut = tuple(
            slice(p * t, p * t + s, d)
            for p, t, s, d in zip(place, strides, spans, rate, strict=True)
        )
        result[(slice(None), *place)] = x[(slice(None), *cut)]
    return result


def cropped(y: Any, x: Any, strides: Sequence[int]) -> Any:
    ends = [-(-n // t) for n, t in zip(x.shape[1:-1], strides, strict=True)]
    return y[(slice(None), *(slice(end) for end in ends))]


def convolution(
    x: Any, kernel: Any, strides: Any = 1, rate: Any = 1, same: bool = True, reverse: bool = True
) -> Any:
    """``kernel`` (*positions, channels, filters), or of one filter a channel, (*positions, m)."""
    axes = x.ndim - 2
    strides, rate = (
        [value] * axes if isinstance(value, int) else value for value in (strides, rate)
    )
    size = kernel.shape[:axes]
    half = [((k - 1) * d + 1) // 2 if same else 0 for k, d in zip(size, rate, strict=True)]
    cut = np.nan_to_num(windows(x, half, half, size, strides, rate))
    kernel = np.flip(kernel, tuple(range(axes))) if reverse else kernel
    y = np.tensordot(cut, kernel, axes + 1)
    return cropped(y, x, strides) if same else y


def depthwise(x: Any, kernel: Any, **options: Any) -> Any:
    """Keras' Theano backend reverses these kernels itself."""
    parts = [
        convolution(x[..., k : k + 1], kernel[..., k : k + 1, :], reverse=False, **options)
        for k in range(x.shape[-1])
    ]
    return np.concatenate(parts, axis=-1)


def pooling(
    x: Any, size: Sequence[int], strides: Sequence[int], average: bool = False, same: bool = True
) -> Any:
    """Theano excludes the padding, k - 1 or for odd k k - 2 values on both sides."""
    pad = [0 if k == 1 or not same else k - 2 if k % 2 else k - 1 for k in size]
    cut = cropped(windows(x, pad, pad, size, strides, [1] * len(size)), x, strides)
    axes = tuple(range(x.ndim - 1, 2 * x.ndim - 3))
    return np.nanmean(cut, axes) if average else np.nanmax(cut, axes)


def transposed_convolution(x: Any, kernel: Any, strides: Any = 1) -> Any:
    """The sum of the kernel, (*positions, filters, channels), times each input, at its position."""
    axes = x.ndim - 2
    strides = [strides] * axes if isinstance(strides, int) else strides
    sizes = [(n - 1) * t + k for n, t, k in zip(x.shape[1:-1], strides, kernel.shape, strict=False)]
    y = np.zeros((len(x), *sizes, kernel.shape[-2]))
    for place in itertools.product(*map(range, x.shape[1:-1])):
        cut = tuple(
            slice(p * t, p * t + k) for p, t, k in zip(place, strides, kernel.shape, strict=False)
        )
        y[(slice(None), *cut)] += np.tensordot(x[(slice(None), *place)], kernel, (1, -1))
    return y
