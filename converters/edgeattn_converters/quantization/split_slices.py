"""SPLIT operators as one SLICE per part, and back.

TensorFlow's int8 quantizer has no name for operators with several outputs, and converts the same
SPLIT to int8 in one run and leaves it float32 in another. A SLICE it always treats alike.
"""

from collections import defaultdict
from collections.abc import Set
from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile


def slice_splits(file: TFLiteFile, float_names: Set[str]) -> set[str]:
    """Replace each SPLIT of the main graph by SLICE operators for its parts.

    Returns ``float_names``, the operators that stay float32, without the parts of SPLIT operators
    of which not all parts do.
    """
    graph = file.main
    operators: list[Any] = []
    integers: set[str] = set()
    for operator in graph.operators:
        if file.kind(operator) != "SPLIT":
            operators.append(operator)
            continue
        parts = {file.name(graph.tensors[int(i)]) for i in operator.outputs}
        integers |= set() if parts <= float_names else parts
        operators += _slices(file, operator)
    graph.operators = operators
    return set(float_names - integers)


def join_slices(file: TFLiteFile) -> None:
    """Replace SLICE operators of the main graph that are equal parts of a tensor by one SPLIT.

    One part may be missing, because nothing reads it.
    """
    graph = file.main
    parts: dict[int, list[Any]] = defaultdict(list)
    for operator in graph.operators:
        if file.kind(operator) == "SLICE":
            parts[int(operator.inputs[0])].append(operator)
    splits = {id(group[0]): split for group in parts.values() if (split := _split(file, group))}
    joined = {
        id(operator) for group in parts.values() if id(group[0]) in splits for operator in group
    }
    graph.operators = [
        splits.get(id(operator), operator)
        for operator in graph.operators
        if id(operator) in splits or id(operator) not in joined
    ]


def _slices(file: TFLiteFile, split: Any) -> list[Any]:
    tensors = file.main.tensors
    axis, source = file.constant(tensors[int(split.inputs[0])]), int(split.inputs[1])
    shape = [int(size) for size in tensors[source].shape]
    if axis is None:
        return [split]
    place = int(axis.reshape(-1)[0]) % len(shape)
    width = shape[place] // len(split.outputs)
    size = np.full(len(shape), -1, np.int32)
    size[place] = width
    sizes = file.add_constant(file.main, size)
    slices = []
    for number, output in enumerate(split.outputs):
        begin = np.zeros(len(shape), np.int32)
        begin[place] = number * width
        inputs = [source, file.add_constant(file.main, begin), sizes]
        operator = file.new_operator("SLICE", inputs, [int(output)], 2)
        operator.builtinOptionsType = file.schema.BuiltinOptions.SliceOptions
        operator.builtinOptions = file.schema.SliceOptionsT()
        slices.append(operator)
    return slices


def _split(file: TFLiteFile, slices: list[Any]) -> Any | None:
    """A SPLIT in the place of ``slices`` of one tensor, if they are its equal parts.

    One part may be missing: nothing reads it.
    """
    tensors = file.main.tensors
    source = tensors[int(slices[0].inputs[0])]
    begins = [file.constant(tensors[int(item.inputs[1])]) for item in slices]
    parts = [tensors[int(item.outputs[0])] for item in slices]
    shape, size = np.asarray(source.shape), np.asarray(parts[0].shape)
    (places,) = np.nonzero(size != shape)
    if len(slices) < 2 or len(places) != 1 or shape[places[0]] % size[places[0]]:
        return None
    place, width = int(places[0]), int(size[places[0]])
    outputs: dict[int, int] = {}
    for item, begin, part in zip(slices, begins, parts, strict=True):
        if begin is None or part.type != source.type or not np.array_equal(part.shape, size):
            return None
        outputs[int(begin[place])] = int(item.outputs[0])
    starts = range(0, int(shape[place]), width)
    if len(outputs) < len(slices) or not outputs.keys() <= set(starts):
        return None
    if len(outputs) < len(starts) - 1:
        return None
    for start in set(starts) - outputs.keys():
        outputs[start] = file.add_tensor(
            file.main, "", file.dtype(source), size, quantization=source.quantization
        )
    axis = file.add_constant(file.main, np.array(place, np.int32))
    split = file.new_operator(
        "SPLIT", [axis, int(slices[0].inputs[0])], [outputs[start] for start in starts], 2
    )
    split.builtinOptionsType = file.schema.BuiltinOptions.SplitOptions
    split.builtinOptions = file.schema.SplitOptionsT()
    split.builtinOptions.numSplits = len(starts)
    return split
