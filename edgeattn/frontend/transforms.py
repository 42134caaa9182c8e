"""Windows, frames, Fourier transforms and mel bands, for the steps on sound.

Transforms are computed in float64 and rounded to float32 once; Keras computes them in float32.
"""

from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.values import MAX_VALUES, check_size
from edgeattn.printable import counted
from edgeattn.tensors import Array

_COSINES = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "blackman": (0.42, 0.5, 0.08)}


def cosine_window(name: str, length: int, period: int) -> Array:
    """A window of ``length`` values that sums cosines of ``period`` samples; ones for ``none``."""
    if name == "none" or length == 1:
        return np.ones(length)
    angles = 2 * np.pi * np.arange(length) / period
    terms = _COSINES[name]
    values: Array = np.zeros(length)
    for order, term in enumerate(terms):
        values += (-1) ** order * term * np.cos(order * angles)
    return values


def signal_window(name: str, length: int) -> Array:
    """A window of ``tf.signal``: periodic if ``length`` is even, symmetric if it is odd."""
    return cosine_window(name, length, length if length % 2 == 0 else length - 1)


def frames(signal: Array, length: int, step: int) -> Array:
    """Parts of ``length`` along the last axis, ``step`` apart: ``(..., frames, length)``."""
    if signal.shape[-1] < length:
        raise SampleError(
            f"The signal has {counted(signal.shape[-1], 'value')}, fewer than one frame of "
            f"{length}."
        )
    count = 1 + (signal.shape[-1] - length) // step
    signal = np.ascontiguousarray(signal)
    *leading, stride = signal.strides
    # As sliding_window_view, which takes many times as long.
    return np.ndarray(
        (*signal.shape[:-1], count, length),
        signal.dtype,
        signal.data,
        strides=(*leading, step * stride, stride),
    )


def check_output(rows: int, columns: int) -> None:
    """Raise :class:`SampleError` if an array of this size is too large."""
    if rows * columns > MAX_VALUES:
        raise SampleError(f"{rows} frames of {columns} values are too large.")


def transform(parts: Array, fft_length: int, output: str) -> Array:
    """The discrete Fourier transform of frames, padded at the end to ``fft_length``."""
    check_output(parts.size // parts.shape[-1], fft_length)
    spectrum = np.fft.rfft(parts, fft_length)
    if output == "real_imag":
        return np.stack([spectrum.real, spectrum.imag], -1).astype("float32")
    squares: Array = spectrum.view(spectrum.real.dtype)
    squares *= squares
    power = squares[..., ::2] + squares[..., 1::2]
    return (power if output == "power" else np.sqrt(power, out=power)).astype("float32")


def mel_matrix(
    num_mel_bins: int, bins: int, sampling_rate: float, low: float, high: float
) -> Array:
    """Weights ``(bins, num_mel_bins)`` of triangular bands on HTK's mel scale.

    ``mel(f) = 1127 ln(1 + f / 700)``; the first bin has no weight. As
    ``tf.signal.linear_to_mel_weight_matrix``.
    """

    def mel(frequency: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)

    positions = mel(np.linspace(0.0, sampling_rate / 2, bins)[1:])[:, None]
    edges = np.linspace(mel(low), mel(high), num_mel_bins + 2)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (positions - lower) / (center - lower)
    falling = (upper - positions) / (upper - center)
    weights: Array = np.zeros((bins, num_mel_bins), "float32")
    weights[1:] = np.maximum(0, np.minimum(rising, falling))
    return weights


def check_lengths(length: int, step: int, fft_length: int) -> None:
    """Raise :class:`ValueError` unless frames and transform have possible lengths."""
    check_size("fft_length", fft_length)
    if length < 1 or step < 1 or fft_length < length:
        raise ValueError(
            f"frames of {length} values, {step} apart, do not fit a transform of {fft_length}"
        )


def check_frequencies(num_mel_bins: int, sampling_rate: float, low: float, high: float) -> None:
    """Raise :class:`ValueError` unless the bands lie below half the sampling rate."""
    check_size("num_mel_bins", num_mel_bins)
    if not 0 <= low < high <= sampling_rate / 2:
        raise ValueError(
            f"{num_mel_bins} bands from {low} to {high} Hz do not fit a sampling rate of "
            f"{sampling_rate} Hz"
        )


def next_power_of_two(length: int) -> int:
    return 1 << max(length - 1, 0).bit_length()
