"""Programs that use TensorFlow 1, whose names TensorFlow 2 does not have or gives other arguments.

Expected values are those of the same program with the names of TensorFlow 2, in tf_keras.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import every_third, only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

X = np.random.default_rng(5).normal(size=(4, 6, 3)).astype("float32")
BUILD = """
from keras import backend as K
from keras.layers import Dense, GRU, Input, Lambda, Layer
from keras.models import Model
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Weights of Keras 2.2.4, and their model."""
    x = tf_keras.Input((6, 3))
    model = tf_keras.Model(x, tf_keras.layers.Dense(2)(tf_keras.layers.GRU(4)(x)))
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    path = tmp_path_factory.mktemp("weights") / "w.h5"
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "2.2.4"
    return path, model


def load(program: str, weights: tuple[Path, Any], folder: Path) -> Any:
    (folder / "own.py").write_text(program)
    return load_model(audit_file(weights[0]), architecture=f"{folder / 'own.py'}:build")


LINES = [
    "tf.compat.v1.disable_eager_execution()",
    "tf.compat.v1.disable_v2_behavior()",
    "tf.compat.v1.disable_v2_tensorshape()",
    "tf.enable_eager_execution()",
    "tf.config.run_functions_eagerly(True)",
    "from tensorflow.compat.v1 import disable_eager_execution; disable_eager_execution()",
    "import tensorflow.compat.v1 as tf; tf.disable_v2_behavior(); session = tf.Session()",
    "import tensorflow.compat.v1 as tf; tf.disable_eager_execution()",
    "c = tf.ConfigProto(); c.gpu_options.allow_growth = True; K.set_session(tf.Session(config=c))",
    "c = tf.ConfigProto(gpu_options=tf.GPUOptions(per_process_gpu_memory_fraction=0.3))",
    "tf.keras.backend.set_session(tf.compat.v1.Session(config=tf.compat.v1.ConfigProto()))",
    "tf.compat.v1.keras.backend.set_session(tf.compat.v1.Session())",
    "tf.compat.v1.keras.backend.get_session().run(tf.global_variables_initializer())",
    "graph = tf.get_default_graph(); tf.set_random_seed(1)",
    "session = K.get_session(); session.run(tf.local_variables_initializer())",
    "tf.logging.set_verbosity(tf.logging.ERROR); tf.reset_default_graph()",
    "flags = tf.app.flags; flags.DEFINE_integer('units', 4, ''); a = tf.train.AdamOptimizer(0.1)",
    "K.set_learning_phase(0); K.clear_session(); K.manual_variable_initialization(True)",
    "tf.keras.backend.set_learning_phase(False); target = K.placeholder((None, 2))",
    "from tensorflow.python.keras.utils.data_utils import get_file",
    "from keras.models import Input, Model",
    "assert len(K.tensorflow_backend._get_available_gpus()) == 0",
    "from tensorflow.python.framework.ops import disable_eager_execution as f; f()",
    "from tensorflow.python.framework import ops; ops.reset_default_graph()",
    "from tensorflow.python.compat.v2_compat import disable_v2_behavior as f; f()",
    "tf.random.set_random_seed(1)",
    "from keras.backend.tensorflow_backend import _get_available_gpus as g; assert not g()",
    "assert not tf.keras.backend._get_available_gpus()",
]


@pytest.mark.parametrize("line", every_third(LINES))
def test_sessions_and_settings_have_no_effect(
    line: str, weights: tuple[Path, Any], tmp_path: Path
) -> None:
    program = f"""{BUILD}
import tensorflow as tf
{line}

def build():
    x = Input((6, 3))
    return Model(x, Dense(2)(GRU(4, reset_after=True, recurrent_activation="sigmoid")(x)))
"""
    loaded = load(program, weights, tmp_path)
    np.testing.assert_allclose(loaded.model(X), weights[1](X), rtol=1e-4, atol=1e-5)
    # The process computes eagerly as before.
    np.testing.assert_allclose(np.asarray(loaded.model(X)), weights[1](X), rtol=1e-4, atol=1e-5)


def test_blocks_with_sessions(weights: tuple[Path, Any], tmp_path: Path) -> None:
    program = f"""{BUILD}
import tensorflow as tf

def build():
    with tf.get_default_graph().as_default(), tf.Session() as session, K.learning_phase_scope(0):
        x = Input((6, 3))
        y = Dense(2)(GRU(4, reset_after=True, recurrent_activation="sigmoid")(x))
        session.run(tf.global_variables_initializer())
    return Model(x, y)
"""
    loaded = load(program, weights, tmp_path)
    np.testing.assert_allclose(loaded.model(X), weights[1](X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("line", ["K.set_learning_phase(1)", "with K.learning_phase_scope(1): 0"])
def test_training_mode_is_an_error(line: str, weights: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use set_learning_phase\(0\)"):
        load(f"{BUILD}\n{line}\n", weights, tmp_path)


# In TensorFlow 1, and the same in TensorFlow 2. "x" are (samples, 6, 3).
FUNCTIONS = {
    "tf.log(tf.to_float(1) + x * x)": "tf.math.log(1.0 + x * x)",
    "tf.reduce_sum(x, 1, keep_dims=True)": "tf.reduce_sum(x, 1, keepdims=True)",
    "tf.reduce_mean(x, reduction_indices=[1], keep_dims=True)": (
        "tf.reduce_mean(x, axis=[1], keepdims=True)"
    ),
    "tf.reduce_max(x, keepdims=True, axis=2)": "tf.reduce_max(x, keepdims=True, axis=2)",
    "tf.nn.softmax(x, dim=1)": "tf.nn.softmax(x, axis=1)",
    "tf.nn.l2_normalize(x, dim=-1)": "tf.nn.l2_normalize(x, axis=-1)",
    "tf.expand_dims(x, dim=-1)": "tf.expand_dims(x, axis=-1)",
    "tf.squeeze(x[:, :1], squeeze_dims=[1])": "tf.squeeze(x[:, :1], axis=[1])",
    "tf.to_float(tf.argmax(x, dimension=1))": "tf.cast(tf.argmax(x, axis=1), 'float32')",
    "tf.matrix_band_part(tf.matmul(x, x, transpose_b=True), -1, 0)": (
        "tf.linalg.band_part(tf.matmul(x, x, transpose_b=True), -1, 0)"
    ),
    "tf.batch_gather(x, tf.constant([[1, 0]] * 4))[:1] + 0 * x[:, :2]": (
        "tf.gather(x, [1, 0], axis=1)[:1] + 0 * x[:, :2]"
    ),
    "tf.mod(x, 2.0) + tf.rsqrt(x * x + 1.0) + tf.erf(x)": (
        "tf.math.floormod(x, 2.0) + tf.math.rsqrt(x * x + 1.0) + tf.math.erf(x)"
    ),
    "tf.div(x, 3.0) + tf.ceil(x)": "x / 3.0 + tf.math.ceil(x)",
    "tf.nn.dropout(x, keep_prob=1.0)": "x",
    "tf.image.resize_bilinear(x[..., None], (4, 5), align_corners=True)": (
        "tf.compat.v1.image.resize_bilinear(x[..., None], (4, 5), align_corners=True)"
    ),
    "K.tf.reverse_sequence(x, [2] * 4, seq_dim=1, batch_dim=0)": (
        "tf.reverse_sequence(x, [2] * 4, seq_axis=1, batch_axis=0)"
    ),
}


@pytest.mark.parametrize("text", only(FUNCTIONS, *list(FUNCTIONS)[::9]))
@pytest.mark.compared(quick=False)
def test_functions(text: str, weights: tuple[Path, Any], tmp_path: Path) -> None:
    program = f"""{BUILD}
import tensorflow as tf

class Own(Layer):
    def call(self, x):
        return {text}

def build():
    x = Input(batch_shape=(4, 6, 3))
    y = Dense(2)(GRU(4, reset_after=True, recurrent_activation="sigmoid")(x))
    return Model(x, [y, Own()(x)])
"""
    loaded = load(program, weights, tmp_path)
    expected = eval(FUNCTIONS[text], {"tf": tf, "x": X})
    first, second = loaded.model(X)
    np.testing.assert_allclose(first, weights[1](X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-5)
    assert not any("not compared" in note for note in loaded.notes), loaded.notes


CELL = """
class Cell(tf.keras.layers.AbstractRNNCell):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = tf.keras.layers.Dense(units)
        self.units = units

    @property
    def state_size(self):
        return [self.units, self.units]

    @property
    def output_size(self):
        return self.units

    def call(self, x, states):
        h, c = states
        h = tf.tanh(self.dense(tf.concat([x, h], -1)) + c)
        return h, [h, h - c]

def build():
    x = tf.keras.Input((6, 3))
    cell = Cell(4)
    start = cell.get_initial_state(x) if {explicit} else None
    return tf.keras.Model(x, tf.keras.layers.RNN(cell)(x, initial_state=start))
"""


@pytest.mark.parametrize("explicit", [False, True])
def test_cells_of_tf_keras(explicit: bool, tmp_path: Path) -> None:
    text = CELL.format(explicit=explicit)
    old = text.replace("tf.keras", "tf_keras")
    model = run_in_tf_keras(f"import tensorflow as tf\nimport tf_keras\n{old}")["build"]()
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "w.h5")
    (tmp_path / "own.py").write_text(f"import tensorflow as tf\n{text}")
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)
    assert not loaded.is_graph


SIZES = """
from tensorflow.keras import Model
from tensorflow.keras import backend as K
from tensorflow.keras.layers import Dense, Input, LSTM

def build():
    x = Input((6, 3))
    h = LSTM(6, return_sequences=True)(x)
    return Model(x, Dense(3)({text}))
"""


@pytest.mark.parametrize(
    "text",
    every_third(
        [
            "K.mean(h, axis=1) * x.shape[1]",
            "x.shape[1] * K.mean(h, axis=1) / x.shape[-1]",
            "h[:, 0] + K.int_shape(x)[2] - h.shape[1]",
            "K.sum(h, axis=1) / K.cast(x.get_shape().as_list()[1], 'float32')",
        ]
    ),
)
def test_sizes_as_numbers(text: str, tmp_path: Path) -> None:
    """A size is a number, as in TensorFlow 2, also of files of TensorFlow 2.0."""
    program = SIZES.format(text=text)
    model = run_in_tf_keras(program)["build"]()
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.attrs["keras_version"] = "2.2.4-tf"
    (tmp_path / "own.py").write_text(program)
    loaded = load_model(audit_file(tmp_path / "w.h5"), architecture=f"{tmp_path / 'own.py'}:build")
    assert not loaded.is_graph
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-4, atol=1e-5)
