"""Layers that assign weights in every call, also in inference mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
X = np.random.default_rng(4).normal(size=(6, 6, 6, 2)).astype("float32")
PROGRAM = """
import numpy as np
import keras
from keras import layers, ops


class Masked(layers.Layer):
    # The convolution of PixelCNN.
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3, padding="same")

    def build(self, shape):
        self.conv.build(shape)
        self.mask = np.zeros(self.conv.kernel.shape)
        self.mask[:1], self.mask[1, :1] = 1.0, 1.0

    def call(self, x):
        self.conv.kernel.assign(self.conv.kernel * self.mask)
        return self.conv(x)


class Clipped(layers.Layer):
    # Assigned behind its use, so that the first call has another result.
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))

    def call(self, x):
        y = x * self.scale
        self.scale.assign(ops.clip(self.scale, -0.5, 0.5))
        return y


class Spectral(layers.Layer):
    # A step of the power iteration in each call.
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 3))
        self.u = self.add_weight(name="u", shape=(1, 3), trainable=False)

    def call(self, x):
        v = ops.matmul(self.u, ops.transpose(self.kernel))
        v = v / ops.norm(v)
        u = ops.matmul(v, self.kernel)
        self.u.assign(u / ops.norm(u))
        return ops.matmul(x, self.kernel) / ops.norm(u)


class Counted(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(name="count", shape=(), initializer="zeros")

    def call(self, x):
        self.count.assign_add(1.0)
        return x * self.count


class Remembered(layers.Layer):
    def build(self, shape):
        self.last = self.add_weight(name="last", shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        mean = ops.mean(x, axis=(0, 1, 2))
        y = x - self.last
        self.last.assign(mean)
        return y


def build(cls):
    x = keras.Input((6, 6, 2), name="x")
    y = layers.Dense(2)(cls(name="own")(x))
    return keras.Model(x, y)
"""
KEPT = ["Masked", "Clipped", "Spectral"]


def _saved(name: str, folder: Path, file: str = "m.keras", program: str = PROGRAM) -> Any:
    """Save a model with random weights, and return it."""
    names: dict[str, Any] = {"__name__": "own"}
    exec(program, names)
    model = names["build"](names[name])
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.weights])
    model.save(folder / file)
    (folder / "own.py").write_text(program)
    return model


@pytest.mark.parametrize(
    "case",
    only(
        [(name, kind) for name in KEPT for kind in CONVERTERS],
        ("Masked", "tflite"),
    ),
    ids="-".join,
)
def test_files_have_the_values_that_remain(case: tuple[str, str], tmp_path: Path) -> None:
    name, kind = case
    model = _saved(name, tmp_path)
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    (note,) = [note for note in loaded.notes if "whenever they are called" in note]
    assert "'own" in note
    path = tmp_path / f"m.{kind}"
    file = CONVERTERS[kind].convert(
        loaded.model, interface_of(loaded.model), recipe_for("float32"), path
    )
    runner = open_runner(path, kind, file.inputs, file.outputs)
    for _ in range(30):
        model.predict(X, verbose=0)
    expected = model.predict(X, verbose=0)
    actual = [next(iter(runner.run({"x": sample[None]}).values()))[0] for sample in X]
    np.testing.assert_allclose(np.stack(actual), expected, rtol=1e-4, atol=1e-5)


def test_the_note_says_how_often_the_model_was_called(tmp_path: Path) -> None:
    _saved("Masked", tmp_path)
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    assert "the values after the first call" in " ".join(loaded.notes)
    kernel = np.asarray(loaded.model.get_layer("own").conv.kernel)
    assert not kernel[1, 1:].any()
    assert not kernel[2].any()


@pytest.mark.parametrize("name", ["Counted", "Remembered"])
def test_values_that_each_call_changes_are_refused(name: str, tmp_path: Path) -> None:
    _saved(name, tmp_path)
    with pytest.raises(UnsupportedModelError, match="changes its weights 'own/") as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    assert "if training:" in str(error.value.hint)


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("file", only(["m.h5", "m.keras"], "m.h5"))
def test_classes_of_keras_2(file: str, tmp_path: Path) -> None:
    program = PROGRAM[: PROGRAM.index("class Clipped")] + PROGRAM[PROGRAM.index("def build(cls)") :]
    program = program.replace("import keras\nfrom keras import layers, ops", "").replace(
        "import numpy as np",
        "import numpy as np\nfrom tensorflow import keras\nfrom tensorflow.keras import layers",
    )
    names = run_in_tf_keras(program)
    model = names["build"](names["Masked"])
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.weights])
    model.save(tmp_path / file)
    (tmp_path / "own.py").write_text(program)
    loaded = load_model(audit_file(tmp_path / file), custom_objects=tmp_path / "own.py")
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(loaded.model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert interface_of(loaded.model).outputs[0].shape == (None, 6, 6, 2)


def test_keras_itself_changes_no_other_model(tmp_path: Path) -> None:
    x = keras.Input((6, 6, 2))
    y = keras.layers.Lambda(lambda t: t * 2.0)(keras.layers.BatchNormalization()(x))
    keras.Model(x, y).save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    assert not [note for note in loaded.notes if "whenever they are called" in note]
