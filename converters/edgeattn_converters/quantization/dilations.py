"""Dilated convolutions in one operator, for runtimes that cannot move steps into the batch.

TensorFlow computes them on a batch in which every d-th step is a sample, and its converter joins
the operators that move the steps with the convolution, unless two convolutions read the same moved
steps, as in gated ones. Lite Micro has no int16 kernels for these operators.
"""

from copy import copy
from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile

_TO_BATCH, _TO_SPACE = "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"
_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D")
# The version with dilations.
_VERSION = 2


def join_dilations(file: TFLiteFile) -> None:
    """Replace ``batch_to_space(conv(space_to_batch(x)))`` by a dilated convolution, in place."""
    graph = file.main
    makers = {int(i): item for item in graph.operators for i in item.outputs}
    operators: list[Any] = []
    for operator in graph.operators:
        found = _chain(file, makers, operator) if file.kind(operator) == _TO_SPACE else None
        operators += [operator] if found is None else _joined(file, operator, *found)
    needed = set(map(int, graph.outputs))
    kept: list[Any] = []
    for operator in reversed(operators):
        is_chain = file.kind(operator) in (_TO_BATCH, _TO_SPACE, "RESHAPE", *_KINDS)
        if not is_chain or needed.intersection(map(int, operator.outputs)):
            kept.append(operator)
            needed.update(map(int, operator.inputs))
    graph.operators = kept[::-1]


def _chain(file: TFLiteFile, makers: dict[int, Any], last: Any) -> tuple[Any, Any] | None:
    """The operator that moves steps into the batch and the convolution before ``last``."""

    def before(operator: Any) -> Any:
        maker = makers.get(int(operator.inputs[0]))
        while maker is not None and file.kind(maker) == "RESHAPE":
            maker = makers.get(int(maker.inputs[0]))
        return maker

    convolution = before(last)
    if convolution is None or file.kind(convolution) not in _KINDS:
        return None
    options, first = convolution.builtinOptions, before(convolution)
    if first is None or file.kind(first) != _TO_BATCH:
        return None
    settings = [_constant(file, item, 1) for item in (first, last)]
    is_plain = (
        options.padding == file.schema.Padding.VALID
        and (options.strideH, options.strideW) == (1, 1)
        and (options.dilationHFactor, options.dilationWFactor) == (1, 1)
    )
    known = [value for item in (first, last) for value in (_constant(file, item, 2),)]
    if not is_plain or any(value is None for value in (*settings, *known)):
        return None
    return (first, convolution) if np.array_equal(*settings) else None


def _constant(file: TFLiteFile, operator: Any, position: int) -> Any:
    return file.constant(file.main.tensors[int(operator.inputs[position])])


def _joined(file: TFLiteFile, last: Any, first: Any, convolution: Any) -> list[Any]:
    graph = file.main
    index, output = int(first.inputs[0]), int(last.outputs[0])
    name = file.name(graph.tensors[output]).split(";")[0]
    shape = [int(axis) for axis in graph.tensors[index].shape]
    blocks = [int(size) for size in _constant(file, first, 1).flat]
    paddings, crops = (_constant(file, item, 2) for item in (first, last))
    operators: list[Any] = []

    def add(kind: str, inputs: list[int], shape: list[int], part: str, version: int = 1) -> Any:
        nonlocal index
        index = file.add_tensor(graph, f"{name}/{part}", "FLOAT32", shape)
        operators.append(file.new_operator(kind, inputs, [index], version))
        return operators[-1]

    def reshape(sizes: list[int], part: str) -> None:
        add("RESHAPE", [index, file.add_constant(graph, np.array(sizes, np.int32))], sizes, part)

    if paddings.any():
        ends = np.zeros((len(shape), 2), np.int32)
        ends[1 : 1 + len(blocks)] = paddings
        shape = [axis + int(extra.sum()) for axis, extra in zip(shape, ends, strict=True)]
        add("PAD", [index, file.add_constant(graph, ends)], shape, "padded")
    # A convolution along one axis has a second axis of one element.
    is_single = len(blocks) == 1
    read = [int(axis) for axis in graph.tensors[int(convolution.inputs[0])].shape]
    kernel = [int(axis) for axis in graph.tensors[int(convolution.inputs[1])].shape]
    along = 1 if is_single and read[1] != 1 else 2
    dilations = blocks
    if is_single:
        dilations = [blocks[0], 1] if along == 1 else [1, blocks[0]]
        sizes = [shape[0], 1, 1, shape[2]]
        sizes[along] = shape[1]
        shape = sizes
        reshape(shape, "image")
    computed = [
        shape[0],
        *(
            size - dilation * (length - 1)
            for size, dilation, length in zip(shape[1:3], dilations, kernel[1:3], strict=True)
        ),
        int(graph.tensors[int(convolution.outputs[0])].shape[3]),
    ]
    inputs = [index, *map(int, convolution.inputs[1:])]
    dilated = add(file.kind(convolution), inputs, computed, "dilated", _VERSION)
    dilated.builtinOptionsType = convolution.builtinOptionsType
    dilated.builtinOptions = copy(convolution.builtinOptions)
    dilated.builtinOptions.dilationHFactor, dilated.builtinOptions.dilationWFactor = dilations
    if is_single:
        computed = [computed[0], computed[along], computed[3]]
    if crops.any():
        if is_single:
            reshape(computed, "steps")
        begin, end = np.zeros(len(computed), np.int32), np.array(computed, np.int32)
        begin[1 : 1 + len(blocks)] += crops[:, 0].astype(np.int32)
        end[1 : 1 + len(blocks)] -= crops[:, 1].astype(np.int32)
        values = (begin, end, np.ones_like(begin))
        constants = [file.add_constant(graph, value) for value in values]
        cut = add("STRIDED_SLICE", [index, *constants], [], "cut")
        cut.builtinOptions = file.schema.StridedSliceOptionsT()
        cut.builtinOptionsType = file.schema.BuiltinOptions.StridedSliceOptions
    elif is_single:
        reshape(computed, "steps")
    operators[-1].outputs = [output]
    return operators
