"""Functional models of Keras 2 that call TensorFlow itself, as its users did."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Case, in_group

SHAPE = (6, 5)
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "x + y, 1 - x, x ** 2, -x": lambda tf, x: (x + 1.0) * (1.0 - x) ** 2 - (-x) / 3.0,
    "x % y, x // y": lambda tf, x: x % 1.5 + x // 0.7,
    "x @ y": lambda tf, x: x @ tf.transpose(x, [0, 2, 1]),
    "slices": lambda tf, x: x[:, 1:-1, ::2],
    "abs, exp, tanh": lambda tf, x: tf.abs(x) + tf.exp(x) * tf.tanh(x),
    "argmax": lambda tf, x: tf.argmax(x, axis=-1, output_type=tf.int32),
    "band_part": lambda tf, x: tf.linalg.band_part(x, 1, 0),
    "cast": lambda tf, x: tf.cast(x > 0.2, tf.float32),
    "clip_by_value": lambda tf, x: tf.clip_by_value(x, -0.5, 0.8),
    "concat": lambda tf, x: tf.concat([x, x * 2.0], axis=-1),
    "einsum": lambda tf, x: tf.einsum("bij,bkj->bik", x, x),
    "expand_dims, squeeze": lambda tf, x: tf.squeeze(tf.expand_dims(x, 3) * 2.0, 3),
    "frame, overlap_and_add": lambda tf, x: tf.signal.overlap_and_add(
        tf.signal.frame(x, 4, 2, axis=-1) * [0.2, 1.0, 0.7, 0.3], 2
    ),
    "gather": lambda tf, x: tf.gather(x, [3, 0, 0], axis=1),
    "l2_normalize": lambda tf, x: tf.math.l2_normalize(x, axis=-1),
    "matmul transposed": lambda tf, x: tf.matmul(x, x, transpose_b=True),
    "norm": lambda tf, x: tf.norm(x, axis=-1),
    "one_hot": lambda tf, x: tf.one_hot(tf.cast(tf.abs(x), tf.int32), 4),
    "pad": lambda tf, x: tf.pad(x, [[0, 0], [1, 2], [0, 1]]),
    "reduce_max, reduce_mean": lambda tf, x: tf.reduce_max(x, 1) - tf.reduce_mean(x, axis=1),
    "reduce_logsumexp": lambda tf, x: tf.reduce_logsumexp(x, axis=-1),
    "reshape with shape": lambda tf, x: tf.reshape(x, [tf.shape(x)[0], 15, 2]),
    "reshape with shapes": lambda tf, x: tf.reshape(
        x, tf.concat([tf.shape(x)[:-1], [1, tf.shape(x)[2]]], axis=0)
    ),
    "reverse": lambda tf, x: tf.reverse(x, axis=[1]),
    "roll": lambda tf, x: tf.roll(x, 2, axis=1),
    "softmax, sigmoid": lambda tf, x: tf.nn.softmax(x, axis=1) * tf.sigmoid(x),
    "split": lambda tf, x: tf.split(x, 3, axis=1)[1],
    "stack": lambda tf, x: tf.stack([x, x * 2.0], axis=1),
    "stft": lambda tf, x: tf.abs(tf.signal.stft(x, 4, 1)),
    "tensordot": lambda tf, x: tf.tensordot(x, np.full((5, 3), 0.3, "float32"), axes=1),
    "tile": lambda tf, x: tf.tile(x, [1, 2, 1]),
    "top_k": lambda tf, x: tf.math.top_k(x, 3).values,
    "where": lambda tf, x: tf.where(x > 0.0, x, x * -0.5),
}


def _case(name: str, make: Callable[[Any, Any], Any]) -> Case:
    def build(keras: Any) -> Any:
        import tensorflow as tf

        x = keras.Input(SHAPE, name="x")
        return keras.Model(x, make(tf, keras.layers.Dense(SHAPE[-1])(x)))

    return Case(name, build, keras=False, schemes=("float32", "int8"))


CASES = in_group("tensorflow", [_case(name, make) for name, make in OPERATIONS.items()])
