"""Attention maps of a Keras model for any samples."""

import keras
import numpy as np
import pytest

import attentive
import models
from edgeattn.errors import UsageError
from edgeattn_converters.tracing.attention_function import BATCH_SIZE, attention_function
from edgeattn_converters.tracing.trace import interface_of

layers = keras.layers


def test_maps_of_more_samples_than_a_batch():
    inputs = keras.Input((6, 3), name="x")
    heads = layers.MultiHeadAttention(num_heads=2, key_dim=4, name="heads")
    vector, scores = heads(inputs, inputs, return_attention_scores=True)
    model = models.filled(keras.Model(inputs, layers.Dense(1)(layers.Flatten()(vector))))
    x = np.random.default_rng(1).standard_normal((2 * BATCH_SIZE + 5, 6, 3)).astype("float32")
    compute = attention_function(model, interface_of(model), ("attention/heads",))
    expected = keras.Model(inputs, scores).predict(x, verbose=0)
    (name,) = (maps := compute({"x": x}))
    assert maps[name].shape == (len(x), 2, 6, 6)
    np.testing.assert_allclose(maps[name], expected, atol=1e-6)


def test_a_map_that_is_exported_on_request_only():
    model = models.filled(attentive.experts())
    interface = interface_of(model)
    assert interface.attention == ()
    x = np.random.default_rng(2).standard_normal((9, 11, 3)).astype("float32")
    maps = attention_function(model, interface, ("attention/gate",))({"sensor": x})
    expected = keras.Model(model.inputs, model.get_layer("gate").output).predict(x, verbose=0)
    np.testing.assert_allclose(maps["attention/gate"], expected, atol=1e-6)


def test_a_map_that_the_model_does_not_have():
    model = attentive.over_features()
    with pytest.raises(UsageError, match="no attention map 'attention/other'"):
        attention_function(model, interface_of(model), ("attention/other",))
