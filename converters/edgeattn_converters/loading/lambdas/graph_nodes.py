"""Nodes of a TensorFlow graph, which Keras 2.0 to 2.3 store as layers, as expressions.

A ``TensorFlowOpLayer`` contains a node of the graph and its constant inputs. The operations of
:data:`OPERATIONS` compute on tensors only: they keep no state, read no files, draw no random
numbers and call no functions. For others, :class:`NotRecognizedError` is raised. The table is
tested: a file with each operation loads, and computes the same.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.lambdas.expressions import Expression, NotRecognizedError

Config = Mapping[str, Any]
_TABLE = """
Abs Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Angle Any
ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AvgPool AvgPool3D BatchMatMul
BatchMatMulV2 BatchToSpaceND BesselI0 BesselI0e BesselI1 BesselI1e Betainc BiasAdd BitwiseAnd
BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize Cast Ceil Cholesky ClipByValue Complex
ComplexAbs ConcatV2 Conj Conv2D Conv2DBackpropInput Conv3D Cos Cosh CropAndResize Cross Cumprod
Cumsum CumulativeLogsumexp DepthToSpace DepthwiseConv2dNative Digamma Dilation2D Div DivNoNan
Einsum Elu Equal Erf Erfc Erfinv EuclideanNorm Exp ExpandDims Expm1 ExtractImagePatches FFT
FFT2D FFT3D Fill Floor FloorDiv FloorMod GatherNd GatherV2 Greater GreaterEqual HSVToRGB IFFT
IFFT2D IFFT3D IRFFT IRFFT2D Identity IdentityN Igamma Igammac Imag InTopKV2 Inv Invert IsFinite
IsInf IsNan L2Loss LRN LeakyRelu LeftShift Less LessEqual Lgamma Log Log1p LogMatrixDeterminant
LogSoftmax LogicalAnd LogicalNot LogicalOr LowerBound MatMul MatrixBandPart MatrixDeterminant
MatrixDiag MatrixDiagPart MatrixDiagPartV3 MatrixDiagV3 MatrixInverse MatrixSetDiag
MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Max MaxPool MaxPool3D Maximum Mean Min Minimum
MirrorPad Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual OneHot OnesLike Pack Pad PadV2 Polygamma
Pow Prod Qr RFFT RFFT2D RGBToHSV Range Real RealDiv Reciprocal Relu Relu6 Reshape ResizeArea
ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseSequence ReverseV2 RightShift Rint
Roll Round Rsqrt ScatterNd Select SelectV2 SelfAdjointEigV2 Selu Shape Sigmoid Sign Sin Sinh
Size Slice Softmax SoftmaxCrossEntropyWithLogits Softplus Softsign SpaceToBatchND SpaceToDepth
Split SplitV Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Svd Tan
Tanh TensorScatterUpdate Tile TopKV2 Transpose TruncateDiv TruncateMod Unpack UnsortedSegmentMax
UnsortedSegmentSum UpperBound Xdivy Xlog1py Xlogy ZerosLike Zeta
"""
OPERATIONS = frozenset(_TABLE.split())
# Their results depend on the shape of their input alone.
_SHAPES = frozenset({"Shape", "Size"})
_WITH_OUTPUTS = frozenset({"Split", "SplitV", "Unpack"})


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
        return operation_name(config) in OPERATIONS
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
    if name not in OPERATIONS:
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
    return {"graph": name, "args": arguments, "attributes": attributes}
