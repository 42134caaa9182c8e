"""Operations with integers of 8 and 16 bits, uint32 and truth values, in wider integers.

The formats have few operators for narrow integers, and some give other results if a step between
exceeds the range. The wide result modulo the number of narrow integers is that of TensorFlow, whose
integers wrap around.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.graphs.operation_creation import Creation, created_by, is_copy

_NARROW = frozenset({"int8", "uint8", "int16", "uint16", "uint32"})
_WIDE: Mapping[str, str] = {**dict.fromkeys({*_NARROW, "bool"}, "int32"), "uint32": "int64"}
_BITS = frozenset({"BitwiseAnd", "BitwiseOr", "BitwiseXor", "Invert", "LeftShift", "RightShift"})
_SHIFTS = ("LeftShift", "RightShift")
_ARITHMETIC = frozenset(
    {"Add", "AddV2", "AddN", "Sub", "Mul", "Neg", "Abs", "Sign", "Square", "SquaredDifference"}
    | {"FloorDiv", "FloorMod", "TruncateDiv", "TruncateMod", "Div", "Mod", "Pow", "Maximum"}
    | {"Minimum", "ClipByValue", "Less", "LessEqual", "Greater", "GreaterEqual", "Equal"}
    | {"NotEqual", "Sum", "Prod", "Max", "Min", "Cumsum", "Cumprod", "ArgMax", "ArgMin", "TopKV2"}
    | {"MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "Mean", "Relu", "Relu6"}
    | {"TensorScatterAdd", "UnsortedSegmentSum"}
)
_UNSIGNED = frozenset({"uint16", "uint32"})
_BOOL = frozenset({"bool"})


@dataclass(frozen=True)
class NarrowIntegers:
    """What a format does not have of narrow integers and truth values.

    ``moves`` are the dtypes that it cannot move or select, by operation. ``has_products`` says
    whether it multiplies matrices of narrow integers to wide ones.
    """

    moves: Mapping[str, frozenset[str]]
    has_products: bool


_TFLITE_MOVES = {
    **dict.fromkeys(("Pad", "PadV2", "TensorScatterUpdate"), _NARROW),
    **dict.fromkeys(("MatrixBandPart", "ReverseSequence"), _NARROW | _BOOL),
    **dict.fromkeys(("ReverseV2", "Tile"), _NARROW - {"uint8"}),
    **dict.fromkeys(("Select", "SelectV2"), _NARROW - {"int8", "uint32"}),
    **dict.fromkeys(("Roll", "ScatterNd", "Slice", "Transpose"), _UNSIGNED | {"int16"}),
    "MirrorPad": _UNSIGNED | {"int16", "bool"},
    **dict.fromkeys(("ConcatV2", "Fill", "GatherNd", "GatherV2"), _UNSIGNED),
    **dict.fromkeys(("Pack", "Split", "SplitV", "StridedSlice", "Unpack"), _UNSIGNED),
}
_ONNX_MOVES = {
    **dict.fromkeys(("MatrixDiagPartV3", "Select", "SelectV2"), _NARROW),
    "PadV2": _NARROW | _BOOL,
    **dict.fromkeys(("ArgMax", "ArgMin"), _NARROW | _BOOL),
}
TFLITE = NarrowIntegers(_TFLITE_MOVES, has_products=False)
ONNX = NarrowIntegers(_ONNX_MOVES, has_products=True)
# Their results are float32, also those of integers.
_TO_FLOATS = frozenset({"CropAndResize", "ResizeBilinear"})
# float32 has all integers of up to 16 bits.
_BY_FLOATS = frozenset({"MaxPool", "ResizeNearestNeighbor"})
# The product of narrow integers as wide ones, in graphs of models that Keras has quantized.
_TO_WIDE = "BatchMatMulV3"


@contextlib.contextmanager
def wide_integers(integers: NarrowIntegers) -> Iterator[None]:
    """Within the context, arithmetic with narrow integers, and what a format does not have of them,
    is traced with wide ones."""
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not is_copy(kwargs):
            attributes, definition = kwargs["attrs"], op_def_registry.get(kind)
            if kind == "Cast" and _is_to_uint32(inputs[0], attributes):
                return tf.cast(tf.cast(inputs[0], tf.int64), tf.uint32).op
            if kind == _TO_WIDE and not integers.has_products and _are_narrow(inputs):
                return _product(inputs, attributes)
            if kind == "OneHot" and inputs[0].dtype not in (tf.int32, tf.int64):
                attributes = {**attributes, "TI": _type_attribute(tf.int32)}
                inputs = [tf.cast(inputs[0], tf.int32), *inputs[1:]]
                return create(graph, kind, inputs, attrs=attributes, op_def=definition)
            narrow = _narrow_type(kind, integers.moves, attributes)
            if narrow is not None:
                by_floats = kind in _TO_FLOATS | _BY_FLOATS
                wide = tf.float32 if by_floats else tf.as_dtype(_WIDE[narrow.name])
                operands = _widened(kind, inputs, narrow, wide)
                attributes = {**attributes, _type_name(attributes): _type_attribute(wide)}
                operation = create(graph, kind, operands, attrs=attributes, op_def=definition)
                return _narrowed(operation, definition, narrow)
        return create(graph, kind, inputs, *args, **kwargs)

    with created_by(creation):
        yield


def _narrow_type(
    kind: str, moves: Mapping[str, frozenset[str]], attributes: Mapping[str, Any]
) -> Any:
    """The dtype of the operands, if the operation is to be traced with another one.

    The formats have bits of uint32, and hardly any of int64.
    """
    import tensorflow as tf

    name = _type_name(attributes)
    kinds = _ARITHMETIC | _BITS | _TO_FLOATS | _BY_FLOATS
    if name not in attributes or not (kind in kinds or kind in moves):
        return None
    dtype = tf.as_dtype(attributes[name].type)
    if kind in _TO_FLOATS:
        return dtype if dtype.is_integer else None
    if kind in _BITS | _BY_FLOATS and dtype == tf.uint32:
        return None
    return dtype if dtype.name in moves.get(kind, _NARROW) else None


def _type_name(attributes: Mapping[str, Any]) -> str:
    return "Tparams" if "Tparams" in attributes else "T"


def _is_to_uint32(x: Any, attributes: Mapping[str, Any]) -> bool:
    """TFLite's cast of negative numbers to uint32 is 0."""
    import tensorflow as tf

    return bool(x.dtype.is_floating and tf.as_dtype(attributes["DstT"].type) == tf.uint32)


def _are_narrow(inputs: Any) -> bool:
    return all(item.dtype.name in _NARROW for item in inputs)


def _product(inputs: Any, attributes: Mapping[str, Any]) -> Any:
    """A product that TFLite has of floats only; sums of up to a thousand products are exact."""
    import tensorflow as tf

    left, right = (tf.cast(item, tf.float32) for item in inputs)
    product = tf.matmul(
        left, right, transpose_a=attributes["adj_x"].b, transpose_b=attributes["adj_y"].b
    )
    return tf.cast(product, tf.as_dtype(attributes["Tout"].type)).op


def _widened(kind: str, inputs: Any, narrow: Any, wide: Any) -> list[Any]:
    import tensorflow as tf

    # The size of an image is an int32, too.
    values = inputs[:1] if kind in _TO_FLOATS else inputs
    operands = [tf.cast(item, wide) if item.dtype == narrow else item for item in values]
    operands += inputs[len(values) :]
    if kind in _SHIFTS:
        # TensorFlow shifts by at most the number of bits less one.
        operands[1] = tf.clip_by_value(operands[1], 0, 8 * narrow.size - 1)
    if kind == "GatherV2":
        # TFLite's converter would move the cast behind it. This changes no unsigned integer.
        operands[0] = tf.maximum(operands[0], tf.zeros([], wide))
    return operands


def _narrowed(operation: Any, definition: Any, narrow: Any) -> Any:
    """The operation whose outputs have the dtype of the operands again."""
    import tensorflow as tf

    outputs = [
        tf.cast(output, narrow) if item.type_attr in ("T", "Tparams") else output
        for output, item in zip(operation.outputs, _arguments(operation, definition), strict=True)
    ]
    return outputs[0].op if len(outputs) == 1 else tf.raw_ops.IdentityN(input=outputs)[0].op


def _arguments(operation: Any, definition: Any) -> list[Any]:
    """The definition of each output; several of them may be one list."""
    if len(definition.output_arg) == 1:
        return [definition.output_arg[0]] * len(operation.outputs)
    return list(definition.output_arg)


def _type_attribute(dtype: Any) -> Any:
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    return AttrValue(type=dtype.as_datatype_enum)
