"""Which inputs the keys and queries of attention maps come from."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers, ops

import models
from edgeattn.layers import Attention
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.tracing.attended import Attended
from edgeattn_converters.tracing.trace import Interface, interface_of
from edgeattn_converters.worker import tasks

T = 6


class OwnAttention(layers.Layer):
    """Scaled dot products, written with operations of Keras."""

    def call(self, query: Any, data: Any) -> Any:
        weights = ops.softmax(ops.matmul(query, ops.transpose(data, (0, 2, 1))) / 2.0)
        return ops.matmul(weights, data)


class InShapeOf(layers.Layer):
    """The values of one tensor in the shape of another."""

    def call(self, values: Any, other: Any) -> Any:
        return ops.reshape(values, ops.shape(other))


def model_with_inputs() -> Any:
    """The inputs are as long as each other, so that shapes cannot tell them apart."""
    question = keras.Input((T, 4), name="question")
    article = keras.Input((T, 4), name="article")
    bias = keras.Input((4,), name="bias")
    states = layers.LSTM(4, return_sequences=True, name="memory")(article)
    sums = layers.Add(name="sums")([question, article])
    shaped = InShapeOf(name="shaped")(article, question)
    biased = layers.Add(name="biased")([article, layers.Reshape((1, 4))(bias)])
    results = [
        layers.Attention(name="cross")([question, states]),
        layers.AdditiveAttention(name="self")([states, states]),
        layers.MultiHeadAttention(2, 3, name="heads")(article, question),
        layers.MultiHeadAttention(2, 3, name="apart")(question, article, key=question),
        OwnAttention(name="own")(article, question),
        OwnAttention(name="own_self")(question, question),
        layers.Attention(name="combined")([question, sums]),
        layers.Attention(name="reshaped")([question, shaped]),
        layers.Attention(name="shifted")([question, biased]),
    ]
    pooled = [layers.Flatten()(value) for value in results] + [Attention(3, name="ours")(states)]
    return keras.Model([question, article, bias], layers.Concatenate()(pooled))


EXPECTED = {
    "cross": (["article"], ["question"]),
    "self": (["article"], ["article"]),
    "heads": (["question"], ["article"]),
    # The data at the keys are the values, whose weighted sum is computed.
    "apart": (["article"], ["question"]),
    # The queries of a detected softmax are known only if everything comes from one input.
    "own": (["question"], []),
    "own_self": (["question"], ["question"]),
    "combined": (["question", "article"], ["question"]),
    "reshaped": (["article"], ["question"]),
    "shifted": (["article", "bias"], ["question"]),
    "ours": (["article"], ["article"]),
}


@pytest.fixture(scope="module")
def interface() -> Interface:
    keras.backend.clear_session()
    return interface_of(models.filled(model_with_inputs()))


@pytest.mark.parametrize("name", list(EXPECTED))
def test_inputs_of_a_map(interface: Interface, name: str) -> None:
    by_name = {item.map: item for item in interface.attended}
    keys, queries = EXPECTED[name]
    expected = Attended(f"attention/{name}", tuple(keys), tuple(queries))
    assert by_name[f"attention/{name}"] == expected


def test_every_exported_map_has_inputs(interface: Interface) -> None:
    assert {spec.name for spec in interface.attention} == {x.map for x in interface.attended}
    assert {item.map for item in interface.attended} == {f"attention/{n}" for n in EXPECTED}


def test_masks_do_not_change_the_inputs(tmp_path: Any) -> None:
    """Keras calls a layer with masks twice; the manifest has the names."""
    words = keras.Input((T,), dtype="int32", name="words")
    other = keras.Input((T,), dtype="int32", name="other")
    embedded = [layers.Embedding(9, 4, mask_zero=True)(tensor) for tensor in (words, other)]
    result = layers.MultiHeadAttention(2, 3, name="heads")(*embedded)
    model = keras.Model([words, other], layers.Flatten()(result))
    model.save(tmp_path / "model.keras")
    source = ModelSource(str(tmp_path / "model.keras")).to_json()
    described = tasks.describe(source, ConversionOptions().to_json())
    assert described["attended"] == {
        "attention/heads": {"keys": ["other"], "queries": ["words"]},
    }
