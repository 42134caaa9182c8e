"""Operators of ONNX that are quantized, against Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from quantized_models import CONVERTERS

from edgeattn.file_structure.onnx import read_onnx
from edgeattn.metrics import pairwise as metrics
from edgeattn.runners import open_runner
from edgeattn_converters.lowering.composed_operations import with_named_axes
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

TENSOR = np.random.default_rng(3).normal(0, 0.3, (4, 6)).astype("float32")


def computes_in(call: Any, shape: tuple[int, ...], scheme: str, path: Path, limit: float) -> Any:
    """How the operators of the file compute, whose outputs have at least ``limit`` dB."""
    x = keras.Input(shape, name="x")
    model = keras.Model(x, call(x))
    data = np.random.default_rng(5).uniform(-2, 2, (64, *shape)).astype("float32")
    file = CONVERTERS["onnx"].convert(
        model, interface_of(model), recipe_for(scheme), path, samples={"x": data}
    )
    (actual,) = open_runner(path, "onnx", file.inputs, file.outputs).run({"x": data}).values()
    assert metrics.snr_db(model.predict(data, verbose=0), actual) > limit
    return read_onnx(path.read_bytes()).computes_in


@pytest.mark.parametrize(
    "call",
    [
        layers.EinsumDense("...x,xy->...y", 5),
        lambda x: ops.einsum("...ab,bc->...ac", x, TENSOR),
        lambda x: ops.einsum("...x,...y->...xy", x, x * 0.5),
    ],
    ids=["EinsumDense", "matrix", "outer"],
)
@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_products_with_an_ellipsis_are_quantized(call: Any, scheme: str, tmp_path: Path) -> None:
    counts = computes_in(call, (2, 7, 4), scheme, tmp_path / "model.onnx", 28)
    assert {"MatMul", "Mul"} & set(counts[scheme.removesuffix("x8")])
    assert "Einsum" not in counts.get("float32", {})


@pytest.mark.parametrize(
    ("build", "shape", "kind"),
    [
        pytest.param(
            *(lambda: layers.Conv1D(7, 3, padding="same", activation="relu"), (11, 5), "Conv"),
            marks=pytest.mark.long,
        ),
        (lambda: layers.Dense(7, activation="tanh"), (5,), "MatMul"),
        pytest.param(
            *(lambda: layers.EinsumDense("abc,cd->abd", (None, 7)), (11, 5), "MatMul"),
            marks=pytest.mark.long,
        ),
        (lambda: layers.Conv2DTranspose(7, 3, 2), (6, 4, 5), "ConvTranspose"),
    ],
    ids=["Conv1D", "Dense", "EinsumDense", "Conv2DTranspose"],
)
def test_layers_that_are_called_twice(
    build: Any, shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    """Both calls share the integers of the weights, whose scales have one value per channel."""

    def call(x: Any) -> Any:
        layer = build()
        first, second = layer(x), layer(0.5 - x)
        return layers.Dense(3)(layers.Concatenate()([first, first * second]))

    counts = computes_in(call, shape, "int8", tmp_path / "model.onnx", 25)
    assert sum(calls.get(kind, 0) for calls in counts.values()) >= 2
    assert counts["int8"]


@pytest.mark.parametrize(
    ("equation", "shapes", "named"),
    [
        ("...x,xy->...y", [(None, 2, 4), (4, 5)], "abx,xy->aby"),
        ("...ab,...bc->...ac", [(None, 3, 2, 4), (3, 4, 5)], "deab,ebc->deac"),
        ("a...,...->a", [(2, 3, 4), (4,)], "abc,c->a"),
        ("ab,bc->ac", [(2, 3), (3, 4)], None),
        ("...a,...a->...", [(2, 1, 4), (2, 3, 4)], None),  # broadcasts
    ],
)
def test_axes_are_named(equation: str, shapes: Any, named: str | None) -> None:
    assert with_named_axes(equation, shapes) == named


@pytest.mark.parametrize("strides", [1, 2])
def test_a_transposed_convolution_in_int16(strides: int, tmp_path: Path) -> None:
    layer = layers.Conv2DTranspose(5, 3, strides, bias_initializer="random_normal")
    counts = computes_in(layer, (8, 8, 3), "int16x8", tmp_path / "model.onnx", 38)
    assert counts["int16"]["ConvTranspose"] == 1


def test_a_leaky_relu_in_int8(tmp_path: Path) -> None:
    def call(x: Any) -> Any:
        return layers.Conv1D(3, 2)(layers.LeakyReLU(0.2)(layers.Conv1D(8, 3)(x)))

    counts = computes_in(call, (12, 4), "int8", tmp_path / "model.onnx", 25)
    assert counts["int8"]["LeakyRelu"] == 1


def test_integers_clip_instead_of_a_relu6(tmp_path: Path) -> None:
    """The first values are beyond 6, so that the range of the second is exactly 0 to 6."""

    def call(x: Any) -> Any:
        wide = layers.Conv2D(8, 3, kernel_initializer=keras.initializers.RandomNormal(0, 1, 1))(x)
        return layers.Conv2D(3, 2)(layers.ReLU(6.0)(wide))

    counts = computes_in(call, (8, 8, 4), "int8", tmp_path / "model.onnx", 25)
    assert counts["int8"]["Conv"] == 2
    assert not any("Clip" in kinds for kinds in counts.values())


def test_images_are_enlarged_in_int8(tmp_path: Path) -> None:
    def call(x: Any) -> Any:
        return layers.Conv2D(3, 2)(layers.UpSampling2D((2, 3))(layers.Conv2D(8, 3)(x)))

    path = tmp_path / "model.onnx"
    counts = computes_in(call, (6, 5, 4), "int8", path, 25)
    assert counts["int8"]["Tile"] == 2
    # The sizes are constant, except that of the batch.
    assert "Shape" not in read_onnx(path.read_bytes()).operators


def test_what_onnxruntime_computes_in_float32_between_conversions(tmp_path: Path) -> None:
    def call(x: Any) -> Any:
        inner = layers.Conv2DTranspose(8, 3, 2)(layers.Conv2D(6, 3, activation="relu")(x))
        return layers.Conv2D(3, 3)(inner)

    counts = computes_in(call, (8, 8, 4), "int8", tmp_path / "model.onnx", 25)
    assert counts["int8"]["Conv"] == 2
    assert counts["float32"]["ConvTranspose"] == 1


def test_files_with_constants_of_several_readers_have_exact_sums(tmp_path: Path) -> None:
    """onnxruntime cannot load them if the readers of an integer constant share it."""
    import onnxruntime

    from edgeattn.runners.onnx import session_options

    def call(x: Any) -> Any:
        shared = layers.Dense(5)
        gated = [ops.sigmoid(part) * 0.7071 for part in (shared(x), shared(x * 2.0))]
        return layers.Dense(4)(gated[0] + gated[1]) * 0.7071

    path = tmp_path / "model.onnx"
    computes_in(call, (3, 6), "int8", path, 20)
    session = onnxruntime.InferenceSession(str(path), session_options())
    assert [value.name for value in session.get_inputs()] == ["x"]


def test_int16_products_keep_int16_activations(tmp_path: Path) -> None:
    """onnxruntime makes a MatMulNBits, with 8 bits, of a product with dequantized weights."""
    import onnx
    import onnxruntime

    path, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    counts = computes_in(layers.Dense(5), (7, 32), "int16x8", path, 40)
    assert counts["int16"]["MatMul"] == 1
    x = np.random.default_rng(6).uniform(-2, 2, (64, 7, 32)).astype("float32")
    results = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(optimized)
        # What a session of anyone does by default.
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        results += session.run(None, {"x": x})
    assert "MatMulNBits" not in {node.op_type for node in onnx.load(optimized).graph.node}
    # Equal but for values that are rounded up in one and down in the other: a step in 32768.
    assert metrics.snr_db(*results) > 70
