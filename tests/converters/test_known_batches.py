"""Models whose layers need the number of samples while Keras traces them.

The first is the recurrent layer of the guide to the functional API of Keras. The reference is the
original model, run in batches of the number of samples for which it was created.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters import ConversionOptions, ModelSource, convert
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.quantization_aware.fine_tuning import fine_tune
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.free_batches import with_known_batch
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.tracing.trace import Interface, interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
COUNT = 16
X = np.random.default_rng(0).normal(size=(2 * COUNT, 10, 5)).astype("float32")
LAYER = """
import keras
from keras import layers, ops

@keras.saving.register_keras_serializable("guide")
class CustomRNN(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.projection_1 = layers.Dense(units=8, activation="tanh")
        self.projection_2 = layers.Dense(units=8, activation="tanh")
        self.classifier = layers.Dense(1)

    def call(self, inputs):
        outputs = []
        state = ops.zeros(shape=(inputs.shape[0], 8))
        for t in range(inputs.shape[1]):
            h = self.projection_1(inputs[:, t, :])
            state = h + self.projection_2(state)
            outputs.append(state)
        return self.classifier(ops.stack(outputs, axis=1))
"""
FUNCTIONAL = """
def build():
    x = keras.Input(batch_shape=(16, 10, 5), name="x")
    return keras.Model(x, CustomRNN(name="own")(layers.Conv1D(6, 3)(x)))
"""
SEQUENTIAL = """
def build():
    x = keras.Input(batch_shape=(16, 10, 5), name="x")
    return keras.Sequential([x, layers.Dense(6), CustomRNN(name="own")])
"""
NESTED = """
def build():
    x = keras.Input(batch_shape=(16, 10, 5), name="x")
    y = keras.Input(batch_shape=(16, 10, 6))
    return keras.Model(x, keras.Model(y, CustomRNN(name="own")(y))(layers.Dense(6)(x)))
"""
SUBCLASSED = """
@keras.saving.register_keras_serializable("guide")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Conv1D(6, 3), CustomRNN(name="own")

    def call(self, x):
        return self.second(self.first(x))

def build():
    model = Net()
    model(ops.zeros((16, 10, 5)))
    return model
"""
STATES_SHAPE = LAYER.replace(
    "    def call",
    "    def compute_output_shape(self, shape):\n        return (*shape[:2], 1)\n\n    def call",
)
# Of any number of samples, which Keras builds, because the class states its shape.
OF_ANY_NUMBER = """
def build():
    x = keras.Input((10, 5), name="x")
    model = keras.Model(x, CustomRNN(name="own")(layers.Conv1D(6, 3)(x)))
    model(ops.zeros((16, 10, 5)))
    return model
"""
PROGRAMS = {
    "functional": LAYER + FUNCTIONAL,
    "sequential": LAYER + SEQUENTIAL,
    "nested": LAYER + NESTED,
    "subclassed": LAYER + SUBCLASSED,
    "stated shape": STATES_SHAPE + OF_ANY_NUMBER,
}
KINDS = [
    (name, kind)
    for name in PROGRAMS
    for kind in ("program", ".keras", ".h5")
    if (name, kind) != ("subclassed", ".h5")  # such files do not list the layers
]
# Bundles of the functional program are tested, too.
QUICK = [("subclassed", ".keras")]


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    before = set(keras.saving.get_custom_objects())
    yield
    forget(before)


def forget(before: set[str]) -> None:
    """Remove what a program has registered."""
    objects = keras.saving.get_custom_objects()
    for name in set(objects) - before:
        if not name.startswith("edgeattn"):
            del objects[name]


def saved(folder: Path, text: str, kind: str) -> tuple[ModelSource, Any]:
    """Save the model of a program, with it or as a file, and return it with random weights."""
    script = folder / "own.py"
    script.write_text(text)
    names = types.ModuleType("own")
    before = set(keras.saving.get_custom_objects())
    exec(text, vars(names))
    model, generator = names.build(), np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.4, variable.shape))
    path = folder / ("m.weights.h5" if kind == "program" else f"m{kind}")
    (model.save_weights if kind == "program" else model.save)(path)
    forget(before)
    np.savez(folder / "x.npz", x=X)
    options = {
        "program": {"architecture": f"{script}:build"},
    }.get(kind, {"custom_objects": str(script)})
    return ModelSource(str(path), **options), model


def loaded(source: ModelSource, folder: Path) -> tuple[Any, Interface, tuple[str, ...]]:
    own = source.custom_objects
    model = load_model(
        audit_file(Path(source.path)),
        custom_objects=None if own is None else Path(own),
        architecture=source.architecture,
        samples=folder / "x.npz",
    ).model
    return model, *with_known_batch(model, interface_of(model))


def in_batches(model: Any) -> np.ndarray:
    return np.concatenate([np.asarray(model(X[k : k + COUNT])) for k in (0, COUNT)])


@pytest.mark.parametrize("case", only(KINDS, *QUICK), ids=" ".join)
def test_models_that_need_the_number_of_samples(case: tuple[str, str], tmp_path: Path) -> None:
    name, kind = case
    source, original = saved(tmp_path, PROGRAMS[name], kind)
    expected = in_batches(original)
    model, interface, (note,) = loaded(source, tmp_path)
    assert (interface.batch, interface.any_batch) == (1, True)
    assert note.startswith("a layer needs the number of samples of a batch")
    [spec], [output] = interface.inputs, interface.outputs
    values = predict(model, interface, {spec.name: X})[output.name]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    for format, converter in CONVERTERS.items():
        path = tmp_path / format
        file = converter.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs)
        for row in range(3):
            actual = runner.run({spec.name: X[row : row + 1]})[output.name]
            np.testing.assert_allclose(actual, expected[row : row + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("batch", only([1, COUNT, 5], COUNT))
def test_bundles_with_files_of_a_batch(batch: int, tmp_path: Path) -> None:
    source, original = saved(tmp_path, PROGRAMS["functional"], "program")
    options = ConversionOptions(schemes=("float32",), batch=batch)
    result = convert(source, tmp_path / "m.edge", options=options)
    assert result.report.verdict == "pass"
    expected = in_batches(original)
    for artifact in result.bundle.manifest.artifacts:
        count = batch if artifact.format == "tflite" else 1
        assert artifact.inputs[0].shape[0] == count
        path = result.bundle.artifact_path(artifact)
        runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs)
        actual = runner.run({"x": X[:count]})["own"]
        np.testing.assert_allclose(actual, expected[:count], rtol=1e-5, atol=1e-5)


# What the layer computes of the state of the last step, and which message that leads to.
DEPENDENT = {
    "number": ("state = state / inputs.shape[0]", "on the samples beside it or on their number"),
    "mean": (
        "state = state - ops.mean(state, axis=0, keepdims=True)",
        "on the samples beside it or on their number",
    ),
    "fixed": ("state = ops.reshape(state, (16, 8))", "created for batches of 16 samples and does"),
}


@pytest.mark.parametrize("kind", only(["program", ".keras"], "program"))
@pytest.mark.parametrize("change", only(DEPENDENT, "mean", "fixed"))
def test_samples_that_depend_on_their_batch_are_refused(
    change: str, kind: str, tmp_path: Path
) -> None:
    line, message = DEPENDENT[change]
    text = PROGRAMS["functional"].replace("outputs.append", f"{line}\n            outputs.append")
    source, _ = saved(tmp_path, text, kind)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        loaded(source, tmp_path)
    if change == "fixed":
        assert "keras.ops.shape(x)[0] instead of x.shape[0]" in str(caught.value.hint)


FACTORS = ["(x.shape[0] or 1)", "(x.shape[0] if x.shape[0] else 2)"]


@pytest.mark.parametrize("kind", only(["program", ".keras"], ".keras"))
@pytest.mark.parametrize("factor", only(FACTORS, FACTORS[0]))
def test_numbers_of_samples_that_are_read_if_they_are_known(
    factor: str, kind: str, tmp_path: Path
) -> None:
    """A note said that single samples were compared, or nothing did; a batch of 16 has others."""
    text = f"""
import keras

@keras.saving.register_keras_serializable("guide")
class Share(keras.layers.Layer):
    def call(self, x):
        return x / {factor}

def build():
    x = keras.Input(batch_shape=(16, 10, 5), name="x")
    return keras.Model(x, keras.layers.Dense(2)(Share()(x)))
"""
    source, _ = saved(tmp_path, text, kind)
    with pytest.raises(UnsupportedModelError, match="a batch of 3 samples and a sample alone"):
        loaded(source, tmp_path)


def test_fine_tuning_is_refused(tmp_path: Path) -> None:
    """It has batches of any number, also a smaller last one."""
    _, model = saved(tmp_path, PROGRAMS["functional"], "program")
    with pytest.raises(UnsupportedModelError, match="needs the number of samples") as caught:
        fine_tune(model, X)
    assert "keras.ops.shape(x)[0] instead of x.shape[0]" in str(caught.value.hint)


def test_operations_of_keras_with_a_declared_number() -> None:
    """Without one, ``model.predict`` fails, too."""
    n = keras.Input(batch_shape=(4, 3), dtype="int32", name="n")
    model = keras.Model(n, keras.ops.gcd(n, n + 2))
    interface, _ = with_known_batch(model, interface_of(model))
    values = np.array([[2, 3, 4], [5, 6, 7], [8, 9, 10]], "int32")
    [actual] = predict(model, interface, {"n": values}).values()
    np.testing.assert_array_equal(actual, np.gcd(values, values + 2))
