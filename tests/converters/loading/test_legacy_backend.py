"""The functions of ``keras.backend`` of Keras 2, compared with those of tf_keras."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from edgeattn_converters.loading.lambdas import (
    backend_functions,
    bytecode,
    expressions,
    keras_operations,
    signatures,
)


def _tensor(seed: int, *shape: int) -> Any:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), "float32")


X, Y, MATRIX = _tensor(3, 2, 3, 4), _tensor(4, 2, 3, 4), _tensor(5, 4, 5)
IMAGE, KERNEL = _tensor(6, 2, 6, 5, 3), _tensor(7, 3, 2, 3, 4)
LOCAL, LOCAL_2D = _tensor(8, 2, 8, 3), _tensor(9, 4, 18, 2)
VOLUME, VOLUME_KERNEL = _tensor(10, 2, 3, 4, 5, 2), _tensor(11, 2, 2, 2, 3, 2)
TOKENS = tf.constant([[1, 0, 2], [2, 2, 1]])
POSITIVE = tf.abs(X) + 0.1
Call = Callable[[Any], Any]


def _step(K: Any) -> Callable[[Any, Any], Any]:
    def step(inputs: Any, states: Any) -> Any:
        output = K.tanh(inputs + 0.5 * states[0])
        return output, [output]

    return step


CALLS: dict[str, Call] = {
    "abs": lambda K: K.abs(X),
    "all": lambda K: K.all(X > 0, axis=1),
    "any": lambda K: K.any(X > 1, axis=-1, keepdims=True),
    "arange": lambda K: K.arange(2, 9, 3, dtype="float32"),
    "argmax": lambda K: K.argmax(X, axis=1),
    "argmin": lambda K: K.argmin(X),
    "batch_dot": lambda K: K.batch_dot(X, Y, axes=(2, 2)),
    "batch_dot of vectors": lambda K: K.batch_dot(X[:, 0], Y[:, 1], axes=1),
    "batch_dot of a matrix and a vector": lambda K: K.batch_dot(X, Y[:, 0], axes=(2, 1)),
    "batch_flatten": lambda K: K.batch_flatten(X),
    "bias_add": lambda K: K.bias_add(IMAGE, KERNEL[0, 0, :, 0]),
    "binary_crossentropy": lambda K: K.binary_crossentropy(tf.cast(X > 0, "float32"), POSITIVE / 9),
    "cast": lambda K: K.cast(TOKENS, "float32") / 2,
    "categorical_crossentropy": lambda K: K.categorical_crossentropy(POSITIVE, POSITIVE),
    "clip": lambda K: K.clip(X, -0.5, 0.2),
    "concatenate": lambda K: K.concatenate([X, Y], axis=1),
    "ctc_decode": lambda K: K.ctc_decode(K.softmax(X), tf.constant([3, 2]), greedy=True)[0][0],
    "constant": lambda K: K.constant([1, 2], dtype="float32"),
    "conv1d": lambda K: K.conv1d(X, tf.repeat(KERNEL[:, 0], 2, axis=1)[:, :4], padding="causal"),
    "conv2d": lambda K: K.conv2d(IMAGE, KERNEL, strides=(2, 1), padding="same"),
    "conv2d_transpose": lambda K: K.conv2d_transpose(
        IMAGE, tf.transpose(KERNEL, (0, 1, 3, 2)), (2, 8, 6, 4), padding="valid"
    ),
    "cos": lambda K: K.cos(X),
    "count_params": lambda K: K.count_params(K.variable(MATRIX)),
    "cumprod": lambda K: K.cumprod(X, axis=1),
    "cumsum": lambda K: K.cumsum(X, axis=1),
    "depthwise_conv2d": lambda K: K.depthwise_conv2d(IMAGE, KERNEL),
    "dot": lambda K: K.dot(X, MATRIX),
    "elu": lambda K: K.elu(X, 0.7),
    "epsilon": lambda K: K.epsilon(),
    "equal": lambda K: K.equal(TOKENS, 2),
    "exp": lambda K: K.exp(X),
    "expand_dims": lambda K: K.expand_dims(X, 1),
    "eye": lambda K: K.eye(3),
    "flatten": lambda K: K.flatten(X),
    "floatx": lambda K: K.floatx() == "float32",
    "foldl": lambda K: K.foldl(lambda a, x: a + 2 * x, X),
    "gather": lambda K: K.gather(MATRIX, TOKENS),
    "gradients of nothing": lambda K: K.stop_gradient(X),
    "greater": lambda K: K.greater(X, Y),
    "greater_equal": lambda K: K.greater_equal(X, Y),
    "hard_sigmoid": lambda K: K.hard_sigmoid(3 * X),
    "in_test_phase": lambda K: K.in_test_phase(X, Y),
    "in_top_k": lambda K: K.in_top_k(X[:, 0], np.array([1, 3]), 2),
    "in_train_phase": lambda K: K.in_train_phase(X, Y),
    "int_shape": lambda K: np.array(K.int_shape(X)),
    "is_sparse": lambda K: K.is_sparse(X),
    "l2_normalize": lambda K: K.l2_normalize(X, axis=-1),
    "less": lambda K: K.less(X, Y),
    "less_equal": lambda K: K.less_equal(X, Y),
    "local_conv1d": lambda K: K.local_conv1d(X, LOCAL, (2,), (1,)),
    "local_conv2d": lambda K: K.local_conv2d(IMAGE, LOCAL_2D, (3, 2), (3, 3), (2, 2)),
    "log": lambda K: K.log(POSITIVE),
    "map_fn": lambda K: K.map_fn(lambda x: 2 * x, X),
    "max": lambda K: K.max(X, axis=(1, 2)),
    "maximum": lambda K: K.maximum(X, Y),
    "mean": lambda K: K.mean(X, axis=1, keepdims=True),
    "mean of booleans": lambda K: K.mean(K.greater(X, 0), axis=1),
    "min": lambda K: K.min(X, axis=2),
    "minimum": lambda K: K.minimum(X, 0.1),
    "ndim": lambda K: K.ndim(X),
    "normalize_batch_in_training": lambda K: K.normalize_batch_in_training(
        X, tf.ones(4), tf.zeros(4), [0, 1]
    )[0],
    "not_equal": lambda K: K.not_equal(TOKENS, 0),
    "one_hot": lambda K: K.one_hot(TOKENS, 4),
    "ones": lambda K: K.ones((2, 3)),
    "ones_like": lambda K: K.ones_like(X),
    "permute_dimensions": lambda K: K.permute_dimensions(X, (2, 0, 1)),
    "pool2d": lambda K: K.pool2d(IMAGE, (2, 2), padding="same", pool_mode="avg"),
    "pow": lambda K: K.pow(POSITIVE, 3),
    "prod": lambda K: K.prod(X, axis=1),
    "relu": lambda K: K.relu(X, alpha=0.2, max_value=0.5, threshold=0.1),
    "repeat": lambda K: K.repeat(X[:, 0], 3),
    "repeat_elements": lambda K: K.repeat_elements(X, 2, axis=1),
    "reshape": lambda K: K.reshape(X, (-1, 6)),
    "resize_images": lambda K: K.resize_images(IMAGE, 2, 3, "channels_last"),
    "reverse": lambda K: K.reverse(X, axes=1),
    "rnn": lambda K: K.rnn(_step(K), X, [K.zeros((2, 4))])[1],
    "rnn backwards": lambda K: K.rnn(_step(K), X, [K.zeros((2, 4))], go_backwards=True)[0],
    "round": lambda K: K.round(3 * X),
    "separable_conv2d": lambda K: K.separable_conv2d(IMAGE, KERNEL, tf.ones((1, 1, 12, 2))),
    "shape": lambda K: K.shape(X),
    "sigmoid": lambda K: K.sigmoid(X),
    "sign": lambda K: K.sign(X),
    "sin": lambda K: K.sin(X),
    "softmax": lambda K: K.softmax(X, axis=1),
    "softplus": lambda K: K.softplus(X),
    "softsign": lambda K: K.softsign(X),
    "sparse_categorical_crossentropy": lambda K: K.sparse_categorical_crossentropy(
        TOKENS, POSITIVE
    ),
    "spatial_2d_padding": lambda K: K.spatial_2d_padding(IMAGE, ((1, 0), (2, 1))),
    "sqrt": lambda K: K.sqrt(X),
    "square": lambda K: K.square(X),
    "squeeze": lambda K: K.squeeze(X[:, :1], 1),
    "stack": lambda K: K.stack([X, Y], axis=1),
    "std": lambda K: K.std(X, axis=1),
    "sum": lambda K: K.sum(X, axis=[1, 2]),
    "switch": lambda K: K.switch(K.greater(X, 0), X, Y),
    "switch on rows": lambda K: K.switch(K.greater(X[:, :, 0], 0), X, Y),
    "tanh": lambda K: K.tanh(X),
    "temporal_padding": lambda K: K.temporal_padding(X, (1, 2)),
    "tile": lambda K: K.tile(X, (1, 2, 1)),
    "transpose": lambda K: K.transpose(MATRIX),
    "update": lambda K: K.update(K.variable(MATRIX), 2 * MATRIX),
    "update_add": lambda K: K.update_add(K.variable(MATRIX), MATRIX),
    "update_sub": lambda K: K.update_sub(K.variable(MATRIX), 2 * MATRIX),
    "var": lambda K: K.var(X, axis=1),
    "variable": lambda K: K.variable(MATRIX),
    "zeros": lambda K: K.zeros((2, 3)),
    "zeros_like": lambda K: K.zeros_like(X),
}


@pytest.fixture(scope="module")
def backends() -> tuple[Any, Any]:
    import keras
    import tf_keras

    from edgeattn_converters.loading.legacy import legacy_backend

    legacy_backend.provide()
    return keras.backend, tf_keras.backend


@pytest.mark.parametrize("name", CALLS)
def test_functions_compute_as_in_keras_2(name: str, backends: tuple[Any, Any]) -> None:
    actual, expected = (np.asarray(CALLS[name](backend)) for backend in backends)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# Functions that programs import from the module, and that have no public name.
MODULE_CALLS: dict[str, Call] = {
    "conv3d_transpose": lambda K: K.conv3d_transpose(VOLUME, VOLUME_KERNEL, (2, 4, 5, 6, 3)),
    "dtype_numpy": lambda K: np.dtype(K.dtype_numpy(X)) == np.float32,
    "is_placeholder": lambda K: K.is_placeholder(X),
    "local_conv": lambda K: K.local_conv(X, LOCAL, (2,), (1,), (2,)),
}


@pytest.mark.parametrize("name", MODULE_CALLS)
def test_functions_of_the_module_compute_as_in_keras_2(
    name: str, backends: tuple[Any, Any]
) -> None:
    from tf_keras.src import backend

    actual, expected = (np.asarray(MODULE_CALLS[name](K)) for K in (backends[0], backend))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# Functions that tf.keras never had.
OF_KERAS_ALONE: dict[str, tuple[Call, Any]] = {
    "identity": (lambda K: K.identity(X), X),
    "logsumexp": (lambda K: K.logsumexp(X, axis=1), np.log(np.exp(X).sum(axis=1))),
    "slice": (lambda K: K.slice(X, [0, 1, 0], [2, 2, 3]), X[:, 1:, :3]),
    "softmax_3d": (lambda K: K.softmax_3d(X), np.exp(X) / np.exp(X).sum(-1, keepdims=True)),
}


@pytest.mark.parametrize("name", OF_KERAS_ALONE)
def test_functions_of_keras_without_tensorflow(name: str, backends: tuple[Any, Any]) -> None:
    call, expected = OF_KERAS_ALONE[name]
    np.testing.assert_allclose(call(backends[0]), expected, rtol=1e-5, atol=1e-6)


# Names of Keras 2 that a layer does not use at inference. A class that calls one is an error that
# names it.
WITHOUT_MEANING = {
    *("experimental", "function"),
}
# Not called here: settings, random numbers, and functions of training.
OTHERS = {
    *("backend", "binary_focal_crossentropy", "categorical_focal_crossentropy"),
    *("batch_get_value", "batch_normalization", "batch_set_value", "cast_to_floatx"),
    *("clear_session", "conv3d", "ctc_batch_cost", "ctc_label_dense_to_sparse"),
    *("dropout", "dtype", "eval", "foldr", "get_uid", "get_value", "gradients"),
    *("image_data_format", "is_keras_tensor", "learning_phase", "moving_average_update"),
    *("name_scope", "pool3d", "print_tensor", "random_bernoulli", "random_normal"),
    *("random_normal_variable", "random_uniform", "random_uniform_variable", "resize_volumes"),
    "random_binomial",  # See test_losses_of_classes.py.
    *("set_epsilon", "set_floatx", "set_image_data_format", "set_value", "spatial_3d_padding"),
    *("stop_gradient", "to_dense", "truncated_normal"),
    # See test_programs_for_tensorflow_1.py.
    *("learning_phase_scope", "manual_variable_initialization", "placeholder", "reset_uids"),
    "set_learning_phase",
}


def test_every_function_of_keras_2_is_provided(backends: tuple[Any, Any]) -> None:
    from tf_keras.api._v2.keras import backend as public

    names = {name for name in vars(public) if not name.startswith("_")}
    assert {name for name in names if not hasattr(backends[0], name)} == WITHOUT_MEANING
    tested = {name.split()[0] for name in CALLS}
    assert names - WITHOUT_MEANING == (tested & names) | OTHERS


# Functions of Keras 2 that Lambda layers must not call: they draw random numbers, change or need
# variables, take Python functions, return what depends on a session, or have loops.
NOT_IN_LAMBDAS = WITHOUT_MEANING | {
    *("backend", "batch_get_value", "batch_set_value", "clear_session", "count_params"),
    *("ctc_batch_cost", "ctc_label_dense_to_sparse", "dropout", "eval", "foldl"),
    *("foldr", "get_uid", "get_value", "gradients", "is_keras_tensor", "map_fn"),
    *("moving_average_update", "name_scope", "random_bernoulli", "random_normal"),
    *("random_normal_variable", "random_uniform", "random_uniform_variable", "rnn"),
    *("set_epsilon", "set_floatx", "set_image_data_format", "set_value", "truncated_normal"),
    *("learning_phase_scope", "manual_variable_initialization", "placeholder", "reset_uids"),
    *("set_learning_phase", "update", "update_add", "update_sub", "variable", "random_binomial"),
}


def test_every_function_of_keras_2_is_known_in_lambdas() -> None:
    from tf_keras.api._v2.keras import backend as public

    names = {name for name in vars(public) if not name.startswith("_")}
    known = {name for name in names if signatures.find(f"K.{name}") is not None}
    # Its value is a constant of expressions.
    assert names - known - backend_functions.FUNCTIONS - {"floatx"} == NOT_IN_LAMBDAS & names
    assert not NOT_IN_LAMBDAS & (known | backend_functions.FUNCTIONS)


LAMBDAS = [
    "lambda x: K.temporal_padding(x, (1, 2))",
    "lambda x: K.switch(K.greater(x, 0), x, K.exp(x))",
    "lambda x: K.relu(x, alpha=0.2, max_value=0.5)",
    "lambda x: K.elu(x, 0.7)",
    "lambda x: x / (K.epsilon() + K.sum(x, axis=-1, keepdims=True))",
    "lambda x: K.in_train_phase(2 * x, x)",
    "lambda x: K.cumprod(x, axis=1) + K.ndim(x)",
    "lambda x: K.pool2d(K.expand_dims(x), (2, 2), padding='same', pool_mode='avg')",
    "lambda x: K.resize_images(K.expand_dims(x), 2, 3, 'channels_last')",
    "lambda x: K.dot(x, K.ones((4, 2)))",
    "lambda x: K.spatial_2d_padding(K.expand_dims(x), ((0, 1), (1, 0)))[:, :, :, 0]",
]


@pytest.mark.parametrize("source", LAMBDAS)
def test_lambdas_compute_as_in_keras_2(source: str) -> None:
    """They were refused as unknown code."""
    import tf_keras

    function = eval(source, {"K": tf_keras.backend})
    code = marshal.dumps(function.__code__)
    expression = bytecode.recognize(code, defaults=(), arguments={})
    actual = keras_operations.evaluate(expression, X)
    np.testing.assert_allclose(actual, function(X), rtol=1e-5, atol=1e-6)
    assert "K." in expressions.describe(expression)
