"""dynamic_int8 scales activations only where the result survives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeattn.tensors import TensorSpec
from edgeattn_converters.quantization.judging import Ends, dynamic

SPEC = TensorSpec("y", (None, 2), "float32")
ENDS = Ends((TensorSpec("x", (None, 2), "float32"),), (SPEC,), ())
X = {"x": np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)}


def chosen(fast_noise: float, careful_noise: float, samples: Any = X) -> tuple[Any, Any]:
    """``dynamic`` over two files whose errors are these shares of the output."""
    noise = {None: 0.0, "fast": fast_noise, "careful": careful_noise}

    def run(made: Any, data: Any) -> Any:
        return {"y": data["x"] * (1 + noise[made])}

    return dynamic(lambda: "fast", lambda: "careful", run, ENDS, "dynamic_int8", samples)


def test_integer_activations_where_they_do() -> None:
    # An error of 1% is an SNR of 40 dB: a third of the noise that the limit of 30 dB allows.
    assert chosen(0.01, 0.0) == ("fast", ())


def test_float_activations_where_those_do_not() -> None:
    # 10% is 20 dB, and 20 dB are 10 dB short: 10 ** (10 / 20) = 3.2 times the limit.
    made, told = chosen(0.1, 0.001)
    assert made == "careful"
    assert "3.2 times its limit" in told[0]


def test_no_change_without_a_gain() -> None:
    assert chosen(0.1, 0.1) == ("fast", ())


def test_nothing_to_see_it_on() -> None:
    assert chosen(0.1, 0.0, samples=None) == ("fast", ())
