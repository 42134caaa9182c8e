"""Comparisons with constants in files of int8 operators only.

TensorFlow's quantizer leaves them float32, although the kernels of LiteRT compare integers.
"""

from typing import Any

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.arithmetic import INTEGER_RANGES
from edgeattn_converters.quantization.integer_forms import COMPARISONS, ROUNDING, integer_threshold
from edgeattn_converters.quantization.mask_values import (
    COMPARING,
    MaskValue,
    saturated,
    tflite_mask_values,
)


def compare_integers(file: TFLiteFile) -> None:
    """Let comparisons of real numbers with a constant read int8 values, in place.

    A comparison stays float32 if its value is beyond the integers, or between two of them, so that
    it would depend on the last digit of a quotient to which of them a program rounds it.
    """
    graph = file.main
    integers = _integers(file)
    masks = tflite_mask_values(file)
    for operator in graph.operators:
        if file.kind(operator) not in COMPARISONS:
            continue
        source, constant = map(int, operator.inputs)
        value = file.constant(graph.tensors[constant])
        if source not in integers or value is None or value.dtype != np.float32:
            continue
        quantized = graph.tensors[integers[source]]
        mask = masks.get(source)
        threshold = _threshold(file.kind(operator), value, quantized.quantization, mask)
        if threshold is not None:
            compared = file.add_tensor(
                *(graph, "", "INT8", value.shape),
                value=threshold,
                quantization=quantized.quantization,
            )
            operator.inputs = [integers[source], compared]
    _quantize_first(file)


def _integers(file: TFLiteFile) -> dict[int, int]:
    """The int8 counterparts of float32 tensors."""
    tensors, found = file.main.tensors, dict[int, int]()
    for operator in file.main.operators:
        kind = file.kind(operator)
        if kind not in ("QUANTIZE", "DEQUANTIZE"):
            continue
        source, result = int(operator.inputs[0]), int(operator.outputs[0])
        real, integer = (source, result) if kind == "QUANTIZE" else (result, source)
        if (file.dtype(tensors[real]), file.dtype(tensors[integer])) == ("FLOAT32", "INT8"):
            found[real] = integer
    return found


def _threshold(kind: str, value: Any, parameters: Any, mask: MaskValue | None) -> Any:
    scale, zero_point = float(parameters.scale[0]), int(parameters.zeroPoint[0])
    low, high = INTEGER_RANGES["int8"]
    exact = np.asarray(value, np.float64) / scale
    ends = [np.clip(np.rint(exact + by) + zero_point, low, high) for by in (-ROUNDING, ROUNDING)]
    threshold = integer_threshold(kind, value, scale) + zero_point
    if kind in COMPARING:
        exact = saturated(mask, exact + zero_point, "int8") - zero_point
    is_within = (exact + zero_point >= low - 0.5).all() and (exact + zero_point <= high + 0.5).all()
    if not is_within or not np.array_equal(*ends):
        return None
    return np.clip(threshold, low, high).astype(np.int8)


def _quantize_first(file: TFLiteFile) -> None:
    """Move every operator that makes an integer input of a comparison before the comparison."""
    operators = list(file.main.operators)
    makers = {int(i): item for item in operators for i in item.outputs}
    ordered: list[Any] = []
    for operator in operators:
        if file.kind(operator) in COMPARISONS:
            maker = makers.get(int(operator.inputs[0]))
            if maker is not None and not any(maker is item for item in ordered):
                ordered.append(maker)
        if not any(operator is item for item in ordered):
            ordered.append(operator)
    file.main.operators = ordered
