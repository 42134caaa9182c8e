"""Layers as programs for Keras 2 define them, with ``keras.backend`` or with own output shapes.

Files of Keras 2 contain them; the results are those of tf_keras with the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
# Written for this test in the style of common programs.
TEXT = """
def dot_product(x, kernel):
    if K.backend() == 'tensorflow':
        return K.squeeze(K.dot(x, K.expand_dims(kernel)), axis=-1)
    return K.dot(x, kernel)


class WithContext(Layer):
    '''Attention with a learned context vector, after a Masking layer.'''

    def __init__(self, bias=True, **kwargs):
        self.supports_masking = True
        self.bias = bias
        super(WithContext, self).__init__(**kwargs)

    def build(self, input_shape):
        n = input_shape[-1]
        self.W = self.add_weight(shape=(n, n), initializer='glorot_uniform', name='W')
        if self.bias:
            self.b = self.add_weight(shape=(n,), initializer='zero', name='b')
        self.u = self.add_weight(shape=(n,), initializer='glorot_uniform', name='u')
        super(WithContext, self).build(input_shape)

    def compute_mask(self, input, input_mask=None):
        return None

    def call(self, x, mask=None):
        a = K.tanh(K.dot(x, self.W) + (self.b if self.bias else 0))
        a = K.exp(dot_product(a, self.u))
        if mask is not None:
            a *= K.cast(mask, K.floatx())
        a /= K.cast(K.sum(a, axis=1, keepdims=True) + K.epsilon(), K.floatx())
        return K.sum(x * K.expand_dims(a), axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])


class WithSteps(Layer):
    '''Attention with a fixed number of steps, by reshaping.'''

    def __init__(self, step_dim, **kwargs):
        super(WithSteps, self).__init__(**kwargs)
        self.step_dim = step_dim

    def build(self, input_shape):
        assert len(input_shape) == 3
        self.W = self.add_weight(shape=(int(input_shape[-1]),), name='{}_W'.format(self.name))
        self.b = self.add_weight(shape=(int(input_shape[1]),), name='{}_b'.format(self.name))
        self.features_dim = int(input_shape[-1])
        self.built = True

    def call(self, x, mask=None):
        n, t = self.features_dim, self.step_dim
        e = K.reshape(K.dot(K.reshape(x, (-1, n)), K.reshape(self.W, (n, 1))), (-1, t))
        a = K.softmax(K.tanh(e + self.b))
        return K.batch_dot(a, x, axes=[1, 1])

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.features_dim

    def get_config(self):
        config = super(WithSteps, self).get_config()
        config['step_dim'] = self.step_dim
        return config


class SelfAttention(Layer):
    '''One weight of three kernels; returns every step.'''

    def __init__(self, output_dim=4, **kwargs):
        self.output_dim = output_dim
        super(SelfAttention, self).__init__(**kwargs)

    def build(self, input_shape):
        self.kernel = self.add_weight(name='kernel', shape=(3, input_shape[2], self.output_dim),
                                      initializer='uniform', trainable=True)
        super(SelfAttention, self).build(input_shape)

    def call(self, x):
        q, k, v = (K.dot(x, self.kernel[i]) for i in range(3))
        qk = K.batch_dot(q, K.permute_dimensions(k, [0, 2, 1])) / (64 ** 0.5)
        return K.batch_dot(K.softmax(qk), v)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[1], self.output_dim)

    def get_config(self):
        return dict(super(SelfAttention, self).get_config(), output_dim=self.output_dim)


class LayerNorm(Layer):
    def build(self, input_shape):
        self.gain = self.add_weight(name='gain', shape=input_shape[-1:], initializer='ones')
        self.offset = self.add_weight(name='offset', shape=input_shape[-1:], initializer='zeros')
        super().build(input_shape)

    def call(self, x):
        mean, std = K.mean(x, axis=-1, keepdims=True), K.std(x, axis=-1, keepdims=True)
        return self.gain * (x - mean) / (std + K.epsilon()) + self.offset

    def compute_output_shape(self, input_shape):
        return input_shape


class Capsules(Layer):
    '''Routing by agreement between capsules.'''

    def build(self, input_shape):
        self.W = self.add_weight(name='W', shape=(1, input_shape[-1], 6))
        super().build(input_shape)

    def call(self, x):
        u = K.conv1d(x, self.W)
        n = K.shape(x)[0]
        u = K.permute_dimensions(K.reshape(u, (n, K.int_shape(x)[1], 3, 2)), (0, 2, 1, 3))
        b = K.zeros_like(u[:, :, :, 0])
        for i in range(3):
            c = K.permute_dimensions(K.softmax(K.permute_dimensions(b, (0, 2, 1))), (0, 2, 1))
            s = K.sum(K.expand_dims(c) * u, axis=2)
            norm = K.sum(K.square(s), -1, keepdims=True)
            s = s / K.sqrt(norm + K.epsilon())
            if i < 2:
                b = b + K.sum(K.expand_dims(s, 2) * u, axis=-1)
        return s

    def compute_output_shape(self, input_shape):
        return (None, 3, 2)


class Positions(Layer):
    '''Sine and cosine of the position.'''

    def call(self, x):
        i = 1. / K.pow(10000., 2 * K.arange(2, dtype='float32') / 4)
        p = K.cumsum(K.ones_like(x[:, :, 0]), 1) - 1
        angle = K.dot(K.expand_dims(p, 2), K.expand_dims(i, 0))
        return K.concatenate([x, K.cos(angle), K.sin(angle)], axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape[:-1] + (input_shape[-1] + 4,)


class Recurrence(Layer):
    '''A loop over the steps with K.rnn.'''

    def build(self, input_shape):
        self.W = self.add_weight(name='W', shape=(input_shape[-1], input_shape[-1]))
        super().build(input_shape)

    def call(self, x):
        def step(inputs, states):
            output = K.hard_sigmoid(inputs + K.dot(states[0], self.W))
            return output, [output]
        last, outputs, states = K.rnn(step, x, [K.zeros_like(x[:, 0])])
        return K.concatenate([last, K.max(outputs, axis=1)])

    def compute_output_shape(self, input_shape):
        return input_shape[0], 2 * input_shape[-1]
"""
CLASSES: dict[str, Callable[[Any], Any]] = {
    "WithContext": lambda cls: cls(),
    "WithSteps": lambda cls: cls(STEPS),
    "SelfAttention": lambda cls: cls(),
    "LayerNorm": lambda cls: cls(),
    "Capsules": lambda cls: cls(),
    "Positions": lambda cls: cls(),
    "Recurrence": lambda cls: cls(),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any]]:
    """A model of all layers from a file of Keras 2, and the outputs of tf_keras."""

    names: dict[str, Any] = {"K": tf_keras.backend, "Layer": tf_keras.layers.Layer}
    exec(TEXT, names)
    inputs = tf_keras.Input((STEPS, FEATURES))
    masked = tf_keras.layers.Masking()(inputs)
    outputs = [
        create(names[name])(masked if name == "WithContext" else inputs)
        for name, create in CLASSES.items()
    ]
    model = tf_keras.Model(inputs, outputs)
    generator = np.random.default_rng(2)
    model.set_weights([generator.normal(0, 0.5, value.shape) for value in model.get_weights()])
    folder = tmp_path_factory.mktemp("programs")
    model.save(folder / "model.h5")
    (folder / "own.py").write_text(
        f"from keras import backend as K\nfrom keras.engine.topology import Layer\n{TEXT}"
    )
    X[2, 3:] = 0
    model_of_keras_3 = load_model(
        audit_file(folder / "model.h5"), custom_objects=folder / "own.py"
    ).model
    return model_of_keras_3(X), [np.asarray(value) for value in model(X)]


@pytest.mark.parametrize("name", CLASSES)
def test_layers_with_the_backend(name: str, loaded: tuple[Any, list[Any]]) -> None:
    index = list(CLASSES).index(name)
    np.testing.assert_allclose(loaded[0][index], loaded[1][index], rtol=1e-4, atol=1e-5)


SHAPED = """
import keras
from keras import layers, ops


class Base(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4)


class Joined(Base):
    '''Of two inputs.'''

    def call(self, inputs):
        return self.inner(ops.concatenate(inputs, axis=-1))

    def compute_output_shape(self, shapes):
        return (*shapes[0][:-1], 4)


class Parted(Base):
    '''With two outputs.'''

    def call(self, x):
        y = self.inner(x)
        return y, ops.mean(y, axis=1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4), (shape[0], 4)


class Keyed(Base):
    '''With an argument of the call, and sublayers in a dictionary.'''

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = {"first": layers.LSTM(4, return_sequences=True), "last": layers.Dense(2)}

    def call(self, x, scale=1.0):
        return self.parts["last"](self.parts["first"](self.inner(x))) * scale

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


class Stepwise(Base):
    '''Called by TimeDistributed for every step.'''

    def call(self, x):
        return ops.tanh(self.inner(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


class Masked(Base):
    def call(self, x, mask=None):
        y = self.inner(x)
        return ops.sum(y * ops.cast(mask, y.dtype)[..., None], axis=1)

    def compute_output_shape(self, shape):
        return shape[0], 4
"""
MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "two inputs": lambda own, x: own["Joined"]()([x, x * x]),
    "two outputs": lambda own, x: own["Parted"]()(x)[0] + own["Parted"]()(x)[1][:, None],
    "argument of the call": lambda own, x: own["Keyed"]()(x, scale=3.0),
    "every step": lambda own, x: keras.layers.TimeDistributed(own["Stepwise"]())(x),
    "in a nested model": lambda own, x: keras.Sequential(
        [keras.Input((STEPS, FEATURES)), own["Keyed"](), keras.layers.Dense(2)]
    )(x),
    "masked": lambda own, x: own["Masked"]()(keras.layers.Masking()(x)),
}


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("kind", MODELS)
def test_output_shapes_of_own_classes(kind: str, suffix: str, tmp_path: Path) -> None:
    """Keras does not trace the call of such a class, so what is inside is not built."""
    (tmp_path / "own.py").write_text(SHAPED)
    names: dict[str, Any] = {"__name__": "own"}
    exec(SHAPED, names)
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, MODELS[kind](names, inputs))
    model(X)
    generator = np.random.default_rng(17)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.5, variable.shape))
    expected = np.asarray(model(X))
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-4, atol=1e-5)


STATEFUL = """
from tensorflow import keras
from tensorflow.keras import layers

class Double(layers.Layer):
    def call(self, x):
        return 2.0 * x

def model(*others):
    model = keras.Sequential()
    model.add(layers.Masking(batch_input_shape=(1, 6, 4)))
    model.add(layers.LSTM(5, return_sequences=True, stateful=True, name="first"))
    model.add(layers.Bidirectional(layers.GRU(3, stateful=True, name="second")))
    for layer in others:
        model.add(layer)
    model.add(layers.Dense(3))
    return model

def of_keras():
    return model()

def with_a_class():
    return model(Double())
"""


@pytest.mark.parametrize("suffix", [".h5", pytest.param(".weights.h5", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["of_keras", pytest.param("with_a_class", marks=pytest.mark.long)])
def test_stateful_layers_of_programs(name: str, suffix: str, tmp_path: Path) -> None:
    """Every sequence starts from the initial state, whatever the number of samples is."""
    program = run_in_tf_keras(STATEFUL)
    model, generator = program[name](), np.random.default_rng(6)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(tmp_path / f"m{suffix}")
    (tmp_path / "program.py").write_text(STATEFUL)
    loaded = load_model(
        audit_file(tmp_path / f"m{suffix}"), architecture=f"{tmp_path}/program.py:{name}"
    )
    assert loaded.stateful == ("first", "second")
    x = generator.normal(size=(4, 6, 4)).astype("float32")
    x[1, 4:] = 0
    for row, actual in zip(x, np.asarray(loaded.model(x)), strict=True):
        model.reset_states()
        np.testing.assert_allclose(actual, model(row[None])[0], rtol=1e-4, atol=1e-5)


MIXED = """
from tensorflow import keras
from tensorflow.keras import layers

class Residual(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(5)

    def call(self, x):
        return self.inner(x) + x

def build():
    keras.mixed_precision.set_global_policy("mixed_float16")
    x = keras.Input((5,))
    y = layers.Dense(3, dtype="float32")(Residual()(x))
    keras.mixed_precision.set_global_policy("float32")
    return keras.Model(x, y)
"""


def test_layers_inside_others_in_half_precision(tmp_path: Path) -> None:
    """A layer of the user gets its input in half precision, as the layers that it calls."""
    program = run_in_tf_keras(MIXED)
    model, generator = program["build"](), np.random.default_rng(6)
    model.set_weights([generator.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "program.py").write_text(MIXED)
    x = generator.normal(size=(4, 5)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{tmp_path}/program.py:build")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-2, atol=1e-2)
