"""int4 weights, which are made where they are asked for by name: in the real runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weighty_models import Workshop

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.schemes import EXPERIMENTAL, SCHEMES
from edgeattn_converters.graphs.tflite_pack import pack_int4, unpack_int4
from edgeattn_converters.recipes import RECIPES, default_schemes


def test_two_to_a_byte() -> None:
    # 1 in the lower half and -2 (14) in the upper, 7 and nothing.
    assert list(pack_int4(np.array([1, -2, 7], np.int8))) == [0xE1, 0x07]
    values = np.arange(-8, 7, dtype=np.int8).reshape(3, 5)
    np.testing.assert_array_equal(unpack_int4(pack_int4(values), (3, 5)), values)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_in_its_runtime(format: str, tmp_path: Path) -> None:
    workshop = Workshop("lstm", tmp_path)
    before = workshop.make(format, "dynamic_int8")
    made = workshop.make(format, "int4")
    stored = made.achieved["weights"]
    assert stored["int4"] / sum(stored.values()) > 0.9
    assert made.path.stat().st_size < before.path.stat().st_size - 0.4 * stored["int4"]
    for name, want in workshop.make(format, "float32").actual.items():
        # Seven steps to each side: (1 / 14) ** 2 / 12 of noise, 33 dB below the largest weight.
        assert metrics.snr_db(want, made.actual[name]) >= 20


def test_what_has_no_kernel_is_refused(tmp_path: Path) -> None:
    workshop = Workshop("convolutional", tmp_path)
    with pytest.raises(ConversionError, match="32% of the weights are int4"):
        workshop.make("tflite", "int4")
    with pytest.raises(ConversionError, match="tflite-runtime has no kernel for int4"):
        workshop.make("tflite", "int4", runtime="tflite-runtime")
    with pytest.raises(ConversionError, match="int4 needs ONNX operator set 21"):
        workshop.make("onnx", "int4", opset=18)


def test_never_unasked() -> None:
    assert set(default_schemes(calibrated=True)) == set(SCHEMES)
    assert set(RECIPES) == {*SCHEMES, *EXPERIMENTAL}
