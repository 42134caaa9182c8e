"""Which signature of a SavedModel folder is the model, and which inputs it may have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import edgeattn
from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(5).normal(size=(4, 3)).astype("float32")


class Scaled(tf.Module):
    """Signatures with different results and kinds of inputs; the scale is a variable."""

    spec = tf.TensorSpec((None, 3), name="x")
    once: Any
    twice: Any
    trained: Any
    ragged: Any
    sparse: Any
    words: Any
    warm: Any

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(1.0)
        of_specs = {
            "once": (lambda x: {"y": x * self.scale}, [self.spec]),
            "twice": (lambda x: {"y": x * 2 * self.scale}, [self.spec]),
            "trained": (
                lambda x, training: {"y": tf.cond(training, lambda: x * 9, lambda: x * self.scale)},
                [self.spec, tf.TensorSpec((), tf.bool, "training")],
            ),
            "ragged": (
                lambda x: {"y": tf.reduce_sum(x, 1)[:, None] * self.scale},
                [tf.RaggedTensorSpec((None, None), tf.float32)],
            ),
            "sparse": (
                lambda x: {"y": tf.sparse.to_dense(x) * self.scale},
                [tf.SparseTensorSpec((None, 3), tf.float32)],
            ),
            "words": (
                lambda x: {"y": tf.strings.to_hash_bucket_fast(x, 9)},
                [tf.TensorSpec((None, 3), tf.string, "x")],
            ),
            "warm": (
                lambda x, temperature: {"y": x * self.scale / temperature},
                [self.spec, tf.TensorSpec((), name="temperature")],
            ),
        }
        for name, (function, specs) in of_specs.items():
            setattr(self, name, tf.function(function, input_signature=specs, autograph=False))

    def saved(self, folder: Path, **signatures: str) -> Path:
        """Save functions as signatures."""
        functions = {key: getattr(self, name) for key, name in signatures.items()}
        tf.saved_model.save(self, str(folder), functions)
        return folder


def test_signatures_of_other_names(tmp_path: Path) -> None:
    """The only one is used, one of several has to be chosen."""
    one = load_model(audit_file(Scaled().saved(tmp_path / "one", a="twice")))
    np.testing.assert_allclose(one.model({"x": X})["y"], 2 * X)
    assert "signature 'a'" in one.notes[0]
    two = Scaled().saved(tmp_path / "two", a="once", b="twice")
    with pytest.raises(UnsupportedModelError, match="signatures 'a', 'b', but none") as caught:
        load_model(audit_file(two))
    assert caught.value.hint == "Choose one: --signature a"
    chosen = load_model(audit_file(two, signature="b"))
    np.testing.assert_allclose(chosen.model({"x": X})["y"], 2 * X)
    with pytest.raises(UsageError, match="no such signature") as missing:
        load_model(audit_file(two, signature="c"))
    assert missing.value.hint == "Pass one of 'a', 'b'."


def test_a_signature_beside_the_default(tmp_path: Path) -> None:
    """Those that call the same function, as of model.export, are not listed."""
    names = {"serving_default": "once", "serve": "once", "double": "twice"}
    folder = Scaled().saved(tmp_path / "m", **names)
    [note] = load_model(audit_file(folder)).notes
    assert "signature 'serving_default'" in note
    assert "another one ('double'), pass --signature" in note


@pytest.mark.long
def test_a_signature_instead_of_layers(tmp_path: Path) -> None:
    import tf_keras

    x = tf_keras.Input((3,), name="x")
    model = tf_keras.Model(x, tf_keras.layers.Dense(2, name="y")(x))
    double = tf.function(lambda x: {"double": 2 * model(x)}, input_signature=[Scaled.spec])
    model.save(tmp_path / "m", save_format="tf", signatures={"double": double})
    assert len(load_model(audit_file(tmp_path / "m")).model.layers) == 2
    chosen = load_model(audit_file(tmp_path / "m", signature="double")).model
    expected = 2 * model(X).numpy()
    np.testing.assert_allclose(chosen({"x": X})["double"], expected, rtol=1e-5)
    path = tmp_path / "m.h5"
    model.save(path)
    with pytest.raises(UsageError, match="--signature is for SavedModel folders"):
        audit_file(path, signature="double")


@pytest.mark.long
def test_data_are_compared_with_the_chosen_signature(tmp_path: Path) -> None:
    folder = Scaled().saved(tmp_path / "m", serving_default="once", double="twice")
    result = edgeattn.convert(folder, signature="double", schemes="float32", formats="onnx")
    validated = edgeattn.validate(result.bundle, data=X)
    assert validated.verdict == "pass"


def test_an_argument_for_training_is_false(tmp_path: Path) -> None:
    loaded = load_model(audit_file(Scaled().saved(tmp_path / "m", f="trained")))
    assert loaded.notes[1] == "The input 'training' of the signature is False, as at inference."
    interface = interface_of(loaded.model)
    assert [spec.name for spec in interface.inputs] == ["x"]
    result = tflite.convert(loaded.model, interface, recipe_for("float32"), tmp_path / "m.tflite")
    runner = open_runner(tmp_path / "m.tflite", "tflite", result.inputs, result.outputs)
    np.testing.assert_array_equal(runner.run({"x": X[:1]})["y"], X[:1])


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("ragged", "takes a ragged tensor, as the arrays 'x', 'x_1'"),
        ("sparse", "takes a sparse tensor, as the arrays 'x', 'x_1', 'x_2'"),
        ("words", "has an input 'x' of strings"),
        ("warm", r"input 'temperature' of the shape \(\), without an axis of samples"),
    ],
)
def test_inputs_that_are_no_samples(kind: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=problem):
        load_model(audit_file(Scaled().saved(tmp_path / "m", f=kind)))


class OfFilesToo(tf.Module):
    """As the module of TensorFlow's tutorial on audio: of a file's name, or of its content."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(3.0)
        self.__call__.get_concrete_function(tf.TensorSpec((), tf.string))
        self.__call__.get_concrete_function(tf.TensorSpec((None, 3)))

    @tf.function
    def __call__(self, x: Any) -> Any:
        if x.dtype == tf.string:
            x = tf.io.decode_raw(tf.io.read_file(x), tf.float32)[None]
        return {"y": x * self.scale}


def test_modules_with_a_function_of_files_need_a_signature(tmp_path: Path) -> None:
    module, folder = OfFilesToo(), tmp_path / "signed"
    tf.saved_model.save(module, str(tmp_path / "saved"))
    with pytest.raises(UnsafeModelError, match="operation 'ReadFile'") as caught:
        load_model(audit_file(tmp_path / "saved"))
    code = re.search(r"tf\.saved_model\.save\(.*\)\)\)", str(caught.value.hint))
    assert code is not None
    exec(
        code[0].replace("module.f", "module.__call__"),
        {"tf": tf, "module": module, "folder": folder},
    )
    loaded = load_model(audit_file(folder))
    np.testing.assert_allclose(loaded.model.predict({"x": X}, verbose=0)["y"], 3 * X, rtol=1e-6)
