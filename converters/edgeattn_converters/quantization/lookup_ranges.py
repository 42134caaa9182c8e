"""Ranges of values that are looked up in a table.

The table has the scale of what is looked up in it. Calibration samples rarely contain a whole
vocabulary, and the rows of other words would be clipped to the range of those that they contain.
"""

from typing import Any

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.integer_forms import MOVING, positions
from edgeattn_converters.quantization.mask_fills import range_of_constant
from edgeattn_converters.quantization.ranges import Ranges, merge_ranges

# By type, the position of the table.
TABLES = {"GATHER": 0, "GATHER_ND": 0, "EMBEDDING_LOOKUP": 1}
JOINING = {"PACK", "CONCATENATION", "SELECT_V2"}


def with_table_ranges(file: TFLiteFile, graph: Any, ranges: Ranges) -> Ranges:
    """``ranges`` of a float graph, with those of looked-up values, and of what they are only moved
    to, widened to the range of the whole table."""
    limits: Ranges = {}
    for operator in graph.operators:
        known = merge_ranges(
            {0: limits[index]} for index in _moved(file, operator) if index in limits
        )
        table = _table(file, graph, operator)
        limit = known.get(0) if table is None else range_of_constant(table)
        if limit is not None:
            limits.update((int(i), limit) for i in operator.outputs if int(i) in ranges)
    return merge_ranges([ranges, limits])


def _table(file: TFLiteFile, graph: Any, operator: Any) -> Array | None:
    kind = file.kind(operator)
    if kind not in TABLES:
        return None
    value = file.constant(graph.tensors[int(operator.inputs[TABLES[kind]])])
    return value if value is not None and value.dtype.kind == "f" else None


def _moved(file: TFLiteFile, operator: Any) -> list[int]:
    """The tensors whose values the operator only moves."""
    if file.kind(operator) not in MOVING | JOINING:
        return []
    return [int(operator.inputs[position]) for position in positions(file, operator)]
