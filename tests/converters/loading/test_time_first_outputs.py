"""Outputs with the time axis first, as for ``tf.nn.ctc_loss``: the error names the axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.tracing.trace import interface_of

PROGRAM = """
import tensorflow as tf
class Net(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.steps = tf.keras.layers.LSTM(4, return_sequences=True)
    def call(self, x):
        return tf.transpose(self.steps(x), ORDER)
def subclassed():
    return Net()
def functional():
    x = tf.keras.Input((12, 3))
    y = tf.keras.layers.LSTM(4, return_sequences=True)(x)
    return tf.keras.Model(x, tf.keras.layers.Lambda(lambda y: tf.transpose(y, ORDER))(y))
"""


def saved(folder: Path, order: str, name: str) -> Path:
    """The weights of the layer, which are those of the model; and the program."""
    (folder / "prog.py").write_text(PROGRAM.replace("ORDER", order))
    x = np.random.default_rng(0).normal(size=(8, 12, 3)).astype("float32")
    np.savez(folder / "s.npz", x=x)
    names: dict[str, object] = {"__name__": "prog"}
    exec(
        (folder / "prog.py")
        .read_text()
        .replace("tf.keras", "tf_keras")
        .replace("import tensorflow as tf", "import tensorflow as tf, tf_keras"),
        names,
    )
    tf_keras.backend.clear_session()
    model = names[name]()  # type: ignore[operator]
    model(x[:1])
    model.save_weights(folder / "w.h5")
    return folder / "w.h5"


def loaded(path: Path, folder: Path, name: str) -> LoadedModel:
    program = f"{folder / 'prog.py'}:{name}"
    return load_model(audit_file(path), architecture=program, samples=folder / "s.npz")


@pytest.mark.compared
@pytest.mark.parametrize("name", only(["subclassed", "functional"], "subclassed"))
@pytest.mark.parametrize(
    ("order", "axis"), [pytest.param("[1, 0, 2]", 1, marks=pytest.mark.long), ("[1, 2, 0]", 2)]
)
def test_the_axis_of_the_samples_is_named(order: str, axis: int, name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, order, name)
    with pytest.raises(UnsupportedModelError, match="first axis is not that of") as raised:
        interface_of(loaded(path, tmp_path, name).model)
    assert f"axis {axis} has their number" in str(raised.value.hint)


@pytest.mark.compared
def test_outputs_with_the_samples_first_are_compared(tmp_path: Path) -> None:
    path = saved(tmp_path, "[0, 2, 1]", "subclassed")
    notes = loaded(path, tmp_path, "subclassed").notes
    assert not any("not compared" in note for note in notes)
