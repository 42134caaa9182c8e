"""Biases of transposed convolutions in ``.tflite`` files, one for each channel."""

import numpy as np

from edgeattn_converters.graphs.tflite_file import TFLiteFile


def extend_scalar_biases(file: TFLiteFile) -> None:
    """Repeat the single value of a bias for each channel, in place.

    TensorFlow's converter makes a number that is added to a transposed convolution without a bias
    its bias, and the runtime then reads memory behind it.
    """
    for graph, operator, kind in file.operators():
        if kind != "TRANSPOSE_CONV" or len(operator.inputs) < 4 or int(operator.inputs[3]) < 0:
            continue
        bias = file.constant(graph.tensors[int(operator.inputs[3])])
        channels = int(graph.tensors[int(operator.inputs[1])].shape[0])
        if bias is None or bias.size != 1 or channels == 1:
            continue
        values = np.full(channels, bias.reshape(()), bias.dtype)
        name = file.name(graph.tensors[int(operator.inputs[3])])
        inputs = [int(index) for index in operator.inputs]
        inputs[3] = file.add_tensor(graph, f"{name}/channels", "FLOAT32", [channels], value=values)
        operator.inputs = inputs
