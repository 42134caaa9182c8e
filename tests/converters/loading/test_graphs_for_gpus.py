"""SavedModels with operations that only GPUs compute, as model.export writes with a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.reference.keras_outputs import predict
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(1).normal(size=(4, 5, 6)).astype("float32")
# The four gates of a layer of eight units for six features, with two biases for each.
CUDNN_WEIGHTS = 4 * 8 * (6 + 8) + 8 * 8


def cudnn(x: Any, weights: Any) -> Any:
    """The LSTM that Keras 3 exports with a GPU: the last step of each sample."""
    start = tf.zeros([tf.shape(x)[0], 1, 8])
    result = tf.raw_ops.CudnnRNNV3(
        input=x, input_h=start, input_c=start, params=weights, time_major=False,
        sequence_lengths=tf.fill([tf.shape(x)[0]], 5), rnn_mode="lstm", is_training=True,
    )  # fmt: skip
    return tf.ensure_shape(result.output[:, -1], [None, 8])


def old_cudnn(x: Any, weights: Any) -> Any:
    start = tf.zeros([1, tf.shape(x)[0], 8])
    result = tf.raw_ops.CudnnRNN(
        input=tf.transpose(x, [1, 0, 2]), input_h=start, input_c=start, params=weights,
        rnn_mode="lstm", is_training=False,
    )  # fmt: skip
    return tf.ensure_shape(result.output[-1], [None, 8])


def transformed(x: Any, _: Any) -> Any:
    spectrum = tf.raw_ops.FFTND(input=tf.cast(x, tf.complex64), fft_length=[5, 6], axes=[1, 2])
    return tf.math.real(spectrum)


def plain(x: Any, weights: Any) -> Any:
    return tf.reduce_sum(x, 1) @ tf.reshape(weights[:48], [6, 8])


def saved(folder: Path, function: Callable[[Any, Any], Any], **others: Any) -> Any:
    """Save a module with a signature of a function, and one for each of ``others``."""
    module = tf.Module()
    module.weights = tf.Variable(
        np.random.default_rng(0).normal(0, 0.3, CUDNN_WEIGHTS).astype("float32")
    )
    module.with_gpu = tf.Variable(False)

    def signature(compute: Any) -> Any:
        def serve(x: Any) -> Any:
            return {"y": compute(x, module.weights)}

        return tf.function(serve, input_signature=[tf.TensorSpec([None, 5, 6], tf.float32, "x")])

    functions = {"serving_default": function, **others}
    signatures = {name: signature(compute) for name, compute in functions.items()}
    module.functions = list(signatures.values())
    tf.saved_model.save(module, folder, signatures=signatures)
    return module


@pytest.mark.parametrize(
    ("compute", "name"),
    [(cudnn, "CudnnRNNV3"), (old_cudnn, "CudnnRNN"), (transformed, "FFTND")],
)
@pytest.mark.parametrize("place", ["signature", "function", "loop"])
def test_operations_of_gpus_are_named(
    place: str, compute: Callable[[Any, Any], Any], name: str, tmp_path: Path
) -> None:
    """The advice was to pass samples, also if they were passed."""

    def in_loop(x: Any, weights: Any) -> Any:
        first = tf.zeros_like(compute(x, weights)) if compute is transformed else plain(x, weights)
        return tf.while_loop(
            lambda k, _: k < 2, lambda k, y: (k + 1, y + compute(x, weights)), [0, first]
        )[1]

    called = {"signature": compute, "function": tf.function(compute), "loop": in_loop}[place]
    saved(tmp_path / "m", called)
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(audit_file(tmp_path / "m"))
    assert str(caught.value.message) == (
        f"The SavedModel m contains {name} in its signature 'serving_default', an operation that "
        "TensorFlow computes on GPUs only."
    )
    hint = str(caught.value.hint)
    assert hint.startswith("Convert the .keras or .h5 file of the model")
    assert "export the model again on a machine without a GPU" in hint
    assert "sample" not in hint
    assert ("LSTM" in hint) == name.startswith("Cudnn")


@pytest.mark.parametrize("decided_by", ["constant", "variable"])
def test_branches_for_gpus_that_never_run(decided_by: str, tmp_path: Path) -> None:
    """TensorFlow itself cannot compute the graph without a GPU."""

    def chosen(x: Any, weights: Any) -> Any:
        decisive = module.with_gpu if decided_by == "variable" else tf.constant(False)
        return tf.cond(decisive, lambda: cudnn(x, weights), lambda: plain(x, weights))

    module = tf.Module()
    module.with_gpu = tf.Variable(False)
    module.weights = tf.Variable(
        np.random.default_rng(0).normal(0, 0.3, CUDNN_WEIGHTS).astype("float32")
    )
    serve = tf.function(
        lambda x: {"y": chosen(x, module.weights)},
        input_signature=[tf.TensorSpec([None, 5, 6], tf.float32, "x")],
    )
    module.serve = serve
    tf.saved_model.save(module, tmp_path / "m", signatures=serve)
    loaded = load_model(audit_file(tmp_path / "m"))
    np.testing.assert_allclose(
        loaded.model({"x": X})["y"], plain(X, module.weights), rtol=1e-5, atol=1e-5
    )


def test_a_branch_for_gpus_that_the_data_decide(tmp_path: Path) -> None:
    def chosen(x: Any, weights: Any) -> Any:
        short = tf.reduce_sum(x) < 1e9
        return tf.cond(short, lambda: plain(x, weights), lambda: cudnn(x, weights))

    saved(tmp_path / "m", chosen)
    with pytest.raises(UnsupportedModelError, match="contains CudnnRNNV3"):
        load_model(audit_file(tmp_path / "m"))


def test_other_signatures_do_not_matter(tmp_path: Path) -> None:
    module = saved(tmp_path / "m", plain, trained=cudnn)
    loaded = load_model(audit_file(tmp_path / "m"))
    np.testing.assert_allclose(
        loaded.model({"x": X})["y"], plain(X, module.weights), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(UnsupportedModelError, match="CudnnRNNV3 in its signature 'trained'"):
        load_model(audit_file(tmp_path / "m", signature="trained"))


@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_functions_for_gpus_that_nothing_calls(layer: str, tmp_path: Path) -> None:
    """tf_keras stores the function for GPUs beside the one that the graph calls."""
    import tf_keras

    x = tf_keras.Input((5, 6), name="x")
    model = tf_keras.Model(x, getattr(tf_keras.layers, layer)(8)(x))
    model.export(str(tmp_path / "m"))
    assert b"CudnnRNNV3" in (tmp_path / "m" / "saved_model.pb").read_bytes()
    loaded = load_model(audit_file(tmp_path / "m"))
    [actual] = keras.tree.flatten(loaded.model({loaded.model.inputs[0].name: X}))
    np.testing.assert_allclose(actual, model(X), rtol=1e-5, atol=1e-6)


def test_keras_models_with_an_operation_of_gpus() -> None:
    """Such as in a class of the user, whose graph TensorFlow builds and does not compute."""

    class Spectrum(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.ensure_shape(transformed(x, None), [None, 5, 6])

    x = keras.Input((5, 6), name="x")
    model = keras.Model(x, Spectrum()(x))
    with pytest.raises(UnsupportedModelError, match="cannot compute the model") as caught:
        predict(model, interface_of(model), {"x": X})
    assert "no FFTND of these types for a CPU" in str(caught.value.hint)
    assert "sample" not in str(caught.value.hint)
