"""Conversions that TensorFlow's quantizer writes in another order in every run."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from test_micro import outputs, tflite_of

from edgeattn_converters.graphs.tflite_cleanup import sort_conversions
from edgeattn_converters.graphs.tflite_file import TFLiteFile

PARTS, SCALE = 3, 0.05


def weighted_sum(x):
    """Another result for every exchange of parts."""
    import tensorflow as tf

    first, second, third = tf.unstack(x)
    return first - tf.tanh(second) + first * third


def with_conversions(content: bytes, order: tuple[int, ...]) -> TFLiteFile:
    """Each part as int8 and back; the operators and tensors have the given order."""
    file = TFLiteFile(content)
    graph = file.main
    (position,) = (n for n, item in enumerate(graph.operators) if file.kind(item) == "UNPACK")
    parts = [int(index) for index in graph.operators[position].outputs]
    quantization = file.quantization(np.array([SCALE], np.float32))
    integers, floats = {}, {}
    for part in order:
        integers[part] = file.add_tensor(graph, "", "INT8", [4], quantization=quantization)
    for part in order:
        floats[part] = file.add_tensor(graph, "", "FLOAT32", [4])
    for item in graph.operators[position + 1 :]:
        item.inputs = [
            floats[parts.index(int(index))] if int(index) in parts else int(index)
            for index in item.inputs
        ]
    conversions = [
        *(file.new_operator("QUANTIZE", [parts[n]], [integers[n]], 2) for n in order),
        *(file.new_operator("DEQUANTIZE", [integers[n]], [floats[n]], 2) for n in order),
    ]
    graph.operators[position + 1 : position + 1] = conversions
    return file


def test_every_order_becomes_the_same_file() -> None:
    content = tflite_of(weighted_sum, (PARTS, 4))
    x = np.random.default_rng(0).normal(size=(PARTS, 4)).astype("float32")
    first, second, third = np.rint(x / SCALE) * SCALE
    expected = first - np.tanh(second) + first * third
    before, after = set(), set()
    for order in permutations(range(PARTS)):
        file = with_conversions(content, order)
        before.add(file.pack())
        sort_conversions(file)
        after.add(file.pack())
        np.testing.assert_allclose(outputs(file.pack(), x), expected, atol=1e-5)
    assert len(before) == 6
    assert len(after) == 1
