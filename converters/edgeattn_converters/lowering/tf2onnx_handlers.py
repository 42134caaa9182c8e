"""``custom_op_handlers`` for tf2onnx, which write nodes for TensorFlow operations.

These operations have no ONNX operator of the same name.
"""

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError

# TensorProto.DataType
_BOOL = 9
_INT64 = 7
_FLOATS = (1, 10, 11)  # float32, float16, float64
_INTEGERS = {6: np.int32, _INT64: np.int64}
_COMPARISONS = {
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
}


def operation_handlers() -> dict[str, Any]:
    """Those of TensorFlow operations without an ONNX operator of the same name."""
    functions = {
        "ConcatV2": _concat,
        "Conv2DBackpropInput": _conv_transpose,
        "Conv3DBackpropInputV2": _conv_transpose,
        "Einsum": _einsum,
        "Erfc": _erfc,
        "Expm1": _expm1,
        "FloorDiv": _floor_div,
        "FloorMod": _floor_mod,
        **dict.fromkeys(_COMPARISONS, _compare),
        "Reshape": _reshape,
        "ResizeBilinear": _resize,
        "ResizeNearestNeighbor": _resize,
        "Roll": _roll,
        "SelectV2": _select,
        "TopKV2": _top_k,
    }
    return {name: (function, []) for name, function in functions.items()}


def _concat(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx needs to know the rank of a part if the axis is negative, and does not know it for
    the last step of a loop, which has no shape. ONNX counts from the end, too."""
    axis = int(node.inputs[-1].get_tensor_value())
    parts = node.inputs[:-1]
    is_empty = [
        part.is_const() and part.get_tensor_value(as_list=False).size == 0 for part in parts
    ]
    inputs, target = _removed(ctx, node)
    kept = [item for item, empty in zip(inputs[:-1], is_empty, strict=True) if not empty]
    shape = next(filter(None, map(ctx.get_shape, kept)), None)
    if axis < 0 and shape is not None:
        axis += len(shape)
    ctx.make_node("Concat", kept or inputs[:1], attr={"axis": axis}, **target)


def _compare(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx compares integers as float32, in which large ones that differ are equal.

    They are compared as int64: tf2onnx makes the count of a loop int64 later.
    """
    kind = _COMPARISONS[node.type]
    inputs, target = _removed(ctx, node)
    if ctx.get_dtype(inputs[0]) in _INTEGERS:
        inputs = [ctx.make_node("Cast", [item], attr={"to": _INT64}).output[0] for item in inputs]
    ctx.make_node(kind, inputs, **target)


def _conv_transpose(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A transposed convolution with constant padding, if only the size of the batch is unknown.

    tf2onnx takes the sizes of the result from a constant or from single numbers, and computes the
    padding of all others at run time: those of ``Conv1DTranspose``. If the kernel is smaller than
    the stride, its padding is negative, which ONNX rejects; TensorFlow pads with zeros at the end.
    """
    from tf2onnx.onnx_opset.nn import ConvTranspose

    sizes = ctx.get_shape(node.output[0])
    if sizes is not None and -1 not in sizes[1:]:
        value = np.array([1, *sizes[1:]], np.int32)
        constant = ctx.make_const(f"{name}/sizes", value)
        ctx.replace_input(node, node.input[0], constant.output[0], 0)
        _set_input_sizes(ctx, node, sizes)
    ConvTranspose.version_11(ctx, node)
    if "pads" not in node.attr:
        return
    pads = np.array(node.get_attr("pads").ints).reshape(2, -1)
    missing = -np.minimum(pads.sum(0), 0)
    if missing.any():
        node.set_attr("pads", np.where(missing, 0, pads).ravel().tolist())
        node.set_attr("output_padding", missing.tolist())


def _set_input_sizes(ctx: Any, node: Any, sizes: Sequence[int]) -> None:
    """Set the sizes of the input of a transposed convolution whose result has ``sizes``.

    They are those of the convolution whose gradient it is. Without them, tf2onnx leaves the padding
    to the runtime, which pads the other end than TensorFlow.
    """
    shape = ctx.get_shape(node.input[2])
    kernel = ctx.get_shape(node.input[1])
    padding = node.get_attr_value("padding").decode()
    if shape is None or kernel is None or padding not in ("SAME", "VALID"):
        return
    first = 1 if node.get_attr_value("data_format").decode().endswith("C") else 2
    strides = node.get_attr_value("strides")
    dilations = node.get_attr_value("dilations") or [1] * len(strides)
    shape = list(shape)
    for axis in range(first, first + len(shape) - 2):
        if shape[axis] == -1:
            window = (kernel[axis - first] - 1) * dilations[axis] + 1
            positions = sizes[axis] - (window - 1 if padding == "VALID" else 0)
            shape[axis] = -(-positions // strides[axis])
    ctx.set_shape(node.input[2], shape)


def _einsum(ctx: Any, node: Any, name: str, args: Any) -> None:
    """The equation with other letters if some are upper case.

    tf2onnx makes all lower case: the axes ``h`` and ``H`` of ``bhc,bHc->bhH`` would become one.
    """
    from tf2onnx.onnx_opset.math import Einsum

    equation = node.get_attr_value("equation").decode()
    if equation != equation.lower():
        letters = sorted({letter for letter in equation if letter.isalpha()}, key=equation.index)
        if len(letters) > len(ascii_lowercase):
            raise ConversionError(f"The einsum {equation!r} has more than 26 letters.")
        names = str.maketrans(dict(zip(letters, ascii_lowercase, strict=False)))
        node.set_attr("equation", equation.translate(names))
    Einsum.version_12(ctx, node)


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``erfc(x) = 1 - erf(x)``, which GELU uses."""
    (x,), target = _removed(ctx, node)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    erf = ctx.make_node("Erf", [x])
    ctx.make_node("Sub", [one.output[0], erf.output[0]], **target)


def _expm1(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``expm1(x) = exp(x) - 1``, which CELU uses, with an error of the rounding of 1."""
    (x,), target = _removed(ctx, node)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32))
    exp = ctx.make_node("Exp", [x])
    ctx.make_node("Sub", [exp.output[0], one.output[0]], **target)


def _floor_div(ctx: Any, node: Any, name: str, args: Any) -> None:
    """``floor(x / y)``. tf2onnx truncates quotients of integers: ``-1 // 3`` would be 0."""
    (x, y), target = _removed(ctx, node)
    quotient = ctx.make_node("Div", [x, y]).output[0]
    dtype = target["dtypes"][0]
    if dtype in _FLOATS:
        ctx.make_node("Floor", [quotient], **target)
        return
    # x minus the rest would overflow near the lowest integer.
    zero = ctx.make_const(f"{name}/zero", np.array(0, _INTEGERS[dtype])).output[0]
    exact = ctx.make_node("Equal", [ctx.make_node("Mod", [x, y]).output[0], zero]).output[0]
    signs = [ctx.make_node("Less", [value, zero]).output[0] for value in (x, y)]
    lower = [ctx.make_node("Xor", signs).output[0], ctx.make_node("Not", [exact]).output[0]]
    lower = ctx.make_node("And", lower).output[0]
    difference = ctx.make_node("Cast", [lower], attr={"to": dtype}).output[0]
    ctx.make_node("Sub", [quotient, difference], **target)


def _floor_mod(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Mod of integers has the sign of ``y``, as in Python. That of floats has the sign of ``x``:
    ``y`` is added if the signs differ. Unlike ``x - floor(x / y) * y``, it is exact."""
    (x, y), target = _removed(ctx, node)
    if target["dtypes"][0] not in _FLOATS:
        ctx.make_node("Mod", [x, y], **target)
        return
    rest = ctx.make_node("Mod", [x, y], attr={"fmod": 1}).output[0]
    signs = [ctx.make_node("Sign", [value]).output[0] for value in (rest, y)]
    product = ctx.make_node("Mul", signs).output[0]
    zero = ctx.make_const(f"{name}/zero", np.array(0, np.float32)).output[0]
    differ = ctx.make_node("Less", [product, zero]).output[0]
    ctx.make_node("Where", [differ, ctx.make_node("Add", [rest, y]).output[0], rest], **target)


def _reshape(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A constant shape if only one size is unknown, that of the batch. ``UpSampling2D`` takes the
    others from its input, too, in some 15 nodes."""
    from tf2onnx.onnx_opset.tensor import Reshape

    sizes = ctx.get_shape(node.output[0])
    is_known = sizes is not None and sizes.count(-1) <= 1 and 0 not in sizes
    if is_known and not node.inputs[1].is_const():
        constant = ctx.make_const(f"{name}/sizes", np.array(sizes, np.int64))
        ctx.replace_input(node, node.input[1], constant.output[0], 1)
    Reshape.version_5(ctx, node)


def _resize(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A Resize by sizes where a factor in float32 does not give the size: 7 * (9 / 7) < 9."""
    from tf2onnx.onnx_opset.nn import Resize

    before, after = ctx.get_shape(node.input[0]), node.inputs[1]
    sizes = after.get_tensor_value() if after.is_const() else []
    known = {other.name for other in ctx.get_nodes()}
    Resize.version_11(ctx, node)
    [resize] = [
        other for other in ctx.get_nodes() if other.type == "Resize" and other.name not in known
    ]
    factors = resize.inputs[2].get_tensor_value(as_list=False)[2:]
    if (
        not len(factors)
        or all(
            int(factor * old)
            == new  # both in float64, as in onnx; onnxruntime multiplies in float32
            for factor, old, new in zip(factors.astype(float), before[1:3], sizes, strict=True)
        )
    ):
        return
    # Not with the attribute axes, which onnxruntime ignores when it moves a Transpose.
    first, last = (
        ctx.make_const(f"{name}/{place}", np.array([position], np.int64)).output[0]
        for place, position in (("first", 0), ("last", 2))
    )
    shape = ctx.make_node("Shape", [resize.input[0]]).output[0]
    others = ctx.make_node("Slice", [shape, first, last]).output[0]
    values = ctx.make_const(f"{name}/sizes", np.array(sizes, np.int64)).output[0]
    values = ctx.make_node("Concat", [others, values], attr={"axis": 0}).output[0]
    none = ctx.make_const(f"{name}/none", np.array([], np.float32)).output[0]
    ctx.replace_inputs(resize, [*resize.input[:2], none, values])


def _roll(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx adds an axis to the shift along one axis, also if it is a list of one number."""
    from tf2onnx.onnx_opset.tensor import Roll

    shift, axes = node.input[1], node.inputs[2]
    if axes.is_const() and axes.get_tensor_value(as_list=False).size == 1:
        scalar = ctx.make_const(f"{name}/scalar", np.array([], np.int64)).output[0]
        dtypes = [ctx.get_dtype(shift)]
        number = ctx.make_node("Reshape", [shift, scalar], shapes=[[]], dtypes=dtypes)
        ctx.replace_input(node, shift, number.output[0], 1)
    Roll.any_version(ctx.opset, ctx, node)


def _select(ctx: Any, node: Any, name: str, args: Any) -> None:
    """One Where: tf2onnx's own product with the mask turns an unselected infinity to NaN."""
    (mask, yes, no), target = _removed(ctx, node)
    if target["dtypes"] != [_BOOL]:
        ctx.make_node("Where", [mask, yes, no], **target)
        return
    # onnxruntime has no Where of booleans.
    first = ctx.make_node("And", [mask, yes])
    second = ctx.make_node("And", [ctx.make_node("Not", [mask]).output[0], no])
    ctx.make_node("Or", [first.output[0], second.output[0]], **target)


def _top_k(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx selects from integers as float32, which rounds large ones."""
    (x, count), outputs = list(node.input), list(node.output)
    shapes = [ctx.get_shape(output) for output in outputs]
    dtypes = [ctx.get_dtype(output) for output in outputs]
    attributes = {"sorted": node.get_attr_int("sorted")}
    ctx.remove_node(node.name)
    one = ctx.make_const(f"{name}/one", np.array([1], np.int64)).output[0]
    count = ctx.make_node("Cast", [count], attr={"to": _INT64}).output[0]
    count = ctx.make_node("Reshape", [count, one]).output[0]
    indices = f"{name}/indices"
    ctx.make_node(
        "TopK",
        [x, count],
        attr=attributes,
        outputs=[outputs[0], indices],
        shapes=shapes,
        dtypes=[dtypes[0], _INT64],
    )
    ctx.make_node(
        "Cast",
        [indices],
        attr={"to": dtypes[1]},
        outputs=outputs[1:],
        shapes=shapes[1:],
        dtypes=dtypes[1:],
    )


def _removed(ctx: Any, node: Any) -> tuple[list[str], dict[str, Any]]:
    """Remove a node of one output: its inputs, and the arguments that recreate the output."""
    inputs, output = list(node.input), node.output[0]
    target = {
        "outputs": [output],
        "shapes": [ctx.get_shape(output)],
        "dtypes": [ctx.get_dtype(output)],
    }
    ctx.remove_node(node.name)
    return inputs, target
