"""Outputs whose first axis joins the samples with the elements of a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters import inspection
from edgeattn_converters.tracing.trace import interface_of, trace

SET, FEATURES, CLASSES = 4, 6, 5
X = np.random.default_rng(2).normal(size=(8, SET, FEATURES)).astype("float32")


@keras.saving.register_keras_serializable("sets")
class Elements(layers.Layer):
    """The elements of all sets, whose shape is computed, as in published models."""

    def build(self, shape: Any) -> None:
        pass

    def call(self, x: Any) -> Any:
        shape = ops.shape(x)
        joined = ops.reshape(x, (shape[0] * shape[1], *shape[2:]))
        return joined, shape[1]

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((None, x.shape[-1])), keras.KerasTensor((), dtype="int32")


@keras.saving.register_keras_serializable("sets")
class WithMean(layers.Layer):
    """Adds the mean of each set to its elements."""

    def build(self, shape: Any) -> None:
        pass

    def call(self, x: Any, count: Any) -> Any:
        sets = ops.reshape(x, (-1, count, FEATURES))
        return ops.reshape(sets + ops.mean(sets, axis=1, keepdims=True), (-1, FEATURES))

    def compute_output_spec(self, x: Any, count: Any) -> Any:
        return keras.KerasTensor(x.shape)


def dense(x: Any) -> Any:
    return layers.Dense(CLASSES, activation="softmax", name="y")(x)


def of_elements() -> Any:
    x = keras.Input((SET, FEATURES), name="x")
    elements, count = Elements()(x)
    return keras.Model(x, dense(WithMean()(elements, count=count)))


def reshaped() -> Any:
    x = keras.Input((SET, FEATURES), name="x")
    return keras.Model(x, dense(ops.reshape(x, (-1, FEATURES))))


def two_outputs() -> Any:
    """Of which one has an axis of samples."""
    x = keras.Input((SET, FEATURES), name="x")
    pooled = layers.Dense(2, name="pooled")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(x, [pooled, dense(ops.reshape(x, (-1, FEATURES)))])


def dictionary() -> Any:
    x = keras.Input((SET, FEATURES), name="x")
    first = dense(ops.reshape(x, (-1, FEATURES)))
    return keras.Model(x, {"z": first, "a": layers.Dense(3)(ops.reshape(x, (-1, FEATURES)))})


def tokens() -> Any:
    x = keras.Input((SET, 3), name="x", dtype="int32")
    rows = layers.Flatten()(layers.Embedding(9, 4)(ops.reshape(x, (-1, 3))))
    return keras.Model(x, dense(rows))


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        return self.dense(ops.reshape(x, (-1, FEATURES)))


def subclassed() -> Any:
    x = keras.Input((SET, FEATURES), name="x")
    return keras.Model(x, Subclassed()(x))


def hint_of(model: Any, batch: int | None = None) -> str:
    """The hint of the error about the rows of values, or about the shape for a batch."""

    def compute() -> None:
        interface = interface_of(model)
        if batch is not None:
            trace(model, interface, batch=batch, attention=True)
        inspection._check_rows(model, interface)

    with pytest.raises(UnsupportedModelError, match="first axis is not that of the sam") as caught:
        compute()
    return str(caught.value.hint)


BUILDERS = [of_elements, reshaped, two_outputs, dictionary, tokens, subclassed]


@pytest.mark.parametrize("build", only(BUILDERS, of_elements, dictionary))
def test_the_code_in_the_error_gives_an_axis_of_samples(
    build: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step was to return one result for each sample, which a published file cannot."""
    monkeypatch.chdir(tmp_path)
    model = build()
    hint = hint_of(model)
    assert hint_of(model, batch=3) == hint
    assert f"has {SET} rows for each sample, one sample after the other" in hint
    code = hint[hint.index("convert model2.keras: ") + len("convert model2.keras: ") :]
    names = {"keras": keras, "model": model.layers[-1] if build is subclassed else model}
    exec(code, names)
    changed = keras.saving.load_model("model2.keras", {"Subclassed": Subclassed})
    interface = interface_of(changed)
    assert {spec.shape[0] for spec in interface.outputs} == {None}
    x = X if build is not tokens else np.random.default_rng(1).integers(0, 9, (8, SET, 3))
    together = keras.tree.flatten(changed(x))
    for k in range(8):
        alone = keras.tree.flatten(model(x[k : k + 1]))
        for value, row in zip(together, alone, strict=True):
            np.testing.assert_allclose(value[k], np.reshape(row, value[k].shape), atol=1e-5)


def sets_first() -> Any:
    """The rows of a sample do not follow one another."""
    x = keras.Input((SET, FEATURES), name="x")
    swapped = ops.reshape(ops.transpose(x, (1, 0, 2)), (-1, FEATURES))
    return keras.Model(x, dense(swapped))


def normalized() -> Any:
    """The samples of a batch depend on each other."""
    x = keras.Input((SET, FEATURES), name="x")
    rows = ops.reshape(x, (-1, FEATURES))
    return keras.Model(x, dense(rows - ops.mean(rows, axis=0)))


def constant() -> Any:
    """Equal rows do not show their order."""
    x = keras.Input((SET, FEATURES), name="x")
    return keras.Model(x, dense(ops.reshape(x, (-1, FEATURES)) * 0))


@pytest.mark.parametrize("build", only([sets_first, normalized, constant], sets_first))
def test_other_first_axes_have_no_code(build: Callable[[], Any]) -> None:
    hint = hint_of(build())
    assert hint.startswith("Return one result for each sample")
    assert "model2.keras" not in hint
