"""Shapes that nodes of a graph compute from the batch size, which TensorFlow does not infer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_models import graph_model
from tensorflow_calls import samples

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
# Each with the shape of its result for a sample.
CALLS = {
    "rows": (lambda i: tf.reshape(i.x, [tf.shape(i.x)[0], -1]), (24,)),
    "spectrogram": (
        lambda i: tf.math.log(tf.abs(tf.signal.stft(i.signal, 16, 8, window_fn=None)) + 1e-3),
        (7, 9),
    ),
    # tf_keras stores an empty constant without its shape.
    "padded": (lambda i: tf.abs(tf.signal.stft(i.signal, 16, 8, pad_end=True)), (8, 9)),
    "squeezed": (lambda i: tf.squeeze(i.x[:, :1]), (6,)),
    "normalized": (
        lambda i: (
            tf.raw_ops.FusedBatchNormV3(
                x=i.image,
                scale=[1.0, 2.0, 0.5],
                offset=[0.0, 0.1, -0.2],
                mean=[0.1, 0.2, 0.3],
                variance=[1.0, 2.0, 0.5],
                is_training=False,
            ).y
        ),
        (8, 8, 3),
    ),
    "median": (
        lambda i: tf.sort(tf.reshape(i.x, tf.stack([tf.shape(i.x)[0], -1])), axis=-1)[:, 12],
        (),
    ),
    "norm": (lambda i: tf.norm(i.image, axis=[1, 2]), (3,)),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model of tf_keras, and the same model loaded from its file."""
    model, _ = graph_model([call for call, _ in CALLS.values()])
    path = tmp_path_factory.mktemp("shapes") / "model.h5"
    model.save(path)
    return model, load_model(audit_file(path)).model


def test_shapes_are_known(models: tuple[Any, Any]) -> None:
    shapes = [spec.shape[1:] for spec in interface_of(models[1]).outputs]
    assert shapes == [shape for _, shape in CALLS.values()]


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
def test_models_convert(format: str, models: tuple[Any, Any], tmp_path: Path) -> None:
    model, loaded = models
    path = tmp_path / f"model.{format}"
    file = CONVERTERS[format].convert(loaded, interface_of(loaded), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
    inputs = {name: values[:1] for name, values in samples().items()}
    actual = runner.run(inputs)
    for spec, expected in zip(file.outputs, model(list(samples().values())), strict=True):
        np.testing.assert_allclose(actual[spec.name], expected[:1], atol=1e-4, err_msg=spec.name)
