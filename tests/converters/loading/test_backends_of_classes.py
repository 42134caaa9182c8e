"""Classes that ask for Keras' backend have a note: they are computed with TensorFlow."""

from pathlib import Path

import keras
import pytest

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

ASKING = {
    "environment": (
        "import os\ndef backend(): return os.environ.get('KERAS_BACKEND', 'tensorflow')",
        "backend() == 'tensorflow'",
    ),
    "setting": ("import os", "os.environ.get('KERAS_BACKEND') in (None, 'tensorflow')"),
    "config": ("", "keras.config.backend() == 'tensorflow'"),
    "legacy backend": ("from keras import backend as K", "K.backend() == 'tensorflow'"),
    "value of the file": (
        "IS_TENSORFLOW = keras.backend.backend() == 'tensorflow'",
        "IS_TENSORFLOW",
    ),
}
NOT_ASKING = {
    "chosen by the program": ("import os\nos.environ['KERAS_BACKEND'] = 'tensorflow'", "True"),
    "another function": ("def kind(): return keras.config.backend()", "True"),
    "another backend": ("from types import SimpleNamespace as N\na = N(backend=N)", "a.backend"),
}
CLASS = """
import keras
{of_file}
@keras.saving.register_keras_serializable("sensors")
class Cell(keras.layers.Layer):
    def call(self, x):
        return keras.ops.tanh(x) if {condition} else x
class Derived(Cell):
    pass
"""


def notes(texts: tuple[str, str], folder: Path, file: str, name: str = "Cell") -> list[str]:
    own = folder / "own.py"
    own.write_text(CLASS.format(of_file=texts[0], condition=texts[1]))
    names: dict[str, object] = {"__name__": "own"}
    exec(compile(own.read_text(), str(own), "exec"), names)
    inputs = keras.Input((4,))
    outputs = names[name](name="cell")(keras.layers.Dense(3)(inputs))  # type: ignore[operator]
    keras.Model(inputs, outputs).save(folder / file)
    loaded = load_model(audit_file(folder / file), custom_objects=own)
    return [note for note in loaded.notes if "asks for Keras' backend" in note]


@pytest.mark.parametrize("kind", ASKING)
def test_a_class_that_asks_has_a_note(kind: str, tmp_path: Path) -> None:
    [note] = notes(ASKING[kind], tmp_path, "m.keras")
    assert note.startswith("cell: the class Cell ")
    assert "edgeattn validate FILE --reference OUTPUTS.npz" in note


def test_inherited_calls_have_a_note(tmp_path: Path) -> None:
    [note] = notes(ASKING["config"], tmp_path, "m.h5", "Derived")
    assert note.startswith("cell: the class Derived ")


@pytest.mark.parametrize("kind", NOT_ASKING)
def test_other_classes_have_no_note(kind: str, tmp_path: Path) -> None:
    assert notes(NOT_ASKING[kind], tmp_path, "m.keras") == []


def test_files_of_keras_2_have_no_note(tmp_path: Path) -> None:
    import tf_keras

    own = tmp_path / "own.py"
    own.write_text(
        "from keras import backend as K\nfrom keras.layers import Layer\n"
        "class Cell(Layer):\n    def call(self, x):\n"
        "        return K.tanh(x) if K.backend() == 'tensorflow' else x\n"
    )

    class Cell(tf_keras.layers.Layer):
        def call(self, x: object) -> object:
            return tf_keras.backend.tanh(x)

    tf_keras.Sequential([tf_keras.Input((4,)), Cell(name="cell")]).save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=own)
    assert not any("backend" in note for note in loaded.notes)
