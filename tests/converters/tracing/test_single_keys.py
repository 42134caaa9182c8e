"""Weights that are taken apart before each multiplies a value of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface, interface_of

STEPS, FEATURES, PARTS = 7, 5, 3


def interface(function: Callable[[Any], Any], **options: Any) -> Interface:
    return interface_of(model_of(function), **options)


def model_of(function: Callable[[Any], Any]) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    return keras.Model(x, layers.Dense(2, name="y")(function(x)))


def _gate(x: Any, count: int) -> Any:
    return layers.Dense(count, activation="softmax", name="gate")(layers.Flatten()(x))


def _experts(x: Any) -> list[Any]:
    return [layers.Dense(4)(layers.Flatten()(x)) for _ in range(PARTS)]


def sliced(x: Any) -> Any:
    weights = _gate(x, PARTS)
    return sum(weights[:, k : k + 1] * expert for k, expert in enumerate(_experts(x)))


def indexed(x: Any) -> Any:
    weights = _gate(x, PARTS)
    return sum(weights[..., k, None] * expert for k, expert in enumerate(_experts(x)))


def unstacked(x: Any) -> Any:
    weights = ops.unstack(_gate(x, PARTS), axis=1)
    return sum(ops.expand_dims(w, -1) * e for w, e in zip(weights, _experts(x), strict=True))


def split(x: Any) -> Any:
    weights = ops.split(_gate(x, PARTS), PARTS, axis=1)
    return sum(e * w for w, e in zip(weights, _experts(x), strict=True))


def shifted_series(x: Any) -> Any:
    """The weights of the best lags, each for a series that is moved by its lag."""
    scores, lags = ops.top_k(ops.mean(x, axis=-1), PARTS)
    weights = layers.Softmax(name="gate")(scores)
    moved = [ops.take_along_axis(x, lags[:, k, None, None], axis=1) for k in range(PARTS)]
    return ops.sum(sum(weights[:, k, None, None] * part for k, part in enumerate(moved)), axis=1)


SEPARATE = {f.__name__: f for f in (sliced, indexed, unstacked, split, shifted_series)}


@pytest.mark.parametrize("kind", only(SEPARATE, "unstacked", "split"))
def test_weights_of_separate_values_have_a_note(kind: str) -> None:
    found = interface(SEPARATE[kind])
    assert found.attention == ()
    (note,) = found.doubtful
    assert note.layer == "gate"
    assert note.reason == f"it weights {PARTS} separate values, which may not be a sequence"
    assert note.exportable
    named = interface(SEPARATE[kind], attention=("gate",))
    assert [(spec.name, spec.shape[1:]) for spec in named.attention] == [
        ("attention/gate", (PARTS,))
    ]


def loop_over_steps(x: Any) -> Any:
    weights = _gate(x, STEPS)
    return sum(weights[:, k : k + 1] * x[:, k] for k in range(STEPS))


def test_a_weight_for_every_step_is_a_map(tmp_path: Path) -> None:
    model = model_of(loop_over_steps)
    found = interface_of(model)
    assert [spec.name for spec in found.attention] == ["attention/gate"]
    x = np.random.default_rng(2).normal(0, 1, (4, STEPS, FEATURES)).astype("float32")
    expected = keras.Model(model.inputs, model.get_layer("gate").output).predict(x, verbose=0)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"model.{format}"
        inputs, outputs, *_ = converter.convert(model, found, recipe_for("float32"), path)
        actual = open_runner(path, format, inputs, outputs, as_deployed=True).run({"x": x})
        np.testing.assert_allclose(actual["attention/gate"], expected, atol=1e-5, err_msg=format)


def probabilities(x: Any) -> Any:
    """The probability of one class, which multiplies no data."""
    return ops.log(_gate(x, PARTS)[:, :1])


def one_row(x: Any) -> Any:
    """The weights of the last query, of all keys."""
    weights = layers.Softmax(name="gate")(ops.matmul(x, ops.transpose(x, (0, 2, 1))))
    return ops.sum(weights[:, -1, :, None] * x, axis=1)


def test_other_slices() -> None:
    found = interface(probabilities)
    assert (found.attention, found.doubtful) == ((), ())
    found = interface(one_row)
    assert [spec.name for spec in found.attention] == ["attention/gate"]


class Instances(layers.Layer):  # type: ignore[misc]
    """Weights of several inputs of a sample, with a softmax along the first axis."""

    def build(self, shapes: Any) -> None:
        self.kernel = self.add_weight(shape=(shapes[0][-1], 1), name="kernel")

    def call(self, parts: Any) -> Any:
        weights = ops.softmax(ops.stack([ops.matmul(part, self.kernel) for part in parts]), axis=0)
        return sum(weights[k] * part for k, part in enumerate(parts))


class HeadsFirst(layers.Layer):  # type: ignore[misc]
    """Heads stacked ahead of the batch axis."""

    def call(self, x: Any) -> Any:
        heads = ops.stack([x, -x])
        weights = ops.softmax(ops.matmul(heads, ops.transpose(heads, (0, 1, 3, 2))))
        return ops.sum(ops.matmul(weights, heads), axis=(0, 2))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: Instances(name="own")(_experts(x)),
        lambda x: HeadsFirst(name="own")(x),
    ],
    ids=["instances", "heads"],
)
def test_maps_with_another_axis_first_have_a_note(function: Callable[[Any], Any]) -> None:
    found = interface(function)
    assert found.attention == ()
    assert [(item.layer, item.reason) for item in found.doubtful] == [
        ("own", "the first axis of its map is not the batch axis")
    ]
