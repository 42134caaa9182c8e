"""Variables in global names of a program, which no file contains."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code.custom_objects import load_module

X = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
RANDOM, SAME = "np.random.normal(size=(3, 2))", "np.ones((3, 2))"
PROGRAM = """
import keras
import numpy as np
import tensorflow as tf
{imported}
TABLE = {variable}

class Own(keras.layers.Layer):
    {decorator}
    def compute(self, x):
        return keras.ops.matmul(x, {read})

    def call(self, x):
        return self.compute(x)

def build():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(2)(Own()(x)))
"""
VARIABLES = {
    "keras": ("keras.Variable({value}, dtype='float32')", "", "TABLE"),
    "tensorflow": ("tf.Variable({value}, dtype='float32')", "", "TABLE"),
    "function": ("tf.Variable({value}, dtype='float32')", "@tf.function", "TABLE"),
    "gathered": ("tf.Variable({value}, dtype='float32')", "", "tf.gather(TABLE, [2, 0, 1])"),
    "object": (
        "type('Plain', (), {{'w': tf.Variable({value}, dtype='float32')}})()", "", "TABLE.w",
    ),
    "beside": ("None", "", "beside.TABLE"),
}  # fmt: skip


def _saved(kind: str, value: str, tmp_path: Path) -> tuple[Path, Path, keras.Model]:
    variable, decorator, read = VARIABLES[kind]
    imported = "import beside" if kind == "beside" else ""
    own = tmp_path / "own.py"
    values = {"variable": variable.format(value=value), "decorator": decorator, "read": read}
    own.write_text(PROGRAM.format(imported=imported, **values))
    (tmp_path / "beside.py").write_text(
        "import numpy as np\nimport tensorflow as tf\n"
        f"TABLE = tf.Variable({value}, dtype='float32')\n"
    )
    model = load_module(own, option="").build()
    return tmp_path / "m.keras", own, model


@pytest.mark.parametrize("kind", only(VARIABLES, "keras"))
@pytest.mark.parametrize("value", only([RANDOM, SAME], RANDOM))
def test_variables_that_no_layer_has(
    kind: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values were the initial ones of the program, without a note."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path, own, model = _saved(kind, value, tmp_path)
    model.save(path)
    if value == RANDOM:
        with pytest.raises(UnsupportedModelError, match="are other ones whenever the program"):
            load_model(audit_file(path), custom_objects=own)
        return
    loaded = load_model(audit_file(path), custom_objects=own)
    (note,) = [note for note in loaded.notes if "no layer of the model has" in note]
    assert "with the same values; changes by training are lost" in note
    if kind in ("keras", "tensorflow", "function"):
        assert "the variable 'TABLE'" in note
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


CONSTANT = """
import keras
import numpy as np

PROJECTION = np.random.default_rng({seed}).normal(size=(3, 2)).astype("float32")

class Own(keras.layers.Layer):
    def call(self, x):
        return keras.ops.matmul(x, PROJECTION)

def build():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(2)(Own()(x)))
"""


@pytest.mark.parametrize("seed", only(["", "7"], ""))
def test_random_global_arrays(seed: str, tmp_path: Path) -> None:
    """The outputs were those of other numbers than the trained model had."""
    own, path = tmp_path / "own.py", tmp_path / "m.weights.h5"
    own.write_text(CONSTANT.format(seed=seed))
    model = load_module(own, option="").build()
    model.save_weights(path)
    if seed:
        loaded = load_model(audit_file(path), architecture=f"{own}:build")
        np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)
        return
    with pytest.raises(UnsupportedModelError, match=r"something else in each run of own\.py"):
        load_model(audit_file(path), architecture=f"{own}:build")


@pytest.mark.parametrize(
    "function", only(["log(y - 1)", "sqrt(-y)", "log(-1 - y * y)"], "sqrt(-y)")
)
def test_random_global_arrays_of_a_model_that_is_not_defined_everywhere(
    function: str, tmp_path: Path
) -> None:
    """NaN of two runs counted as equal, so that their values had no effect."""
    own, path = tmp_path / "own.py", tmp_path / "m.weights.h5"
    text = CONSTANT.format(seed="").replace("Own()(x)", f"Own()(keras.ops.{function})")
    own.write_text(text.replace("return keras.Model(", "y = 1 * x; return keras.Model("))
    load_module(own, option="").build().save_weights(path)
    if "-1" in function:
        loaded = load_model(audit_file(path), architecture=f"{own}:build")
        assert any("was not verified: outputs are NaN for all" in note for note in loaded.notes)
        return
    with pytest.raises(UnsupportedModelError, match=r"something else in each run of own\.py"):
        load_model(audit_file(path), architecture=f"{own}:build")


DRAWN = """
import keras

class Own(keras.layers.Layer):
    def call(self, x):
        return x + keras.random.uniform(keras.ops.shape(x))

def build():
    x = keras.Input((3,))
    return keras.Model(x, Own()(keras.ops.log(keras.layers.Dense(2)(x) - 9)))
"""


def test_random_outputs_of_a_model_that_is_not_defined_everywhere(tmp_path: Path) -> None:
    own, path = tmp_path / "own.py", tmp_path / "m.weights.h5"
    own.write_text(DRAWN)
    model = load_module(own, option="").build()
    model.set_weights([np.ones((3, 2)), np.zeros(2)])  # the sum of three is 9 or more if all are
    model.save_weights(path)
    with pytest.raises(UnsupportedModelError, match="draws random numbers at inference"):
        load_model(audit_file(path), architecture=f"{own}:build")
