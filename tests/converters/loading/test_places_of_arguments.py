"""Arguments in place of constructors of Keras 2, of which Keras 3 has some in other places."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.legacy import places_of_arguments as places
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.load import load_model

# Names of Keras 3 for the argument in the same place.
RENAMED = {
    "InputLayer": {"input_shape": "shape"},
    "LeakyReLU": {"alpha": "negative_slope"},
}


def _classes() -> dict[str, tuple[Any, Any]]:
    """The layers, and Input and Sequential, of tf_keras and of Keras 3 by name."""
    names = [name for name in dir(tf_keras.layers) if hasattr(keras.layers, name)]
    found = {name: (getattr(tf_keras.layers, name), getattr(keras.layers, name)) for name in names}
    layers = {
        old.__name__: (old.__init__, new.__init__)
        for old, new in found.values()
        if isinstance(old, type) and issubclass(old, tf_keras.layers.Layer)
    }
    return {
        **layers,
        "Sequential": (tf_keras.Sequential.__init__, keras.Sequential.__init__),
        "Input": (tf_keras.Input, keras.Input),
    }


def test_all_places_of_tf_keras() -> None:
    """Each argument in place of each class of tf_keras gets its name, or keeps its place."""
    program = Program((2, 16), of_tensorflow=True)
    classes = _classes()
    assert len(classes) > 90
    for class_name, (old, new) in classes.items():
        first = 0 if class_name == "Input" else 1
        old_names = list(places.names(old, first))
        new_names = places.names(new, first)
        values = [f"value of {name}" for name in old_names]
        args, named = places.by_name(class_name, new_names, values, {}, program)
        found = dict(zip(new_names, args, strict=False)) | named
        renamed = RENAMED.get(class_name, {})
        expected = {renamed.get(name, name): f"value of {name}" for name in old_names}
        assert len(args) <= len(new_names), class_name
        assert found == expected, class_name


# The names in the sources of Keras and TensorFlow, from the place that is given on.
@pytest.mark.parametrize(
    ("class_name", "version", "of_tensorflow", "place", "name"),
    [
        ("Conv1D", (2, 1, 6), False, 4, "dilation_rate"),
        ("Conv1D", (2, 1, 6), True, 6, "activation"),
        ("Conv1D", (2, 3, 1), False, 6, "activation"),
        ("Conv2D", (2, 2, 4), True, 6, "activation"),
        ("Conv2D", (2, 4, 0), False, 6, "groups"),
        ("Conv2DTranspose", (2, 1, 6), True, 4, "data_format"),
        ("Conv2DTranspose", (2, 2, 2), False, 6, "activation"),
        ("Conv2DTranspose", (2, 2, 4), False, 6, "dilation_rate"),
        ("Conv3DTranspose", (2, 2, 4), True, 4, "output_padding"),
        ("Conv3DTranspose", (2, 3, 0), True, 6, "activation"),
        ("Conv3DTranspose", (2, 6, 0), False, 6, "dilation_rate"),
        ("ConvLSTM2D", (2, 3, 0), True, 21, "go_backwards"),
        ("ConvLSTM2D", (2, 4, 0), False, 21, "return_state"),
        ("DepthwiseConv2D", (2, 2, 4), False, 5, "activation"),
        ("DepthwiseConv2D", (2, 2, 5), False, 5, "dilation_rate"),
        ("DepthwiseConv2D", (2, 3, 0), True, 5, "activation"),
        ("Embedding", (2, 2, 4), True, 6, "mask_zero"),
        ("GRU", (2, 3, 1), False, 22, "reset_after"),
        ("GRU", (2, 3, 0), True, 23, "reset_after"),
        ("GRU", (2, 5, 0), False, 16, "return_sequences"),
        ("Hashing", (2, 4, 0), False, 1, "salt"),
        ("Hashing", (2, 5, 0), False, 1, "mask_value"),
        ("IntegerLookup", (2, 5, 0), False, 5, "invert"),
        ("IntegerLookup", (2, 7, 0), False, 5, "idf_weights"),
        ("IntegerLookup", (2, 8, 0), False, 5, "vocabulary_dtype"),
        ("LSTM", (2, 2, 4), True, 18, "return_sequences"),
        ("LSTM", (2, 4, 0), False, 24, None),
        ("LSTM", (2, 5, 0), False, 17, "return_sequences"),
        ("SeparableConv2D", (2, 0, 8), True, 5, "depth_multiplier"),
        ("SeparableConv2D", (2, 1, 2), True, 5, "dilation_rate"),
        ("SeparableConv2D", (2, 1, 3), False, 5, "depth_multiplier"),
        ("StringLookup", (2, 6, 0), False, 5, "encoding"),
        ("StringLookup", (2, 7, 0), False, 6, "encoding"),
    ],
)
def test_place_in_a_version(
    class_name: str, version: tuple[int, ...], of_tensorflow: bool, place: int, name: str | None
) -> None:
    current = places.names(getattr(keras.layers, class_name).__init__)
    values = [*range(place), "value"]
    program = Program(version, of_tensorflow=of_tensorflow)
    args, named = places.by_name(class_name, current, values, {}, program)
    found = dict(zip(current, args, strict=False)) | named
    assert found.get(str(name)) == (None if name is None else "value")


def test_place_that_the_version_does_not_show() -> None:
    """TensorFlow 2.3 and 2.4 both have Keras 2.4.0; only the former has ``implementation``."""
    current = places.names(keras.layers.LSTM.__init__)
    args = [4, *list(current.values())[1:17], True]
    with pytest.raises(UsageError, match="18 in place is implementation or return_seq") as error:
        places.by_name("LSTM", current, args, {}, Program((2, 4, 0)))
    assert "LSTM(..., implementation=VALUE)" in str(error.value.hint)
    # False is the default.
    args[17] = False
    assert places.by_name("LSTM", current, args, {}, Program((2, 4, 0)))[0] == tuple(args[:17])


INITIALIZERS = "'glorot_uniform', 'orthogonal', 'zeros'"
GATES = f"'tanh', 'sigmoid', True, {INITIALIZERS}"
NONE = ", ".join(["None"] * 7)
SHAPES = {
    "words": "L.Input((5,), None, 'words', 'int32')",
    "steps": "L.Input((5, 3), None, 'steps')",
    "images": "L.Input((4, 6, 5, 2), None, 'images')",
    "volumes": "L.Input((2, 3, 4, 2), None, 'volumes')",
}
LAYERS = {
    "embedding": ("words", "L.LSTM(2)(L.Embedding(9, 3, 'uniform', None, None, None, True, 5)(x))"),
    "lstm": ("steps", f"L.LSTM(2, {GATES}, True, {NONE}, 0.0, 0.0, True, False, True)(x)"),
    "gru": (
        "steps",
        f"L.GRU(2, {GATES}, {NONE}, 0.0, 0.0, True, False, True, False, False, False, False)(x)",
    ),
    "simple_rnn": (
        "steps",
        f"L.SimpleRNN(2, 'tanh', True, {INITIALIZERS}, {NONE}, 0.0, 0.0, True, False, True)(x)",
    ),
    "rnn": (
        "steps",
        "L.RNN(L.LSTMCell(2, 'relu'), True, False, True, False, False, False)(x)",
    ),
    "conv_lstm": (
        "images",
        "L.ConvLSTM2D(2, 3, 1, 'same', None, 1, 'tanh', 'hard_sigmoid', True, "
        f"{INITIALIZERS}, True, {NONE}, True, False, True)(x)",
    ),
    "conv_lstm_gates": ("images", "L.ConvLSTM2D(2, (3, 3), (1, 1), 'same')(x)"),
    "transposed": (
        "volumes",
        "L.Conv3DTranspose(2, 2, 2, 'same', 1, 'channels_last', 1, 'relu', False)(x)",
    ),
    "einsum": (
        "steps",
        f"L.EinsumDense('abc,cd->abd', (None, 4), 'tanh', 'd', 'zeros', 'zeros', {NONE[:28]})(x)",
    ),
    "attention": (
        "steps",
        "L.MultiHeadAttention(2, 3, 4, 0.0, False, 3, (1,), 'zeros', 'ones', None, None)(x, x)",
    ),
    "local": (
        "steps",
        "L.LocallyConnected1D(2, 3, 1, 'valid', None, 'relu', False)(x)",
    ),
    "layer": ("steps", "Scaled(True, 'scaled')(x)"),
}
SCRIPT = """
import numpy as np
from tensorflow.keras import Model, layers as L

class Scaled(L.Layer):
    def __init__(self, trainable, name):
        super().__init__(trainable, name, 'float32')

    def build(self, shape):
        self.factor = self.add_weight('factor', shape[-1:])

    def call(self, x):
        return x * self.factor

def build():
    x = {shape}
    return Model(x, {layer})
"""
X = {
    "words": np.random.default_rng(6).integers(0, 3, (4, 5)),
    "steps": np.random.default_rng(5).normal(size=(4, 5, 3)).astype("float32"),
    "images": np.random.default_rng(4).normal(size=(2, 4, 6, 5, 2)).astype("float32"),
    "volumes": np.random.default_rng(3).normal(size=(2, 2, 3, 4, 2)).astype("float32"),
}


def _program(name: str, tmp_path: Path, module: str = "tf_keras") -> Any:
    """The model of a program, and the file of the program."""
    kind, layer = LAYERS[name]
    text = SCRIPT.format(shape=SHAPES[kind], layer=layer)
    (tmp_path / "own.py").write_text(text)
    namespace: dict[str, Any] = {"__name__": f"program_of_{module}"}
    exec(text.replace("tensorflow.keras", module), namespace)
    model = namespace["build"]()
    generator = np.random.default_rng(17)
    model.set_weights([generator.uniform(-1, 1, array.shape) for array in model.get_weights()])
    return model


@pytest.mark.parametrize("name", only(LAYERS, "embedding", "lstm", "local", "layer"))
def test_programs_compute_as_in_keras_2(name: str, tmp_path: Path) -> None:
    model = _program(name, tmp_path)
    model.save_weights(tmp_path / "m.h5")
    x = X[LAYERS[name][0]]
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    np.testing.assert_allclose(loaded.model(x), model(x), atol=1e-5)


OWN = f"""
from tensorflow.keras import layers as L

class Encoder(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = L.Embedding(9, 3, 'uniform', None, None, None, True, 5)
        self.lstm = L.LSTM(
            2, {GATES}, True, {NONE}, 0.0, 0.0, True, False, True)

    def call(self, x):
        return self.lstm(self.embedding(x))
"""


def test_own_classes_in_files_of_keras_2(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    namespace = run_in_tf_keras(OWN)
    x = tf_keras.Input((5,))
    model = tf_keras.Model(x, namespace["Encoder"]()(x))
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X["words"]), model(X["words"]), atol=1e-5)


def test_note_if_the_version_is_unknown(tmp_path: Path) -> None:
    """Keras 3 takes argument 21 of a ConvLSTM2D for its dropout, and returns the last step only."""
    (tmp_path / "own.py").write_text(
        f"""
import keras
def build():
    x = keras.Input((4, 6, 5, 2))
    y = keras.layers.ConvLSTM2D(2, 3, 1, 'same', None, 1, 'tanh', 'sigmoid', True, {INITIALIZERS},
                                True, {NONE}, True, name="steps")(x)
    return keras.Model(x, keras.layers.Dense(2)(y))
"""
    )
    x = keras.Input((4, 6, 5, 2))
    y = keras.layers.ConvLSTM2D(2, 3, padding="same", name="steps")(x)
    model = keras.Model(x, keras.layers.Dense(2)(y))
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5", "r+") as file:  # as the first versions of Keras 3
        del file["vars"].attrs["name"]
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"), architecture=f"{tmp_path / 'own.py'}:build"
    )
    np.testing.assert_allclose(loaded.model(X["images"]), model(X["images"]), atol=1e-5)
    note = "steps: its argument 21 in place is dropout in Keras 3, and return_sequences in Keras 2"
    assert any(note in item for item in loaded.notes)


def test_defaults_behind_arguments_in_place() -> None:
    from edgeattn_converters.loading.legacy import legacy_arguments

    given = {"units", "activation", "recurrent_activation"}
    args = (4, "tanh", "sigmoid")
    _, named = legacy_arguments.current("GRU", args, {}, Program((2, 2, 0)), given)
    assert named == {"reset_after": False}


def test_too_many_arguments_of_a_removed_layer(tmp_path: Path) -> None:
    from edgeattn_converters.loading.legacy import legacy_classes

    create = legacy_classes.functions(Program((2, 3)))["ThresholdedReLU"]
    with pytest.raises(TypeError, match="ThresholdedReLU has 1 arguments in place, not 2"):
        create(1.0, "relu")
    gru = legacy_classes.functions(Program((2, 3)))["CuDNNGRU"]
    layer = gru(2, *["zeros"] * 3, *[None] * 7, True)
    assert layer.return_sequences
    assert inspect.signature(type(layer).__init__).parameters["seed"]
