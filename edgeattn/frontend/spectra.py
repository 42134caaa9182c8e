"""Steps on sound: short-time Fourier transforms, mel bands, logarithms and MFCC."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.transforms import (
    check_frequencies,
    check_lengths,
    check_output,
    frames,
    mel_matrix,
    next_power_of_two,
    signal_window,
    transform,
)
from edgeattn.frontend.values import as_numbers, as_rows
from edgeattn.printable import counted
from edgeattn.tensors import Array

Output = Literal["magnitude", "power", "real_imag"]
WindowName = Literal["hann", "hamming", "none"]


@dataclass(frozen=True)
class Stft:
    """``keras.ops.stft`` of the last axis.

    ``center`` reflects half of ``fft_length`` at both ends. Frames have ``fft_length`` values, with
    the window of ``sequence_length`` values in their middle. The output is ``(frames, bins)``, or
    ``(frames, bins, 2)`` for ``real_imag``.
    """

    sequence_length: int
    sequence_stride: int
    fft_length: int
    window: WindowName = "hann"
    center: bool = True
    output: Output = "magnitude"

    def __post_init__(self) -> None:
        check_lengths(self.sequence_length, self.sequence_stride, self.fft_length)

    @property
    def frames(self) -> tuple[int, int] | None:
        """Length and distance of the frames, if each row of the output comes from one of them."""
        return None if self.center else (self.fft_length, self.sequence_stride)

    @cached_property
    def _window(self) -> Array:
        before = (self.fft_length - self.sequence_length) // 2
        after = self.fft_length - self.sequence_length - before
        if self.window == "none":
            return np.ones(self.fft_length)
        return np.pad(signal_window(self.window, self.sequence_length), (before, after))

    def apply(self, value: Any) -> Array:
        x = as_rows(value)
        if self.center:
            half = self.fft_length // 2
            if x.shape[-1] <= half:
                raise SampleError(
                    f"The signal has {counted(x.shape[-1], 'value')}, not over {half}."
                )
            x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
        parts = frames(x, self.fft_length, self.sequence_stride) * self._window
        return transform(parts, self.fft_length, self.output)


@dataclass(frozen=True)
class SignalStft:
    """``tf.signal.stft`` of the last axis. ``pad_end`` fills the last frames with zeros."""

    frame_length: int
    frame_step: int
    fft_length: int | None = None
    window: WindowName = "hann"
    pad_end: bool = False
    output: Output = "magnitude"

    def __post_init__(self) -> None:
        check_lengths(self.frame_length, self.frame_step, self._size)

    @property
    def _size(self) -> int:
        return self.fft_length or next_power_of_two(self.frame_length)

    @property
    def frames(self) -> tuple[int, int] | None:
        """As :attr:`Stft.frames`."""
        return None if self.pad_end else (self.frame_length, self.frame_step)

    @cached_property
    def _window(self) -> Array:
        return signal_window(self.window, self.frame_length)

    def apply(self, value: Any) -> Array:
        x = as_rows(value)
        if self.pad_end:
            count = -(-x.shape[-1] // self.frame_step)
            missing = max((count - 1) * self.frame_step + self.frame_length - x.shape[-1], 0)
            x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
            x = x[..., : (count - 1) * self.frame_step + self.frame_length]
        parts = frames(x, self.frame_length, self.frame_step) * self._window
        return transform(parts, self._size, self.output)


@dataclass(frozen=True)
class Mel:
    """The last axis, bins of a spectrogram, times the weights of :func:`mel_matrix`."""

    num_mel_bins: int
    sampling_rate: float
    lower_edge_hertz: float = 125.0
    upper_edge_hertz: float = 3800.0

    def __post_init__(self) -> None:
        check_frequencies(
            self.num_mel_bins, self.sampling_rate, self.lower_edge_hertz, self.upper_edge_hertz
        )

    @cached_property
    def _matrices(self) -> dict[int, Array]:
        return {}

    def apply(self, value: Any) -> Array:
        x = as_rows(value)
        bins = x.shape[-1]
        check_output(bins, self.num_mel_bins)
        if bins not in self._matrices:
            self._matrices[bins] = mel_matrix(
                self.num_mel_bins,
                bins,
                self.sampling_rate,
                self.lower_edge_hertz,
                self.upper_edge_hertz,
            )
        return x @ self._matrices[bins]


@dataclass(frozen=True)
class Log:
    """``ln(max(x, minimum) + offset)``."""

    offset: float = 0.0
    minimum: float = 0.0

    def apply(self, value: Any) -> Array:
        x = np.maximum(as_numbers(value), np.float32(self.minimum))
        x = x + np.float32(self.offset)
        # The minimum of NaN is NaN.
        if x.size and not x.min() > 0:
            raise SampleError(
                "The logarithm of 0 is not finite; the step needs an offset or a minimum."
            )
        return np.log(x)


@dataclass(frozen=True)
class Mfcc:
    """The first coefficients of ``tf.signal.mfccs_from_log_mel_spectrograms``, of the last axis.

    ``c[k] = sum over n of x[n] cos(pi k (2 n + 1) / (2 N)) * sqrt(2 / N)``.
    """

    num_coefficients: int

    def apply(self, value: Any) -> Array:
        x = as_rows(value)
        bins = x.shape[-1]
        if not 1 <= self.num_coefficients <= bins:
            raise SampleError(f"{self.num_coefficients} coefficients of {bins} mel bins.")
        check_output(bins, self.num_coefficients)
        steps = (2 * np.arange(bins) + 1)[:, None]
        cosines = np.cos(np.pi * steps * np.arange(self.num_coefficients) / (2 * bins))
        coefficients: Array = (x @ cosines * math.sqrt(2 / bins)).astype("float32")
        return coefficients
