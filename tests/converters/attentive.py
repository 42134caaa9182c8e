"""Models with attention outside attention layers, and with softmaxes that are not attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

# Steps and features.
T, D = 11, 5


def _states() -> tuple[Any, Any]:
    inputs = keras.Input((T, 3), name="sensor")
    return inputs, layers.Dense(D, activation="tanh", name="memory")(inputs)


def _model(inputs: Any, vector: Any) -> Any:
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="answer")(vector))


def over_time() -> Any:
    """Permute, Dense softmax, Permute, Multiply: weights over time for every feature."""
    inputs, states = _states()
    transposed = layers.Permute((2, 1))(states)
    dense = layers.Dense(T, activation="softmax", name="vec")
    weights = layers.Permute((2, 1))(dense(transposed))
    return _model(inputs, layers.Flatten()(layers.Multiply()([states, weights])))


def over_features() -> Any:
    inputs, states = _states()
    weights = layers.Dense(D, activation="softmax", name="vec")(states)
    return _model(inputs, layers.Flatten()(layers.Multiply()([states, weights])))


def averaged() -> Any:
    """One weight per step: the mean over features, repeated."""
    inputs, states = _states()
    weights = layers.Dense(T, activation="softmax", name="vec")(layers.Permute((2, 1))(states))
    weights = layers.RepeatVector(D)(ops.mean(weights, axis=1))
    mixed = layers.Multiply()([states, layers.Permute((2, 1))(weights)])
    return _model(inputs, layers.Flatten()(mixed))


def scored() -> Any:
    """Dense(1), Flatten, Activation softmax, RepeatVector, Permute, Multiply, sum."""
    inputs, states = _states()
    scores = layers.Flatten()(layers.Dense(1, activation="tanh")(states))
    weights = layers.Activation("softmax", name="weights")(scores)
    weights = layers.Permute((2, 1))(layers.RepeatVector(D)(weights))
    return _model(inputs, ops.sum(layers.Multiply()([states, weights]), axis=1))


def dotted() -> Any:
    """The graph of the package ``attention``: Dot, Activation, Dot."""
    inputs, states = _states()
    last = states[:, -1]
    scores = layers.Dot((1, 2))([last, layers.Dense(D, use_bias=False)(states)])
    weights = layers.Activation("softmax", name="attention_weight")(scores)
    context = layers.Dot((1, 1), name="context")([states, weights])
    return _model(inputs, layers.Concatenate()([context, last]))


def softmax_layer() -> Any:
    inputs, states = _states()
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(states))
    return _model(inputs, ops.sum(states * weights, axis=1))


def operation() -> Any:
    inputs, states = _states()
    weights = ops.softmax(layers.Dense(1)(states), axis=1)
    return _model(inputs, ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), states), 1))


def einsum() -> Any:
    inputs, states = _states()
    weights = ops.softmax(ops.einsum("bqd,bkd->bqk", states, states))
    mixed = ops.einsum("bqk,bkd->bqd", weights, states)
    return _model(inputs, layers.GlobalAveragePooling1D()(mixed))


class Pooling(layers.Layer):  # type: ignore[misc]
    """A custom layer with a softmax in ``call``."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 1), name="kernel")

    def call(self, states: Any) -> Any:
        weights = ops.softmax(ops.tanh(ops.matmul(states, self.kernel)), axis=1)
        return ops.sum(states * weights, axis=1)


class Exponential(layers.Layer):  # type: ignore[misc]
    """A custom layer with a handwritten softmax: exp(x) / (sum(exp(x)) + epsilon)."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")

    def call(self, states: Any) -> Any:
        weights = ops.exp(ops.tanh(ops.squeeze(ops.dot(states, self.kernel[:, None]), -1)))
        weights = weights / (ops.sum(weights, axis=1, keepdims=True) + 1e-7)
        return ops.sum(states * ops.expand_dims(weights, -1), axis=1)


class Heads(layers.Layer):  # type: ignore[misc]
    """Three heads in a separate axis."""

    def call(self, states: Any) -> Any:
        parts = ops.reshape(states, (-1, T, 1, D))
        split = ops.transpose(ops.concatenate([parts, -parts, 2 * parts], 2), (0, 2, 1, 3))
        weights = ops.softmax(ops.matmul(split, ops.transpose(split, (0, 1, 3, 2))))
        return ops.mean(ops.reshape(ops.matmul(weights, split), (-1, 3 * T, D)), axis=1)


class Folded(layers.Layer):  # type: ignore[misc]
    """Heads folded into the batch axis, so that samples have no maps of their own."""

    def call(self, states: Any) -> Any:
        folded = ops.concatenate([states, -states], 0)
        weights = ops.softmax(ops.matmul(folded, ops.transpose(folded, (0, 2, 1))))
        first, second = ops.split(ops.matmul(weights, folded), 2, axis=0)
        return ops.mean(first + second, axis=1)


def custom(kind: Any) -> Any:
    inputs, states = _states()
    return _model(inputs, kind(name="own")(states))


def classifier() -> Any:
    inputs, states = _states()
    return _model(inputs, layers.GlobalMaxPooling1D()(states))


def classifier_of_steps() -> Any:
    """A softmax for every step."""
    inputs, states = _states()
    return keras.Model(inputs, layers.Dense(7, activation="softmax", name="tags")(states))


def classifier_with_more() -> Any:
    """Probabilities that are an output and the input of another layer."""
    inputs, states = _states()
    first = layers.Dense(7, activation="softmax", name="first")(states[:, -1])
    return keras.Model(inputs, [first, layers.Dense(3, name="second")(first)])


def experts() -> Any:
    """A mixture of three experts: the softmax weights no sequence."""
    inputs, states = _states()
    last = states[:, -1]
    gate = layers.Dense(3, activation="softmax", name="gate")(last)
    results = ops.stack([layers.Dense(D)(last) for _ in range(3)], axis=1)
    return _model(inputs, ops.sum(results * ops.expand_dims(gate, -1), axis=1))


def gated() -> Any:
    """The features of one vector, weighted by a softmax over features."""
    inputs, states = _states()
    last = states[:, -1]
    weights = layers.Dense(D, activation="softmax", name="gate")(last)
    return _model(inputs, layers.Multiply()([last, weights]))


# Models whose maps must be detected, with the maps' names and shapes without the batch axis.
DETECTED: dict[str, tuple[Callable[[], Any], dict[str, tuple[int, ...]]]] = {
    "over_time": (over_time, {"attention/vec": (D, T)}),
    "over_features": (over_features, {"attention/vec": (T, D)}),
    "averaged": (averaged, {"attention/vec": (T,)}),
    "scored": (scored, {"attention/weights": (T,)}),
    "dotted": (dotted, {"attention/attention_weight": (T,)}),
    "softmax_layer": (softmax_layer, {"attention/weights": (T,)}),
    "operation": (operation, {"attention/softmax": (T,)}),
    "einsum": (einsum, {"attention/softmax": (T, T)}),
    "own_pooling": (lambda: custom(Pooling), {"attention/own": (T,)}),
    "own_exponential": (lambda: custom(Exponential), {"attention/own": (T,)}),
    "own_heads": (lambda: custom(Heads), {"attention/own": (3, T, T)}),
}
# Models without detected maps, with their doubtful layers.
OTHERS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "classifier": (classifier, ()),
    "classifier_of_steps": (classifier_of_steps, ()),
    "classifier_with_more": (classifier_with_more, ()),
    "experts": (experts, ("gate",)),
    "gated": (gated, ("gate",)),
    "own_folded": (lambda: custom(Folded), ("own",)),
}


def keras_layer(build: Callable[[], Any], pair: bool = True) -> Any:
    inputs, states = _states()
    attended = build()([states, states]) if pair else build()(states, states)
    return _model(inputs, layers.GlobalAveragePooling1D()(attended))


# Keras' attention layers, with the shapes of their maps without the batch axis.
KERAS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "dot": (lambda: keras_layer(lambda: layers.Attention(name="look")), (T, T)),
    "concat": (
        lambda: keras_layer(lambda: layers.Attention(score_mode="concat", name="look")),
        (T, T),
    ),
    "additive": (lambda: keras_layer(lambda: layers.AdditiveAttention(name="look")), (T, T)),
    "heads": (
        lambda: keras_layer(lambda: layers.MultiHeadAttention(3, 2, name="look"), pair=False),
        (3, T, T),
    ),
    "grouped": (
        lambda: keras_layer(lambda: layers.GroupQueryAttention(4, 6, 2, name="look"), pair=False),
        (6, T, T),
    ),
}
