"""The contents of a model file: inputs and outputs, operators and weights by dtype."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# How an operator computes. With ``INT8_WEIGHTS`` its weights are integers, its activations are not.
FLOAT32, INT8_WEIGHTS = "float32", "int8 weights"
# Converters leave smaller constants unquantized, because their scales would take what they save.
LARGE = 512

# Operators that multiply with weights, and those with the products of all steps of a recurrence.
_PRODUCTS = frozenset(
    {"FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "SVDF"}
    | {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"}
    | {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "QAttention"}
    | {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)
_RECURRENCES = frozenset(
    {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
    | {"UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM"}
    | {"UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN"}
)

# Entries of an artifact's ``achieved`` that are counted in its file.
COUNTS = (
    *("operators", "weight_bytes", "activations", "variables", "cell_clips", "opset"),
    *("min_runtime_version", "computes_in", "weights", "kept_weights", "summary", "scheme"),
)


@dataclass(frozen=True)
class FileTensor:
    """An input or output of a file.

    ``shape`` starts with the batch axis; ``None`` is an axis of any length, or an unknown shape.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name} {self.dtype}"
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name} ({axes}) {self.dtype}"


@dataclass(frozen=True)
class Weight:
    """A constant of real numbers: its dtype, number of values, and whether an operator reads it."""

    dtype: str
    size: int
    used: bool = True


@dataclass(frozen=True)
class FileContents:
    """The contents of a model file.

    Attributes:
        inputs: Inputs in the file's order.
        outputs: Outputs in the file's order.
        operators: Number of operators by type, including those in loops.
        computes_in: Number of operators that compute with real numbers, by how they compute
            (``float32``, ``int8 weights``, ``int8`` or ``int16``) and then by type.
        weights: Number of weight values by dtype.
        large_weights: The same for the weights that operators read and that have at least
            :data:`LARGE` values.
        custom: Operators that runtimes do not include.
        states: Number of variables, and of operators on variables, that keep a value between calls.
            Those of a fused LSTM are not counted.
        dynamic: Number of operators with int8 weights that scale their float32 inputs to int8 at
            run time.
        cell_clips: The cell clip of each recurrent operator that has such an option.
        signature: The name in the signature of the file by the name of the tensor.
        details: Entries of the manifest that only files of this format have.
    """

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    operators: Mapping[str, int]
    computes_in: Mapping[str, Mapping[str, int]]
    weights: Mapping[str, int]
    large_weights: Mapping[str, int]
    custom: tuple[str, ...] = ()
    states: int = 0
    dynamic: int = 0
    cell_clips: tuple[float, ...] = ()
    signature: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """The scheme by which most operators compute and most large weights are stored.

        It can differ from the requested one: a file requested as ``int8`` may compute in float32
        with int8 weights. ``int8_weights`` is such a file whose weights are dequantized; with
        ``dynamic_int8``, operators scale their inputs to int8. Integers between products that
        compute in float32 do not make a file ``int8``.
        """
        counts = {how: sum(kinds.values()) for how, kinds in self.computes_in.items()}
        integers = {"int8": counts.get("int8", 0), "int16x8": counts.get("int16", 0)}
        is_integer = 2 * sum(integers.values()) > sum(counts.values())
        if is_integer and not self._has_float_products:
            return max(integers, key=lambda name: integers[name])
        weights = self.large_weights or self.weights
        dtype = max(weights, key=lambda name: weights[name], default=FLOAT32)
        if dtype != "int8":
            return dtype
        return "dynamic_int8" if self.dynamic else "int8_weights"

    @property
    def _has_float_products(self) -> bool:
        """Whether a recurrence or most products compute in float32 with int8 weights."""
        floats = self.computes_in.get(INT8_WEIGHTS, {})
        products = {
            how: sum(count for kind, count in kinds.items() if kind in _PRODUCTS)
            for how, kinds in self.computes_in.items()
        }
        in_integers = products.get("int8", 0) + products.get("int16", 0)
        return not _RECURRENCES.isdisjoint(floats) or products.get(INT8_WEIGHTS, 0) > in_integers

    def to_json(self) -> dict[str, Any]:
        """The entries of an artifact's ``achieved`` in the manifest."""
        return {
            "scheme": self.scheme,
            "operators": dict(self.operators),
            **self.details,
            "computes_in": {how: dict(kinds) for how, kinds in self.computes_in.items()},
            "weights": dict(self.weights),
        }

    def without_float32(self, count: int) -> "FileContents":
        """The contents without ``count`` values of large float32 weights."""
        large = Counter(self.large_weights)
        large[FLOAT32] -= count
        return replace(self, large_weights=dict(+large))

    def share_of(self, *dtypes: str) -> float:
        """The share of the large weights, or of all if none is large, that have these dtypes."""
        counts = self.large_weights or self.weights
        total = sum(counts.values())
        return sum(counts.get(dtype, 0) for dtype in dtypes) / total if total else 0.0


def counts_by_dtype(operators: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Count ``(type, how)`` of operators by how they compute and then by type."""
    by_dtype: dict[str, Counter[str]] = {}
    for kind, how in operators:
        by_dtype.setdefault(how, Counter())[kind] += 1
    return {how: dict(sorted(kinds.items())) for how, kinds in by_dtype.items()}


def count_weights(weights: Iterable[Weight]) -> tuple[dict[str, int], dict[str, int]]:
    """The number of values by dtype: of all weights, and of the large ones that are used."""
    every: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for weight in weights:
        every[weight.dtype] += weight.size
        if weight.used and weight.size >= LARGE:
            large[weight.dtype] += weight.size
    return dict(sorted(every.items())), dict(sorted(large.items()))
