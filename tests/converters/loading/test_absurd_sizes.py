"""Files of a few kilobytes that declare layers with outputs of gigabytes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgeattn.bundle.model_digest import digest
from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.safety.size_limits import MAX_VALUES, max_values
from edgeattn_converters.tracing.trace import interface_of

HUGE = 2**40


def write_keras(path: Path, *layers: dict[str, Any]) -> Path:
    """Write a model of ``layers`` and a dense layer, the only one with weights."""
    entrance = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 5]}}
    end = {"class_name": "Dense", "config": {"name": "dense", "units": 3}}
    config = {"name": "m", "layers": [entrance, *layers, end]}
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.ones((5, 3), "float32")
        file["layers/dense/vars/1"] = np.ones(3, "float32")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.11.3"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": config}))
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "culprit", **config}}


def inside(wrapper: str, inner: dict[str, Any]) -> dict[str, Any]:
    return layer(wrapper, layer=inner)


@pytest.mark.parametrize(
    "culprit",
    [
        layer("UpSampling1D", size=HUGE),
        layer("UpSampling2D", size=[2, HUGE]),
        layer("ZeroPadding1D", padding=[HUGE, 0]),
        layer("ZeroPadding2D", padding=[[0, 0], [HUGE, 0]]),
        layer("Cropping1D", cropping=[HUGE, 0]),
        layer("RepeatVector", n=HUGE),
        layer("Dense", units=2**31),
        layer("Embedding", input_dim=HUGE, output_dim=5),
        layer("Embedding", input_dim=5, output_dim=HUGE),
        layer("Conv1D", filters=5, kernel_size=[2], dilation_rate=[HUGE]),
        layer("Conv1D", filters=5, kernel_size=[HUGE]),
        layer("Conv1DTranspose", filters=5, kernel_size=[2], strides=[HUGE]),
        layer("DepthwiseConv2D", kernel_size=[2, 2], depth_multiplier=HUGE),
        layer("MaxPooling1D", pool_size=[HUGE]),
        layer("AdaptiveAveragePooling1D", output_size=HUGE),
        layer("Reshape", target_shape=[HUGE, 5]),
        layer("Reshape", target_shape=[-HUGE, 5]),
        layer("Permute", dims=[HUGE, 1]),
        layer("Resizing", height=HUGE, width=1),
        layer("CategoryEncoding", num_tokens=HUGE),
        layer("InputLayer", batch_shape=[None, HUGE, 5]),
        layer("InputLayer", batch_input_shape=[HUGE, 5, 5]),
        inside("TimeDistributed", layer("RepeatVector", n=HUGE)),
        inside("TimeDistributed", layer("Dense", units=2**31)),
        inside("Bidirectional", layer("LSTM", units=HUGE)),
        layer("Convolution1D", nb_filter=5, filter_length=HUGE),  # Keras 1
        layer("AveragePooling1D", pool_length=HUGE, stride=1),
    ],
    ids=lambda culprit: culprit["class_name"],
)
def test_absurd_sizes_are_refused(culprit: dict[str, Any], tmp_path: Path) -> None:
    """Before Keras is imported."""
    path = write_keras(tmp_path / "m.keras", culprit)
    with pytest.raises(UnsafeModelError, match="exceeds the limit") as error:
        audit_file(path)
    assert "culprit" in error.value.message
    assert f"--trust {digest(path)}" in str(error.value.hint)


def shaped(*layers: dict[str, Any]) -> list[dict[str, Any]]:
    """``layers`` on images of one pixel in five channels, followed by vectors of five values."""
    before = {"class_name": "Reshape", "config": {"name": "before", "target_shape": [1, 1, 5]}}
    after = {"class_name": "Reshape", "config": {"name": "after", "target_shape": [-1, 5]}}
    return [before, *layers, after]


def repeated(n: int) -> dict[str, Any]:
    return {"class_name": "RepeatVector", "config": {"name": "repeat", "n": n}}


@pytest.mark.parametrize(
    ("layers", "values"),
    [
        ([layer("RepeatVector", n=2**22)], 5 * 2**22),
        ([repeated(100), layer("UpSampling1D", size=2**16)], 5 * 100 * 2**16),
        ([repeated(1), layer("ZeroPadding1D", padding=[2**22, 0])], 5 * (2**22 + 1)),
        ([repeated(7), inside("TimeDistributed", repeated(2**20))], 5 * 7 * 2**20),
        (shaped(layer("UpSampling2D", size=[2**12, 2**12])), 5 * 2**24),
        (shaped(layer("ZeroPadding2D", padding=[[2**12, 0], [2**12, 0]])), 5 * (2**12 + 1) ** 2),
        (shaped(layer("Resizing", height=2**12, width=2**10)), 5 * 2**22),
    ],
    ids=lambda value: None if isinstance(value, int) else value[-1]["class_name"],
)
def test_the_values_of_an_output_are_limited(
    layers: list[dict[str, Any]], values: int, tmp_path: Path
) -> None:
    """Numbers that are allowed each, whose product is not. Nothing computes with the model."""
    assert values > MAX_VALUES
    path = write_keras(tmp_path / "m.keras", *layers)
    with pytest.raises(UnsafeModelError, match=f"more than {MAX_VALUES} values") as error:
        load_model(audit_file(path))
    assert "culprit" in error.value.message
    assert f"--trust {digest(path)}" in str(error.value.hint)


@pytest.mark.parametrize(
    ("inputs", "limit"),
    [
        (0, 2**24),
        (5, 2**24),
        (1024, 2**24),  # 16 heads of 1,024 x 1,024 scores
        (2048, 2**26),
        (4096, 2**28),
        (2**20, 2**28),
    ],
)
def test_long_inputs_may_have_a_score_for_every_pair(inputs: int, limit: int) -> None:
    assert max_values(inputs) == limit


@pytest.mark.parametrize(
    ("steps", "heads", "is_refused"),
    [pytest.param(4096, 8, False, marks=pytest.mark.long), (4096, 17, True)],
)
def test_written_attention_over_thousands_of_steps(
    steps: int, heads: int, is_refused: bool, tmp_path: Path
) -> None:
    """Only the shapes are computed."""
    import keras

    x = keras.Input((steps,), name="x")
    parts = keras.layers.Dense(heads, name="parts")(keras.ops.expand_dims(x, -1))
    parts = keras.ops.transpose(parts, (0, 2, 1))
    scores = keras.ops.expand_dims(parts, 3) * keras.ops.expand_dims(parts, 2)
    weights = keras.ops.softmax(scores)
    model = keras.Model(x, keras.ops.sum(keras.ops.squeeze(weights[:, :1, :1], (1, 2)), -1))
    model.save(tmp_path / "m.keras")
    file = audit_file(tmp_path / "m.keras")
    if is_refused:
        with pytest.raises(UnsafeModelError, match=f"more than {2**28} values"):
            load_model(file)
    else:
        assert load_model(file).model.input_shape == (None, steps)


def test_trust_lifts_the_limit_of_outputs(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "m.keras", repeated(2**22))
    file = audit_file(path, trust=digest(path))
    assert load_model(file, allow_free_time=True).model.output_shape == (None, 2**22, 3)


def test_what_keras_cannot_compute_is_unsupported(tmp_path: Path) -> None:
    """TensorFlow stores the sizes of a pooling in 32 bits, which Keras does not check."""
    pooling = layer("MaxPooling1D", pool_size=[HUGE], padding="same")
    path = write_keras(tmp_path / "m.keras", repeated(7), pooling)
    loaded = load_model(audit_file(path, trust=digest(path)), allow_free_time=True)
    with pytest.raises(UnsupportedModelError, match="Keras cannot compute the model: ValueError"):
        interface_of(loaded.model)


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_commands_refuse_absurd_sizes(edgeattn: Any, command: str, tmp_path: Path) -> None:
    write_keras(tmp_path / "m.keras", repeated(2**22))
    options = ("--memory", 1024) if command == "inspect" else ()
    result = edgeattn(command, "m.keras", *options)
    assert (result.code, result.out) == (4, "")
    assert "Refused at 'repeat'" in result.err
    assert len(result.err.splitlines()) == 2  # the error and its hint
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


@pytest.mark.long
def test_inspection_of_thousands_of_layers_has_a_time_limit(edgeattn: Any, tmp_path: Path) -> None:
    """Keras needs minutes to connect them."""
    layers = [{"class_name": "ReLU", "config": {"name": f"relu{n}"}} for n in range(4000)]
    write_keras(tmp_path / "m.keras", *layers)
    result = edgeattn("inspect", "m.keras", "--timeout", 1)
    assert (result.code, result.out) == (3, "")
    assert "took longer than 1 s while loading and converting m.keras" in result.err
    assert "--timeout SECONDS" in result.err
