"""Attention whose weights or data do not depend on the inputs, such as that of start tokens.

The number of samples alone comes from the input. In a TFLite file it is known, so that a converter
sees constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.signatures.signature import load_signature
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
STEPS, FEATURES = 5, 4
_GENERATOR = np.random.default_rng(8)
X = _GENERATOR.normal(0, 1, (3, STEPS, FEATURES)).astype("float32")
TOKENS, VALUES = _GENERATOR.normal(0, 1, (2, STEPS, FEATURES)).astype("float32")
# The first query has no key at all.
ALLOWED = np.tri(STEPS, k=-1, dtype=bool)
MASK = ALLOWED.astype("float32")


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


OF_TOKENS = softmax(TOKENS @ TOKENS.T)
SIMILARITIES = abs(TOKENS) @ abs(TOKENS).T
ADDITIVE = np.where(ALLOWED, 0, -1e9).astype("float32")


class Form(NamedTuple):
    """Attention to ``values`` by queries and keys of the shape (samples, steps, features), and its
    map of the tokens. ``doubt`` says that it is exported only if the user names the layer."""

    attend: Callable[[Any, Any, Any], Any]
    map: Array
    doubt: bool = False


def _scores(queries: Any, keys: Any) -> Any:
    return ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))


def _selected(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(_scores(queries, keys))
    return ops.matmul(ops.where(ALLOWED[None], weights, 0.0), values)


def _masked(queries: Any, keys: Any, values: Any) -> Any:
    return ops.matmul(ops.softmax(_scores(queries, keys)) * MASK[None], values)


def _masked_before(queries: Any, keys: Any, values: Any) -> Any:
    return ops.matmul(ops.softmax(_scores(queries, keys) + ADDITIVE), values)


def _selected_before(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(ops.where(ALLOWED, _scores(queries, keys), -1e9))
    return ops.matmul(ops.where(ALLOWED, weights, 0.0), values)


def _normalized_again(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(_scores(queries, keys)) * (MASK + 0.1)
    return ops.matmul(weights / ops.sum(weights, axis=-1, keepdims=True), values)


def _elementwise(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(_scores(queries, keys)) * MASK
    return ops.sum(weights[..., None] * values[:, None], axis=2)


def _einsum(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(ops.einsum("bqd,bkd->bqk", queries, keys)) * MASK
    return ops.einsum("bqk,bkd->bqd", weights, values)


def _exponentials(queries: Any, keys: Any, values: Any) -> Any:
    powers = ops.exp(_scores(queries, keys))
    weights = powers / ops.sum(powers, axis=-1, keepdims=True)
    return ops.matmul(ops.where(ALLOWED, weights, 0.0), values)


def _by_key(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(_scores(queries, keys)) * MASK
    return sum(weights[:, :, k : k + 1] * values[:, k : k + 1] for k in range(STEPS))


def _similarities(queries: Any, keys: Any, values: Any) -> Any:
    """Of tokens that are not negative."""
    similarities = _scores(ops.abs(queries), ops.abs(keys))
    weights = similarities / ops.sum(similarities, axis=-1, keepdims=True)
    return ops.matmul(weights * MASK, values)


def _masked_for_each_sample(queries: Any, keys: Any, values: Any) -> Any:
    mask = ops.tile(MASK[None], (ops.shape(queries)[0], 1, 1))
    return ops.matmul(ops.softmax(_scores(queries, keys)) * mask, values)


def _selected_or_zeros(queries: Any, keys: Any, values: Any) -> Any:
    weights = ops.softmax(_scores(queries, keys))
    return ops.matmul(ops.where(ALLOWED, weights, ops.zeros_like(weights)), values)


def _of_numbers(queries: Any, keys: Any, values: Any) -> Any:
    """Each of the values is a number."""
    weights = ops.softmax(_scores(queries, keys)[:, -1]) * MASK[-1]
    return ops.sum(weights * values[..., 0], axis=-1)[:, None, None]


FORMS: Mapping[str, Form] = {
    "plain": Form(lambda q, k, v: ops.matmul(ops.softmax(_scores(q, k)), v), OF_TOKENS),
    "selected": Form(_selected, OF_TOKENS * MASK),
    "masked": Form(_masked, OF_TOKENS * MASK),
    "masked_before": Form(_masked_before, softmax(TOKENS @ TOKENS.T + ADDITIVE)),
    "selected_before": Form(
        _selected_before, softmax(np.where(ALLOWED, TOKENS @ TOKENS.T, -1e9)) * MASK
    ),
    "normalized_again": Form(
        _normalized_again,
        OF_TOKENS * (MASK + 0.1) / (OF_TOKENS * (MASK + 0.1)).sum(-1, keepdims=True),
    ),
    "elementwise": Form(_elementwise, OF_TOKENS * MASK),
    "einsum": Form(_einsum, OF_TOKENS * MASK),
    "exponentials": Form(_exponentials, OF_TOKENS * MASK),
    "by_key": Form(_by_key, OF_TOKENS * MASK),
    "similarities": Form(_similarities, MASK * SIMILARITIES / SIMILARITIES.sum(-1, keepdims=True)),
    "masked_for_each_sample": Form(_masked_for_each_sample, OF_TOKENS * MASK),
    "selected_or_zeros": Form(_selected_or_zeros, OF_TOKENS * MASK, doubt=True),
    "of_numbers": Form(_of_numbers, (OF_TOKENS * MASK)[-1]),
}


class Tokens(layers.Layer):  # type: ignore[misc]
    """The same tokens and values for every sample."""

    def call(self, x: Any) -> Any:
        count = ops.shape(x)[0]
        return [ops.tile(value[None], (count, 1, 1)) for value in (TOKENS, VALUES)]


class Attend(layers.Layer):  # type: ignore[misc]
    """Attention in one of the forms."""

    def __init__(self, form: Form, **options: Any) -> None:
        super().__init__(**options)
        self.form = form

    def call(self, queries: Any, keys: Any, values: Any) -> Any:
        return self.form.attend(queries, keys, values)


def model_of(form: Form, *, queries_of_input: bool = False) -> Any:
    x = keras.Input((STEPS, FEATURES), name="x")
    tokens, values = Tokens()(x)
    queries = x if queries_of_input else tokens
    return keras.Model(x, x + Attend(form, name="look")(queries, tokens, values))


def as_graph(model: Any, folder: Path) -> Any:
    model.export(folder / "saved", verbose=False)
    return load_signature(folder / "saved", None, allow_free_time=False)[0]


def maps_of(model: Any, format: str, folder: Path, *, doubt: bool = False) -> list[Array]:
    interface = interface_of(model)
    assert bool(interface.doubtful) == doubt
    if doubt:
        interface = interface_of(model, attention=[item.layer for item in interface.doubtful])
    path = folder / f"m.{format}"
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    results = open_runner(path, format, file.inputs, file.outputs).run(
        {spec.name: X for spec in interface.inputs}
    )
    return [results[spec.name] for spec in interface.attention]


def forms(*short: str) -> list[Any]:
    return [name if name in short else pytest.param(name, marks=pytest.mark.long) for name in FORMS]


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
@pytest.mark.parametrize("form", forms("plain", "selected", "masked"))
def test_maps_of_constants_in_graphs(form: str, format: str, tmp_path: Path) -> None:
    _, expected, doubt = FORMS[form]
    model = as_graph(model_of(FORMS[form]), tmp_path)
    (actual,) = maps_of(model, format, tmp_path, doubt=doubt)
    np.testing.assert_allclose(actual, np.stack([expected] * len(X)), atol=1e-6)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
@pytest.mark.parametrize(
    "form", forms("masked_before", "normalized_again", "elementwise", "by_key")
)
def test_maps_of_constants_in_layers(form: str, format: str, tmp_path: Path) -> None:
    _, expected, doubt = FORMS[form]
    (actual,) = maps_of(model_of(FORMS[form]), format, tmp_path, doubt=doubt)
    np.testing.assert_allclose(actual, np.stack([expected] * len(X)), atol=1e-6)


@pytest.mark.parametrize("format", only(CONVERTERS, "onnx"))
@pytest.mark.parametrize("graph", [False, True], ids=["layers", "graph"])
def test_maps_of_constant_memory(graph: bool, format: str, tmp_path: Path) -> None:
    """The weights depend on the input, and the data that they multiply does not."""
    model = model_of(FORMS["selected"], queries_of_input=True)
    model = as_graph(model, tmp_path) if graph else model
    (actual,) = maps_of(model, format, tmp_path)
    np.testing.assert_allclose(actual, softmax(X @ TOKENS.T) * MASK, atol=1e-6)


class Twice(layers.Layer):  # type: ignore[misc]
    """Weights that multiply ``values``, and behind a mask ``masked_values``."""

    def call(self, queries: Any, values: Any, masked_values: Any) -> Any:
        weights = ops.softmax(_scores(queries, queries))
        return ops.matmul(weights, values) + ops.matmul(weights * MASK, masked_values)


@pytest.mark.parametrize("format", CONVERTERS)
@pytest.mark.parametrize(
    "of_input", [False, pytest.param(True, marks=pytest.mark.long)], ids=["constant", "of_input"]
)
def test_both_maps_of_a_softmax(of_input: bool, format: str, tmp_path: Path) -> None:
    """Only the data of the second map is constant, or that of both."""
    x = keras.Input((STEPS, FEATURES), name="x")
    tokens, values = Tokens()(x)
    of_layer = Twice(name="look")(x, x, values) if of_input else Twice()(tokens, tokens, values)
    weights = softmax(X @ X.transpose(0, 2, 1)) if of_input else np.stack([OF_TOKENS] * len(X))
    maps = maps_of(keras.Model(x, x + of_layer), format, tmp_path)
    assert len(maps) == 2
    maps.sort(key=lambda item: item[0, 0, 0])  # the first query has no key behind the mask
    for actual, expected in zip(maps, (weights * MASK, weights), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("format", only(CONVERTERS, "tflite"))
@pytest.mark.parametrize("graph", [False, True], ids=["layers", "graph"])
def test_start_tokens_of_a_decoder(graph: bool, format: str, tmp_path: Path) -> None:
    """All start tokens but one are padding, and no query may attend to padding."""
    keras.utils.set_random_seed(4)
    start = np.array([[3, *[0] * (STEPS - 1)]], "int32")

    class Start(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return ops.tile(start, (ops.shape(x)[0], 1))

    embedding = layers.Embedding(7, FEATURES, mask_zero=True)
    look = layers.MultiHeadAttention(2, 3, dropout=0.1)  # without dropout, no softmax of its own
    x = keras.Input((STEPS, FEATURES), name="x")
    embedded = embedding(Start()(x))
    model = keras.Model(x, x + look(embedded, embedded, use_causal_mask=True))
    rows = embedding(start)
    _, expected = look(rows, rows, use_causal_mask=True, return_attention_scores=True)
    (actual,) = maps_of(as_graph(model, tmp_path) if graph else model, format, tmp_path)
    np.testing.assert_allclose(actual, np.repeat(expected, len(X), 0), atol=1e-6)
    assert not actual[:, :, 1:].any()
