"""Maps of weights that a model changes between a softmax and the product with data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import contexts
import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters.formats import onnx
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES, HEADS, SLOTS = 7, 5, 3, 2
X = np.random.default_rng(5).normal(0, 1, (4, STEPS, FEATURES)).astype("float32")
MIX = np.random.default_rng(7).normal(0, 1, (HEADS, HEADS)).astype("float32")


def _scores(x: Any, scale: float = 1.0) -> Any:
    """(batch, queries, keys), not symmetric; of tensors or NumPy arrays."""
    return scale * (x[..., :, None, 0] * x[..., None, :, 1] + x[..., None, :, 2])


def _heads(x: Any, stack: Callable[..., Any]) -> Any:
    return stack([_scores(x, scale) for scale in (0.5, 1.0, -1.0)], 1)


def _divided(weights: Any, axis: int, total: Callable[..., Any] = ops.sum) -> Any:
    return weights / total(weights, axis, keepdims=True)


def _sinkhorn(x: Any, axes: tuple[int, int]) -> Any:
    weights = ops.softmax(_scores(x), -1)
    for axis in 2 * axes:
        weights = _divided(weights, axis)
    return ops.matmul(weights, x)


def _sinkhorn_of_logarithms(x: Any, axes: tuple[int, int]) -> Any:
    logarithms = _scores(x)
    for axis in 2 * axes:
        logarithms = logarithms - ops.logsumexp(logarithms, axis, keepdims=True)
    return ops.matmul(ops.exp(logarithms), x)


def _mixed_heads(x: Any) -> Any:
    """A matrix over the heads as the last axis, as a Dense layer there."""
    weights = ops.transpose(ops.softmax(_heads(x, ops.stack)), (0, 2, 3, 1))
    weights = ops.transpose(ops.matmul(weights, MIX), (0, 3, 1, 2))
    return ops.matmul(weights, x[:, None])


def _slots(x: Any) -> Any:
    """One iteration of slot attention: over the slots, then divided by the sum over the steps."""
    weights = ops.softmax(ops.matmul(x, ops.transpose(x[:, :SLOTS], (0, 2, 1))), -1) + 1e-3
    return ops.einsum("bts,btd->bsd", _divided(weights, 1), x)


def _gate(x: Any) -> Any:
    return 1 / (1 + np.exp(-_scores(x, 2.0)))


def _sparsemax(scores: Any) -> Any:
    """Algorithm 1 of Martins and Astudillo (2016)."""
    ordered = -ops.sort(-scores, -1)
    sums = ops.cumsum(ordered, -1)
    count = ops.arange(1, STEPS + 1, dtype="float32")
    support = ops.cast(1 + count * ordered > sums, "float32")
    size = ops.sum(support, -1, keepdims=True)
    return ops.relu(scores - (ops.sum(support * ordered, -1, keepdims=True) - 1) / size)


def sparsemax(scores: Array) -> Array:
    """The nearest distribution: the threshold is found by bisection."""
    low, high = scores.max(-1, keepdims=True) - 1, scores.max(-1, keepdims=True)
    for _ in range(60):
        middle = (low + high) / 2
        total = np.maximum(scores - middle, 0).sum(-1, keepdims=True)
        low, high = np.where(total > 1, middle, low), np.where(total > 1, high, middle)
    return np.maximum(scores - low, 0)


def softmax(scores: Array, axis: int = -1) -> Array:
    powers = np.exp(scores)
    return powers / powers.sum(axis, keepdims=True)


def own(x: Array, scale: float = 1.0) -> Array:
    return softmax(_scores(x, scale))


def sinkhorn(x: Array, axes: tuple[int, int]) -> Array:
    """Divisions by the sums over ``axes`` in turn, two of each, from the exponentials."""
    weights = np.exp(_scores(x))
    for axis in 2 * axes:
        weights = weights / weights.sum(axis, keepdims=True)
    return weights


def _normal(weights: Array, axis: int = -1) -> Array:
    return _divided(weights, axis, np.sum)


# Contexts, and the weights in NumPy that they multiply data with.
CASES: contexts.Cases = {
    "sinkhorn": (
        lambda x: _sinkhorn(x, (-2, -1)),
        # The softmax is one more division.
        lambda x: _normal(_normal(_normal(_normal(own(x), -2)), -2)),
    ),
    "sinkhorn_ending_with_queries": (
        lambda x: _sinkhorn(x, (-1, -2)),
        lambda x: _normal(_normal(_normal(own(x), -2)), -2),
    ),
    "sinkhorn_of_logarithms": (
        lambda x: _sinkhorn_of_logarithms(x, (-2, -1)),
        lambda x: sinkhorn(x, (-2, -1)),
    ),
    "sinkhorn_of_logarithms_ending_with_queries": (
        lambda x: _sinkhorn_of_logarithms(x, (-1, -2)),
        lambda x: sinkhorn(x, (-1, -2)),
    ),
    "slots": (
        _slots,
        lambda x: _normal(softmax(x @ x[:, :SLOTS].swapaxes(1, 2)) + 1e-3, 1).swapaxes(1, 2),
    ),
    "gate": (
        lambda x: ops.matmul(
            _divided(ops.softmax(_scores(x)) * ops.sigmoid(_scores(x, 2.0)), -1), x
        ),
        lambda x: _normal(own(x) * _gate(x)),
    ),
    "gate_without_division": (
        lambda x: ops.matmul(ops.softmax(_scores(x)) * ops.sigmoid(_scores(x, 2.0)), x),
        lambda x: own(x) * _gate(x),
    ),
    "mask": (
        lambda x: ops.matmul(
            _divided(ops.softmax(_scores(x)) * ops.cast(x[:, None, :, 3] < 1, "float32"), -1), x
        ),
        lambda x: _normal(own(x) * (x[:, None, :, 3] < 1)),
    ),
    "mask_of_queries": (
        lambda x: ops.matmul(ops.softmax(_scores(x)) * ops.cast(x[..., 3:4] < 1, "float32"), x),
        lambda x: own(x) * (x[..., 3:4] < 1),
    ),
    "mask_of_integers": (
        lambda x: ops.matmul(
            ops.softmax(_scores(x))
            * ops.cast(ops.cast(x[..., 3] < 1, "int32"), "float32")[..., None],
            x,
        ),
        lambda x: own(x) * (x[..., 3:4] < 1),
    ),
    "chosen": (
        lambda x: ops.matmul(ops.where(x[:, None, :, 3] < 1, ops.softmax(_scores(x)), 0.0), x),
        lambda x: own(x) * (x[:, None, :, 3] < 1),
    ),
    "power": (
        lambda x: ops.matmul(_divided(ops.softmax(_scores(x)) ** 2.5, -1), x),
        lambda x: _normal(own(x) ** 2.5),
    ),
    "threshold": (
        lambda x: ops.matmul(_divided(ops.relu(ops.softmax(_scores(x)) - 0.05), -1), x),
        lambda x: _normal(np.maximum(own(x) - 0.05, 0)),
    ),
    "small_number": (
        lambda x: ops.matmul(ops.softmax(_scores(x)) + 0.01, x),
        lambda x: own(x) + 0.01,
    ),
    # A factor of all keys is not part of the map.
    "factor": (lambda x: ops.matmul(0.5 * ops.softmax(_scores(x)), x), own),
    "factor_of_a_query": (
        lambda x: ops.matmul(ops.sigmoid(x[..., :1]) * ops.softmax(_scores(x)), x),
        own,
    ),
    "mixture": (
        lambda x: ops.matmul((ops.softmax(_scores(x)) + ops.softmax(_scores(x, -1.0))) / 2, x),
        lambda x: (own(x) + own(x, -1.0)) / 2,
    ),
    "difference": (
        lambda x: ops.matmul(ops.softmax(_scores(x)) - 0.2 * ops.softmax(_scores(x, -1.0)), x),
        lambda x: own(x) - 0.2 * own(x, -1.0),
    ),
    "heads_mixed_by_a_matrix": (
        _mixed_heads,
        lambda x: np.einsum("bhqk,hg->bgqk", softmax(_heads(x, np.stack)), MIX),
    ),
    "heads_mixed_by_einsum": (
        lambda x: ops.matmul(
            ops.einsum("bhqk,hg->bgqk", ops.softmax(_heads(x, ops.stack)), MIX), x[:, None]
        ),
        lambda x: np.einsum("bhqk,hg->bgqk", softmax(_heads(x, np.stack)), MIX),
    ),
    "mean_of_heads": (
        lambda x: ops.matmul(ops.mean(ops.softmax(_heads(x, ops.stack)), 1), x),
        lambda x: softmax(_heads(x, np.stack)).mean(1),
    ),
    "sigmoid": (
        lambda x: ops.matmul(_divided(ops.sigmoid(_scores(x)), -1), x),
        lambda x: _normal(1 / (1 + np.exp(-_scores(x)))),
    ),
    "squared_relu": (
        lambda x: ops.matmul(
            ops.relu(_scores(x)) ** 2 / (ops.sum(ops.relu(_scores(x)) ** 2, -1, keepdims=True) + 1),
            x,
        ),
        lambda x: (
            np.maximum(_scores(x), 0) ** 2
            / (np.sum(np.maximum(_scores(x), 0) ** 2, -1, keepdims=True) + 1)
        ),
    ),
    "powers_of_two": (
        lambda x: ops.matmul(_divided(2.0 ** _scores(x), -1), x),
        lambda x: _normal(2.0 ** _scores(x)),
    ),
    "elu": (
        lambda x: ops.matmul(_divided(ops.elu(_scores(x)) + 1, -1), x),
        lambda x: _normal(np.where(_scores(x) > 0, _scores(x) + 1, np.exp(_scores(x)))),
    ),
    "magnitudes": (
        lambda x: ops.matmul(_divided(ops.abs(_scores(x)), -1), x),
        lambda x: _normal(np.abs(_scores(x))),
    ),
    "sparsemax": (
        lambda x: ops.matmul(_sparsemax(_scores(x)), x),
        lambda x: sparsemax(_scores(x)),
    ),
    "product_of_both_directions": (
        lambda x: ops.matmul(ops.softmax(_scores(x), -1) * ops.softmax(_scores(x), 1), x),
        lambda x: own(x) * softmax(_scores(x), 1),
    ),
}


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
def test_the_map_is_what_multiplies_data(format: str, tmp_path: Path) -> None:
    model = contexts.model_of(CASES, (STEPS, FEATURES))
    interface = interface_of(model)
    names = sorted(spec.name for spec in interface.attention)
    assert names == sorted(f"attention/{name}" for name in CASES)
    assert interface.doubtful == ()
    actual = contexts.run(model, interface, format, X, tmp_path / "m")
    for name, (_, weights) in CASES.items():
        expected = weights(X.astype(np.float64))
        np.testing.assert_allclose(actual[f"attention/{name}"], expected, atol=1e-5, err_msg=name)


def _map_names(call: Callable[[Any], Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, layers.Lambda(call, name="own")(inputs))
    interface = interface_of(model)
    return [spec.shape[1:] for spec in interface.attention], [
        item.reason for item in interface.doubtful
    ]


def test_weights_that_are_not_known_to_be_attention_have_a_note() -> None:
    complement = _map_names(lambda x: ops.matmul(1 - ops.softmax(_scores(x)), x))
    assert complement == ([], ["Sub changes its weights before they multiply data"])
    over_queries = _map_names(lambda x: ops.matmul(ops.softmax(_scores(x), 1), x))
    assert over_queries[0] == []
    assert "summed along another axis" in over_queries[1][0]


@pytest.mark.parametrize(
    "weights",
    [
        lambda x: ops.cast(x[..., 3:4] > 0, "float32") * ops.ones_like(x[..., :1]),
        lambda x: x[..., :1],
    ],
    ids=["mask", "data"],
)
def test_means_are_no_attention(weights: Callable[[Any], Any]) -> None:
    """A mean of the steps of a mask, and data of any sign, divided by its sum."""
    found = _map_names(lambda x: ops.sum(_divided(weights(x), 1) * x, 1))
    assert found == ([], [])


def _looped(x: Any) -> Any:
    def step(state: Any, entry: Any) -> tuple[Any, Any]:
        weights = ops.softmax(ops.sum(x * state[:, None], -1), -1)
        state = ops.tanh(state + entry + ops.sum(weights[..., None] * x, 1))
        return state, state

    return ops.scan(step, x[:, 0], ops.transpose(x, (1, 0, 2)))[0]


def test_attention_in_a_loop_has_a_note() -> None:
    assert _map_names(_looped) == ([], ["it is computed inside a loop"])


def test_two_products_of_weights_have_two_maps() -> None:
    """A and A @ B of A @ B @ data: A multiplies the rows of B."""
    shapes = _map_names(
        lambda x: ops.matmul(
            ops.matmul(ops.softmax(_scores(x[:, :3])[:, :, :3]), ops.softmax(_scores(x)[:, :3])), x
        )
    )
    assert shapes == ([(3, 3), (3, STEPS)], [])


def test_weighted_data_is_not_a_gate() -> None:
    """Data times weights is weighted once more, by another softmax and by other data."""
    sequence = _map_names(
        lambda x: ops.matmul(
            ops.softmax(_scores(x)), x * ops.softmax(ops.repeat(x[..., :1], FEATURES, 2), 1)
        )
    )
    assert sequence == ([(STEPS, STEPS), (FEATURES, STEPS)], [])
    product = _map_names(lambda x: x * ops.softmax(x, 1) * ops.roll(x, 1, 1))
    assert product == ([(FEATURES, STEPS)], [])


class Exponentials(layers.Layer):  # type: ignore[misc]
    """A context of each feature, whose weights are normalized after the sum."""

    def call(self, keys: Any, values: Any) -> Any:
        powers = ops.exp(keys)
        total = ops.sum(powers, axis=1, keepdims=True)
        return values * (ops.sum(powers * values, axis=1, keepdims=True) / total)


def test_weights_of_data_that_is_weighted_itself(tmp_path: Path) -> None:
    """The data of the second weights is computed from the context of the first."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    first = Exponentials(name="first")(layers.Dense(FEATURES, name="keys_1")(inputs), inputs)
    values = layers.Dense(FEATURES, name="values")(first)
    keys = layers.Dense(FEATURES, name="keys_2")(first)
    second = Exponentials(name="second")(keys, values)
    weights = layers.Softmax(axis=1, name="third")(layers.Dense(FEATURES, name="keys_3")(second))
    pooled = ops.sum(weights * layers.Dense(FEATURES)(second), axis=1)
    model = keras.Model(inputs, layers.Dense(2, name="y")(pooled))
    interface = interface_of(model)
    assert interface.doubtful == ()
    scores = [f"keys_{k}" for k in (1, 2, 3)]
    keys_of_all = keras.Model(inputs, [model.get_layer(name).output for name in scores])
    expected = [softmax(item.swapaxes(1, 2)) for item in keys_of_all.predict(X, verbose=0)]
    file = onnx.convert(model, interface, recipe_for("float32"), tmp_path / "m")
    actual = open_runner(tmp_path / "m", "onnx", file.inputs, file.outputs).run({"x": X})
    for name, want in zip(("first", "second", "third"), expected, strict=True):
        np.testing.assert_allclose(actual[f"attention/{name}"], want, atol=1e-5, err_msg=name)
