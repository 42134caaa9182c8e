"""Classes of the user with the name of a class of Keras, and attributes with names of Keras.

Each class computes ``x * w + 1``, which no class of Keras does.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only

import edgeattn_converters
from edgeattn.runners import open_runner
from edgeattn.samples.states import sample_inputs
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.inspection import _properties
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.quantization.layer_weights import layer_weights
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.tracing.trace import interface_of, trace

STEPS, FEATURES, CHUNK = 4, 3, 12
# Files with layers of these names are refused, because those of Keras run code of the file.
REFUSED = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
NAMES = [
    name
    for name, value in sorted(vars(keras.layers).items())
    if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and name not in REFUSED
]
# Classes whose attributes, weights or arguments edgeattn reads.
READ = [
    *("Activation", "Add", "BatchNormalization", "Bidirectional", "Dense", "Dropout", "Embedding"),
    *("GRU", "Hashing", "HashedCrossing", "IntegerLookup", "InputLayer", "LSTM", "Masking"),
    *("MelSpectrogram", "MultiHeadAttention", "Normalization", "RNN", "Rescaling", "Softmax"),
    *("StringLookup", "TimeDistributed"),
]
FORMATS = ["registered.keras", "plain.keras", "registered.h5", "plain.h5", "tf_keras.h5"]
CLASS = """
{decorator}class {name}(layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1],), initializer="ones")
        self.built = True

    def call(self, x):
        return x * self.w + 1
"""
# Attributes that edgeattn reads of layers, as far as layers of Keras have no such attribute.
_READ = re.compile(r'(?:getattr|hasattr)\(\w+(?:\.\w+)*, "(\w+)"|\blayer\.(\w+)')
_SOURCE = Path(str(edgeattn_converters.__file__)).parent
_OF_LAYERS = {*dir(keras.layers.Layer), *vars(keras.layers.Layer())}
ATTRIBUTES = sorted(
    {"count", "kernel", "mask_zero", "operations", "signature_function", "stateful", "units"}
    | {
        name
        for path in _SOURCE.rglob("*.py")
        for found in _READ.findall(path.read_text())
        for name in found
        if name and not name.startswith("_") and name not in _OF_LAYERS
    }
)
VALUES = {
    "weight": 'self.add_weight(name=name, shape=(2,), initializer="ones")',
    "None": "None",
    "text": "'rbf'",
    "list": "[2, 'a']",
    "integer": "3",
    "number": "0.5",
    "true": "True",
}
GROUPS = [READ, *(NAMES[k : k + CHUNK] for k in range(0, len(NAMES), CHUNK))]


def classes(names: Sequence[str], *, registered: bool = False) -> str:
    decorator = '@keras.saving.register_keras_serializable("my_pkg")\n' if registered else ""
    return "".join(CLASS.format(decorator=decorator, name=name) for name in names)


def seeded(model: Any) -> Any:
    generator = np.random.default_rng(7)
    for variable in model.weights:
        variable.assign(generator.normal(size=variable.shape))
    return model


def inputs() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(size=(2, STEPS, FEATURES)).astype("float32")


def own_names(path: Path, text: str, package: Any = keras) -> dict[str, Any]:
    """Write the file of the user, and return what it defines, with a package in place of Keras."""
    ops = ", ops" if "ops." in text else ""  # tf_keras has none
    path.write_text(f"import keras\nfrom keras import layers{ops}\n{text}")
    names = {"keras": package, "layers": package.layers, "ops": keras.ops, "__name__": path.stem}
    exec(text, names)
    for name in [name for name in keras.saving.get_custom_objects() if "my_pkg" in name]:
        del keras.saving.get_custom_objects()[name]
    return names


def check(model: Any, path: Path, own: Path) -> Any:
    """Save, load and compare a model, and run what edgeattn reads of its layers."""
    model.save(path)
    x = inputs()
    expected = [np.asarray(value) for value in keras.tree.flatten(model(x))]
    loaded = load_model(audit_file(path), custom_objects=own)
    # tf_keras cannot compute some of these models, such as that of a class Bidirectional.
    assert not [note for note in loaded.notes if not note.startswith("The model was not compared")]
    actual = keras.tree.flatten(loaded.model(x))
    for want, value in zip(expected, actual, strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
    interface = interface_of(loaded.model)
    generated = plausible_inputs(loaded.model, interface, np.random.default_rng(1))
    outputs = predict(loaded.model, interface, generated)
    again = keras.tree.flatten(loaded.model(next(iter(generated.values()))))
    for want, value in zip(again, outputs.values(), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-4)
    trace(loaded.model, interface, batch=None, attention=True, freeze=False)
    assert layer_weights(loaded.model) == ()  # all are small
    assert not list(_properties(all_layers(loaded.model), ""))
    assert len(sample_inputs(interface.inputs)) == 1
    return loaded


def parallel(names: Sequence[str], defined: dict[str, Any], package: Any) -> Any:
    start = package.Input((STEPS, FEATURES), name="x")
    ends = [defined[name](name=f"own_{name.lower()}")(start) for name in names]
    return seeded(package.Model(start, ends))


@pytest.mark.parametrize(
    "case",
    only(
        [(group, form) for group in range(len(GROUPS)) for form in FORMATS],
        (0, "registered.keras"),
    ),
    ids=str,
)
def test_class_computes_what_the_user_wrote(case: tuple[int, str], tmp_path: Path) -> None:
    group, form = case
    package: Any = keras
    if form.startswith("tf_keras"):
        package = pytest.importorskip("tf_keras")
    # With a class InputLayer of the user, tf_keras cannot load a model.
    names = [name for name in GROUPS[group] if package is keras or name != "InputLayer"]
    text = classes(names, registered=form.startswith("registered"))
    defined = own_names(tmp_path / "own.py", text, package)
    check(parallel(names, defined, package), tmp_path / form, tmp_path / "own.py")


@pytest.mark.parametrize(
    "case",
    only(
        [(value, suffix) for value in VALUES for suffix in (".keras", ".h5")],
        *[("weight", ".keras"), ("None", ".keras"), ("text", ".keras"), ("integer", ".keras")],
    ),
    ids=str,
)
def test_attributes_of_the_user(case: tuple[str, str], tmp_path: Path) -> None:
    """An attribute with the name of one of Keras' layers may be anything."""
    value, suffix = case
    text = CLASS.format(decorator="", name="Holder").replace(
        "        self.built",
        f"        for name in {ATTRIBUTES}:\n"
        f"            setattr(self, name, {VALUES[value]})\n        self.built",
    )
    defined = own_names(tmp_path / "own.py", text)
    start = keras.Input((STEPS, FEATURES), name="x")
    model = seeded(keras.Model(start, defined["Holder"]()(start)))
    loaded = check(model, tmp_path / f"m{suffix}", tmp_path / "own.py")
    assert loaded.stateful == ()


NAMED = """
class Embedding(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(name="table", shape=(9, 4), initializer="uniform")
        self.built = True

    def call(self, x):
        return ops.take(self.table, ops.cast(x, "int32"), axis=0)


class Dropout(layers.Layer):
    def call(self, x):
        return x * 2 - 1


class Counter(layers.Layer):
    def build(self, shape):
        self.codes = self.add_weight(name="codes", shape=(4, shape[-1]), initializer="normal")
        self.count = self.add_weight(name="count", shape=(4,), initializer="ones")
        self.built = True

    def call(self, x):
        distances = ops.sum(ops.square(x[..., None, :] - self.codes), -1) - 0.1 * self.count
        return x + ops.take(self.codes, ops.argmin(distances, axis=-1), axis=0)


class Copies(layers.Layer):
    def __init__(self, count=3, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def call(self, x):
        return ops.tile(x, (1, 1, self.count))

    def get_config(self):
        return {**super().get_config(), "count": self.count}
"""


@pytest.mark.long
@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
def test_converts_to_both_formats(suffix: str, edgeattn: Any, tmp_path: Path) -> None:
    defined = own_names(tmp_path / "own.py", NAMED + classes(["Masking", "BatchNormalization"]))
    start = keras.Input((STEPS,), dtype="int32", name="x")
    end = defined["Embedding"](name="own_embedding")(start)
    for name in ("Masking", "BatchNormalization", "Dropout", "Counter", "Copies"):
        end = defined[name](name=f"own_{name.lower()}")(end)
    model = seeded(keras.Model(start, keras.layers.LSTM(3)(end)))
    path, bundle = tmp_path / f"m{suffix}", tmp_path / "m.edge"
    model.save(path)
    own = ["--custom-objects", tmp_path / "own.py"]
    result = edgeattn("convert", path, "-o", bundle, "--scheme", "float32", *own)
    assert result.code == 0, result
    tokens = np.arange(4 * STEPS, dtype="int32").reshape(4, STEPS) % 9
    expected = np.asarray(model(tokens))
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py").model
    interface = interface_of(loaded)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        file = tmp_path / f"model.{format}"
        specs, outputs, *_ = converter.convert(loaded, interface, recipe_for("float32"), file)
        runner = open_runner(file, format, specs, outputs, as_deployed=True)
        [actual] = runner.run({specs[0].name: tokens}).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_class_derived_from_that_of_its_name_keeps_its_behaviour(tmp_path: Path) -> None:
    text = """
class StringLookup(layers.StringLookup):
    pass


class Masking(layers.Masking):
    def call(self, x):
        return super().call(x) * 2


class LSTM(layers.LSTM):
    pass
"""
    defined = own_names(tmp_path / "own.py", text)
    start = keras.Input((STEPS, FEATURES), name="x")
    model = seeded(keras.Model(start, defined["LSTM"](2)(defined["Masking"](-1.0)(start))))
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    x = inputs()
    x[0, 2:] = -1.0
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)
    interface = interface_of(loaded.model)
    generated = plausible_inputs(loaded.model, interface, np.random.default_rng(1))["x"]
    assert (generated[0, 1:] == -1.0).all()  # padded, as the layer of Keras masks it
    start = keras.Input((2,), dtype="string", name="words")
    lookup = defined["StringLookup"](vocabulary=["a", "b"])
    model = keras.Model(start, keras.layers.Embedding(3, 2)(lookup(start)))
    model.save(tmp_path / "l.keras")
    loaded = load_model(audit_file(tmp_path / "l.keras"), custom_objects=tmp_path / "own.py")
    assert list(loaded.preprocessing) == [lookup.name]


# Layers whose weights, calls or functions differ between Keras 2 and 3.
FORMER = ["HardSigmoid", "LSTM", "GRU", "Bidirectional", "TimeDistributed", "Conv2D", "Softmax"]


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_program_with_weights_of_keras_2(suffix: str, tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    text = f"""{classes(FORMER)}

def network():
    end = start = keras.Input(({STEPS}, {FEATURES}), name="x")
    for cls in ({", ".join(FORMER)}):
        end = cls(name="own_" + cls.__name__.lower())(end)
    return keras.Model(start, end)
"""
    defined = own_names(tmp_path / "own.py", text, tf_keras)
    model = seeded(defined["network"]())
    model.save_weights(tmp_path / f"m{suffix}")
    loaded = load_model(
        audit_file(tmp_path / f"m{suffix}"), architecture=f"{tmp_path / 'own.py'}:network"
    )
    np.testing.assert_allclose(loaded.model(inputs()), model(inputs()), rtol=1e-4, atol=1e-5)
    # Nothing is said about masks or gates of Keras' layers, of which the model has none.
    assert not [note for note in loaded.notes if note.startswith("own_")]


@pytest.mark.parametrize("name", only(["GRU", "RNN", "Attention", "Add", "Bidirectional"], "GRU"))
def test_list_of_inputs_in_a_file_of_keras_2(name: str, tmp_path: Path) -> None:
    """Recurrent layers of Keras 2 take a sequence and states as a list; this class takes none."""
    tf_keras = pytest.importorskip("tf_keras")
    text = f"""
class {name}(layers.Layer):
    def call(self, inputs):
        first, second = inputs
        return first * 2 - second
"""
    defined = own_names(tmp_path / "own.py", text, tf_keras)
    start = tf_keras.Input((STEPS, FEATURES), name="x")
    model = tf_keras.Model(start, defined[name](name="own")([start, start * start]))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")
    x = inputs()
    np.testing.assert_allclose(loaded.model(x), x * 2 - x * x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_integers_of_a_class_of_the_user_are_no_quantized_layer(
    suffix: str, tmp_path: Path
) -> None:
    text = """
class Rounded(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(
            name="kernel", shape=(shape[-1], 2), dtype="int8", initializer="ones", trainable=False
        )
        self.built = True

    def call(self, x):
        return ops.matmul(x, ops.cast(self.kernel, "float32")) * 0.5


class Outer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Rounded(name="inner")

    def call(self, x):
        return self.inner(x) + 1
"""
    defined = own_names(tmp_path / "own.py", text)
    start = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(start, defined["Outer"]()(start))
    kernel = np.array([[3, -4], [5, 6], [-7, 8]], "int8")
    model.set_weights([kernel])
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=tmp_path / "own.py")
    x = inputs()
    np.testing.assert_allclose(loaded.model(x), x @ kernel * 0.5 + 1, rtol=1e-5, atol=1e-5)
