"""The last output of a recurrent layer with a mask is not always its state.

At a masked step the state does not change. The output is zero before the first real step, even with
an initial state, and at every masked step with ``zero_output_for_mask``.
"""

import importlib

import numpy as np
import pytest
from long_parameters import only
from recurrent_models import KERAS, KINDS, ROWS, UNITS, Builder, Converted, feed

STEPS = 2
EMPTY = 1  # the row without a real step


def _last_outputs(era: str, kinds: tuple[str, ...]) -> Builder:
    keras = importlib.import_module(era)
    builder = Builder(keras, STEPS, masked=True)
    for kind in kinds:
        layer = getattr(keras.layers, kind)
        states = builder.states if kind == "LSTM" else builder.states[:1]
        builder.add(f"{kind}_last", layer(UNITS), initial=states)
        builder.add(f"{kind}_softplus", layer(UNITS, activation="softplus"), initial=states)
        options = {"return_state": True, "go_backwards": True}
        builder.add(f"{kind}_backwards", layer(UNITS, **options), initial=states)
        builder.add(f"{kind}_zero", layer(UNITS, zero_output_for_mask=True))
        options = {"zero_output_for_mask": True, "return_state": True, "go_backwards": True}
        builder.add(f"{kind}_zero_backwards", layer(UNITS, **options), initial=states)
        both = keras.layers.Bidirectional(layer(UNITS))
        builder.add(f"{kind}_both", both, initial=[*states, *states])
        both = keras.layers.Bidirectional(layer(UNITS, zero_output_for_mask=True))
        builder.add(f"{kind}_both_zero", both)
    return builder


@pytest.mark.parametrize("era", KERAS)
@pytest.mark.parametrize("format", only(["tflite", "onnx"], "onnx"))
@pytest.mark.parametrize("kinds", only((KINDS[:1], KINDS[1:2], KINDS[2:]), KINDS[1:2]))
def test_last_outputs_of_masked_steps(kinds, format, era, tmp_path):
    converted = Converted(_last_outputs(era, kinds).build("last"), tmp_path, (format,))
    tensors = feed(converted, STEPS)
    assert not tensors["mask"][EMPTY].any()
    expected = converted.keras(tensors)
    assert all(len(value) == ROWS for value in expected.values())
    for kind in kinds:
        np.testing.assert_array_equal(expected[f"{kind}_last_0"][EMPTY], 0)
        np.testing.assert_array_equal(
            expected[f"{kind}_backwards_1"][EMPTY], tensors["state_h"][EMPTY]
        )
    wrong = converted.errors(tensors)
    assert not wrong, "\n".join(wrong)
