"""Integers in and out: a ``.tflite`` file whose ends are quantized as its inside is.

What has no range that was measured stays as it is, as tokens do: they are names, not numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.tensors import TensorSpec
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.tflite_ranges import Ranges

LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767)}


def scale_of(low: float, high: float, dtype: str) -> tuple[float, int]:
    """Scale and zero point for real numbers from ``low`` to ``high``, zero among them.

    Symmetric for int16, as TFLite's kernels want it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    smallest, largest = LIMITS[dtype]
    if dtype == "int16":
        return float(np.float32((max(-low, high) or 1.0) / largest)), 0
    scale = float(np.float32((high - low) / (largest - smallest) or 1.0))
    return scale, int(np.clip(round(smallest - low / scale), smallest, largest))


def use_integer_io(
    file: TFLiteFile,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    measured: Ranges,
    dtype: str,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Float inputs and outputs become ``dtype``, in place: what they then are.

    ``measured`` are the ranges of the graph's own inputs and outputs.
    """
    graph = file.main
    told: tuple[list[TensorSpec], list[TensorSpec]] = ([], [])
    for specs, end, result in ((inputs, "inputs", told[0]), (outputs, "outputs", told[1])):
        indices = [int(i) for i in getattr(graph, end)]
        for position, spec in enumerate(specs):
            index = indices[position]
            if spec.dtype != "float32" or index not in measured:
                result.append(spec)
                continue
            low, high = measured[index]
            twin = (_input if end == "inputs" else _output)(file, index, low, high, dtype)
            parameters = graph.tensors[twin].quantization
            result.append(
                replace(
                    spec,
                    dtype=dtype,
                    scale=float(parameters.scale[0]),
                    zero_point=int(parameters.zeroPoint[0]),
                )
            )
            graph.tensors[index].name = f"{spec.name}/float32"
            graph.tensors[twin].name = spec.name
            indices[position] = twin
        setattr(graph, end, indices)
    file.set_signature(inputs, outputs)
    return tuple(told[0]), tuple(told[1])


def _input(file: TFLiteFile, index: int, low: float, high: float, dtype: str) -> int:
    graph = file.main
    users = [o for o in graph.operators if index in map(int, o.inputs)]
    quantizing = [o for o in users if file.kind(o) == "QUANTIZE"]
    if len(users) == len(quantizing) == 1:
        graph.operators = [o for o in graph.operators if o is not quantizing[0]]
        return int(quantizing[0].outputs[0])
    twin = _twin(file, index, low, high, dtype)
    graph.operators.insert(0, _operator(file, "DEQUANTIZE", twin, index))
    return twin


def _output(file: TFLiteFile, index: int, low: float, high: float, dtype: str) -> int:
    graph = file.main
    maker = next((o for o in graph.operators if index in map(int, o.outputs)), None)
    taken = any(index in map(int, o.inputs) for o in graph.operators)
    if maker is not None and file.kind(maker) == "DEQUANTIZE" and not taken:
        source = int(maker.inputs[0])
        if source not in map(int, graph.outputs):
            graph.operators = [o for o in graph.operators if o is not maker]
            return source
    twin = _twin(file, index, low, high, dtype)
    graph.operators.append(_operator(file, "QUANTIZE", index, twin))
    return twin


def _twin(file: TFLiteFile, index: int, low: float, high: float, dtype: str) -> int:
    source = file.main.tensors[index]
    scale, zero_point = scale_of(low, high, dtype)
    tensor = file.schema.TensorT()
    tensor.shape, tensor.shapeSignature = source.shape, source.shapeSignature
    tensor.type, tensor.buffer = file.type_code(dtype.upper()), 0
    tensor.quantization = file.schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
    file.main.tensors.append(tensor)
    return len(file.main.tensors) - 1


def _operator(file: TFLiteFile, kind: str, source: int, target: int) -> Any:
    operator = file.schema.OperatorT()
    operator.opcodeIndex = file.code_index(kind, 2)
    operator.inputs, operator.outputs = [source], [target]
    return operator
