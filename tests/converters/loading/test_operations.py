"""Operations of Keras 3 in functional models: files of both kinds load and compute the same."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import operations
import pytest
from keras import ops
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}


@functools.cache
def model_of(group: str) -> tuple[Any, list[str], list[np.ndarray]]:
    """A model of all operations of a group, their names by output, and what Keras computes."""
    inputs = operations.inputs()
    outputs, names = [], []
    for name, call in operations.GROUPS[group].items():
        results = keras.tree.flatten(call(inputs))
        outputs += results
        names += [name] * len(results)
    model = keras.Model(list(vars(inputs).values()), outputs)
    return model, names, [np.asarray(value) for value in model(operations.samples())]


def test_every_operation_is_called() -> None:
    called = {name for calls in operations.GROUPS.values() for name in calls}
    assert called | set(operations.EXCLUDED) >= set(operations.operation_classes())
    assert not called & set(operations.EXCLUDED)


@pytest.mark.parametrize("suffix", only([".h5", ".keras"], ".h5"))
@pytest.mark.parametrize("group", operations.GROUPS)
def test_operations_load_from_a_file(group: str, suffix: str, tmp_path: Path) -> None:
    model, names, expected = model_of(group)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(audit_file(path)).model
    for name, value, actual in zip(names, expected, loaded(operations.samples()), strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-5, err_msg=name)


# Operations that a format lacks, and what they are in NumPy: of values from -0.95 to 0.95 with
# tiny ones, or of larger ones.
SMALL = {
    "arccos": np.arccos,
    "arcsin": np.arcsin,
    "arctanh": np.arctanh,
    "log1p": np.log1p,
    "tan": np.tan,
}
ANY = {
    "arcsinh": np.arcsinh,
    "arctan": np.arctan,
    "cosh": np.cosh,
    "sinh": np.sinh,
    "signbit": np.signbit,
}


def lowered_model() -> Any:
    small, large = keras.Input((12,), name="small"), keras.Input((12,), name="large")
    rows = ops.reshape(large, (-1, 3, 4))
    outputs = {name: getattr(ops, name)(small) for name in SMALL}
    outputs |= {name: getattr(ops, name)(large) for name in ANY}
    outputs |= {
        "arccosh": ops.arccosh(1 + ops.abs(large)),
        "logaddexp": ops.logaddexp(large, small),
        "digitize": ops.digitize(large, np.array([-1.0, 0.0, 2.0], "float32")),
        "searchsorted": ops.reshape(
            ops.searchsorted(np.array([-1.0, 0.0, 2.0], "float32"), ops.reshape(large, (-1,))),
            (-1, 12),
        ),
        "cumprod": ops.cumprod(rows, axis=1),
        "diagonal": ops.diagonal(rows, offset=1, axis1=1, axis2=2),
        "argmax": ops.argmax(rows, axis=2),
        "argmin": ops.argmin(rows, axis=1),
        "median": ops.median(rows, axis=1),
        "bitwise_invert": ops.bitwise_invert(ops.cast(large, "int32")),
        "erf": ops.erf(large),
        "erfc": ops.erfc(large),
    }
    return keras.Model([small, large], list(outputs.values())), list(outputs)


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
def test_operations_that_a_format_lacks(format: str, tmp_path: Path) -> None:
    model, names = lowered_model()
    generator = np.random.default_rng(2)
    small = generator.uniform(-0.95, 0.95, (4, 12)).astype("float32")
    small[0] *= 1e-6
    large = generator.uniform(-5, 5, (4, 12)).astype("float32")
    large[0, :4] = [0.0, -0.0, 1e-5, 2.0]
    large[1, :4] = [4.0, -4.0, 6.0, 9.0]
    inputs = {"small": small, "large": large}
    expected = dict(zip(names, map(np.asarray, model([small, large])), strict=True))
    exact = {name: f(small.astype("float64")) for name, f in SMALL.items()}
    exact |= {name: f(large.astype("float64")) for name, f in ANY.items()}
    interface = interface_of(model)
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    results = open_runner(path, format, file.inputs, file.outputs, as_deployed=True).run(inputs)
    for spec, name in zip(interface.outputs, names, strict=True):
        value = exact.get(name, expected[name])
        np.testing.assert_allclose(results[spec.name], value, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_argpartition_is_refused(suffix: str, tmp_path: Path) -> None:
    """Its TFLite file failed at run time. Keras cuts 0.4 to 0, and adds up the rows of a batch."""
    rows = np.array([[0.4, 0.1, 0.3, 0.2]])
    assert np.asarray(ops.argpartition(rows, 0))[0, 0] != rows.argmin()
    batch = np.array([[4, 1, 3, 2], [1, 2, 3, 4]])
    assert sorted(np.asarray(ops.argpartition(batch, 1))[0]) != [0, 1, 2, 3]
    inputs = keras.Input((4,))
    path = tmp_path / f"model{suffix}"
    keras.Model(inputs, ops.argpartition(inputs, 1)).save(path)
    with pytest.raises(UnsupportedModelError, match=r"keras\.ops\.argpartition"):
        load_model(audit_file(path))
