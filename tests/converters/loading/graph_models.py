"""Models of Keras 2.0 to 2.3, which store operations of TensorFlow as nodes of its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow_calls import INPUTS
from tf_keras.src.engine.base_layer import TensorFlowOpLayer

v1 = tf.compat.v1


def graph_model(calls: Iterable[Callable[[Any], Any]]) -> tuple[Any, list[int]]:
    """A model with a layer for each node of the calls, and the number of outputs of each call."""
    keras_inputs = {
        name: tf_keras.Input(shape, dtype=_dtype(low), name=name)
        for name, (shape, low, _) in INPUTS.items()
    }
    outputs, counts = [], []
    for number, call in enumerate(calls):
        with tf.Graph().as_default() as graph:
            tensors = {
                name: v1.placeholder(_dtype(low), (None, *shape), name=name)
                for name, (shape, low, _) in INPUTS.items()
            }
            results = tf.nest.flatten(call(SimpleNamespace(**tensors)))
        known = {tensors[name].ref(): tensor for name, tensor in keras_inputs.items()}
        converted = _Nodes(graph, known, f"call{number}")
        outputs += [converted.keras_tensor(tensor) for tensor in results]
        counts.append(len(results))
    return tf_keras.Model(list(keras_inputs.values()), outputs), counts


def _dtype(low: Any) -> str:
    return "int32" if isinstance(low, int) else "float32"


class _Nodes:
    """Layers for the nodes of a graph; what depends on no input is a constant of its user."""

    def __init__(self, graph: Any, known: dict[Any, Any], prefix: str) -> None:
        self._graph, self._known, self._prefix = graph, known, prefix
        self._of_data: dict[Any, bool] = {}

    def keras_tensor(self, tensor: Any) -> Any:
        if tensor.ref() not in self._known:
            self._add_layer(tensor.op)
        return self._known[tensor.ref()]

    def _add_layer(self, operation: Any) -> None:
        constants: dict[int, Any] = {}
        inputs = []
        for index, source in enumerate(operation.inputs):
            if self._depends_on_data(source):
                inputs.append(self.keras_tensor(source))
            else:
                with v1.Session(graph=self._graph) as session:
                    constants[index] = session.run(source)
        node = operation.node_def
        name = f"{self._prefix}_{operation.name}".replace("/", "_")
        node.name = name
        results = TensorFlowOpLayer(node.SerializeToString(), name, constants)(inputs)
        for tensor, result in zip(operation.outputs, tf.nest.flatten([results]), strict=True):
            self._known[tensor.ref()] = result

    def _depends_on_data(self, tensor: Any) -> bool:
        if tensor.ref() in self._known:
            return True
        operation = tensor.op
        if operation not in self._of_data:
            self._of_data[operation] = operation.type == "Placeholder" or any(
                self._depends_on_data(source) for source in operation.inputs
            )
        return self._of_data[operation]
