"""Maps over stacks of steps: unrolled recurrences, and layers at every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, POOLED = 18, 6


class Loop(layers.Layer):
    """A recurrence that the user writes as a loop, with a projection of the state."""

    def __init__(self, join: Callable[[list[Any]], Any], reverse: bool = False) -> None:
        super().__init__()
        self.cell, self.out = layers.Dense(4, activation="tanh"), layers.Dense(5)
        self.join, self.reverse = join, reverse

    def build(self, shape: Any) -> None:
        self.cell.build((None, shape[-1] + 4))
        self.out.build((None, 4))

    def call(self, x: Any) -> Any:
        state, outputs = ops.zeros_like(x[:, 0, :4]), []
        order = range(x.shape[1])
        for k in order[::-1] if self.reverse else order:
            state = self.cell(ops.concatenate([x[:, k], state], -1))
            outputs.append(self.out(state))
        return self.join(outputs[::-1] if self.reverse else outputs)


def stack(outputs: list[Any]) -> Any:
    return ops.stack(outputs, axis=1)


def expanded(outputs: list[Any]) -> Any:
    return ops.concatenate([ops.expand_dims(item, 1) for item in outputs], 1)


def unrolled(kind: Any = layers.LSTM, **options: Any) -> Any:
    return kind(6, return_sequences=True, unroll=True, **options)


def over_time(x: Any) -> Any:
    return layers.TimeDistributed(layers.Dense(5, activation="tanh"))(x)


def unmasked(x: Any) -> Any:
    """The softmax behind it accepts no mask."""
    return ops.transpose(ops.transpose(x, (0, 2, 1)), (0, 2, 1))


SEQUENCES = {
    "lstm": lambda x: unrolled()(x),
    "gru": lambda x: unrolled(layers.GRU)(x),
    "gru_1": lambda x: unrolled(layers.GRU, reset_after=False)(x),
    "simple": lambda x: unrolled(layers.SimpleRNN)(x),
    "cell": lambda x: layers.RNN(layers.GRUCell(6), return_sequences=True, unroll=True)(x),
    "backwards": lambda x: unrolled(go_backwards=True)(x),
    "both": lambda x: layers.Bidirectional(unrolled())(x),
    "both_gru": lambda x: layers.Bidirectional(unrolled(layers.GRU), merge_mode="ave")(x),
    "twice": lambda x: unrolled()(unrolled(layers.GRU)(x)),
    "both_twice": lambda x: layers.Bidirectional(unrolled())(layers.Bidirectional(unrolled())(x)),
    "masked": lambda x: unmasked(unrolled()(x, mask=ops.any(ops.not_equal(x, 0), axis=-1))),
    "over_time": lambda x: over_time(x),
    "over_unrolled": lambda x: over_time(unrolled()(x)),
    "over_both": lambda x: over_time(layers.Bidirectional(unrolled())(x)),
    "over_loop": lambda x: over_time(layers.LSTM(6, return_sequences=True)(x)),
    "over_twice": lambda x: over_time(over_time(unrolled()(x))),
    "own": lambda x: Loop(stack)(x),
    "own_reversed": lambda x: Loop(stack, reverse=True)(x),
    "own_joined": lambda x: Loop(expanded)(x),
}


def weighted(build: Callable[[Any], Any]) -> Any:
    x = keras.Input((STEPS, 2), name="x")
    pooled = layers.MaxPooling1D(3)(layers.Conv1D(8, 3, padding="same")(x))
    states = build(pooled)
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(states))
    return keras.Model(x, ops.sum(weights * states, axis=1))


@pytest.mark.parametrize("kind", only(SEQUENCES, "lstm", "both_gru", "over_loop", "own_joined"))
def test_steps_are_a_sequence(kind: str) -> None:
    interface = interface_of(weighted(SEQUENCES[kind]))
    assert interface.doubtful == ()
    assert {spec.name: spec.shape[1] for spec in interface.attention} == {
        "attention/weights": POOLED
    }


@pytest.mark.long
def test_the_map_is_that_of_keras(tmp_path: Path) -> None:
    model = weighted(SEQUENCES["both"])
    interface = interface_of(model)
    path = tmp_path / "m.tflite"
    inputs, outputs, (name,), _ = tflite.convert(model, interface, recipe_for("float32"), path)
    x = np.random.default_rng(4).normal(size=(3, STEPS, 2)).astype("float32")
    expected = keras.Model(model.inputs, model.get_layer("weights").output).predict(x, verbose=0)
    actual = open_runner(path, "tflite", inputs, outputs).run({"x": x})[name]
    np.testing.assert_allclose(actual.reshape(3, POOLED), expected[..., 0], atol=1e-5)


def hops(x: Any) -> Any:
    """Results of several hops over the whole sequence, each computed from the one before."""
    dense, result = layers.Dense(5), layers.GlobalAveragePooling1D()(x)
    result = layers.Dense(5)(result)
    return ops.stack([result := dense(result) for _ in range(POOLED)], axis=1)


def tokens(x: Any) -> Any:
    """One layer for each step, as tokens of features have."""
    return ops.stack([layers.Dense(5)(x[:, k]) for k in range(POOLED)], axis=1)


def heads(x: Any) -> Any:
    """One result of each head, which are parts of features."""
    split = ops.transpose(ops.reshape(layers.Dense(12)(x), (-1, POOLED, 3, 4)), (0, 2, 1, 3))
    return ops.stack([ops.mean(split[:, k], axis=1) for k in range(3)], axis=1)


def scaled_heads(x: Any) -> Any:
    split = ops.reshape(layers.Dense(12)(x), (-1, POOLED, 3, 4)) * 0.5
    return ops.stack([ops.mean(split[:, :, k], axis=1) for k in range(3)], axis=1)


def half(x: Any) -> Any:
    """Not all steps."""
    dense = layers.Dense(5)
    return ops.stack([dense(x[:, k]) for k in range(POOLED // 2)], axis=1)


def branches(x: Any) -> Any:
    """Each result is computed from all steps."""
    dense = layers.Dense(5)
    return ops.stack([dense(unrolled(layers.GRU)(x)[:, -1]) for _ in range(3)], axis=1)


def crossed(x: Any) -> Any:
    """In another order than that of the steps."""
    dense = layers.Dense(5)
    return ops.stack([dense(x[:, k]) for k in (1, 0, 2, 3, 4, 5)], axis=1)


@pytest.mark.parametrize("build", only([hops, tokens, heads, scaled_heads, half, branches, crossed],
                                       hops, scaled_heads))  # fmt: skip
def test_other_stacks_may_be_no_sequence(build: Callable[[Any], Any]) -> None:
    interface = interface_of(weighted(build))
    assert interface.attention == ()
    assert [item.layer for item in interface.doubtful] == ["weights"]
