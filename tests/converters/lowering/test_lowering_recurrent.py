"""LSTM, GRU and SimpleRNN of Keras 3 and tf_keras, in both formats, against ``model.predict``."""

import importlib

import numpy as np
import pytest
from recurrent_models import (
    FEATURES,
    KINDS,
    UNITS,
    Builder,
    Converted,
    feed,
    randomise,
    sequences,
    variants,
)

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
                from_states = layer(UNITS, name=f"{kind}_{name}_from_states", **options)
                builder.add(f"{kind}_{name}_initial", from_states, initial=states)
    return builder.build(f"everything_{time}")


# Every combination of Keras version, mask, length and lowering with its own code path.
@pytest.mark.parametrize(
    ("era", "time", "masked", "lowering", "formats"),
    [
        pytest.param("keras", 1, True, "auto", BOTH, marks=pytest.mark.long),
        pytest.param("keras", 2, True, "auto", ("onnx",), marks=pytest.mark.long),
        pytest.param("keras", 2, True, "auto", ("tflite",), marks=pytest.mark.long),
        pytest.param("keras", 7, True, "unrolled", BOTH, marks=pytest.mark.long),
        pytest.param("keras", 13, True, "chunked", ("tflite",), marks=pytest.mark.long),
        pytest.param("tf_keras", 5, True, "unrolled", BOTH, marks=pytest.mark.long),
        pytest.param("tf_keras", 13, False, "chunked", ("tflite",), marks=pytest.mark.long),
    ],
)
def test_every_option_matches_keras(era, time, masked, lowering, formats, tmp_path, monkeypatch):
    from edgeattn_converters.lowering.rnn import strategy

    # Chunks of 4 or 3 steps, in one loop and in two.
    monkeypatch.setattr(strategy, "MAX_CHUNK", 4)
    monkeypatch.setattr(strategy, "SINGLE_LOOP", 12)
    monkeypatch.setattr(strategy, "OUTER_STEPS", 6)
    converted = Converted(_everything(era, time, masked), tmp_path, formats, lowering=lowering)
    if lowering == "chunked":
        assert converted.achieved["tflite"]["operators"]["WHILE"] > 20
    wrong = converted.errors(feed(converted, time))
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
def test_rows_use_batch_matmul(tmp_path):
    """BATCH_MATMUL is faster in XNNPACK and gives the same bits as FULLY_CONNECTED."""
    import keras

    from edgeattn.runners.tflite import TFLiteRunner
    from edgeattn_converters.formats import tflite
    from edgeattn_converters.options import QuantizationOptions
    from edgeattn_converters.recipes import recipe_for

    x = keras.Input((5, FEATURES), name="x")
    steps = keras.layers.LSTM(UNITS, return_sequences=True)(
        keras.layers.GRU(3, return_sequences=True)(x)
    )
    model = randomise(keras.Model(x, keras.layers.Dense(2)(steps[:, -1]), name="rows"))
    converted = Converted(model, tmp_path, ("tflite",))
    operators = converted.achieved["tflite"]["operators"]
    assert operators["BATCH_MATMUL"] >= 2 * (5 - 1)
    # An older runtime has a kernel for FULLY_CONNECTED only.
    path = tmp_path / "other.tflite"
    inputs, outputs, _, achieved = tflite.convert(
        model,
        converted.interface,
        recipe_for("float32"),
        path,
        quantization=QuantizationOptions(runtime="tflite-runtime"),
    )
    assert "BATCH_MATMUL" not in achieved["operators"]
    assert achieved["operators"]["FULLY_CONNECTED"] == (
        operators["BATCH_MATMUL"] + operators["FULLY_CONNECTED"]
    )
    other = TFLiteRunner(path, inputs, outputs).run({"x": sequences(5)})
    for name, value in converted.runners["tflite"].run({"x": sequences(5)}).items():
        np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize(
    ("scheme", "steps"),
    [
        pytest.param("float16", 5, marks=pytest.mark.long),
        ("dynamic_int8", 5),
        pytest.param("float16", 40, marks=pytest.mark.long),
    ],
)
def test_rows_with_weights_that_are_dequantized_once(scheme, steps, tmp_path):
    """Weights of 32 units are stored in fewer bits, and those of 2 units as float32. 40 steps are
    a loop, whose body has constants of its own."""
    import keras

    from edgeattn.runners.tflite import TFLiteRunner
    from edgeattn_converters.formats import tflite
    from edgeattn_converters.options import ConversionOptions, QuantizationOptions
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.tracing.trace import interface_of

    x = keras.Input((steps, FEATURES), name="x")
    states = keras.layers.LSTM(32)(keras.layers.GRU(2, return_sequences=True)(x))
    model = randomise(keras.Model(x, keras.layers.Dense(2)(states), name="rows"))
    results, counts = [], []
    for runtime in ("litert", "tflite-runtime"):
        path = tmp_path / f"{runtime}.tflite"
        inputs, outputs, _, achieved = tflite.convert(
            model,
            interface_of(model),
            recipe_for(scheme),
            path,
            options=ConversionOptions(lowering="auto" if steps < 32 else "chunked"),
            # One scale per channel is for LiteRT only, so the weights of int8 differ.
            quantization=QuantizationOptions(runtime=runtime),
        )
        counts.append(achieved["operators"])
        results.append(TFLiteRunner(path, inputs, outputs).run({"x": sequences(steps)}))
    assert "BATCH_MATMUL" not in counts[1]
    moved = counts[1]["FULLY_CONNECTED"] - counts[0]["FULLY_CONNECTED"]
    assert counts[0]["BATCH_MATMUL"] == moved >= 2 * (5 - 1)
    for name, value in results[0].items():
        if scheme == "float16":
            np.testing.assert_array_equal(value, results[1][name])
        else:
            np.testing.assert_allclose(value, results[1][name], atol=0.05)
