"""Keras' layers for spectrograms as steps."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.numeric import EPSILON
from edgeattn.frontend.spectra import Mel, Stft, WindowName
from edgeattn.frontend.transforms import check_lengths, cosine_window, frames, next_power_of_two
from edgeattn.frontend.values import as_rows, check_size
from edgeattn.tensors import Array


@dataclass(frozen=True)
class MelSpectrogram:
    """``keras.layers.MelSpectrogram`` for one sample: ``(num_mel_bins, frames)``.

    Keras cuts decibels at ``top_db`` below the largest value of the batch; here that is the sample.
    """

    fft_length: int = 2048
    sequence_stride: int = 512
    sequence_length: int | None = None
    window: WindowName = "hann"
    sampling_rate: int = 16000
    num_mel_bins: int = 128
    min_freq: float = 20.0
    max_freq: float | None = None
    power_to_db: bool = True
    top_db: float = 80.0
    mag_exp: float = 2.0
    min_power: float = 1e-10
    ref_power: float = 1.0

    def __post_init__(self) -> None:
        self._stft, self._mel  # noqa: B018 - checks them

    @cached_property
    def _stft(self) -> Stft:
        length = self.sequence_length or self.fft_length
        return Stft(length, self.sequence_stride, self.fft_length, self.window)

    @cached_property
    def _mel(self) -> Mel:
        highest = self.max_freq or float(int(self.sampling_rate / 2))
        return Mel(self.num_mel_bins, float(self.sampling_rate), self.min_freq, highest)

    def apply(self, value: Any) -> Array:
        magnitudes = self._stft.apply(value)
        bands = self._mel.apply(magnitudes ** np.float32(self.mag_exp))
        if self.power_to_db:
            bands = 10 * np.log10(np.maximum(bands, np.float32(self.min_power)))
            bands = bands - np.float32(10 * math.log10(max(abs(self.ref_power), self.min_power)))
            bands = np.maximum(bands, bands.max() - np.float32(self.top_db))
        return bands.swapaxes(-1, -2).astype("float32")


@dataclass(frozen=True)
class StftSpectrogram:
    """``keras.layers.STFTSpectrogram`` of ``(time, channels)``, with channels last."""

    mode: Literal["log", "magnitude", "psd", "real", "imag", "angle", "stft"] = "log"
    frame_length: int = 256
    frame_step: int | None = None
    fft_length: int | None = None
    window: Literal["hann", "hamming", "blackman", "none"] = "hann"
    periodic: bool = False
    scaling: Literal["density", "spectrum", "none"] = "density"
    padding: Literal["valid", "same"] = "valid"
    expand_dims: bool = False

    def __post_init__(self) -> None:
        check_lengths(self.frame_length, self._step, self._size)
        check_size("frame_length times fft_length", self.frame_length * self._size)

    @property
    def _step(self) -> int:
        return self.frame_step or self.frame_length // 2

    @property
    def _size(self) -> int:
        return self.fft_length or next_power_of_two(self.frame_length)

    @cached_property
    def _kernel(self) -> Array:
        """The transform with its window: complex ``(frame_length, bins)``."""
        bins = self._size // 2 + 1
        length = self.frame_length
        period = length if self.periodic else length - 1
        window = cosine_window(self.window, length, period)
        scale = 1.0
        if self.window != "none" and self.scaling != "none":
            density = self.scaling == "density"
            scale = math.sqrt((window**2).sum()) if density else float(np.abs(window).sum())
        # Keras derives the length from the number of bins, so it is even.
        angles = np.outer(np.arange(length), np.arange(bins)) / max((bins - 1) * 2, 1)
        kernel: Array = np.exp(-2j * np.pi * angles) * (window / scale)[:, None]
        return kernel

    def apply(self, value: Any) -> Array:
        x = as_rows(value)
        if x.ndim != 2:
            raise SampleError(f"The spectrogram takes (time, channels), not the shape {x.shape}.")
        if self.padding == "same":
            count = -(-len(x) // self._step)
            missing = max((count - 1) * self._step + self.frame_length - len(x), 0)
            x = np.pad(x, [(missing // 2, missing - missing // 2), (0, 0)])
        spectrum = frames(x.T, self.frame_length, self._step) @ self._kernel
        values: Array = self._values(spectrum).astype("float32")  # (channels, frames, bins)
        if self.expand_dims:
            return values.transpose(1, 2, 0)
        return values.transpose(1, 0, 2).reshape(values.shape[1], -1)

    def _values(self, spectrum: Array) -> Array:
        parts = {"real": spectrum.real, "imag": spectrum.imag, "angle": np.angle(spectrum)}
        if self.mode in parts:
            return parts[self.mode]
        if self.mode == "stft":
            return np.concatenate([spectrum.real, spectrum.imag], -1)
        power: Array = spectrum.real**2 + spectrum.imag**2
        if self.mode == "psd":
            power[..., 1:-1] *= 2
            return power
        magnitude: Array = np.sqrt(np.maximum(power, EPSILON))
        if self.mode == "log":
            magnitude = np.log(np.maximum(magnitude, EPSILON))
        return magnitude
