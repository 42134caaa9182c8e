"""Unrolled recurrent steps that multiply their input and their state in one product.

In float32, the input products of all steps are one operator, and each step adds the product of its
state. In int8, these sums take a tenth of the instructions of a step, and round once more. If the
input has few features, it is faster to join it with the state: ``[x, h] [W; U] + b``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.layer_weights import key_of
from edgeattn_converters.quantization.mask_fills import Range
from edgeattn_converters.quantization.ranges import Ranges
from edgeattn_converters.quantization.same_scales import SAME_SCALE


@dataclass(frozen=True)
class _Step:
    """A step's input product, and the operators that add the product of its state to it.

    ``product``, ``total`` and ``weights``, those of the state, are None in a step that starts from
    zeros.
    """

    part: int
    product: Any = None
    total: Any = None
    weights: Any = None


@dataclass(frozen=True)
class _Layer:
    """A recurrent layer: the operators from its inputs to the steps' input products, and its
    steps."""

    inputs: list[Any]
    weights: Array
    recurrent: Array
    steps: list[_Step]

    @property
    def states(self) -> list[int]:
        return [int(step.product.inputs[0]) for step in self.steps if step.product is not None]


def join_step_products(
    file: TFLiteFile, ranges: Ranges, is_joined: Callable[[Array], bool]
) -> tuple[Ranges, int]:
    """Join the products of float32 steps in the main graph, in place; returns the ranges with those
    of new tensors, and the number of joined layers.

    ``ranges`` are those of ``file``, whose tensors keep their indices. Inputs of a layer are scaled
    to the range of its states, and all states get one range, with the values that need their scale.
    No range gets narrower. Layers are left alone if a range is unknown, or unless ``is_joined`` is
    true of their weights and recurrent weights.
    """
    joined, count = dict(ranges), 0
    _slice_weights(file, joined)
    for layer in list(_layers(file)):
        source = int(layer.inputs[0].inputs[0])
        is_known = source in joined and joined.keys() >= set(layer.states)
        if not is_known or not is_joined(layer.weights) or not is_joined(layer.recurrent):
            continue
        group = _of_one_scale(file, layer.states, joined)
        state = max(abs(end) for index in group for end in joined[index])
        inputs = max(map(abs, joined[source]))
        if state and inputs:
            common = (-state, state)
            joined.update(dict.fromkeys(group, common))
            _join(file, layer, joined, float(np.float32(state / inputs)), common)
            count += 1
    return joined, count


def _slice_weights(file: TFLiteFile, ranges: Ranges) -> None:
    """Multiply by slices of the weights instead of slicing products of all steps, in place.

    The products of a GRU's gates can then be joined, without that of its candidate.
    """
    graph = file.main
    readers = _readers(graph)
    replaced: dict[int, list[Any]] = {}
    for product in graph.operators:
        weights = _weights_of(file, product)
        reshape = readers.get(int(product.outputs[0]), [None])[0]
        if weights is None or file.kind(product) != "FULLY_CONNECTED":
            continue
        if reshape is None or file.kind(reshape) != "RESHAPE":
            continue
        slices = readers.get(int(reshape.outputs[0]), [None])
        shapes = [list(graph.tensors[int(item.outputs[0])].shape) for item in (product, reshape)]
        is_only = len(readers[int(product.outputs[0])]) == 1
        if not is_only or any(shape[-1] != len(weights) for shape in shapes):
            continue
        begins = [begin for item in slices if (begin := _begin_of_slice(file, item)) is not None]
        terms = [int(i) for i in product.inputs[2:] if int(i) >= 0]
        constants = [file.constant(graph.tensors[i]) for i in terms]
        bias = [value for value in constants if value is not None]
        if len(begins) < len(slices) or len(bias) < len(terms):
            continue
        replaced[id(product)] = replaced[id(reshape)] = []
        for number, (item, begin) in enumerate(zip(slices, begins, strict=True)):
            output = int(item.outputs[0])
            shape = list(map(int, graph.tensors[output].shape))
            rows = slice(begin, begin + shape[-1])
            name = f"{file.name(graph.tensors[int(product.outputs[0])])}/{number}"
            indices = [
                file.add_constant(graph, value[rows], f"{name}/constant_{k}")
                for k, value in enumerate([weights, *bias])
            ]
            part = file.add_tensor(graph, name, "FLOAT32", [*shapes[0][:-1], shape[-1]])
            if output in ranges:
                ranges[part] = ranges[output]
            of_part = file.new_operator(
                "FULLY_CONNECTED",
                [int(product.inputs[0]), *indices, *([] if bias else [-1])],
                [part],
            )
            of_part.builtinOptionsType = product.builtinOptionsType
            of_part.builtinOptions = product.builtinOptions
            sizes = file.add_constant(graph, np.array(shape, np.int32), f"{name}/sizes")
            moved = file.new_operator("RESHAPE", [part, sizes], [output])
            replaced[id(item)] = [of_part, moved]
    graph.operators = [new for item in graph.operators for new in replaced.get(id(item), [item])]


def _readers(graph: Any) -> dict[int, list[Any]]:
    """The operators that read each tensor; None stands for the reader of an output."""
    readers: dict[int, list[Any]] = {int(i): [None] for i in graph.outputs}
    for item in graph.operators:
        for index in set(map(int, item.inputs)):
            readers.setdefault(index, []).append(item)
    return readers


def _begin_of_slice(file: TFLiteFile, operator: Any) -> int | None:
    """Where a slice of the last axis begins; None if the operator is not such a slice."""
    if operator is None or file.kind(operator) != "STRIDED_SLICE":
        return None
    tensors, options = file.main.tensors, operator.builtinOptions
    before, after = (
        list(map(int, tensors[int(index)].shape))
        for index in (operator.inputs[0], operator.outputs[0])
    )
    begin, _, strides = (file.constant(tensors[int(i)]) for i in operator.inputs[1:])
    if begin is None or strides is None or (strides != 1).any():
        return None
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
        return None
    if len(before) != len(after) or before[:-1] != after[:-1]:
        return None
    axis = len(before) - 1
    return 0 if options.beginMask >> axis & 1 else int(begin[axis]) % before[axis]


def _weights_of(file: TFLiteFile, operator: Any) -> Array | None:
    """The constant (outputs, inputs) of a product of float32 values without activation."""
    kind = file.kind(operator)
    if kind == "BATCH_MATMUL":
        options = operator.builtinOptions
        value = file.constant(file.main.tensors[int(operator.inputs[1])])
        is_plain = value is not None and value.ndim == 2 and options.adjY and not options.adjX
        return value if is_plain else None
    is_product = kind == "FULLY_CONNECTED" and not _activation(operator)
    return file.constant(file.main.tensors[int(operator.inputs[1])]) if is_product else None


def _layers(file: TFLiteFile) -> Iterator[_Layer]:
    graph = file.main
    makers = {int(i): item for item in graph.operators for i in item.outputs}
    readers = _readers(graph)

    def only_reader(index: int) -> Any:
        users = readers.get(index, [])
        return users[0] if len(users) == 1 else None

    def shape(index: Any) -> list[int]:
        return [int(axis) for axis in graph.tensors[int(index)].shape]

    def step_of(part: int) -> _Step:
        total = only_reader(part)
        if total is None or file.kind(total) != "ADD" or _activation(total):
            return _Step(part)
        other = next((int(i) for i in total.inputs if int(i) != part), part)
        product = makers.get(other)
        value = None if product is None else _weights_of(file, product)
        if product is None or value is None or only_reader(other) is not total:
            return _Step(part)
        has_bias = any(int(i) >= 0 for i in product.inputs[2:])
        if has_bias or shape(product.inputs[0]) != [1, value.shape[1]]:
            return _Step(part)
        return _Step(part, product, total, value)

    for unpack in graph.operators:
        if file.kind(unpack) != "UNPACK" or int(unpack.builtinOptions.axis):
            continue
        inputs = [unpack]
        while file.kind(inputs[0]) in ("UNPACK", "RESHAPE"):
            index = int(inputs[0].inputs[0])
            if index not in makers or only_reader(index) is None:
                break
            inputs.insert(0, makers[index])
        weights = _weights_of(file, inputs[0])
        if weights is None or shape(unpack.outputs[0]) != [1, len(weights)]:  # of several samples
            continue
        if math.prod(shape(inputs[0].inputs[0])) != len(unpack.outputs) * weights.shape[1]:
            continue
        steps = [step_of(int(part)) for part in unpack.outputs]
        recurrent = {key_of(step.weights): step.weights for step in steps if step.product}
        if len(recurrent) == 1:
            (value,) = recurrent.values()
            yield _Layer(inputs, weights, value, steps)


def _activation(operator: Any) -> int:
    return int(operator.builtinOptions.fusedActivationFunction)


def _join(file: TFLiteFile, layer: _Layer, ranges: Ranges, factor: float, common: Range) -> None:
    """Replace the operators of a layer, whose inputs are multiplied by ``factor``, in place.

    ``common`` is the range of new values.
    """
    graph = file.main
    first, unpack = layer.inputs[0], layer.inputs[-1]
    source, bias = int(first.inputs[0]), [int(i) for i in first.inputs[2:]]
    name = file.name(graph.tensors[int(first.outputs[0])])
    features = layer.weights.shape[1]

    def tensor(suffix: str, shape: list[int], value: Array | None = None) -> int:
        dtype = "INT32" if value is not None and value.dtype == np.int32 else "FLOAT32"
        index = file.add_tensor(graph, f"{name}/{suffix}", dtype, shape, value=value)
        if value is None:
            ranges[index] = common
        return index

    def product(x: int, weights: int, output: int) -> Any:
        operator = file.new_operator("FULLY_CONNECTED", [x, weights, *bias], [output])
        operator.builtinOptionsType = file.schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = file.schema.FullyConnectedOptionsT()
        return operator

    constant = tensor("factor", [1], np.array([factor], np.float32))
    scaled = tensor("scaled", list(graph.tensors[source].shape))
    prepared = [file.new_operator("MUL", [source, constant], [scaled])]
    prepared[-1].builtinOptionsType = file.schema.BuiltinOptions.MulOptions
    prepared[-1].builtinOptions = file.schema.MulOptionsT()
    shape = np.array([len(layer.steps), 1, features], np.int32)
    by_step = tensor("steps", shape.tolist())
    sizes = tensor("sizes", [3], shape)
    prepared.append(file.new_operator("RESHAPE", [scaled, sizes], [by_step]))
    parts = [tensor(f"step_{k}", [1, features]) for k in range(len(layer.steps))]
    prepared.append(file.new_operator("UNPACK", [by_step], parts))
    prepared[-1].builtinOptionsType = file.schema.BuiltinOptions.UnpackOptions
    prepared[-1].builtinOptions = unpack.builtinOptions

    weights = (layer.weights / np.float32(factor)).astype(np.float32)
    joined = np.concatenate([weights, layer.recurrent], axis=1)
    weights_index = tensor("weights", list(weights.shape), weights)
    joined_index = tensor("joined_weights", list(joined.shape), joined)
    replaced: dict[int, list[Any]] = {id(item): [] for item in layer.inputs}
    replaced[id(unpack)] = prepared
    for k, step in enumerate(layer.steps):
        if step.product is None:
            prepared.append(product(parts[k], weights_index, step.part))
            continue
        row = tensor(f"joined_{k}", [1, joined.shape[1]])
        state = int(step.product.inputs[0])
        join = file.new_operator("CONCATENATION", [parts[k], state], [row])
        join.builtinOptionsType = file.schema.BuiltinOptions.ConcatenationOptions
        join.builtinOptions = file.schema.ConcatenationOptionsT()
        join.builtinOptions.axis = 1
        replaced[id(step.product)] = []
        replaced[id(step.total)] = [join, product(row, joined_index, int(step.total.outputs[0]))]
    graph.operators = [new for item in graph.operators for new in replaced.get(id(item), [item])]


def _of_one_scale(file: TFLiteFile, states: list[int], ranges: Ranges) -> set[int]:
    """``states`` and the values with a range that have one scale with them, such as all states of
    an output sequence."""
    readers: dict[int, list[Any]] = {}
    for operator in file.main.operators:
        if file.kind(operator) in SAME_SCALE:
            for index in set(map(int, operator.inputs)):
                readers.setdefault(index, []).append(operator)
    pending, shared = list(states), set[int]()
    while pending:
        index = pending.pop()
        if index in ranges and index not in shared:
            shared.add(index)
            for operator in readers.get(index, []):
                pending += [int(i) for i in (*operator.inputs, *operator.outputs)]
    return shared
