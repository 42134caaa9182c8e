"""Activation functions in operators that have kernels for integers.

``EXP``, ``LOG`` and ``ELU`` have none in int16. An exponential is a quotient of two values of the
tanh, a quotient by ``y`` is a product with the square of ``1 / sqrt(y)``, and a softplus is the
logarithm of a sigmoid.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile

# In the names of parts of a formula that int8 would round too much.
PRECISE = "/in_int16/"
# ``exp(x)`` is a power of ``exp(x / POWER)``: ``1 - tanh(x / (2 * POWER))`` is not too small then.
POWER = 4
# Comparisons of ``x`` with 0, and which of the two values is selected for negative ``x`` only.
_NEGATIVE = {
    **dict.fromkeys(("GREATER", "GREATER_EQUAL"), (False, True)),
    **dict.fromkeys(("LESS", "LESS_EQUAL"), (True, False)),
}
# Of the polynomial of ``-log(1 - q) / q`` for ``q`` from 0 to 1/2, whose error is below 2e-6.
DEGREE = 6


class Formula:
    """Builds the operators that replace ``operator``, which has one real input."""

    def __init__(self, file: TFLiteFile, operator: Any) -> None:
        self._file = file
        self.x, self.output = int(operator.inputs[0]), int(operator.outputs[0])
        tensor = file.main.tensors[self.output]
        self._name, self._shape = file.name(tensor).split(";")[0], tensor.shape
        self.operators: list[Any] = []

    def add(
        self, kind: str, *inputs: int | float, result: int | None = None, precise: bool = False
    ) -> int:
        """Append an operator; returns the tensor of its ``result``, a new one if none is given."""
        file, graph = self._file, self._file.main
        indices = [i if isinstance(i, int) else self._constant(i) for i in inputs]
        if result is None:
            # TensorFlow makes names unique by digits at their ends.
            name = f"{self._name}{PRECISE if precise else '/'}{len(self.operators)}_part"
            result = file.add_tensor(graph, name, "FLOAT32", self._shape)
        self.operators.append(operator_of(file, kind, indices, result))
        return result

    def _constant(self, value: float) -> int:
        array = np.array(value, np.float32)
        return self._file.add_tensor(self._file.main, "", "FLOAT32", [], value=array)


def operator_of(file: TFLiteFile, kind: str, inputs: list[int], output: int) -> Any:
    operator = file.new_operator(kind, inputs, [output])
    types = {"ADD": file.schema.AddOptionsT, "MUL": file.schema.MulOptionsT}
    if kind in types:
        operator.builtinOptions = types[kind]()
        name = types[kind].__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(file.schema.BuiltinOptions, name)
    return operator


def gelu(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * (1/2 + tanh(x * (a + b x^2)) / 2)``."""
    formula = Formula(file, operator)
    add, x, a = formula.add, formula.x, math.sqrt(2 / math.pi)
    slope = add("ADD", add("MUL", add("MUL", x, x), 0.044715 * a), a)
    bent = add("TANH", add("MUL", x, slope))
    add("MUL", x, add("ADD", add("MUL", bent, 0.5), 0.5), result=formula.output)
    return formula.operators


def prelu(file: TFLiteFile, operator: Any) -> list[Any]:
    """``relu(x) + slope * min(x, 0)``."""
    formula = Formula(file, operator)
    add, x = formula.add, formula.x
    below = add("MUL", add("MINIMUM", x, 0.0), int(operator.inputs[1]))
    add("ADD", add("RELU", x), below, result=formula.output)
    return formula.operators


def hard_swish(file: TFLiteFile, operator: Any) -> list[Any]:
    """``x * min(relu(x / 6 + 1/2), 1)``."""
    formula = Formula(file, operator)
    add, x = formula.add, formula.x
    raised = add("RELU", add("ADD", add("MUL", x, 1 / 6), 0.5))
    add("MUL", x, add("MINIMUM", raised, 1.0), result=formula.output)
    return formula.operators


def _exponential(formula: Formula, x: int, result: int | None = None) -> int:
    """``((1 + t) / (1 - t)) ^ POWER`` with ``t = tanh(x / (2 * POWER))``."""
    add = functools.partial(formula.add, precise=True)
    t = add("TANH", add("MUL", x, 1 / (2 * POWER)))
    root = add("RSQRT", add("ADD", add("MUL", t, -1.0), 1.0))
    part = add("MUL", add("MUL", add("ADD", t, 1.0), root), root)
    square = add("MUL", part, part)
    return add("MUL", square, square, result=result)


def exponential(file: TFLiteFile, operator: Any) -> list[Any]:
    formula = Formula(file, operator)
    _exponential(formula, formula.x, formula.output)
    return formula.operators


def elu(file: TFLiteFile, operator: Any, *, has_exp: bool = False) -> list[Any]:
    """``relu(x) + exp(min(x, 0)) - 1``; ``has_exp`` is whether there is a kernel for ``EXP``."""
    formula = Formula(file, operator)
    add, below = formula.add, formula.add("MINIMUM", formula.x, 0.0)
    power = add("EXP", below) if has_exp else _exponential(formula, below)
    above = add("RELU", formula.x)
    add("ADD", above, add("ADD", power, -1.0, precise=True), result=formula.output)
    return formula.operators


def softplus_source(file: TFLiteFile, operator: Any) -> int | None:
    """``a`` of a ``LOG`` of ``1 + exp(-a)`` for ``a = |x|``; None for other logarithms."""
    makers = {int(i): item for item in file.main.operators for i in item.outputs}
    index = int(operator.inputs[0])
    for kind, constant in (("ADD", 1.0), ("EXP", None), ("NEG", None), ("ABS", None)):
        maker = makers.get(index)
        if maker is None or file.kind(maker) != kind:
            return None
        values = [file.constant(file.main.tensors[int(i)]) for i in maker.inputs]
        if constant is not None and not _is_number(values[1], constant):
            return None
        if kind == "ABS":
            return index
        index = int(maker.inputs[0])
    return None


def softplus(file: TFLiteFile, operator: Any) -> list[Any]:
    """``log(1 + exp(-a)) = -log(1 - q)`` as a polynomial in ``q = sigmoid(-a)``."""
    source = softplus_source(file, operator)
    assert source is not None
    formula = Formula(file, operator)
    add = functools.partial(formula.add, precise=True)
    q = add("LOGISTIC", add("MUL", source, -1.0))
    *others, total = _coefficients()
    value = add("ADD", add("MUL", q, total), others[-1])
    for coefficient in others[-2::-1]:
        value = add("ADD", add("MUL", value, q), coefficient)
    add("MUL", value, q, result=formula.output)
    return formula.operators


@functools.cache
def _coefficients() -> Sequence[float]:
    """Of the polynomial of ``-log(1 - q) / q``, from the constant on."""
    q = (1 - np.cos(np.pi * (np.arange(64) + 0.5) / 64)) / 4
    fitted = np.polynomial.Polynomial.fit(q, -np.log1p(-q) / q, DEGREE)
    return tuple(map(float, fitted.convert().coef))


def divides_by_sum(file: TFLiteFile, operator: Any) -> bool:
    """Whether a ``DIV`` divides by ``c + |x|`` for a ``c`` of at least 1, as a softsign does."""
    makers = {int(i): item for item in file.main.operators for i in item.outputs}
    total = makers.get(int(operator.inputs[1]))
    if total is None or file.kind(total) != "ADD":
        return False
    values = [file.constant(file.main.tensors[int(i)]) for i in total.inputs]
    least = [value.min() for value in values if value is not None]
    sources = [makers.get(int(i)) for i in total.inputs]
    is_positive = any(item is not None and file.kind(item) == "ABS" for item in sources)
    return is_positive and bool(least) and float(least[0]) >= 1


def with_limited_exponentials(content: bytes) -> bytes:
    """The file after :func:`limit_unselected`."""
    file = TFLiteFile(content)
    before = len(file.main.operators)
    limit_unselected(file)
    return content if len(file.main.operators) == before else file.to_bytes()


def limit_unselected(file: TFLiteFile) -> None:
    """Let an exponential whose result is selected for ``x <= 0`` only read ``min(x, 0)``, in place.

    TensorFlow's SELU selects so, and users' ``where(x > 0, x, exp(x) - 1)``. The values that are
    left out are by far the largest, and would take all integers.
    """
    graph, tensors = file.main, file.main.tensors
    makers = {int(i): item for item in graph.operators for i in item.outputs}
    readers: dict[int, list[Any]] = {}
    for item in graph.operators:
        for index in set(map(int, item.inputs)):
            readers.setdefault(index, []).append(item)
    operators: list[Any] = []
    for operator in graph.operators:
        x = int(operator.inputs[0]) if len(operator.inputs) else -1
        if file.kind(operator) == "EXP" and _is_for_negatives(file, operator, makers, readers):
            name = file.name(tensors[int(operator.outputs[0])]).split(";")[0]
            below = file.add_tensor(graph, f"{name}/below", "FLOAT32", tensors[x].shape)
            zero = file.add_constant(graph, np.array(0, np.float32))
            operators.append(operator_of(file, "MINIMUM", [x, zero], below))
            operator.inputs = [below]
        operators.append(operator)
    graph.operators = operators


def _is_for_negatives(
    file: TFLiteFile, operator: Any, makers: dict[int, Any], readers: dict[int, list[Any]]
) -> bool:
    x, index = int(operator.inputs[0]), int(operator.outputs[0])
    while index not in map(int, file.main.outputs):
        following = readers.get(index, [])
        if len(following) != 1:
            return False
        kind = file.kind(following[0])
        if kind in ("SELECT", "SELECT_V2"):
            condition, yes, no = map(int, following[0].inputs)
            comparison = makers.get(condition)
            is_chosen = (yes == index, no == index)
            if comparison is None or _NEGATIVE.get(file.kind(comparison)) != is_chosen:
                return False
            compared, limit = map(int, comparison.inputs)
            return compared == x and _is_number(file.constant(file.main.tensors[limit]), 0.0)
        if kind not in ("SUB", "ADD", "MUL"):
            return False
        others = [int(i) for i in following[0].inputs if int(i) != index]
        if any(file.constant(file.main.tensors[i]) is None for i in others):
            return False
        index = int(following[0].outputs[0])
    return False


def drop_unread(file: TFLiteFile, operators: list[Any], kinds: Sequence[str]) -> list[Any]:
    """``operators`` without those of these ``kinds`` whose result nothing reads."""
    kept: list[Any] = []
    read = set(map(int, file.main.outputs))
    for operator in reversed(operators):
        if file.kind(operator) not in kinds or read.intersection(map(int, operator.outputs)):
            kept.insert(0, operator)
            read.update(map(int, operator.inputs))
    return kept


def _is_number(value: Array | None, number: float) -> bool:
    return value is not None and value.size == 1 and float(value.item()) == number
