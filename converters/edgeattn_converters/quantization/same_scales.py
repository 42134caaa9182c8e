"""Common ranges of tensors to which TensorFlow's int8 quantizer gives one scale.

Its operators that move, select or compare values need inputs and outputs of one scale, for which
the quantizer takes the range of the output. In ``minimum(x, 1) - x`` it thus limits ``x`` to 1 for
the subtraction too.
"""

from collections import Counter

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.ranges import Ranges, merge_ranges

# The positions of the values among the inputs; those of the others are indices, masks and sizes.
_SELECTING = {"MAXIMUM": (0, 1), "MINIMUM": (0, 1), "SELECT": (1, 2), "SELECT_V2": (1, 2)}
_MOVING = frozenset(
    {"BROADCAST_TO", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D",
     "MIRROR_PAD", "PAD", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "REVERSE_V2", "SLICE",
     "SPACE_TO_DEPTH", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE"}
)  # fmt: skip

# All operators whose inputs and outputs have one scale.
SAME_SCALE = _MOVING | _SELECTING.keys() | {"CONCATENATION", "PACK", "SPLIT", "SPLIT_V", "UNPACK"}


def with_common_ranges(file: TFLiteFile, ranges: Ranges) -> Ranges:
    """``ranges`` of the main graph, in which tensors that share a scale have the widest range of
    them if one is read by several operators.

    If each is read once, values outside the range of the output are never used.
    """
    readers = Counter(int(i) for operator in file.main.operators for i in set(operator.inputs))
    readers.update(int(i) for i in file.main.outputs)
    groups: dict[int, set[int]] = {}
    selecting: set[int] = set()
    for operator in file.main.operators:
        kind = file.kind(operator)
        if kind not in _SELECTING and kind not in _MOVING:
            continue
        values = [int(operator.inputs[k]) for k in _SELECTING.get(kind, (0,))]
        members = {i for i in (*values, int(operator.outputs[0])) if i in ranges}
        if kind in _SELECTING:
            selecting |= members
        for group in [groups[i] for i in members if i in groups]:
            members |= group
        groups.update(dict.fromkeys(members, members))
    common = dict(ranges)
    for members in groups.values():
        if members & selecting and any(readers[i] > 1 for i in members):
            (widest,) = merge_ranges([{0: ranges[i]} for i in members]).values()
            common.update(dict.fromkeys(members, widest))
    return common
