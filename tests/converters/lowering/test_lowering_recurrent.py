"""LSTM, GRU and SimpleRNN of both eras of Keras, in both formats, against ``model.predict``."""

import importlib

import pytest
from recurrent_models import KINDS, UNITS, Builder, Converted, feed, variants

BOTH = ("tflite", "onnx")


def _everything(era: str, time: int, masked: bool):
    """Every kind with every option, with and without initial states."""
    keras = importlib.import_module(era)
    builder = Builder(keras, time, masked=masked)
    for kind in KINDS:
        for name, layer, options in variants(keras, kind):
            builder.add(f"{kind}_{name}", layer(UNITS, name=f"{kind}_{name}_layer", **options))
            if name in ("sequences_state", "backwards_all"):
                states = builder.states if kind == "LSTM" else builder.states[:1]
                made = layer(UNITS, name=f"{kind}_{name}_from_states", **options)
                builder.add(f"{kind}_{name}_initial", made, initial=states)
    return builder.build(f"everything_{time}")


# Each combination of era, mask, length and lowering that runs code of its own.
@pytest.mark.parametrize(
    ("era", "time", "masked", "lowering", "formats"),
    [
        ("keras", 1, True, "auto", BOTH),
        ("keras", 2, False, "auto", BOTH),
        ("keras", 7, True, "unrolled", BOTH),
        ("keras", 13, True, "chunked", ("tflite",)),
        ("tf_keras", 5, True, "unrolled", BOTH),
        ("tf_keras", 13, False, "chunked", ("tflite",)),
    ],
)
def test_every_option_matches_keras(era, time, masked, lowering, formats, tmp_path, monkeypatch):
    from edgeattn_converters.lowering import choice

    # Chunks of 4 or 3 steps, in rounds of one loop and of two.
    monkeypatch.setattr(choice, "MOST", 4)
    monkeypatch.setattr(choice, "LONG", 12)
    monkeypatch.setattr(choice, "SPAN", 6)
    converted = Converted(_everything(era, time, masked), tmp_path, formats, lowering=lowering)
    if lowering == "chunked":
        assert converted.achieved["tflite"]["operators"]["WHILE"] > 20
    wrong = converted.errors(feed(converted, time))
    assert not wrong, "\n".join(wrong)
