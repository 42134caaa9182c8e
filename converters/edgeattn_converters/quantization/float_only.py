"""Operators of a float32 ``.tflite`` file that have no integer form."""

from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.float_operators import layer_pattern
from edgeattn_converters.quantization.integer_forms import has_integer_form


def float_only_operators(content: bytes, recurrent: tuple[str, ...] = ()) -> list[str]:
    """The types of operators with float32 results, or casts of float32 values, that have no integer
    form, in order.

    Loops of the layers ``recurrent`` are left out, because their steps are written out.
    """
    file = TFLiteFile(content)
    return sorted(
        {
            kind
            for graph, operator, kind in file.operators()
            if any(file.dtype(graph.tensors[int(i)]) == "FLOAT32" for i in _ends(operator, kind))
            and not has_integer_form(file, graph, operator)
            and not (kind == "WHILE" and _is_of(file, graph, operator, recurrent))
        }
    )


def _ends(operator: Any, kind: str) -> list[Any]:
    """The results of an operator, and what a cast reads."""
    return [*operator.outputs, *(operator.inputs if kind == "CAST" else ())]


def _is_of(file: TFLiteFile, graph: Any, operator: Any, layers: tuple[str, ...]) -> bool:
    """Whether the names of an operator's results contain one of these layers."""
    names = [file.name(graph.tensors[int(i)]) for i in operator.outputs]
    return bool(layers) and any(map(layer_pattern(layers).search, names))
