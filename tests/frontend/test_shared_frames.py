"""Windows of a stream whose common frames are transformed once, compared with each one alone."""

from dataclasses import replace

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.numeric import Clip, ExpandDims, Normalization, Rescaling, Transpose
from edgeattn.frontend.shared_frames import shared_frames
from edgeattn.frontend.spectra import Log, Mel, Mfcc, SignalStft, Stft
from edgeattn.frontend.windows import Window
from edgeattn.inference.raw import RawModel
from edgeattn.tensors import TensorSpec

SIGNAL = np.random.default_rng(3).normal(size=300).astype("float32")
FRAMES = SignalStft(16, 4, output="power")
BANDS = (FRAMES, Mel(5, 8000.0), Log(1e-3))
CHAINS = {
    "frames": (FRAMES,),
    "keras frames": (Stft(10, 4, 16, center=False),),
    "complex": (replace(FRAMES, output="real_imag"),),
    "mel": (*BANDS, Rescaling((0.2,))),
    "mfcc": (*BANDS, Mfcc(3), Clip(-9.0, 9.0), ExpandDims()),
    "normalized": (*BANDS, Normalization((1.0, 2.0, 3.0, 4.0, 5.0), (4.0,) * 5)),
    "transposed": (*BANDS, Transpose(), Rescaling((2.0,))),
}


def streamed(front_end, *blocks):
    """What the model gets for the windows of a stream, or errors."""
    sample = front_end.prepare("x", SIGNAL[: front_end.window.length])
    spec = TensorSpec("x", (None, *sample.shape), "float32")
    model = RawModel(front_end, (spec,), (), lambda inputs: inputs)
    results = model.answers(blocks)
    return [item if isinstance(item, SampleError) else np.float32(item["x"]) for item in results]


def alone(front_end, signal):
    """The same by :meth:`FrontEnd.prepare`; None for a window with an error."""
    windows = []
    for start in range(0, len(signal) - front_end.window.length + 1, front_end.window.hop):
        try:
            window = signal[start : start + front_end.window.length]
            windows.append(front_end.prepare("x", window))
        except SampleError:
            windows.append(None)
    return windows


def assert_same(actual, expected):
    assert [isinstance(item, SampleError) for item in actual] == [item is None for item in expected]
    for window, other in zip(actual, expected, strict=True):
        if other is not None:
            np.testing.assert_allclose(window, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("hop", [4, 12, 32])
@pytest.mark.parametrize("length", [48, 50])
def test_windows_of_a_stream_are_those_alone(chain, hop, length):
    front_end = FrontEnd({"x": CHAINS[chain]}, Window(length, hop=hop))
    assert shared_frames(front_end, "x") is not None
    assert_same(streamed(front_end, SIGNAL[:77], SIGNAL[77:]), alone(front_end, SIGNAL))


def test_each_frame_is_transformed_once(monkeypatch):
    transformed = []
    apply = SignalStft.apply

    def counted(step, value):
        result = apply(step, value)
        transformed.append(len(result))
        return result

    monkeypatch.setattr(SignalStft, "apply", counted)
    streamed(FrontEnd({"x": BANDS}, Window(48, hop=12)), SIGNAL[:84])
    # The first is that of ``streamed``. A window has 9 frames, and the next one 3 that are new.
    assert transformed == [9, 9, 3, 3, 3]


def test_a_gap_starts_new_frames():
    front_end = FrontEnd({"x": BANDS}, Window(48, hop=12))
    gap = np.concatenate([SIGNAL[:70], [np.nan], SIGNAL[70:]])
    expected = [*alone(front_end, SIGNAL[:70]), None, *alone(front_end, SIGNAL[70:])]
    assert_same(streamed(front_end, gap), expected)


def test_a_window_with_an_error_shares_nothing():
    """The logarithm of silence is an error."""
    front_end = FrontEnd({"x": (FRAMES, Log())}, Window(24, hop=4))
    silence = np.concatenate([SIGNAL[:60], np.zeros(60, "float32"), SIGNAL[60:180]])
    expected = alone(front_end, silence)
    assert 5 < sum(item is None for item in expected) < len(expected) - 5
    assert_same(streamed(front_end, silence), expected)


@pytest.mark.parametrize(
    ("steps", "window"),
    [
        ((), Window(48, hop=12)),
        ((Rescaling((0.5,)), *BANDS), Window(48, hop=12)),
        ((Stft(16, 4, 16),), Window(48, hop=12)),
        ((replace(FRAMES, pad_end=True),), Window(48, hop=12)),
        (BANDS, Window(48)),
        (BANDS, Window(48, hop=10)),
        (BANDS, Window(48, hop=44)),
        (BANDS, Window(48, hop=12, normalization="mean")),
        (BANDS, Window(48, hop=12, columns=1)),
    ],
)
def test_windows_that_share_no_rows(steps, window):
    assert shared_frames(FrontEnd({"x": steps}, window), "x") is None
