"""Files of Keras 2.0 to 2.3, whose layers are nodes of a TensorFlow graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import raw_graph_calls
import tensorflow as tf
from graph_models import graph_model
from tensorflow.python.framework import kernels, op_def_registry
from tensorflow_calls import CALLS, samples
from tf_keras.src.engine.base_layer import TensorFlowOpLayer

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.lambdas import graph_nodes
from edgeattn_converters.loading.load import load_model

raw = tf.raw_ops
_KERNEL = np.linspace(-1, 1, 2 * 2 * 3 * 2, dtype="float32").reshape(2, 2, 3, 2)
_KERNEL_3D = _KERNEL[..., None, :, :].transpose(2, 0, 1, 3, 4)
_BOXES = np.array([[0.1, 0.2, 0.8, 0.9]], "float32")


def _positive(square: Any) -> Any:
    return tf.matmul(square, square, transpose_b=True) + 2.0 * tf.eye(3)


# Operations that no call of a function creates in this TensorFlow, but did in earlier ones or do
# in functions that a file does not name.
RAW_CALLS: Mapping[str, Callable[[Any], Any]] = {
    "Add": lambda i: raw.Add(x=i.x, y=i.y),
    "ApproximateEqual": lambda i: raw.ApproximateEqual(x=i.x, y=i.y, tolerance=0.3),
    "AvgPool3D": lambda i: raw.AvgPool3D(
        input=i.image[..., None], ksize=[1, 2, 2, 1, 1], strides=[1, 2, 2, 1, 1], padding="VALID"
    ),
    "BatchMatMul": lambda i: raw.BatchMatMul(x=i.x, y=i.y, adj_y=True),
    "BatchToSpaceND": lambda i: raw.BatchToSpaceND(
        input=raw.SpaceToBatchND(input=i.image, block_shape=[2], paddings=[[0, 0]]),
        block_shape=[2],
        crops=[[1, 1]],
    ),
    "Betainc": lambda i: raw.Betainc(a=i.u, b=i.u + 1.0, x=i.u),
    "Bincount": lambda i: (
        raw.UnsortedSegmentSum(data=i.x, segment_ids=i.n[:, 0, 0] * 0, num_segments=1) + i.x
    ),
    "Bucketize": lambda i: raw.Bucketize(input=i.x, boundaries=[-1.0, 0.0, 1.0]),
    "ClipByValue": lambda i: raw.ClipByValue(t=i.x, clip_value_min=-0.5, clip_value_max=0.7),
    "Conv2DBackpropInput": lambda i: tf.nn.conv2d_transpose(
        i.image, _KERNEL.transpose(0, 1, 3, 2), [3, 9, 9, 2], 1, "VALID"
    ),
    "Conv3D": lambda i: raw.Conv3D(
        input=i.image[:, None], filter=_KERNEL_3D, strides=[1] * 5, padding="SAME"
    ),
    "CropAndResize": lambda i: raw.CropAndResize(
        image=i.image, boxes=_BOXES, box_ind=[0], crop_size=[3, 4]
    ),
    "Dilation2D": lambda i: raw.Dilation2D(
        input=i.image, filter=_KERNEL[..., 0], strides=[1] * 4, rates=[1] * 4, padding="SAME"
    ),
    "Div": lambda i: raw.Div(x=i.x, y=i.u),
    "Einsum": lambda i: tf.einsum("bij,bkj->bik", i.x, i.y),
    "Inv": lambda i: raw.Inv(x=i.u),
    "InTopKV2": lambda i: raw.InTopKV2(predictions=i.x[:, 0], targets=i.n[:, 0, 0], k=2),
    "L2Loss": lambda i: raw.L2Loss(t=i.x) + i.x,
    "LogMatrixDeterminant": lambda i: raw.LogMatrixDeterminant(input=_positive(i.square)),
    "MatrixDiag": lambda i: raw.MatrixDiag(diagonal=i.x),
    "MatrixDiagPart": lambda i: raw.MatrixDiagPart(input=i.square),
    "MatrixSetDiag": lambda i: raw.MatrixSetDiag(input=i.square, diagonal=i.square[:, 0]),
    "MatrixTriangularSolve": lambda i: raw.MatrixTriangularSolve(
        matrix=i.square + 2.0 * tf.eye(3), rhs=i.square
    ),
    "MaxPool3D": lambda i: raw.MaxPool3D(
        input=i.image[..., None], ksize=[1, 2, 2, 1, 1], strides=[1, 2, 2, 1, 1], padding="SAME"
    ),
    "Mod": lambda i: raw.Mod(x=i.n + 9, y=i.n + 2),
    "Polygamma": lambda i: raw.Polygamma(a=tf.ones_like(i.u), x=i.u),
    "Qr": lambda i: tf.abs(raw.Qr(input=_positive(i.square)).r),
    "ResizeArea": lambda i: raw.ResizeArea(images=i.image, size=[5, 6]),
    "ResizeBicubic": lambda i: raw.ResizeBicubic(images=i.image, size=[5, 6]),
    "ResizeNearestNeighbor": lambda i: raw.ResizeNearestNeighbor(images=i.image, size=[5, 6]),
    "ScatterNd": lambda i: (
        raw.ScatterNd(indices=[[1], [0]], updates=i.x[0, :2, 0], shape=[6]) + i.x
    ),
    "SelfAdjointEigV2": lambda i: (
        raw.SelfAdjointEigV2(input=_positive(i.square), compute_v=False).e
    ),
    "Softmax of a mask": lambda i: tf.nn.softmax(
        tf.where(i.x > 0.0, i.x, -1e9 * tf.ones_like(i.x))
    ),
    "Split": lambda i: raw.Split(axis=1, value=i.x, num_split=2),
    "Svd": lambda i: raw.Svd(input=i.square, compute_uv=False).s,
    "TensorScatterUpdate": lambda i: raw.TensorScatterUpdate(
        tensor=i.x, indices=[[0, 1, 2]], updates=[1.0]
    ),
    "TruncateDiv": lambda i: raw.TruncateDiv(x=i.n - 3, y=i.n + 2),
    "TruncateMod": lambda i: raw.TruncateMod(x=i.n - 3, y=i.n + 2),
    "UnsortedSegmentMax": lambda i: (
        raw.UnsortedSegmentMax(data=i.x[0], segment_ids=i.n[0, :, 0] * 0, num_segments=1) + i.x
    ),
    "LowerBound": lambda i: raw.LowerBound(sorted_inputs=tf.sort(i.x[:, 0]), values=i.y[:, 0]),
    "UpperBound": lambda i: raw.UpperBound(sorted_inputs=tf.sort(i.x[:, 0]), values=i.y[:, 0]),
    "Zeta": lambda i: raw.Zeta(x=i.u + 1.5, q=i.u),
    **{
        name: lambda i, name=name: tf.math.real(getattr(raw, name)(input=tf.complex(i.x, i.y)))
        for name in ("FFT", "IFFT", "FFT2D", "IFFT2D")
    },
    "IRFFT": lambda i: tf.signal.irfft(tf.signal.rfft(i.signal)),
    "RFFT2D": lambda i: tf.signal.irfft2d(tf.signal.rfft2d(i.x)),
    "Imag": lambda i: tf.math.imag(tf.signal.rfft(i.signal)),
    "ComplexAbs": lambda i: tf.abs(tf.math.conj(tf.signal.rfft(i.signal))),
    "Angle": lambda i: tf.math.angle(tf.complex(i.x, i.y)),
    "Concat with shapes": lambda i: tf.reshape(i.x, tf.concat([tf.shape(i.x)[:1], [2, 12]], 0)),
    "shape in parts": lambda i: tf.reshape(
        i.x, (tf.unstack(tf.shape(i.x))[0], tf.unstack(tf.shape(i.x))[2], 4)
    ),
    "size": lambda i: i.x / tf.cast(tf.size(i.x[0]), tf.float32),
}
# Their nodes refer to functions of the graph, or have complex constants, or shapes, that tf_keras
# cannot store or infer.
NOT_IN_FILES = {
    *("image.rot90", "image.ssim", "image.ssim_multiscale", "linalg.expm", "searchsorted"),
    *("math.is_non_decreasing", "math.is_strictly_increasing", "math.zero_fraction"),
    *("signal.dct", "signal.idct", "signal.inverse_mdct", "signal.inverse_stft"),
    *("signal.mfccs_from_log_mel_spectrograms", "signal.overlap_and_add", "shape in arithmetic"),
    # Its labels are not those of the samples.
    "nn.sparse_softmax_cross_entropy_with_logits",
}
ALL_CALLS = {
    **{k: call for k, call in {**CALLS, **RAW_CALLS}.items() if k not in NOT_IN_FILES},
    **raw_graph_calls.CALLS,
}
QUICK = (
    *("Einsum", "pad", "norm of order 1", "math.top_k", "roll", "linalg.band_part", "%", "//"),
    *("argmax as int32", "tensordot", "split", "one_hot", "signal.stft", "shape in a reshape"),
    *("shape in parts", "cast", "linalg.matvec", "image.resize", "nn.moments"),
    *("raw FusedBatchNormV3", "raw Rank", "raw ShapeN", "raw EnsureShape", "raw CheckNumerics"),
    *("raw TensorScatterAdd", "raw Unique", "raw SegmentSum", "raw MaxPoolWithArgmax"),
    "signal.stft with a window",
)


def _check(names: list[str], path: Path) -> set[str]:
    """Compare a file of these calls with tf_keras; returns the operations of its nodes."""
    model, counts = graph_model([ALL_CALLS[name] for name in names])
    model.save(path)
    loaded = load_model(audit_file(path)).model
    labels = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    values = list(samples().values())
    expected, actual = model.predict(values, verbose=0), loaded.predict(values, verbose=0)
    assert len(expected) == len(actual) == len(labels)
    for name, value, result in zip(labels, expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5, err_msg=name)
    return {layer.node_def.op for layer in model.layers if isinstance(layer, TensorFlowOpLayer)}


def test_common_operations_compute_the_same(tmp_path: Path) -> None:
    used = _check(list(QUICK), tmp_path / "model.h5")
    assert {"Einsum", "GatherV2", "RFFT", "ComplexAbs", "Unpack", "FusedBatchNormV3"} <= used


@pytest.mark.long
def test_every_operation_computes_the_same(tmp_path: Path) -> None:
    used = _check(list(ALL_CALLS), tmp_path / "model.h5")
    assert used == graph_nodes.OPERATIONS | graph_nodes.UNCHANGED


def _only_computes(definition: Any) -> bool:
    """Whether it has no state, and neither text, which may name a file, nor functions."""
    arguments = [*definition.input_arg, *definition.output_arg]
    kinds = {tf.as_dtype(item.type) for item in arguments if item.type}
    return (
        not definition.is_stateful
        and not any(item.is_ref for item in arguments)
        and not kinds & {tf.string, tf.resource, tf.variant}
        and not {"func", "list(func)"} & {attr.type for attr in definition.attr}
    )


def test_operations_only_compute() -> None:
    for name in graph_nodes.OPERATIONS:
        assert _only_computes(op_def_registry.get(name)), name


# Operations that only compute, and that have no place in a converted model.
NOT_KNOWN = {
    "are gradients": r".*Grad(ient)?(GradV?|V?\d|WithArgmax|Boxes|Image|A|Identity)*|"
    r".*Backprop(Filter(V2)?)|Dilation2DBackpropInput|IgammaGradA",
    "draw random numbers": r"Stateless.*|Random.*|Fractional.*|SobolSample|K[mM].*Initialization|"
    r"ComputeAccidentalHits",
    "have sparse or ragged tensors": r"Sparse(?!MatMul|SoftmaxCross|ToDense).*|Ragged.*|"
    r"(Des|S)erialize.*Sparse|.*CountSparseOutput|DenseTo.*SetOperation|SetSize|EditDistance|"
    r"CTC(BeamSearchDecoder|Loss)",
    "have integers with a scale": r"Quantize(d.*|V2|DownAndShrinkRange)|(Uniform)?(De|Re)quant.*|"
    r"Uniform.*",
    "are control flow": r"Enter|Exit|LoopCond|Merge|Switch|PyFuncStateless|ParallelConcat",
    "are for training, serving and debugging": r"Sdca.*|Batch|Unbatch|Copy(Host)?|Debug.*|"
    r"CheckPinned|ToBool|NearestNeighbors|UnicodeScript",
    "change their input": r"Inplace(Add|Sub|Update)",
}


def _runs_here(name: str, definition: Any) -> bool:
    """Whether it computes on tensors, and files of a TensorFlow with a CPU can contain it."""
    types = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(name).kernel}
    has_tensors = bool(definition.input_arg) and bool(definition.output_arg)
    return has_tensors and "CPU" in types and not definition.HasField("deprecation")


def test_every_operation_that_only_computes_is_known_or_has_a_reason() -> None:
    definitions = {name: op_def_registry.get(name) for name in dir(tf.raw_ops)}
    names = {
        name
        for name, definition in definitions.items()
        if definition and _only_computes(definition) and _runs_here(name, definition)
    }
    assert len(names) > 500
    unknown = names - graph_nodes.OPERATIONS - graph_nodes.UNCHANGED
    reasons = {
        name: [why for why, pattern in NOT_KNOWN.items() if re.fullmatch(pattern, name)]
        for name in unknown
    }
    assert {name for name, why in reasons.items() if not why} == set()


def test_operations_with_a_list_of_outputs() -> None:
    for name in graph_nodes.OPERATIONS:
        [first, *others] = op_def_registry.get(name).output_arg
        is_list = bool(others or first.number_attr or first.type_list_attr)
        assert graph_nodes.has_outputs({"node_def": {"op": name}}) == is_list, name


def test_inputs_that_the_node_lacks() -> None:
    node = {"op": "AddV2", "input": ["a", "b"], "attr": {}}
    with pytest.raises(graph_nodes.NotRecognizedError, match="more inputs than its call"):
        graph_nodes.expression({"node_def": node}, [{"input": 0}])


@pytest.mark.parametrize("operation", ["ReadFile", "PyFunc", "RandomUniform", "UnheardOf"])
def test_other_operations_are_named(operation: str, tmp_path: Path) -> None:
    model, _ = graph_model([lambda i: tf.math.asinh(i.x)])
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"].replace('"op": "Asinh"', f'"op": "{operation}"')
        file.attrs["model_config"] = config
    with pytest.raises(UnsafeModelError, match=f"unknown raw TensorFlow operation: {operation}"):
        load_model(audit_file(path))
