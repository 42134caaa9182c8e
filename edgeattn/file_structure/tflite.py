"""Reads ``.tflite`` files. The numbers of fields are those of TensorFlow's ``schema.fbs``."""

import math
import mmap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeattn import first_bytes
from edgeattn.file_structure.contents import (
    INT8_WEIGHTS,
    FileContents,
    FileTensor,
    Weight,
    count_weights,
    counts_by_dtype,
)
from edgeattn.file_structure.tflite_names import BITS, DTYPES, OPERATORS
from edgeattn.runners.external_buffers import stored_bytes
from edgeattn.runners.flatbuffer import FlatBuffer, Table

T = TypeVar("T")
_RUNTIME_KEY = "min_runtime_version"
# They convert or repeat numbers, or contain operators that are counted themselves.
_UNCOUNTED = {"QUANTIZE", "DEQUANTIZE", "FILL", "WHILE", "IF"}
_REAL = {"float16", "bfloat16", "float32", "float64", "int2", "int4", "int8", "int16"}
_INTEGERS = {"int2", "int4", "int8"}
# The cell clip is the second field of the options of each.
_FUSED_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_CLIPPING = {_FUSED_LSTM, "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM"}
_STATEFUL = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
_STATEFUL |= {"HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE"}


@dataclass(frozen=True)
class _Tensor:
    """A tensor; ``stored`` is the number of bytes of its constant value, 0 if it is computed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: int
    variable: bool
    scale: float | None
    zero_point: int | None
    # The axes that may have any length.
    free: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Operator:
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cell_clip: float | None


@dataclass(frozen=True)
class _Graph:
    tensors: tuple[_Tensor, ...]
    operators: tuple[_Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(data: bytes | mmap.mmap, *, own_names: bool = True) -> FileContents:
    """The contents of a ``.tflite`` file. Raises :class:`ValueError` if it is malformed.

    With ``own_names``, its signature must have the names of the tensors.
    """
    model = FlatBuffer(data, first_bytes.TFLITE).root()
    codes = [_operator_type(code) for code in model.tables(1)]
    buffers = [stored_bytes(buffer, len(data)) for buffer in model.tables(4)]
    graphs = [_read_graph(graph, codes, buffers) for graph in model.tables(2)]
    if not graphs:
        raise ValueError("it has no graph")
    main = graphs[0]
    signature = _signature(model, main, own_names=own_names)
    operators = [operator for graph in graphs for operator in graph.operators]
    counts = Counter(operator.kind for operator in operators)
    weights, large = count_weights(weight for graph in graphs for weight in _weights(graph))
    clips = tuple(item.cell_clip for item in operators if item.cell_clip is not None)
    tensors = [tensor for graph in graphs for tensor in graph.tensors]
    return FileContents(
        inputs=tuple(_as_input_or_output(main.tensors[index]) for index in main.inputs),
        outputs=tuple(_as_input_or_output(main.tensors[index]) for index in main.outputs),
        operators=dict(sorted(counts.items())),
        computes_in=counts_by_dtype(pair for graph in graphs for pair in _computing(graph)),
        weights=weights,
        large_weights=large,
        custom=tuple(sorted(kind for kind in counts if kind.startswith(("CUSTOM", "UNKNOWN")))),
        states=sum(map(_variables_outside_lstms, graphs)) + sum(counts[k] for k in _STATEFUL),
        dynamic=sum(map(_dynamic_operators, graphs)),
        cell_clips=clips,
        signature=signature,
        details={
            "weight_bytes": _sums((item.dtype, item.stored) for item in tensors if item.stored),
            "activations": _sums((item.dtype, 1) for item in tensors if not item.stored),
            "variables": sum(item.variable for item in tensors),
            "cell_clips": list(clips),
            "min_runtime_version": _min_runtime_version(model, data),
        },
    )


def _sums(pairs: Iterator[tuple[str, int]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for dtype, count in pairs:
        counts[dtype] += count
    return dict(sorted(counts.items()))


def _operator_type(code: Table) -> str:
    # The older field has a byte, the newer one is 0 in older files.
    number = max(code.integer(3, "i"), code.integer(0, "b"))
    if not 0 <= number < len(OPERATORS):
        return f"UNKNOWN {number}"
    kind = OPERATORS[number]
    return f"{kind} {code.text(1)}" if kind == "CUSTOM" else kind


def _read_graph(graph: Table, codes: Sequence[str], buffers: Sequence[int]) -> _Graph:
    tensors = tuple(_read_tensor(tensor, buffers) for tensor in graph.tables(0))

    def indices(table: Table, field: int, lowest: int = 0) -> tuple[int, ...]:
        numbers = table.numbers(field, "i")
        if any(not lowest <= number < len(tensors) for number in numbers):
            raise ValueError("an operator or graph refers to a tensor that does not exist")
        return numbers

    operators = []
    for operator in graph.tables(3):
        kind = _item(codes, operator.integer(0, "I"), "operator type")
        options = operator.table(4) if kind in _CLIPPING else None
        clip = (0.0 if options is None else options.real(1)) if kind in _CLIPPING else None
        # An input that is left out has the index -1.
        operators.append(_Operator(kind, indices(operator, 1, -1), indices(operator, 2), clip))
    return _Graph(tensors, tuple(operators), indices(graph, 1), indices(graph, 2))


def _item(items: Sequence[T], index: int, what: str) -> T:
    if not 0 <= index < len(items):
        raise ValueError(f"{what} {index} does not exist")
    return items[index]


def _read_tensor(tensor: Table, buffers: Sequence[int]) -> _Tensor:
    dtype = _item(DTYPES, tensor.integer(1, "b"), "dtype")
    shape = tensor.numbers(0, "i")
    stored = _item(buffers, tensor.integer(2, "I"), "buffer")
    name = tensor.text(3)
    if any(axis < 0 for axis in shape):
        raise ValueError(f"the tensor {name!r} has the shape {shape}")
    if tensor.integer(10, "I"):
        raise ValueError(f"the tensor {name!r} is stored in another file")
    # The values of sparse tensors and strings do not have the size of their shape.
    if stored and dtype in BITS and tensor.table(6) is None:
        expected = -(-math.prod(shape) * BITS[dtype] // 8)
        if stored != expected:
            raise ValueError(
                f"the tensor {name!r} of shape {shape} and dtype {dtype} has {stored} bytes "
                f"instead of {expected}"
            )
    scale, zero_point = _quantization(tensor.table(4))
    # In the signature of the shape, -1 is an axis of any length.
    free = tuple(k for k, axis in enumerate(tensor.numbers(7, "i")) if axis < 0)
    variable = bool(tensor.integer(5, "B"))
    return _Tensor(name, dtype, shape, stored, variable, scale, zero_point, free)


def _quantization(parameters: Table | None) -> tuple[float | None, int | None]:
    """Scale and zero point of a tensor with one scale."""
    scales = () if parameters is None else parameters.numbers(2, "f")
    if parameters is None or len(scales) != 1 or not scales[0]:
        return None, None
    zero_points = parameters.numbers(3, "q")
    return float(scales[0]), int(zero_points[0]) if zero_points else 0


def _signature(model: Table, main: _Graph, *, own_names: bool) -> dict[str, str]:
    """The names in the signatures of the main graph by the names of the tensors.

    With ``own_names``, a name that is not that of its tensor raises :class:`ValueError`, because
    edgeattn finds inputs and outputs by the names of tensors, other programs by the signature.
    """
    names = {}
    for signature in model.tables(7):
        if signature.integer(4, "I"):
            continue
        for field, side in ((0, main.inputs), (1, main.outputs)):
            for entry in signature.tables(field):
                name, index = entry.text(0), entry.integer(1, "I")
                if index not in side or (own_names and main.tensors[index].name != name):
                    raise ValueError(f"its signature has another tensor for {name!r}")
                names[main.tensors[index].name] = name
    return names


def _as_input_or_output(tensor: _Tensor) -> FileTensor:
    quantized = "int" in tensor.dtype
    return FileTensor(
        tensor.name,
        tuple(None if k in tensor.free else axis for k, axis in enumerate(tensor.shape)),
        tensor.dtype,
        tensor.scale if quantized else None,
        tensor.zero_point if quantized else None,
    )


def _weights(graph: _Graph) -> Iterator[Weight]:
    used = {index for operator in graph.operators for index in operator.inputs}
    used.update(graph.outputs)
    for index, tensor in enumerate(graph.tensors):
        if tensor.stored and tensor.shape and tensor.dtype in _REAL:
            yield Weight(tensor.dtype, tensor.size, index in used)


def _computing(graph: _Graph) -> Iterator[tuple[str, str]]:
    """``(type, how)`` of the operators that compute with real numbers."""
    integers = _integer_constants(graph)
    for operator in graph.operators:
        if operator.kind in _UNCOUNTED or not operator.outputs:
            continue
        dtype = graph.tensors[operator.outputs[0]].dtype
        if dtype in _REAL:
            has_integers = dtype == "float32" and bool(integers.intersection(operator.inputs))
            yield operator.kind, INT8_WEIGHTS if has_integers else dtype


def _dynamic_operators(graph: _Graph) -> int:
    """Operators with float32 inputs and int8 weights that are not dequantized before."""
    stored = {
        index
        for index, tensor in enumerate(graph.tensors)
        if tensor.stored and tensor.shape and tensor.dtype in _INTEGERS
    }
    return sum(
        graph.tensors[operator.outputs[0]].dtype == "float32"
        and operator.kind not in _UNCOUNTED
        and bool(stored.intersection(operator.inputs))
        for operator in graph.operators
        if operator.outputs
    )


def _integer_constants(graph: _Graph) -> set[int]:
    """The int8 and int4 constants of a graph, and their dequantized values."""
    constants = {
        index
        for index, tensor in enumerate(graph.tensors)
        if tensor.stored and tensor.dtype in _INTEGERS
    }
    dequantized = {
        operator.outputs[0]
        for operator in graph.operators
        if operator.kind == "DEQUANTIZE" and operator.outputs
        if constants.intersection(operator.inputs)
    }
    return constants | dequantized


def _variables_outside_lstms(graph: _Graph) -> int:
    """Variables that no fused LSTM has: it has two of them and resets them itself."""
    own = {i for item in graph.operators if item.kind == _FUSED_LSTM for i in item.inputs}
    return sum(item.variable and index not in own for index, item in enumerate(graph.tensors))


def _min_runtime_version(model: Table, data: bytes | mmap.mmap) -> str | None:
    for entry in model.tables(6):
        if entry.text(0) == _RUNTIME_KEY:
            number = entry.integer(1, "I")
            for index, buffer in enumerate(model.tables(4)):
                if index == number:
                    start, size = buffer.content(0)
                    text = data[start : start + min(size, 64)].split(b"\0")[0]
                    return text.decode("utf-8", "replace") or None
    return None
