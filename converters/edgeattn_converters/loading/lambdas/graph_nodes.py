"""Nodes of a TensorFlow graph, which Keras 2.0 to 2.3 store as layers, as expressions.

A ``TensorFlowOpLayer`` contains a node of the graph and its constant inputs. The operations of
:data:`OPERATIONS` compute on tensors only: they keep no state, read no files, draw no random
numbers and call no functions. Those of :data:`UNCHANGED` return their first input. For others,
:class:`NotRecognizedError` is raised. The table is tested: a file with each operation loads, and
computes the same.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.lambdas.expressions import (
    Expression,
    NotRecognizedError,
    operation,
)

Config = Mapping[str, Any]
_TABLE = """
Abs Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Angle Any ApproxTopK
ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AudioSpectrogram AvgPool AvgPool3D
BandedTriangularSolve BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpace BatchToSpaceND BesselI0
BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0
BesselY1 Betainc BiasAdd BiasAddV1 Bincount Bitcast BitwiseAnd BitwiseOr BitwiseXor BlockLSTM
BlockLSTMV2 BroadcastArgs BroadcastGradientArgs BroadcastTo Bucketize CTCGreedyDecoder Cast Ceil
Cholesky ClipByValue CombinedNonMaxSuppression Complex ComplexAbs Concat ConcatOffset ConcatV2 Conj
ConjugateTranspose Conv Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh
CropAndResize Cross Cumprod Cumsum CumulativeLogsumexp DataFormatDimMap DataFormatVecPermute Dawsn
DenseBincount DepthToSpace DepthwiseConv2dNative DepthwiseConv2dNativeBackpropInput Diag DiagPart
Digamma Dilation2D Div DivNoNan DrawBoundingBoxes DrawBoundingBoxesV2 DynamicPartition DynamicStitch
Eig Einsum Elu EnsureShape Equal Erf Erfc Erfinv EuclideanNorm Exp ExpandDims Expint Expm1
ExtractGlimpse ExtractGlimpseV2 ExtractImagePatches ExtractVolumePatches FFT FFT2D FFT3D
FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Floor
FloorDiv FloorMod FresnelCos FresnelSin FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
FusedPadConv2D FusedResizeAndPadConv2D GRUBlockCell Gather GatherNd GatherV2 Greater GreaterEqual
HSVToRGB HistogramFixedWidth IFFT IFFT2D IFFT3D IRFFT IRFFT2D IRFFT3D Identity IdentityN Igamma
Igammac Imag ImageProjectiveTransformV2 ImageProjectiveTransformV3 InTopK InTopKV2 Inv Invert
InvertPermutation IsFinite IsInf IsNan IsotonicRegression L2Loss LRN LSTMBlockCell LeakyRelu
LeftShift Less LessEqual Lgamma LinSpace ListDiff Log Log1p LogMatrixDeterminant LogSoftmax
LogicalAnd LogicalNot LogicalOr LowerBound Lu MatMul MatrixBandPart MatrixDeterminant MatrixDiag
MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixInverse
MatrixLogarithm MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve MatrixSolveLs
MatrixSquareRoot MatrixTriangularSolve Max MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax Maximum
Mean Mfcc Min Minimum MirrorPad Mod Mul MulNoNan Ndtri Neg NextAfter NonMaxSuppression
NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
NonMaxSuppressionWithOverlaps NotEqual NthElement OneHot OnesLike Pack Pad PadV2
ParallelDynamicStitch Polygamma PopulationCount Pow Prod Qr QuantizeAndDequantizeV2
QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 RFFT RFFT2D RFFT3D RGBToHSV Range Rank Real RealDiv
Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse
ReverseSequence ReverseV2 RightShift Rint Roll Round Rsqrt ScaleAndTranslate ScatterNd
ScatterNdNonAliasingAdd SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2
SelfAdjointEigV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size Slice Softmax
SoftmaxCrossEntropyWithLogits Softplus Softsign SpaceToBatch SpaceToBatchND SpaceToDepth
SparseMatMul SparseSoftmaxCrossEntropyWithLogits SparseToDense Spence Split SplitV Sqrt Square
SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Svd Tan Tanh TensorScatterAdd
TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile
TopKV2 Transpose TridiagonalMatMul TridiagonalSolve TruncateDiv TruncateMod Unique UniqueV2
UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UnsortedSegmentMax UnsortedSegmentMin
UnsortedSegmentProd UnsortedSegmentSum UpperBound Where Xdivy Xlog1py Xlogy ZerosLike Zeta
"""
_TABLE_WITH_OUTPUTS = """
ApproxTopK BlockLSTM BlockLSTMV2 BroadcastGradientArgs CTCGreedyDecoder
CombinedNonMaxSuppression ConcatOffset DynamicPartition Eig FusedBatchNorm
FusedBatchNormV2 FusedBatchNormV3 GRUBlockCell IdentityN IsotonicRegression LSTMBlockCell
ListDiff LogMatrixDeterminant Lu MaxPoolWithArgmax NonMaxSuppressionV4 NonMaxSuppressionV5
Qr SelfAdjointEigV2 ShapeN SoftmaxCrossEntropyWithLogits
SparseSoftmaxCrossEntropyWithLogits Split SplitV Svd TopKV2 Unique UniqueV2
UniqueWithCounts UniqueWithCountsV2 Unpack
"""
OPERATIONS = frozenset(_TABLE.split())
# Those that have a list of outputs.
_WITH_OUTPUTS = frozenset(_TABLE_WITH_OUTPUTS.split())
# Checks of values, and operations that affect the computation of gradients only.
UNCHANGED = frozenset(
    {"CheckNumerics", "CheckNumericsV2", "PlaceholderWithDefault", "PreventGradient", "Snapshot"}
)
# Their results depend on the shapes of their inputs alone.
_SHAPES = frozenset({"Rank", "Shape", "ShapeN", "Size"})


def _node(config: Config) -> Mapping[str, Any]:
    """Return the graph node in the config of a layer; some versions store it as JSON text."""
    node = config.get("node_def")
    if isinstance(node, str):
        try:
            node = json.loads(node)
        except ValueError as error:
            raise NotRecognizedError("its node has an unknown form") from error
    if not isinstance(node, Mapping):
        raise NotRecognizedError("its node has an unknown form")
    return node


def operation_name(config: Config) -> str:
    """The name of the operation, such as ``"StridedSlice"``."""
    return str(_node(config).get("op"))


def is_known(config: Config) -> bool:
    """Return whether the operation is one of those known to only compute."""
    try:
        return operation_name(config) in OPERATIONS | UNCHANGED
    except NotRecognizedError:
        return False


def is_shape(config: Config) -> bool:
    """Return whether the config of a layer is a node that computes the shape of its input."""
    return "node_def" in config and operation_name(config) in _SHAPES


def has_outputs(config: Config) -> bool:
    """Return whether the config of a layer is a node with a list of outputs."""
    return "node_def" in config and operation_name(config) in _WITH_OUTPUTS


def expression(config: Config, tensors: Sequence[Expression]) -> Expression:
    """What the node computes from ``tensors``, its inputs that are not constant, in order."""
    node = _node(config)
    name = str(node.get("op"))
    if name not in OPERATIONS | UNCHANGED:
        raise NotRecognizedError(f"unknown graph operation {name}")
    constants = config.get("constants") or {}
    count = sum(not str(source).startswith("^") for source in node.get("input") or ())
    remaining = iter(tensors)
    try:
        arguments = [
            {"const": constants[str(index)]} if str(index) in constants else next(remaining)
            for index in range(count)
        ]
    except StopIteration:
        raise NotRecognizedError("its node has more inputs than its call") from None
    attributes = {
        key: value
        for key, value in (node.get("attr") or {}).items()
        if not key.startswith("_") and isinstance(value, Mapping)
    }
    if name == "Squeeze" and not _items(attributes.get("squeeze_dims", {})):
        return operation("squeeze", arguments[0], {"const": None})
    if name == "ConcatV2":
        arguments, attributes = _without_empty_parts(arguments, attributes)
    if name in UNCHANGED:
        return operation("identity", arguments[0])
    return {"graph": name, "args": arguments, "attributes": attributes}


def _items(attribute: Mapping[str, Any]) -> Any:
    """The integers of an attribute that is a list."""
    return (attribute.get("list") or {}).get("i")


def _without_empty_parts(
    arguments: list[Expression], attributes: dict[str, Any]
) -> tuple[list[Expression], dict[str, Any]]:
    """The inputs of a concatenation without empty constants, whose shape the file has lost.

    They add nothing to the result.
    """
    *parts, axis = arguments
    kept = [part for part in parts if part.get("const", 0) != []]
    if len(kept) in (len(parts), 0, 1):
        return arguments, attributes
    return [*kept, axis], {**attributes, "N": {"i": str(len(kept))}}
