"""Common ranges of tensors to which TensorFlow's int8 quantizer gives one scale.

Its operators that move, select, join or average values need inputs and outputs of one scale, for
which the quantizer takes the range of the output if the operator has several inputs. In
``minimum(x, 1) - x`` it thus limits ``x`` to 1 for the subtraction too, and in
``concat(max(x), mean(x))`` to the range of the result.
"""

from collections import Counter
from collections.abc import Collection

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.ranges import Ranges, merge_ranges

# The positions of the values among the inputs, where not all are values; those of the others are
# indices, masks and sizes.
_SELECTING = {"MAXIMUM": (0, 1), "MINIMUM": (0, 1), "SELECT": (1, 2), "SELECT_V2": (1, 2)}
_JOINING = frozenset({"CONCATENATION", "PACK"})
# Values outside the range of their output change it, also if nothing else reads them.
_AVERAGING = frozenset({"AVERAGE_POOL_2D", "RESIZE_BILINEAR"})
_MOVING = frozenset(
    {"BROADCAST_TO", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D",
     "MIRROR_PAD", "PAD", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR",
     "REVERSE_V2", "SLICE", "SPACE_TO_DEPTH", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE"}
)  # fmt: skip

# All operators whose inputs and outputs have one scale.
SAME_SCALE = _MOVING | _JOINING | _SELECTING.keys() | {"SPLIT", "SPLIT_V", "UNPACK"}
# Those with one output, and those that average.
_COMMON = _MOVING | _JOINING | _SELECTING.keys() | _AVERAGING


def with_common_ranges(
    file: TFLiteFile, ranges: Ranges, float_names: Collection[str] = ()
) -> Ranges:
    """``ranges`` of the main graph, in which tensors that share a scale have the widest range of
    them if one is read by several operators or averaged.

    If each is read once, values outside the range of the output are never used. Operators of
    ``float_names`` stay float32, so that their inputs and outputs need no common scale.
    """
    readers = Counter(int(i) for operator in file.main.operators for i in set(operator.inputs))
    readers.update(int(i) for i in file.main.outputs)
    groups: dict[int, set[int]] = {}
    several: set[int] = set()  # values of operators with several inputs
    used = {index for index, count in readers.items() if count > 1}  # also outside of that range
    for operator in file.main.operators:
        kind = file.kind(operator)
        if kind not in _COMMON:
            continue
        if file.name(file.main.tensors[int(operator.outputs[0])]) in float_names:
            continue
        positions = range(len(operator.inputs)) if kind in _JOINING else _SELECTING.get(kind, (0,))
        values = [int(operator.inputs[k]) for k in positions]
        members = {i for i in (*values, int(operator.outputs[0])) if i in ranges}
        if kind in _SELECTING or kind in _JOINING:
            several |= members
        if kind in _AVERAGING:
            used |= members
        for group in [groups[i] for i in members if i in groups]:
            members |= group
        groups.update(dict.fromkeys(members, members))
    common = dict(ranges)
    for members in groups.values():
        if members & several and members & used:
            (widest,) = merge_ranges([{0: ranges[i]} for i in members]).values()
            common.update(dict.fromkeys(members, widest))
    return common
