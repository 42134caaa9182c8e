"""Calls of operations of TensorFlow graphs that no function of the current TensorFlow creates.

Earlier versions created them, and files of those contain them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

raw = tf.raw_ops


def _ramp(*shape: int) -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype="float32").reshape(shape)


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, "float32")


def _positive(square: Any) -> Any:
    return tf.matmul(square, square, transpose_b=True) + 2.0 * np.eye(3, dtype="float32")


def _shifted(square: Any) -> Any:
    return square + 4.0 * np.eye(3, dtype="float32")


def _complex(i: Any) -> Any:
    return tf.complex(i.x, i.y)


def _boxes(i: Any) -> Any:
    return tf.concat([i.x[0, :, :2], i.x[0, :, :2] + i.u[0, :, :2]], 1)


def _first(value: Any, i: Any) -> Any:
    """A result of the first sample, or of the whole batch, added to all of them."""
    return tf.cast(value, tf.float32) + i.x[:, :1, :1]


def _each(names: str, call: Callable[[Any, Any], Any]) -> dict[str, Callable[[Any], Any]]:
    """A call of each operation with the same arguments."""

    def bound(name: str) -> Callable[[Any], Any]:
        return lambda i: call(getattr(raw, name), i)

    return {f"raw {name}": bound(name) for name in names.split()}


_CONVOLUTION: Mapping[str, Any] = {"strides": [1, 1, 1, 1], "padding": "VALID"}
_CONVOLUTION_3D: Mapping[str, Any] = {"strides": [1] * 5, "padding": "VALID"}
_SUPPRESSION: Mapping[str, Any] = {"max_output_size": 3, "iou_threshold": 0.5}


def _normalization(name: str, **options: Any) -> Callable[[Any], Any]:
    return lambda i: getattr(raw, name)(
        x=i.image,
        scale=[1.0, 2.0, 0.5],
        offset=[0.0, 0.1, -0.2],
        mean=[0.1, 0.2, 0.3],
        variance=[1.0, 2.0, 0.5],
        is_training=False,
        **options,
    )[0]


ELEMENTWISE = {
    **_each(
        "BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Dawsn Expint "
        "FresnelCos FresnelSin Spence",
        lambda operation, i: operation(x=i.u),
    ),
    "raw PopulationCount": lambda i: tf.cast(raw.PopulationCount(x=i.n), tf.int32),
    "raw Snapshot": lambda i: raw.Snapshot(input=i.x) * 2.0,
    "raw PreventGradient": lambda i: raw.PreventGradient(input=i.x) * 2.0,
    "raw CheckNumerics": lambda i: raw.CheckNumerics(tensor=i.x, message="of x") * 2.0,
    "raw CheckNumericsV2": lambda i: raw.CheckNumericsV2(tensor=i.x, message="of x") * 2.0,
    "raw PlaceholderWithDefault": lambda i: (
        raw.PlaceholderWithDefault(input=i.x, shape=[None, 4, 6]) * 2.0
    ),
    "raw Bitcast": lambda i: raw.Bitcast(input=i.x, type=tf.int32),
    "raw FakeQuantWithMinMaxArgs": lambda i: raw.FakeQuantWithMinMaxArgs(
        inputs=i.x, min=-1.5, max=1.0, num_bits=4
    ),
    "raw FakeQuantWithMinMaxVars": lambda i: raw.FakeQuantWithMinMaxVars(
        inputs=i.x, min=-1.5, max=1.0
    ),
    "raw FakeQuantWithMinMaxVarsPerChannel": lambda i: raw.FakeQuantWithMinMaxVarsPerChannel(
        inputs=i.image, min=[0.1, 0.0, 0.2], max=[0.5, 1.0, 0.7]
    ),
    "raw QuantizeAndDequantizeV2": lambda i: raw.QuantizeAndDequantizeV2(
        input=i.x, input_min=-2.0, input_max=2.0, range_given=True, num_bits=5
    ),
    "raw QuantizeAndDequantizeV3": lambda i: raw.QuantizeAndDequantizeV3(
        input=i.x, input_min=-2.0, input_max=2.0, num_bits=5
    ),
    "raw QuantizeAndDequantizeV4": lambda i: raw.QuantizeAndDequantizeV4(
        input=i.x, input_min=-2.0, input_max=2.0, range_given=True, num_bits=5
    ),
}
ARRAYS = {
    "raw EnsureShape": lambda i: raw.EnsureShape(input=i.x, shape=[None, 4, 6]) * 2.0,
    "raw Rank": lambda i: i.x * tf.cast(raw.Rank(input=i.x), tf.float32),
    "raw ShapeN": lambda i: tf.reshape(i.x, raw.ShapeN(input=[i.x, i.y])[1]),
    "raw Where": lambda i: _first(tf.reduce_sum(raw.Where(condition=i.x > 0.0)), i),
    "raw Concat": lambda i: raw.Concat(concat_dim=1, values=[i.x, i.y]),
    "raw ConcatOffset": lambda i: (
        i.x
        * tf.cast(
            raw.ConcatOffset(concat_dim=1, shape=[tf.shape(i.x), tf.shape(i.y)])[1][1], tf.float32
        )
    ),
    "raw BroadcastGradientArgs": lambda i: _first(
        raw.BroadcastGradientArgs(s0=tf.shape(i.x), s1=tf.shape(i.x[:1]))[1][0], i
    ),
    "raw Gather": lambda i: raw.Gather(params=_ramp(6, 2), indices=i.n),
    "raw InvertPermutation": lambda i: _first(raw.InvertPermutation(x=tf.argsort(i.x[0, 0])), i),
    "raw LinSpace": lambda i: _first(raw.LinSpace(start=i.x[0, 0, 0], stop=2.0, num=6), i),
    "raw ListDiff": lambda i: _first(tf.reduce_sum(raw.ListDiff(x=i.n[0, 0], y=[1, 2]).out), i),
    "raw Reverse": lambda i: raw.Reverse(tensor=i.x, dims=[False, True, False]),
    "raw Unique": lambda i: _first(tf.reduce_sum(raw.Unique(x=i.n[0, 0]).y), i),
    "raw UniqueV2": lambda i: _first(tf.reduce_sum(raw.UniqueV2(x=i.n[0, 0], axis=[0]).y), i),
    "raw UniqueWithCounts": lambda i: _first(raw.UniqueWithCounts(x=i.n[0, 0]).count[0], i),
    "raw UniqueWithCountsV2": lambda i: _first(
        raw.UniqueWithCountsV2(x=i.n[0, 0], axis=[0]).count[0], i
    ),
    "raw UnravelIndex": lambda i: _first(raw.UnravelIndex(indices=i.n[0, 0], dims=[2, 3])[0], i),
    "raw NthElement": lambda i: raw.NthElement(input=i.x, n=2),
    "raw InTopK": lambda i: raw.InTopK(predictions=i.x[:, 0], targets=i.n[:, 0, 0], k=2),
    "raw DynamicPartition": lambda i: _first(
        tf.reduce_sum(
            raw.DynamicPartition(data=i.x[0], partitions=i.n[0, :, 0] // 3, num_partitions=2)[1]
        ),
        i,
    ),
    **_each(
        "DynamicStitch ParallelDynamicStitch",
        lambda operation, i: _first(
            operation(indices=[[0, 2], [1, 3]], data=[i.x[0, :2], i.x[0, 2:]]), i
        ),
    ),
    **_each(
        "TensorScatterAdd TensorScatterSub TensorScatterMax TensorScatterMin",
        lambda operation, i: operation(tensor=i.x, indices=[[0, 1, 2]], updates=[1.0]),
    ),
    "raw TensorStridedSliceUpdate": lambda i: raw.TensorStridedSliceUpdate(
        input=i.x, begin=[0, 1, 0], end=[1, 2, 6], strides=[1, 1, 1], value=_ones(1, 1, 6)
    ),
    "raw ScatterNdNonAliasingAdd": lambda i: raw.ScatterNdNonAliasingAdd(
        input=i.x, indices=[[0, 1, 2]], updates=[1.0]
    ),
    "raw SparseToDense": lambda i: _first(
        raw.SparseToDense(
            sparse_indices=[0], output_shape=[6], sparse_values=i.x[0, 0, 0], default_value=0.5
        ),
        i,
    ),
    **_each(
        "SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum",
        lambda operation, i: operation(data=tf.transpose(i.x, [1, 0, 2]), segment_ids=[0, 0, 1, 1]),
    ),
    **_each(
        "UnsortedSegmentMin UnsortedSegmentProd",
        lambda operation, i: operation(
            data=tf.transpose(i.x, [1, 0, 2]), segment_ids=[1, 0, 1, 0], num_segments=2
        ),
    ),
    "raw Bincount": lambda i: _first(raw.Bincount(arr=i.n[0, 0], size=6, weights=_ones(6)), i),
    "raw DenseBincount": lambda i: raw.DenseBincount(input=i.n[:, 0], size=6, weights=_ones(0)),
    "raw HistogramFixedWidth": lambda i: _first(
        raw.HistogramFixedWidth(values=i.x[0], value_range=[-1.0, 1.0], nbins=6), i
    ),
}
MATRICES = {
    "raw BatchMatMulV3": lambda i: raw.BatchMatMulV3(x=i.x, y=i.y, Tout=tf.float32, adj_y=True),
    "raw SparseMatMul": lambda i: raw.SparseMatMul(a=i.x[:, 0], b=_ramp(6, 2)),
    "raw ConjugateTranspose": lambda i: tf.math.imag(
        raw.ConjugateTranspose(x=_complex(i), perm=[0, 2, 1])
    ),
    "raw Diag": lambda i: _first(raw.Diag(diagonal=i.x[0, 0]), i),
    "raw DiagPart": lambda i: _first(raw.DiagPart(input=i.square[0]), i),
    "raw MatrixDiagV2": lambda i: raw.MatrixDiagV2(
        diagonal=i.x, k=0, num_rows=-1, num_cols=-1, padding_value=0.5
    ),
    "raw MatrixDiagPartV2": lambda i: raw.MatrixDiagPartV2(input=i.square, k=1, padding_value=0.0),
    "raw MatrixSetDiagV2": lambda i: raw.MatrixSetDiagV2(
        input=i.square, diagonal=i.square[:, 0, :2], k=1
    ),
    "raw BandedTriangularSolve": lambda i: raw.BandedTriangularSolve(
        matrix=tf.abs(i.square[:, :2]) + 1.0, rhs=i.square
    ),
    "raw Eig": lambda i: tf.sort(
        tf.math.real(raw.Eig(input=_positive(i.square), Tout=tf.complex64, compute_v=False).e)
    ),
    "raw Lu": lambda i: raw.Lu(input=_shifted(i.square)).lu,
    "raw MatrixLogarithm": lambda i: tf.math.real(
        raw.MatrixLogarithm(input=tf.cast(_positive(i.square), tf.complex64))
    ),
    "raw MatrixSquareRoot": lambda i: raw.MatrixSquareRoot(input=_positive(i.square)),
    "raw MatrixSolveLs": lambda i: raw.MatrixSolveLs(
        matrix=_shifted(i.square), rhs=i.square, l2_regularizer=np.float64(0.1), fast=True
    ),
    "raw TridiagonalMatMul": lambda i: raw.TridiagonalMatMul(
        superdiag=i.square[:, :1], maindiag=i.square[:, 1:2], subdiag=i.square[:, 2:], rhs=i.square
    ),
    "raw TridiagonalSolve": lambda i: raw.TridiagonalSolve(
        diagonals=i.square + np.array([[0.0], [5.0], [0.0]], "float32"), rhs=i.square
    ),
}
SIGNALS = {
    "raw RFFT3D": lambda i: tf.math.real(raw.RFFT3D(input=i.image, fft_length=[8, 8, 3])),
    "raw IRFFT3D": lambda i: raw.IRFFT3D(
        input=raw.RFFT3D(input=i.image, fft_length=[8, 8, 2]), fft_length=[8, 8, 2]
    ),
    "raw AudioSpectrogram": lambda i: _first(
        tf.reduce_sum(
            raw.AudioSpectrogram(input=tf.transpose(i.signal), window_size=16, stride=8)[:1]
        ),
        i,
    ),
    "raw Mfcc": lambda i: raw.Mfcc(
        spectrogram=tf.abs(tf.signal.rfft(i.u)) + 0.1,
        sample_rate=16000,
        filterbank_channel_count=3,
        dct_coefficient_count=2,
    ),
}
IMAGES = {
    "raw FusedBatchNorm": _normalization("FusedBatchNorm"),
    "raw FusedBatchNormV2": _normalization("FusedBatchNormV2"),
    "raw FusedBatchNormV3": _normalization("FusedBatchNormV3", epsilon=0.01),
    "raw BiasAddV1": lambda i: raw.BiasAddV1(value=i.image, bias=[1.0, 2.0, 3.0]),
    "raw DepthwiseConv2dNativeBackpropInput": lambda i: raw.DepthwiseConv2dNativeBackpropInput(
        input_sizes=[3, 10, 10, 3],
        filter=_ramp(3, 3, 3, 1),
        out_backprop=i.image,
        **_CONVOLUTION,
    ),
    "raw Conv3DBackpropInputV2": lambda i: raw.Conv3DBackpropInputV2(
        input_sizes=[3, 2, 9, 9, 2],
        filter=_ramp(2, 2, 2, 2, 3),
        out_backprop=i.image[:, None],
        **_CONVOLUTION_3D,
    ),
    "raw Conv": lambda i: raw.Conv(input=i.image, filter=_ramp(2, 2, 3, 2), **_CONVOLUTION),
    "raw MaxPoolV2": lambda i: raw.MaxPoolV2(
        input=i.image, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"
    ),
    "raw MaxPoolWithArgmax": lambda i: (
        raw.MaxPoolWithArgmax(
            input=i.image, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME"
        ).output
    ),
    "raw FusedPadConv2D": lambda i: raw.FusedPadConv2D(
        input=i.image,
        paddings=[[0, 0], [1, 1], [1, 1], [0, 0]],
        filter=_ramp(2, 2, 3, 2),
        mode="REFLECT",
        **_CONVOLUTION,
    ),
    "raw FusedResizeAndPadConv2D": lambda i: raw.FusedResizeAndPadConv2D(
        input=i.image,
        size=[6, 6],
        paddings=[[0, 0], [1, 1], [1, 1], [0, 0]],
        filter=_ramp(2, 2, 3, 2),
        mode="REFLECT",
        **_CONVOLUTION,
    ),
    "raw SpaceToBatch": lambda i: raw.SpaceToBatch(
        input=i.image, paddings=[[0, 0], [0, 0]], block_size=2
    ),
    "raw BatchToSpace": lambda i: raw.BatchToSpace(
        input=raw.SpaceToBatch(input=i.image, paddings=[[0, 0], [0, 0]], block_size=2),
        crops=[[1, 1], [0, 0]],
        block_size=2,
    ),
    "raw ExtractVolumePatches": lambda i: raw.ExtractVolumePatches(
        input=i.image[..., None],
        ksizes=[1, 2, 2, 2, 1],
        strides=[1, 2, 2, 1, 1],
        padding="VALID",
    ),
    "raw ExtractGlimpse": lambda i: raw.ExtractGlimpse(
        input=i.image, size=[3, 3], offsets=np.zeros((3, 2), "float32")
    ),
    "raw ExtractGlimpseV2": lambda i: raw.ExtractGlimpseV2(
        input=i.image, size=[3, 3], offsets=np.zeros((3, 2), "float32")
    ),
    "raw ScaleAndTranslate": lambda i: raw.ScaleAndTranslate(
        images=i.image, size=[5, 6], scale=[0.5, 0.75], translation=[0.0, 1.0]
    ),
    "raw ImageProjectiveTransformV2": lambda i: raw.ImageProjectiveTransformV2(
        images=i.image,
        transforms=[[1.0, 0.1, 0.5, 0.0, 1.0, -1.0, 0.0, 0.0]],
        output_shape=[6, 7],
        interpolation="BILINEAR",
    ),
    "raw ImageProjectiveTransformV3": lambda i: raw.ImageProjectiveTransformV3(
        images=i.image,
        transforms=[[1.0, 0.1, 0.5, 0.0, 1.0, -1.0, 0.0, 0.0]],
        output_shape=[6, 7],
        fill_value=0.5,
        interpolation="NEAREST",
    ),
    "raw DrawBoundingBoxes": lambda i: raw.DrawBoundingBoxes(
        images=i.image, boxes=np.full((3, 1, 4), [0.1, 0.2, 0.8, 0.9], "float32")
    ),
    "raw DrawBoundingBoxesV2": lambda i: raw.DrawBoundingBoxesV2(
        images=i.image,
        boxes=np.full((3, 1, 4), [0.1, 0.2, 0.8, 0.9], "float32"),
        colors=_ones(1, 3),
    ),
    "raw DataFormatDimMap": lambda i: raw.DataFormatDimMap(x=i.n - 2),
    "raw DataFormatVecPermute": lambda i: _first(raw.DataFormatVecPermute(x=i.n[0, 0, :4])[1], i),
    "raw NonMaxSuppression": lambda i: _first(
        tf.reduce_sum(
            raw.NonMaxSuppression(boxes=_boxes(i), scores=i.u[0, :, 0], max_output_size=3)
        ),
        i,
    ),
    "raw NonMaxSuppressionV2": lambda i: _first(
        tf.reduce_sum(
            raw.NonMaxSuppressionV2(boxes=_boxes(i), scores=i.u[0, :, 0], **_SUPPRESSION)
        ),
        i,
    ),
    "raw NonMaxSuppressionV3": lambda i: _first(
        tf.reduce_sum(
            raw.NonMaxSuppressionV3(
                boxes=_boxes(i), scores=i.u[0, :, 0], score_threshold=0.1, **_SUPPRESSION
            )
        ),
        i,
    ),
    "raw NonMaxSuppressionV4": lambda i: _first(
        raw.NonMaxSuppressionV4(
            boxes=_boxes(i), scores=i.u[0, :, 0], score_threshold=0.1, **_SUPPRESSION
        ).valid_outputs,
        i,
    ),
    "raw NonMaxSuppressionV5": lambda i: _first(
        raw.NonMaxSuppressionV5(
            boxes=_boxes(i),
            scores=i.u[0, :, 0],
            score_threshold=0.1,
            soft_nms_sigma=0.0,
            **_SUPPRESSION,
        ).valid_outputs,
        i,
    ),
    "raw NonMaxSuppressionWithOverlaps": lambda i: _first(
        tf.reduce_sum(
            raw.NonMaxSuppressionWithOverlaps(
                overlaps=i.u[0, :, :4],
                scores=i.u[0, :, 0],
                max_output_size=3,
                overlap_threshold=0.5,
                score_threshold=0.1,
            )
        ),
        i,
    ),
    "raw CombinedNonMaxSuppression": lambda i: (
        raw.CombinedNonMaxSuppression(
            boxes=tf.concat([i.u[..., None, :2], i.u[..., None, :2] + i.u[..., None, 2:4]], -1),
            scores=i.u[..., :2],
            max_output_size_per_class=2,
            max_total_size=3,
            iou_threshold=0.5,
            score_threshold=0.1,
        ).nmsed_boxes
    ),
}
LAYERS = {
    "raw SparseSoftmaxCrossEntropyWithLogits": lambda i: (
        raw.SparseSoftmaxCrossEntropyWithLogits(features=i.x[:, 0], labels=i.n[:, 0, 0]).loss
    ),
    "raw CTCGreedyDecoder": lambda i: (
        raw.CTCGreedyDecoder(
            inputs=tf.transpose(i.x, [1, 0, 2]), sequence_length=[4, 4, 4]
        ).log_probability
    ),
    "raw IsotonicRegression": lambda i: raw.IsotonicRegression(input=i.x[:, 0]).output,
    "raw ApproxTopK": lambda i: raw.ApproxTopK(input=i.x, k=2).values,
    "raw GRUBlockCell": lambda i: (
        raw.GRUBlockCell(
            x=i.x[:, 0],
            h_prev=i.y[:, 0, :2],
            w_ru=_ramp(8, 4),
            w_c=_ramp(8, 2),
            b_ru=_ramp(4),
            b_c=_ramp(2),
        ).h
    ),
    "raw LSTMBlockCell": lambda i: (
        raw.LSTMBlockCell(
            x=i.x[:, 0],
            cs_prev=i.y[:, 0, :2],
            h_prev=i.y[:, 1, :2],
            w=_ramp(8, 8),
            wci=_ramp(2),
            wcf=_ramp(2),
            wco=_ramp(2),
            b=_ramp(8),
        ).h
    ),
    **_each(
        "BlockLSTM BlockLSTMV2",
        lambda operation, i: (
            operation(
                seq_len_max=np.int64(4),
                x=tf.transpose(i.x, [1, 0, 2]),
                cs_prev=i.y[:, 0, :2],
                h_prev=i.y[:, 1, :2],
                w=_ramp(8, 8),
                wci=_ramp(2),
                wcf=_ramp(2),
                wco=_ramp(2),
                b=_ramp(8),
            ).h
        ),
    ),
}
CALLS: Mapping[str, Callable[[Any], Any]] = {
    **ELEMENTWISE,
    **ARRAYS,
    **MATRICES,
    **SIGNALS,
    **IMAGES,
    **LAYERS,
}
