"""Inputs in dicts and lists within each other, of subclassed and of functional models."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code.subclassed import as_functional
from edgeattn_converters.tracing.keras_call import pack

# Other weights for each input: a result with two inputs exchanged would differ.
OWN = """
import keras


@keras.saving.register_keras_serializable(package="nested")
class Nested(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words, self.out = keras.layers.Embedding(15, 3), keras.layers.Dense(2)

    def call(self, inputs):
        (first, last), meta = inputs["pair"], inputs["meta"]
        words = keras.ops.mean(self.words(inputs["tokens"]), 1)
        parts = [words, first, 2 * last, 3 * meta["q"], 5 * inputs["also"]["q"], 7 * meta["a"]]
        return self.out(keras.ops.concatenate(parts, -1))
"""


def _reals(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(4, 3)).astype("float32")


def _values(model: Any, by_name: dict[str, Any]) -> Any:
    return model(pack(model, tuple(by_name[tensor.name] for tensor in model.inputs)))


@pytest.mark.parametrize("container", [list, tuple])
def test_inputs_of_a_subclassed_model(container: Any, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    classes: dict[str, Any] = {"__name__": "own"}
    exec(OWN, classes)
    words = np.random.default_rng(3).integers(0, 15, (4, 6)).astype("int32")
    first, last, q, a, other_q = map(_reals, range(5))
    inputs = {
        "tokens": words, "meta": {"q": q, "a": a}, "also": {"q": other_q},
        "pair": container([first, last]),
    }  # fmt: skip
    model = classes["Nested"]()
    expected = model(inputs)
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    by_name = {
        "tokens": words, "meta_q": q, "a": a, "also_q": other_q, "pair_0": first, "pair_1": last
    }  # fmt: skip
    assert {tensor.name for tensor in loaded.model.inputs} == by_name.keys()
    np.testing.assert_allclose(_values(loaded.model, by_name), expected, rtol=1e-5, atol=1e-6)


class _Sum(keras.Model):
    def call(self, inputs: Any) -> Any:
        return keras.ops.sum(inputs["a"]["q"], 1) + 2 * keras.ops.sum(inputs["b"]["r"], 1)


def test_time_steps_of_nested_inputs_by_name() -> None:
    model = _Sum()
    model({"a": {"q": keras.Input((None, 3))}, "b": {"r": keras.Input((None, 3))}})
    steps = {"q": 4, "r": 6}
    functional = as_functional(model, {}, steps, allow_free_time=False)
    shapes = {tensor.name: tensor.shape for tensor in functional.inputs}
    assert shapes == {"q": (None, 4, 3), "r": (None, 6, 3)}


def test_nested_inputs_of_equal_names_are_refused() -> None:
    model = keras.Model()
    # Both of the key q get the name of all their keys, and one of these is a key itself.
    shapes = {"a_b": {"q": (2, 3)}, "c": {"q": (2, 3)}, "a_b_q": (2, 3)}
    model._build_shapes_dict = {"input_shape": shapes}
    with pytest.raises(UnsupportedModelError, match="both have the name 'a_b_q'") as error:
        as_functional(model, {}, None, allow_free_time=False)
    assert "flat dict" in str(error.value.hint)


def test_inputs_of_a_functional_model(tmp_path: Path) -> None:
    x, y, z = (keras.Input((3,), name=name) for name in "xyz")
    out = keras.layers.Dense(2)(keras.layers.Concatenate()([x, 2 * y, 3 * z]))
    model = keras.Model({"a": x, "b": {"c": y, "d": [z]}}, out)
    values = dict(zip("xyz", map(_reals, range(3)), strict=True))
    expected = model({"a": values["x"], "b": {"c": values["y"], "d": [values["z"]]}})
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    np.testing.assert_allclose(_values(loaded.model, values), expected, rtol=1e-5, atol=1e-6)
