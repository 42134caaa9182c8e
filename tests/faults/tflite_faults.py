"""Faults planted in TFLite files, and in the manifest entries of such files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact

from .fault import ATTENTION, LOADING, NUMBERS, SMALL, STRUCTURE, Array, Fault, add_value, set_value


def tflite_fault(
    name: str, model_name: str, stage: str, edit: Callable[[Any], None], **more: Any
) -> Fault:
    def plant(content: bytes) -> bytes:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf(content, 0)
        edit(model)
        builder = flatbuffers.Builder(len(content) + 4096)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return Fault(name, model_name, stage, plant, **{"format": "tflite", **more})


def kinds(model: Any) -> list[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]


def operators(model: Any, kind: str) -> list[Any]:
    names = kinds(model)
    return [o for g in model.subgraphs for o in g.operators if names[o.opcodeIndex] == kind]


def tensors(model: Any, shape: tuple[int, ...]) -> list[Any]:
    """The constants of this shape."""
    return [
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.shape is not None
        and tuple(map(int, tensor.shape)) == shape
        and model.buffers[tensor.buffer].data is not None
        and len(model.buffers[tensor.buffer].data)
    ]


def edit_constant(
    shape: tuple[int, ...], function: Callable[[Array], Array], dtype: str = "float32"
) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        buffer = model.buffers[tensors(model, shape)[0].buffer]
        value = np.frombuffer(bytes(buffer.data), dtype).reshape(shape).copy()
        buffer.data = np.frombuffer(np.ascontiguousarray(function(value)).tobytes(), np.uint8)

    return edit


def _swap_output_names(model: Any) -> None:
    graph = model.subgraphs[0]
    one, other = (graph.tensors[int(i)] for i in list(graph.outputs)[:2])
    one.name, other.name = other.name, one.name
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            swapped = {b"yes": b"no", b"no": b"yes"}
            entry.name = swapped.get(entry.name, entry.name)


def _sharpen_softmax(model: Any) -> None:
    operators(model, "SOFTMAX")[0].builtinOptions.beta = 1.5


def _disable_reset(model: Any) -> None:
    """Disable the reset of a fused LSTM, which a flag in the last input column triggers."""
    fused = operators(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")[0]
    graph = model.subgraphs[0]
    for index in list(fused.inputs)[1:5]:
        tensor = graph.tensors[int(index)]
        shape = tuple(map(int, tensor.shape))
        buffer = model.buffers[tensor.buffer]
        value = np.frombuffer(bytes(buffer.data), np.float32).reshape(shape).copy()
        value[np.abs(value) >= np.abs(value).max() - 1e-6] *= 1e-6
        value[:, -1] = 0.0
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)


def _clip_cell(model: Any) -> None:
    operators(model, "UNIDIRECTIONAL_SEQUENCE_LSTM")[0].builtinOptions.cellClip = 10.0


def _scale(shape: tuple[int, ...], function: Callable[[Array], Array]) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        for tensor in tensors(model, shape)[:1]:
            tensor.quantization.scale = function(np.array(tensor.quantization.scale))

    return edit


def _shift_zero_point(model: Any) -> None:
    graph = model.subgraphs[0]
    tensor = graph.tensors[int(graph.outputs[0])]
    tensor.quantization.zeroPoint = [int(tensor.quantization.zeroPoint[0]) + 1]


def _shift_zero_point_in_manifest(artifact: Artifact, _: bytes) -> Artifact:
    (spec,) = artifact.outputs
    return replace(artifact, outputs=(replace(spec, zero_point=(spec.zero_point or 0) + 1),))


def _as_uint8(value: Array) -> Array:
    return (value.astype(np.int16) + 128).astype(np.uint8).view(np.int8)


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _set_option(kind: str, name: str, value: Any, position: int = 0) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        options = operators(model, kind)[position].builtinOptions
        assert getattr(options, name) != value
        setattr(options, name, value)

    return edit


def _become(kind: str, other: str) -> Callable[[Any], None]:
    """Replace all operators of a kind by others that have the same options, or none."""

    def edit(model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        code = getattr(schema.BuiltinOperator, other)
        entry = model.operatorCodes[kinds(model).index(kind)]
        entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)

    return edit


def _truncate_quotient(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    for operator in operators(model, "FLOOR_DIV"):
        operator.builtinOptionsType = schema.BuiltinOptions.DivOptions
        operator.builtinOptions = schema.DivOptionsT()
    _become("FLOOR_DIV", "DIV")(model)


def _swap_operands(model: Any) -> None:
    difference = operators(model, "SUB")[0]
    difference.inputs = [difference.inputs[1], difference.inputs[0]]


def _one_step_early(model: Any) -> None:
    graph = model.subgraphs[0]
    index = graph.tensors[int(operators(model, "GATHER")[0].inputs[1])]
    buffer = model.buffers[index.buffer]
    value = np.frombuffer(bytes(buffer.data), np.int32) - 1
    # A buffer of its own, because others may share the constant.
    model.buffers.append(type(buffer)(data=np.frombuffer(value.tobytes(), np.uint8)))
    index.buffer = len(model.buffers) - 1


def _ten_steps(value: Array) -> Array:
    value[3, 5] += 10 if value[3, 5] < 100 else -10
    return value


def _narrow_range(model: Any) -> None:
    """A quarter of the range of the values that the last layer reads, so that they saturate."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[int(operators(model, "FULLY_CONNECTED")[-1].inputs[0])]
    tensor.quantization.scale = np.array(tensor.quantization.scale) / 4


TFLITE_FAULTS = [
    tflite_fault(
        "slope of LeakyReLU from PyTorch",
        "scanner",
        NUMBERS,
        _set_option("LEAKY_RELU", "alpha", 0.01),
    ),
    tflite_fault(
        "average instead of maximum", "scanner", NUMBERS, _become("MAX_POOL_2D", "AVERAGE_POOL_2D")
    ),
    tflite_fault(
        "dilation omitted", "scanner", NUMBERS, _set_option("CONV_2D", "dilationWFactor", 1, 1)
    ),
    tflite_fault(
        "relu6 limited to 1",
        "scanner",
        NUMBERS,
        _set_option("FULLY_CONNECTED", "fusedActivationFunction", 2, 1),
    ),
    tflite_fault("query shifted by one step", "watcher", ATTENTION, _one_step_early),
    tflite_fault("operands of 1 - x swapped", "ledger", NUMBERS, _swap_operands),
    tflite_fault("quotient of integers truncated", "ledger", NUMBERS, _truncate_quotient),
    tflite_fault(
        "one scale for all rows of a weight",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: np.full_like(s, s[0])),
        scheme="int8",
    ),
    tflite_fault(
        "one int8 weight wrong by ten steps",
        "digits",
        NUMBERS,
        edit_constant((256, 64), _ten_steps, "int8"),
        scheme="int8",
        outside=SMALL,
    ),
    tflite_fault("inner values saturate", "digits", NUMBERS, _narrow_range, scheme="int8"),
    tflite_fault("state of a fused LSTM not reset", "fused", NUMBERS, _disable_reset),
    tflite_fault("cell of a fused LSTM clipped at 10", "fused", STRUCTURE, _clip_cell),
    tflite_fault(
        "one gate's recurrent kernel transposed",
        "watcher",
        NUMBERS,
        edit_constant((28, 7), lambda v: np.concatenate([v[:7].T, v[7:]])),
    ),
    tflite_fault(
        "recurrent gates rolled",
        "watcher",
        NUMBERS,
        edit_constant((28, 7), lambda v: np.roll(v, 7, 0)),
    ),
    tflite_fault("outputs swapped", "pair", NUMBERS, _swap_output_names),
    tflite_fault(
        "softmax temperature of attention too low", "watcher", ATTENTION, _sharpen_softmax
    ),
    tflite_fault(
        "one class's bias increased by 0.01",
        "watcher",
        NUMBERS,
        edit_constant((4,), add_value(2, 0.01)),
    ),
    tflite_fault(
        "outdated row of the embedding",
        "reader",
        NUMBERS,
        edit_constant((29, 5), add_value(23, 0.1)),
    ),
    tflite_fault(
        "NaN in one word's embedding",
        "reader",
        NUMBERS,
        edit_constant((29, 5), set_value((17, 2), np.nan)),
    ),
    tflite_fault(
        "a weight overflowed in float16",
        "digits",
        NUMBERS,
        edit_constant((32, 128), set_value((3, 3), np.inf), "float16"),
        scheme="float16",
    ),
    tflite_fault(
        "int8 scales of the recurrence shifted by one row",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: np.roll(s, 1)),
        scheme="dynamic_int8",
    ),
    tflite_fault(
        "int8 scales of the recurrence doubled",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: 2 * s),
        scheme="dynamic_int8",
    ),
    tflite_fault(
        "int8 weights read as uint8",
        "digits",
        NUMBERS,
        edit_constant((256, 64), _as_uint8, "int8"),
        scheme="dynamic_int8",
    ),
    tflite_fault(
        "int8 scales of the recurrence halved",
        "digits",
        NUMBERS,
        _scale((256, 64), lambda s: s / 2),
        scheme="int8",
    ),
    tflite_fault(
        "zero point off by one",
        "integers",
        NUMBERS,
        _shift_zero_point,
        scheme="int8",
        entry=_shift_zero_point_in_manifest,
    ),
    Fault("half a file", "watcher", LOADING, _truncate, format="tflite"),
    Fault("half a file", "watcher", LOADING, _truncate),
]
