"""Numbers of valid positions, by which masked averages divide, in integer files.

A quotient has no integer form, because an integer denominator could be rounded to zero. The number
of valid positions is at least 1 if there are any, so that ``x / n`` is ``x / sqrt(n) / sqrt(n)``,
and integers compute the reciprocal root. If there is none, the sum over them is zero, and so is the
result.
"""

from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.ranges import Ranges

_MOVING = {"RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE"}
# An addend that only prevents a division by zero.
_SMALL = 1e-3
# The ends of the names of what replaces a quotient, in this order.
PARTS = ("/at_least_one", "/inverse_root", "/by_root")


class Counts:
    """The tensors of the main graph that count truth values."""

    def __init__(self, file: TFLiteFile) -> None:
        self._file = file
        self._makers = {int(i): item for item in file.main.operators for i in item.outputs}

    def largest(self, index: int) -> int | None:
        """The largest count in a tensor; None if it is no count.

        Counts are sums of truth values, also if they are moved, if they have a tiny addend, or if
        smaller ones are replaced by one.
        """
        maker = self._makers.get(index)
        if maker is None:
            return None
        kind = self._file.kind(maker)
        if kind == "SUM" and self._is_truth(int(maker.inputs[0])):
            return self._size(int(maker.inputs[0])) // max(self._size(index), 1)
        if kind in _MOVING:
            return self.largest(int(maker.inputs[0]))
        if kind not in ("ADD", "MAXIMUM"):
            return None
        for count, other in (maker.inputs, reversed(maker.inputs)):
            value = self._file.constant(self._file.main.tensors[int(other)])
            if value is None or value.size != 1:
                continue
            highest = _SMALL if kind == "ADD" else 1.0
            return self.largest(int(count)) if 0 <= float(value.item()) <= highest else None
        return None

    def ranges(self) -> Ranges:
        """The ranges of counts and of their reciprocal roots, whatever occurs in calibration.

        A sample may have fewer or more valid positions than those of the calibration.
        """
        known: dict[int, tuple[float, float]] = {}
        for operator in self._file.main.operators:
            output = int(operator.outputs[0])
            count = self.largest(output)
            if count is not None:
                known[output] = 0.0, float(max(count, 1))
            elif self._file.kind(operator) == "RSQRT" and int(operator.inputs[0]) in known:
                known[output] = 0.0, 1.0
        return known

    def _is_truth(self, index: int) -> bool:
        maker = self._makers.get(index)
        while maker is not None and self._file.kind(maker) in _MOVING:
            maker = self._makers.get(int(maker.inputs[0]))
        if maker is None:
            return False
        kind, tensors = self._file.kind(maker), self._file.main.tensors
        if kind == "CAST":
            return self._file.dtype(tensors[int(maker.inputs[0])]) == "BOOL"
        constants = [self._file.constant(tensors[int(i)]) for i in maker.inputs[1:]]
        return (
            kind == "SELECT_V2"
            and all(value is not None and value.size == 1 for value in constants)
            and [float(value.item()) for value in constants if value is not None] == [1.0, 0.0]
        )

    def _size(self, index: int) -> int:
        size = 1
        for axis in self._file.main.tensors[index].shape:
            size *= int(axis)
        return size


def divides_by_count(file: TFLiteFile, operator: Any) -> bool:
    """Whether a DIV divides by a number of truth values."""
    return Counts(file).largest(int(operator.inputs[1])) is not None


def quotients(file: TFLiteFile) -> set[str]:
    """The names of the counts by which averages divide, and of what replaces the quotients."""
    names: set[str] = set()
    counts = Counts(file).ranges()
    for operator in file.main.operators:
        name = file.name(file.main.tensors[int(operator.outputs[0])])
        if int(operator.outputs[0]) in counts or name.endswith(PARTS):
            names.add(name)
    return names
