"""SavedModel folders with tables or files beside their graph, and lookups inside classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

IDS, WORDS = [3, 7, 11], ["a", "b", "c"]


def lookup(kind: str, library: Any) -> Any:
    if kind == "integer":
        return library.layers.IntegerLookup(vocabulary=IDS, name="ids")
    if kind == "string":
        return library.layers.StringLookup(vocabulary=WORDS, name="ids")
    return library.layers.TextVectorization(vocabulary=WORDS, output_sequence_length=2, name="ids")


def dtype_of(kind: str) -> str:
    return "int64" if kind == "integer" else "string"


def functional(kind: str, library: Any) -> Any:
    x = library.Input((1,), dtype=dtype_of(kind), name="x")
    rows = library.layers.Embedding(6, 3)(lookup(kind, library)(x))
    return library.Model(x, library.layers.Flatten()(rows), name="rows")


def subclassed(kind: str, library: Any) -> Any:
    class Rows(library.Model):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(name="rows")
            self.lookup = lookup(kind, library)
            self.rows = library.layers.Embedding(6, 3)

        def call(self, x: Any) -> Any:
            return self.rows(self.lookup(x))

    model = Rows()
    model(tf.constant([[3]], "int64") if kind == "integer" else tf.constant([["a"]]))
    return model


def refused(folder: Path) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(audit_file(folder))
    return caught.value


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (functional, "integer"),
        pytest.param(functional, "text", marks=pytest.mark.long),
        pytest.param(functional, "string", marks=pytest.mark.long),
        pytest.param(subclassed, "integer", marks=pytest.mark.long),
        pytest.param(subclassed, "text", marks=pytest.mark.long),
        (subclassed, "string"),
    ],
)
def test_lookups_of_an_exported_model_are_named(build: Any, kind: str, tmp_path: Path) -> None:
    """The step, to save the model as one file, is impossible for subclassed models."""
    model = build(kind, keras)
    model.export(tmp_path / "exported", verbose=False)
    error = refused(tmp_path / "exported")
    assert "The SavedModel exported looks up values in tables" in str(error)
    assert "/ids" in str(error)
    assert "call() must take the indices instead of the values" in str(error.hint)
    if build is functional:
        assert str(error.hint).endswith("model.save('model.keras')")
        model.save(tmp_path / "model.keras")
        loaded = load_model(audit_file(tmp_path / "model.keras")).model
        indices = np.array([[2, 1]] if kind == "text" else [[2]])
        expected = np.asarray(model.layers[2](indices)).reshape(1, -1)
        np.testing.assert_allclose(loaded(indices), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["integer", pytest.param("text", marks=pytest.mark.long)])
def test_lookups_in_a_folder_of_keras_2_are_named(kind: str, tmp_path: Path) -> None:
    import tf_keras

    subclassed(kind, tf_keras).save(tmp_path / "saved", save_format="tf")
    error = refused(tmp_path / "saved")
    assert "which no edge runtime supports: 'rows/ids" in str(error)
    assert "call() must take the indices" in str(error.hint)


class Module(tf.Module):
    """Looks up rows of a variable in a table."""

    def __init__(self, table: Any, dtype: str) -> None:
        super().__init__()
        self.parts = {"table": table}
        self.rows = tf.Variable(tf.ones((5, 3)))
        self.dtype = dtype

    def __call__(self, x: Any) -> Any:
        return tf.gather(self.rows, self.parts["table"].lookup(x))

    def save(self, folder: Path) -> Path:
        function = tf.function(self.__call__)
        spec = tf.TensorSpec((None, 2), self.dtype, name="x")
        signature = function.get_concrete_function(spec)
        tf.saved_model.save(self, str(folder), signatures=signature)
        return folder


def test_tables_of_a_module_are_named(tmp_path: Path) -> None:
    ids = tf.constant(IDS, "int64")
    values = tf.lookup.KeyValueTensorInitializer(ids, tf.constant([1, 2, 3], "int64"))
    (tmp_path / "words.txt").write_text("a\nb\n")
    file = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    tables = {
        "static": (tf.lookup.StaticHashTable(values, 0), "int64"),
        "mutable": (tf.lookup.experimental.MutableHashTable("int64", "int64", 0), "int64"),
        "words": (tf.lookup.StaticVocabularyTable(file, 1), "string"),
    }
    for name, (table, dtype) in tables.items():
        error = refused(Module(table, dtype).save(tmp_path / name))
        assert "looks up values in tables" in str(error), name
        assert "'parts.table'" in str(error), name


def test_a_file_beside_the_graph_is_named(tmp_path: Path) -> None:
    class WithFile(tf.Module):
        def __init__(self, path: Path) -> None:
            super().__init__()
            path.write_text("up\ndown\n")
            self.scale = tf.Variable(2.0)
            self.words = tf.saved_model.Asset(str(path))

        @tf.function(input_signature=[tf.TensorSpec((None, 3), "float32", name="x")])
        def __call__(self, x: Any) -> Any:
            return x * self.scale

    tf.saved_model.save(WithFile(tmp_path / "words.txt"), str(tmp_path / "m"))
    error = refused(tmp_path / "m")
    assert "has files or resources beside its graph: 'assets/words.txt'" in str(error)
    assert "Save the model without them" in str(error.hint)


PROGRAM = """
import keras

class Rows(keras.Model):
    def __init__(self):
        super().__init__()
        self.lookup = keras.layers.IntegerLookup(vocabulary=[3, 7], name="ids")
        self.rows = keras.layers.Embedding(3, 2)

    def call(self, x):
        return self.rows(self.lookup(x))

class Sum(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = Rows(), keras.layers.Dense(2)

    def call(self, x):
        return self.second(self.first(x))

def build():
    model = Sum()
    model.build((None, 1))
    return model
"""


def test_a_lookup_inside_a_class_names_the_class(tmp_path: Path) -> None:
    """The step was keras.Model(layer.output, ...), but such layers have no output."""
    (tmp_path / "program.py").write_text(PROGRAM)
    names: dict[str, Any] = {"__name__": "program"}
    exec(PROGRAM, names)
    model = names["Sum"]()
    model(np.array([[3]]))
    model.save_weights(tmp_path / "m.weights.h5")
    np.savez(tmp_path / "samples.npz", x=np.array([[3], [7]]))
    with pytest.raises(UnsupportedModelError, match="'ids' is a IntegerLookup") as caught:
        load_model(
            audit_file(tmp_path / "m.weights.h5"),
            architecture=f"{tmp_path / 'program.py'}:Sum",
            samples=tmp_path / "samples.npz",
        )
    assert "call() of your class Rows must take their indices" in str(caught.value.hint)
    assert "layer.output" not in str(caught.value.hint)


def test_a_lookup_in_a_nested_functional_model_is_in_no_class(tmp_path: Path) -> None:
    x, y = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="string")
    inner = keras.Model(x, lookup("string", keras)(x))
    rows = layers.Embedding(6, 3)(inner(layers.Reshape((1,))(y)))
    keras.Model(y, rows).save(tmp_path / "m.keras")
    assert "of your class" not in str(refused(tmp_path / "m.keras").hint)
