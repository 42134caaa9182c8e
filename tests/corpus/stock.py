"""The stock routes: TensorFlow's converter and tf2onnx, on the model in memory.

A route returns its outputs for samples that run one after the other, each in a batch of one.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .outputs import Arrays


def tflite(model: Any) -> Callable[[Arrays], Arrays]:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    content = bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter = Interpreter(model_content=content, num_threads=1)
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    names = _ordered(details, [tensor.name for tensor in model.inputs])
    outputs = _ordered(runner.get_output_details(), list(getattr(model, "output_names", [])))

    def run(arrays: Arrays) -> Arrays:
        feeds = {
            name: array.astype(details[name]["dtype"])
            for name, array in zip(names, arrays, strict=True)
        }
        values = runner(**feeds)
        return [np.array(values[name]) for name in outputs]

    return run


def onnx(model: Any) -> Callable[[Arrays], Arrays]:
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    signature = [
        tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=f"input_{index}")
        for index, tensor in enumerate(model.inputs)
    ]
    if hasattr(model, "_inputs_struct"):
        from edgeattn_converters.tracing.keras_call import pack

        # tf2onnx does not accept a model of Keras 3 itself.
        function = tf.function(
            lambda *tensors: tf.nest.flatten(model(pack(model, tensors), training=False)),
            input_signature=signature,
        )
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
        inputs = [f"input_{index}" for index in range(len(signature))]
    else:
        proto, _ = tf2onnx.convert.from_keras(model, opset=18)
        inputs = [tensor.name for tensor in model.inputs]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    details = {item.name: item for item in session.get_inputs()}
    names = _ordered(details, inputs)
    dtypes = {"tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool"}
    outputs = [item.name for item in session.get_outputs()]

    def run(arrays: Arrays) -> Arrays:
        feeds = {
            name: array.astype(dtypes.get(details[name].type, "float32"))
            for name, array in zip(names, arrays, strict=True)
        }
        return [np.asarray(value) for value in session.run(outputs, feeds)]

    return run


ROUTES = {"tflite": tflite, "onnx": onnx}


def _ordered(names: Any, wanted: list[str]) -> list[str]:
    """``names`` in the order of ``wanted`` if they are the same, or else by their numbers."""
    known = {re.sub(r":\d+$", "", name): name for name in names}
    plain = [re.sub(r":\d+$", "", name) for name in wanted]
    if sorted(known) == sorted(plain):
        return [known[name] for name in plain]
    return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
