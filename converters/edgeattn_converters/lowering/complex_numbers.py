"""Complex tensors as pairs of real ones, because neither format computes with complex numbers.

While a model is traced, an operation of complex tensors is replaced by operations of their real and
imaginary parts. Its result is a ``Complex`` operation of both parts; an operation that reads it
reads the parts instead. Nothing complex remains if the inputs and outputs of the model are real.
Fourier transforms are products, see :mod:`.fourier`. An imaginary part of None is zero.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgeattn_converters.graphs.constant_results import constant_value
from edgeattn_converters.graphs.operation_creation import Creation, created_by, is_copy
from edgeattn_converters.lowering import fourier
from edgeattn_converters.lowering.fourier import Pair

# Both parts of the result are this operation of the parts.
_BY_PART = frozenset(
    {"Identity", "StopGradient", "EnsureShape", "Reshape", "Transpose", "ConcatV2", "Pack"}
    | {"Unpack", "Split", "SplitV", "GatherV2", "GatherNd", "Slice", "StridedSlice"}
    | {"ExpandDims", "Squeeze", "Tile", "BroadcastTo", "Pad", "PadV2", "MirrorPad", "ReverseV2"}
    | {"Roll", "AddV2", "Add", "Sub", "AddN", "Neg", "Sum", "Mean", "Cumsum", "Select", "SelectV2"}
    | {"ZerosLike", "MatrixBandPart"}
)
_BILINEAR = frozenset({"Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
# Number of axes by the name of the transform.
_TRANSFORMS: Mapping[str, int] = {
    f"{direction}{name}": axes
    for direction in ("", "I")
    for name, axes in {
        "FFT": 1,
        "FFT2D": 2,
        "FFT3D": 3,
        "RFFT": 1,
        "RFFT2D": 2,
        "RFFT3D": 3,
    }.items()
}
_Attributes = Mapping[str, Any]
_Result = Any  # a real tensor, a pair, or a list of pairs


def _imaginary(x: Pair) -> Any:
    import tensorflow as tf

    return tf.zeros_like(x[0]) if x[1] is None else x[1]


def _magnitude(x: Pair) -> Any:
    import tensorflow as tf

    if x[1] is None:
        return tf.abs(x[0])
    scale = _scale(x)
    unit = x[0] / scale, x[1] / scale
    return scale * tf.sqrt(unit[0] * unit[0] + unit[1] * unit[1])


def _scale(x: Pair) -> Any:
    """A positive number of the size of ``x``, whose square may be outside the range of floats."""
    import tensorflow as tf

    limits = np.finfo(np.float32)
    largest = tf.maximum(tf.abs(x[0]), tf.abs(x[1]))
    return tf.minimum(tf.maximum(largest, limits.tiny), limits.max)


def _angle(x: Pair) -> Any:
    import tensorflow as tf

    return tf.atan2(_imaginary(x), x[0])


def _conjugate(x: Pair) -> Pair:
    # The TFLite converter computes -x as 0 - x, whose zeros are positive.
    return x[0], None if x[1] is None else x[1] * -1.0


def _exponential(x: Pair) -> Pair:
    import tensorflow as tf

    size, angle = tf.exp(x[0]), _imaginary(x)
    return size * tf.cos(angle), size * tf.sin(angle)


def _times(x: Pair, y: Pair, product: Callable[[Any, Any], Any]) -> Pair:
    if x[1] is None and y[1] is None:
        return product(x[0], y[0]), None
    if x[1] is None:
        return product(x[0], y[0]), product(x[0], y[1])
    if y[1] is None:
        return product(x[0], y[0]), product(x[1], y[0])
    return (
        product(x[0], y[0]) - product(x[1], y[1]),
        product(x[0], y[1]) + product(x[1], y[0]),
    )


def _square(x: Pair) -> Pair:
    return _times(x, x, lambda one, other: one * other)


def _quotient(x: Pair, y: Pair) -> Pair:
    """``x * conjugate(y) / |y|²``, of numbers divided by the size of ``y``."""
    if y[1] is None:
        return x[0] / y[0], None if x[1] is None else x[1] / y[0]
    scale = _scale(y)
    scaled = x[0] / scale, None if x[1] is None else x[1] / scale
    unit = y[0] / scale, y[1] / scale
    real, imaginary = _times(scaled, _conjugate(unit), lambda one, other: one * other)
    square = unit[0] * unit[0] + unit[1] * unit[1]
    return real / square, imaginary / square


def _reciprocal(x: Pair) -> Pair:
    import tensorflow as tf

    return _quotient((tf.ones_like(x[0]), None), x)


_FUNCTIONS: Mapping[str, Callable[..., _Result]] = {
    "Angle": _angle,
    "ComplexAbs": _magnitude,
    "Conj": _conjugate,
    "Div": _quotient,
    "Exp": _exponential,
    "Imag": _imaginary,
    "Inv": _reciprocal,
    "Real": lambda x: x[0],
    "RealDiv": _quotient,
    "Reciprocal": _reciprocal,
    "Square": _square,
}


def _transformed(kind: str, x: Pair, lengths: Sequence[int]) -> _Result:
    """A Fourier transform over the last axes; ``lengths`` are those of one with a real end."""
    inverse, axes = kind.startswith("I"), _TRANSFORMS[kind]
    earlier = range(-axes, -1) if lengths else range(-axes, 0)
    if lengths and not inverse:
        x = fourier.transform_of_real(_cropped((x[0], None), lengths[-1])[0])
    elif lengths:
        x = _cropped(x, lengths[-1] // 2 + 1)
    for axis in earlier:
        size = lengths[axis] if lengths else None

        def step(part: Pair, size: int | None = size) -> Pair:
            return fourier.transform(_cropped(part, size), inverse=inverse)

        x = fourier.along(x, axis, step)
    return fourier.inverse_to_real(x, lengths[-1]) if lengths and inverse else x


def _cropped(x: Pair, size: int | None) -> Pair:
    if size in (None, x[0].shape[-1]):
        return x
    return x[0][..., :size], None if x[1] is None else x[1][..., :size]


def _cast(x: Pair, dtype: Any) -> _Result:
    import tensorflow as tf

    if not dtype.is_complex:
        return tf.cast(x[0], dtype)
    real = dtype.real_dtype
    return tf.cast(x[0], real), None if x[1] is None else tf.cast(x[1], real)


class _Parts:
    """The parts of the complex tensors of a model, and the operations that compute them."""

    def __init__(self) -> None:
        self._known: dict[Any, Pair] = {}

    def operation(self, create: Creation, kind: str, inputs: Any, **arguments: Any) -> Any:
        """The operation in place of one of complex tensors; None if there is none."""
        if kind == "Complex":
            operation = create(kind, inputs, **arguments)
            self._known[operation.outputs[0].ref()] = tuple(operation.inputs)
            return operation
        pairs = [self._of(tensor) for tensor in inputs]
        if any(pair is None for pair in pairs):
            return None
        result = self._result(create, kind, inputs, pairs, arguments)
        return None if result is None else self._joined(result)

    def _of(self, tensor: Any) -> Pair | None:
        import tensorflow as tf

        if not tensor.dtype.is_complex:
            return tensor, None
        if tensor.ref() in self._known:
            return self._known[tensor.ref()]
        value = constant_value(tensor)
        return None if value is None else (tf.constant(value.real), tf.constant(value.imag))

    def _result(
        self, create: Creation, kind: str, inputs: Any, pairs: list[Any], arguments: Any
    ) -> _Result:
        import tensorflow as tf

        if kind in _TRANSFORMS:
            # The length may be a size of data: fft_length=[2 * tf.shape(x)[1]].
            lengths = constant_value(inputs[1]) if len(inputs) > 1 else ()
            sizes = pairs[0][0].shape.as_list()[-_TRANSFORMS[kind] :]
            if lengths is None or None in sizes:
                return None
            return _transformed(kind, pairs[0], [int(length) for length in lengths])
        if kind == "Cast":
            return _cast(pairs[0], tf.as_dtype(arguments["attrs"]["DstT"].type))
        if kind in _FUNCTIONS:
            return _FUNCTIONS[kind](*pairs)

        def apply(*values: Any) -> Any:
            attributes = {name: _real(value) for name, value in arguments["attrs"].items()}
            return create(kind, list(values), attrs=attributes, op_def=arguments["op_def"])

        if kind in _BILINEAR and len(pairs) == 2:
            for position, name in enumerate(("adj_x", "adj_y")):
                if name in arguments["attrs"] and arguments["attrs"][name].b:
                    pairs[position] = _conjugate(pairs[position])
            return _times(pairs[0], pairs[1], lambda one, other: apply(one, other).outputs[0])
        if kind not in _BY_PART:
            return None
        is_complex = [tensor.dtype.is_complex for tensor in inputs]
        real = apply(*(pair[0] for pair in pairs)).outputs
        imaginary = apply(
            *(
                _imaginary(pair) if own else pair[0]
                for pair, own in zip(pairs, is_complex, strict=True)
            )
        ).outputs
        return list(zip(real, imaginary, strict=True))

    def _joined(self, result: _Result) -> Any:
        """The operation that has the result as its outputs."""
        import tensorflow as tf

        if not isinstance(result, list | tuple):
            return tf.identity(result).op
        pairs = [result] if isinstance(result, tuple) else result
        tensors = [tf.complex(pair[0], _imaginary(pair)) for pair in pairs]
        operation = tensors[0].op
        if len(tensors) > 1:
            operation = tf.raw_ops.IdentityN(input=tensors)[0].op
        for tensor, pair in zip(operation.outputs, pairs, strict=True):
            self._known[tensor.ref()] = pair
        return operation


def _real(attribute: Any) -> Any:
    """An attribute of an operation of complex tensors for one of real tensors."""
    import tensorflow as tf

    real = {
        dtype.as_datatype_enum: dtype.real_dtype.as_datatype_enum
        for dtype in (tf.complex64, tf.complex128)
    }
    if attribute.type not in real:
        return attribute
    changed = type(attribute)()
    changed.type = real[attribute.type]
    return changed


@contextlib.contextmanager
def complex_as_pairs() -> Iterator[None]:
    """Within the context, no operation that is traced computes with complex numbers."""

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if is_copy(kwargs):
            return create(graph, kind, inputs, *args, **kwargs)
        is_complex = kind in _TRANSFORMS or kind == "Complex" or _is_cast_to_complex(kind, kwargs)
        if is_complex or any(tensor.dtype.is_complex for tensor in inputs):
            operation = parts.operation(partial(create, graph), kind, inputs, **kwargs)
            if operation is not None:
                return operation
        return create(graph, kind, inputs, *args, **kwargs)

    parts = _Parts()
    with created_by(creation):
        yield


def _is_cast_to_complex(kind: str, arguments: Mapping[str, Any]) -> bool:
    import tensorflow as tf

    if kind != "Cast":
        return False
    return bool(tf.as_dtype(arguments["attrs"]["DstT"].type).is_complex)
