"""Schemes over fused LSTMs: the kernel scales activations itself, or the scheme is refused."""

from __future__ import annotations

import pytest
from weighty_models import Workshop

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop("lstm", tmp_path_factory.mktemp("fused"))


def test_dynamic_int8(workshop: Workshop) -> None:
    """The operator's own weights are int8, and a sequence starts clean whatever came before."""
    expected = workshop.make("tflite", "float32").actual
    made = workshop.make("tflite", "dynamic_int8", lowering="fused")
    achieved = made.achieved
    assert achieved["operators"]["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert achieved["weights"]["int8"] / sum(achieved["weights"].values()) > 0.9
    runner = open_runner(made.path, "tflite", made.inputs, made.outputs, as_deployed=True)
    for _ in range(2):
        actual = runner.run(workshop.inputs)
        for name, want in expected.items():
            assert metrics.snr_db(want, actual[name]) >= 30


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_measured_schemes_are_refused(workshop: Workshop, scheme: str) -> None:
    with pytest.raises(ConversionError, match=f"{scheme} cannot be made of fused LSTMs") as caught:
        workshop.make("tflite", scheme, lowering="fused")
    assert "dynamic_int8 can be fused" in str(caught.value.hint)
