"""Clips of ONNX models that the range of an integer already is, such as that of ReLU6."""

from itertools import pairwise
from typing import Any

import numpy as np

from edgeattn_converters.graphs.onnx_file import consumers


def drop_clips(proto: Any) -> None:
    """Remove Clips between conversions if the integers behind them have no values beyond, in place.

    onnxruntime's quantizer rounds the value ahead of a Clip to its full range first: two more
    conversions for each ReLU6 of a MobileNet, and coarser steps. Integers that only reach as far as
    the bounds clip by themselves.
    """
    graph = proto.graph
    constants = {item.name: item for item in graph.initializer}
    outputs = {value.name for value in graph.output}
    makers = {name: node for node in graph.node for name in node.output}
    users = consumers(proto)

    def only_reader(name: str, kind: str) -> Any:
        """The node of this kind that alone reads a value; None if there is none."""
        readers = [node for node, _ in users.get(name, [])]
        alone = len(readers) == 1 and name not in outputs and readers[0].op_type == kind
        return readers[0] if alone else None

    removed: list[Any] = []
    for clip in graph.node:
        rounded = makers.get(clip.input[0]) if clip.op_type == "Clip" else None
        coarse = makers.get(rounded.input[0]) if rounded is not None else None
        if coarse is None or coarse.op_type != "QuantizeLinear":
            continue
        fine = only_reader(clip.output[0], "QuantizeLinear")
        chain = (coarse, rounded, clip)
        if fine is None or any(
            only_reader(node.output[0], reader.op_type) is None for node, reader in pairwise(chain)
        ):
            continue
        if _is_within(clip, fine, constants):
            fine.input[0] = coarse.input[0]
            removed += chain
    for node in removed:
        graph.node.remove(node)


def _is_within(clip: Any, quantizing: Any, constants: Any) -> bool:
    """Whether all values of the integers are within the bounds, up to half a step."""
    from onnx import numpy_helper

    def value(name: str) -> Any:
        return numpy_helper.to_array(constants[name])

    bounds = [*clip.input[1:], "", ""][:2]
    names = [name for name in (*bounds, *quantizing.input[1:3]) if name]
    if len(quantizing.input) < 3 or any(name not in constants for name in names):
        return False
    step, zero = value(quantizing.input[1]), value(quantizing.input[2])
    if zero.size != 1 or zero.dtype != np.int8:
        return False
    low, high = (
        float(value(name)) if name else default
        for name, default in zip(bounds, (-np.inf, np.inf), strict=True)
    )
    least, most = ((end - int(zero)) * float(step) for end in (-128, 127))
    half = float(step) / 2
    return low - half <= least and most <= high + half
