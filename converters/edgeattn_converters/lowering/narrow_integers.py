"""Arithmetic with integers of 8 and 16 bits and with uint32, in integers of 32 and 64 bits.

The formats have few operators for narrow integers, and some give other results if a step between
exceeds the range. The wide result modulo the number of narrow integers is that of TensorFlow, whose
integers wrap around.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from edgeattn_converters.graphs.operation_creation import Creation, created_by, is_copy

_WIDE: Mapping[str, str] = {
    **dict.fromkeys(("int8", "uint8", "int16", "uint16"), "int32"),
    "uint32": "int64",
}
_BITS = frozenset({"BitwiseAnd", "BitwiseOr", "BitwiseXor", "Invert", "LeftShift", "RightShift"})
_SHIFTS = ("LeftShift", "RightShift")
_ARITHMETIC = frozenset(
    {"Add", "AddV2", "AddN", "Sub", "Mul", "Neg", "Abs", "Sign", "Square", "SquaredDifference"}
    | {"FloorDiv", "FloorMod", "TruncateDiv", "TruncateMod", "Div", "Mod", "Pow", "Maximum"}
    | {"Minimum", "ClipByValue", "Less", "LessEqual", "Greater", "GreaterEqual", "Equal"}
    | {"NotEqual", "Sum", "Prod", "Max", "Min", "Cumsum", "Cumprod", "ArgMax", "ArgMin", "TopKV2"}
    | {"MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "Mean", "Relu"}
)
# onnxruntime cannot select between narrow integers either.
_SELECTIONS = frozenset({"Select", "SelectV2"})


@contextlib.contextmanager
def wide_integers(*, selections: bool = False) -> Iterator[None]:
    """Within the context, arithmetic with narrow integers is traced with wide ones."""
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry

    kinds = _ARITHMETIC | _SELECTIONS if selections else _ARITHMETIC

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not is_copy(kwargs):
            attributes, definition = kwargs["attrs"], op_def_registry.get(kind)
            if kind == "Cast" and _is_to_uint32(inputs[0], attributes):
                return tf.cast(tf.cast(inputs[0], tf.int64), tf.uint32).op
            narrow = _narrow_type(kind, kinds, attributes)
            if narrow is not None:
                wide = tf.as_dtype(_WIDE[narrow.name])
                operands = _widened(kind, inputs, narrow, wide)
                attributes = {**attributes, "T": _type_attribute(wide)}
                operation = create(graph, kind, operands, attrs=attributes, op_def=definition)
                return _narrowed(operation, definition, narrow)
        return create(graph, kind, inputs, *args, **kwargs)

    with created_by(creation):
        yield


def _narrow_type(kind: str, kinds: frozenset[str], attributes: Mapping[str, Any]) -> Any:
    """The dtype of the operands, if the operation is one of ``kinds`` on narrow integers.

    The formats have bits of uint32, and hardly any of int64.
    """
    import tensorflow as tf

    if "T" not in attributes or kind not in kinds | _BITS:
        return None
    dtype = tf.as_dtype(attributes["T"].type)
    is_narrow = dtype.name in _WIDE and not (kind in _BITS and dtype == tf.uint32)
    return dtype if is_narrow else None


def _is_to_uint32(x: Any, attributes: Mapping[str, Any]) -> bool:
    """TFLite's cast of negative numbers to uint32 is 0."""
    import tensorflow as tf

    return bool(x.dtype.is_floating and tf.as_dtype(attributes["DstT"].type) == tf.uint32)


def _widened(kind: str, inputs: Any, narrow: Any, wide: Any) -> list[Any]:
    import tensorflow as tf

    operands = [tf.cast(item, wide) if item.dtype == narrow else item for item in inputs]
    if kind in _SHIFTS:
        # TensorFlow shifts by at most the number of bits less one.
        operands[1] = tf.clip_by_value(operands[1], 0, 8 * narrow.size - 1)
    return operands


def _narrowed(operation: Any, definition: Any, narrow: Any) -> Any:
    """The operation whose outputs have the dtype of the operands again."""
    import tensorflow as tf

    outputs = [
        tf.cast(output, narrow) if item.type_attr == "T" else output
        for output, item in zip(operation.outputs, definition.output_arg, strict=True)
    ]
    return outputs[0].op if len(outputs) == 1 else tf.raw_ops.IdentityN(input=outputs)[0].op


def _type_attribute(dtype: Any) -> Any:
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    return AttrValue(type=dtype.as_datatype_enum)
