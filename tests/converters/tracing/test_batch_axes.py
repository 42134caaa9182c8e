"""Outputs without a batch axis: of own classes, functional models and signatures."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from long_parameters import every_third

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference import free_batches, traced_values
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.tracing.trace import interface_of

CLASSES = """
import keras
import numpy as np
import tensorflow as tf


class Learned(keras.layers.Layer):
    def __init__(self, shape, **options):
        super().__init__(**options)
        self.shape = tuple(shape)

    def build(self, _):
        self.vector = self.add_weight(shape=self.shape, initializer="random_normal", name="vector")

    def call(self, x):
        return 2 * self.vector

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}


class Signal(keras.Model):
    def __init__(self, shape=(), kind="dict", **options):
        super().__init__(**options)
        self.shape, self.kind = tuple(shape), kind
        self.filter = keras.layers.Conv1D(2, 3, padding="causal")
        self.upper = self.add_weight(shape=self.shape, initializer="random_normal", name="upper")

    def call(self, x):
        slope = self.filter(x)
        upper = RETURNED
        return {
            "dict": lambda: {"slope": slope, "upper": upper, "above": slope + 1},
            "tuple": lambda: (slope, upper, slope + 1),
            "nested": lambda: {"signals": [slope, slope + 1], "levels": {"upper": upper}},
            "only": lambda: {"upper": upper},
        }[self.kind]()

    def get_config(self):
        return {**super().get_config(), "shape": self.shape, "kind": self.kind}


class Pair(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.table = keras.layers.Embedding(9, 2)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, series, tokens):
        return self.scale * 1.0, self.table(tokens) * series
"""
SHAPES = [(), (3,), (2, 3)]
X = np.random.default_rng(0).normal(size=(5, 4, 1)).astype("float32")


def _classes(returned: str) -> dict[str, Any]:
    classes: dict[str, Any] = {"__name__": "classes"}
    exec(CLASSES.replace("RETURNED", returned), classes)
    return classes


def _filled(model: Any) -> Any:
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def _signal(returned: str = "self.upper + 0.0", **options: Any) -> Any:
    model = _classes(returned)["Signal"](**options)
    model(X)
    return _filled(model)


def _loaded(model: Any, folder: Path, returned: str = "self.upper + 0.0") -> Any:
    """The model that edgeattn loads of the file of ``model``."""
    (folder / "classes.py").write_text(CLASSES.replace("RETURNED", returned))
    model.save(folder / "model.keras")
    file = audit_file(folder / "model.keras")
    return load_model(file, custom_objects=folder / "classes.py").model


def _error(model: Any, name: str) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        interface_of(model)
    assert f"Output {name!r} has no batch axis" in caught.value.message
    return caught.value


def _saved_by(hint: str | None, model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model that the code in a hint saves."""
    code = re.search(r": (.*\.save\('model2\.keras'\))\. Or ", hint or "")
    assert code, hint
    monkeypatch.chdir(folder)
    exec(code[1], {"keras": keras, "model": model})
    return keras.saving.load_model(
        folder / "model2.keras", custom_objects=_classes("self.upper + 0.0")
    )


def _check_files(model: Any, expected: list[Any], folder: Path) -> None:
    """Compare the files of both formats for single samples of X with ``expected``, by row."""
    interface = interface_of(model)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = folder / f"model.{format}"
        file = converter.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
        for row in range(len(expected[0])):
            values = runner.run({file.inputs[0].name: X[row : row + 1]})
            for spec, value in zip(interface.outputs, expected, strict=True):
                np.testing.assert_allclose(values[spec.name], value[row : row + 1], atol=1e-5)


@pytest.mark.parametrize("kind", ["dict", "tuple", "nested"])
@pytest.mark.parametrize("shape", every_third(SHAPES))
def test_weights_that_subclassed_models_return(
    shape: tuple[int, ...], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _signal(shape=shape, kind=kind)
    names = {"dict": "upper", "tuple": "signal_1", "nested": "signal"}
    name = names[kind]
    error = _error(_loaded(model, tmp_path), name)
    assert f"its shape is {shape} for any number of samples" in error.message
    saved = _saved_by(error.hint, model, tmp_path, monkeypatch)
    slope, above = ops.convert_to_numpy(model.filter(X)), ops.convert_to_numpy(model.filter(X)) + 1
    values = saved(X)
    values = [values["slope"], values["above"]] if kind == "dict" else list(values)
    for value, expected in zip(values, (slope, above), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("shape", every_third(SHAPES))
def test_weights_that_are_the_only_output(shape: tuple[int, ...], tmp_path: Path) -> None:
    error = _error(_loaded(_signal(shape=shape, kind="only"), tmp_path), "upper")
    assert error.hint
    assert error.hint.startswith("Return it for each sample of the input x: tf.")


@pytest.mark.parametrize("shape", every_third(SHAPES))
def test_weights_returned_for_each_sample(shape: tuple[int, ...], tmp_path: Path) -> None:
    """As the hint says: the class changes, and the file of the model does not."""
    error = _error(_loaded(_signal(shape=shape, kind="only"), tmp_path), "upper")
    assert error.hint
    code = error.hint.split("x: ", 1)[1].replace("output", "self.upper")
    model = _signal(shape=shape)
    loaded = _loaded(model, tmp_path, code)
    slope = ops.convert_to_numpy(model.filter(X))
    upper = np.broadcast_to(ops.convert_to_numpy(model.upper), (len(X), *shape))
    order = {"slope": slope, "upper": upper, "above": slope + 1}
    names = [spec.name for spec in interface_of(loaded).outputs]
    _check_files(loaded, [order[name] for name in names], tmp_path)


@pytest.mark.parametrize("shape", every_third(SHAPES))
@pytest.mark.parametrize("is_dict", [False, True])
def test_weights_that_functional_models_return(
    shape: tuple[int, ...], is_dict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = keras.Input((4, 1), name="x")
    dense, learned = layers.Dense(3, name="dense"), _classes("0")["Learned"](shape, name="scale")
    outputs = [learned(inputs), dense(inputs)]
    returned = {"z": outputs[0], "a": outputs[1]} if is_dict else outputs
    model = _filled(keras.Model(inputs, returned))
    error = _error(_loaded(model, tmp_path), "z" if is_dict else "scale")
    saved = _saved_by(error.hint, model, tmp_path, monkeypatch)(X)
    np.testing.assert_allclose(saved["a"] if is_dict else saved, dense(X), atol=1e-6)


def test_means_of_all_samples(tmp_path: Path) -> None:
    """As losses that a model returns."""
    inputs = keras.Input((4, 1), name="x")
    hidden = layers.Dense(3)(inputs)
    error = _error(keras.Model(inputs, [hidden, ops.mean(hidden)]), "mean")
    assert error.hint
    assert "compute it for each sample" in error.hint
    assert "broadcast_to" not in error.hint
    error = _error(keras.Model(inputs, [hidden, ops.sum(hidden, axis=(0, 1))]), "sum")
    assert "its shape is (3,)" in error.message


def test_inputs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _classes("0")["Pair"]()
    tokens = np.arange(20).reshape(5, 4) % 9
    expected = model(X, tokens=tokens)[1]
    (tmp_path / "classes.py").write_text(CLASSES.replace("RETURNED", "0"))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "samples.npz", series=X, tokens=tokens.astype("int32"))
    loaded = load_model(
        audit_file(tmp_path / "model.keras"),
        custom_objects=tmp_path / "classes.py",
        samples=tmp_path / "samples.npz",
    )
    error = _error(loaded.model, "pair")
    saved = _saved_by(error.hint, model, tmp_path, monkeypatch)
    values = saved({"series": X, "tokens": tokens})
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("0.5", "'upper' of the model (Signal) has no batch axis: it is the number 0.5 for"),
        ("np.float32(2)", "has no batch axis: it is the number 2.0 for"),
        ("np.ones((3,), 'float32')", "has no batch axis: it is an array of the shape (3,) for"),
        ("None", "Output 'upper' of the model (Signal) is None, which is not a tensor"),
    ],
)
def test_outputs_that_are_not_tensors(returned: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=re.escape(message)) as caught:
        _loaded(_signal(returned), tmp_path, returned)
    assert caught.value.hint
    assert "Change call of Signal" in caught.value.hint


@pytest.mark.parametrize("shape", [(1,), (1, 3)])
def test_first_axes_of_one_element(shape: tuple[int, ...], tmp_path: Path) -> None:
    """The files compute one sample at a time, as ``model(x)`` does for one."""
    model = _signal(shape=shape)
    expected = {name: np.asarray(value) for name, value in model(X).items()}
    rows = {**expected, "upper": np.broadcast_to(expected["upper"], (len(X), *shape[1:]))}
    model.export(tmp_path / "exported", verbose=False)
    exported = load_model(audit_file(tmp_path / "exported")).model
    for loaded in (_loaded(model, tmp_path), exported):
        interface = interface_of(loaded)
        assert interface.batch == 1
        names = [spec.name for spec in interface.outputs]
        (name,) = [spec.name for spec in interface.inputs]
        _check_files(loaded, [rows[key] for key in names], tmp_path)
        values = predict(loaded, interface, {name: X})
        for key in names:
            np.testing.assert_allclose(values[key], rows[key], atol=1e-5)


def _signature(compute: Callable[..., Mapping[str, Any]], count: int | None, path: Path) -> None:
    module = tf.Module()
    module.upper = tf.Variable(np.arange(3, dtype="float32"))
    spec = tf.TensorSpec((count, 4, 1), tf.float32, name="series")
    function = tf.function(lambda series: compute(module.upper, series), input_signature=[spec])
    tf.saved_model.save(module, str(path), function)


@pytest.mark.parametrize("name", ["scalar", "vector", "mean"])
def test_signatures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = {
        "scalar": lambda upper, x: {"double": 2 * x, "upper": upper[1]},
        "vector": lambda upper, x: {"double": 2 * x, "upper": upper + 0},
        "mean": lambda upper, x: {"double": 2 * x, "upper": tf.reduce_mean(x)},
    }[name]
    _signature(compute, None, tmp_path / "folder")
    with pytest.raises(UnsupportedModelError, match="'upper' without a batch axis") as caught:
        load_model(audit_file(tmp_path / "folder"))
    assert caught.value.hint
    monkeypatch.chdir(tmp_path)
    exec(caught.value.hint.split("without the output: ", 1)[1], {"tf": tf})
    model = load_model(audit_file(tmp_path / "folder_2")).model
    _check_files(model, [2 * X], tmp_path)


def test_signatures_of_as_many_samples_as_values(tmp_path: Path) -> None:
    """A learned vector has one value for each of three samples, as it seems."""
    _signature(lambda upper, x: {"double": 2 * x, "upper": upper + 0}, 3, tmp_path / "folder")
    with pytest.raises(UnsupportedModelError, match="other outputs beside others"):
        load_model(audit_file(tmp_path / "folder"))


@pytest.mark.long
@pytest.mark.parametrize("format", ["keras", "h5"])
def test_files_of_tf_keras(format: str, tmp_path: Path) -> None:
    """Compared with tf_keras where it is loaded, which accepts such outputs."""
    import tf_keras

    class Learned(tf_keras.layers.Layer):  # type: ignore[misc]
        def build(self, _: Any) -> None:
            self.vector = self.add_weight(shape=(), initializer="ones", name="vector")

        def call(self, x: Any) -> Any:
            return 2 * self.vector

    inputs = tf_keras.Input((4, 1), name="x")
    model = tf_keras.Model(
        inputs, [tf_keras.layers.Dense(2)(inputs), Learned(name="scale")(inputs)]
    )
    path = tmp_path / f"model.{format}"
    model.save(path)
    code = CLASSES.replace("import keras", "import tf_keras as keras")
    code = code.replace("(self, shape, **", "(self, shape=(), **")
    (tmp_path / "classes.py").write_text(code)
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "classes.py")
    _error(loaded.model, "scale")


def test_exit_code(edgeattn: Callable[..., Any], tmp_path: Path) -> None:
    _signal().save(tmp_path / "model.keras")
    (tmp_path / "classes.py").write_text(CLASSES.replace("RETURNED", "self.upper + 0.0"))
    np.savez(tmp_path / "samples.npz", x=X)
    result = edgeattn(
        *("convert", "model.keras", "-o", "out.edge", "--scheme", "float32"),
        *("--samples", "samples.npz", "--custom-objects", "classes.py"),
    )
    assert result.code == 3
    assert "Output 'upper' has no batch axis" in result.err


class Pairs(layers.Layer):
    """Multiplies each sample with all samples of its batch."""

    def call(self, x: Any) -> Any:
        return x * tf.expand_dims(x, 1)


def test_an_axis_with_the_size_of_the_batch_is_an_error() -> None:
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.Dense(2)(Pairs()(x)))
    with pytest.raises(UnsupportedModelError) as error:
        free_batches.with_known_batch(model, interface_of(model))
    assert "(1, 5, 2) for each of 1 sample," in error.value.message
    assert "combines the samples" in error.value.message


def test_arrays_of_different_shapes_differ() -> None:
    row = np.zeros((1, 5), "float32")
    assert traced_values.largest_change(row, np.zeros((3, 5), "float32")) == np.inf
    assert traced_values.largest_change(row, row) == 0
