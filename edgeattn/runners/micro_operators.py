"""The operators of TensorFlow Lite Micro, by the methods of its ``MicroMutableOpResolver``.

They are those of ``micro_mutable_op_resolver.h`` of the version in constraints.txt, without the
operators of its own for signals.
"""

_METHODS = """
Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd BroadcastArgs
BroadcastTo CallOnce Cast Ceil Concatenation Conv2D Cos CumSum DepthToSpace DepthwiseConv2D
Dequantize Div DynamicUpdateSlice Elu EmbeddingLookup Equal Exp ExpandDims Fill Floor FloorDiv
FloorMod FullyConnected Gather GatherNd Greater GreaterEqual HardSwish If L2Normalization L2Pool2D
LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr Logistic MaxPool2D Maximum
Mean Minimum MirrorPad Mul Neg NotEqual Pack Pad PadV2 Prelu Quantize ReadVariable ReduceAll
ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt
SelectV2 Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth Split SplitV Sqrt Square
SquaredDifference Squeeze StridedSlice Sub Sum Svdf Tanh Transpose TransposeConv
UnidirectionalSequenceLSTM Unpack VarHandle While ZerosLike
"""
_BY_OPERATOR = {method.lower(): method for method in _METHODS.split()}


def resolver_method(operator: str) -> str | None:
    """The method that adds an operator of the schema: ``Conv2D`` for ``CONV_2D``.

    None if Lite Micro lacks it.
    """
    return _BY_OPERATOR.get(operator.replace("_", "").lower())
