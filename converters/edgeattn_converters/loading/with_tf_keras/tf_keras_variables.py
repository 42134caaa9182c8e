"""The variables that tf_keras loads from a file, in the process of :mod:`.tf_keras_worker`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn_converters.loading.weights.attribute_graph import Framework, graph_of
from edgeattn_converters.loading.with_tf_keras import (
    tf_keras_assignments,
    tf_keras_modules,
    tf_keras_worker,
)


def variables(source: Mapping[str, Any], tensors: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the variables that tf_keras assigns while it loads the file of ``source``.

    Args:
        source: see :func:`.tf_keras_worker.outputs`.
        tensors: one group of inputs by ``"0/number"``.

    Returns:
        The version of tf_keras, why the model failed, if it did, the ``edges`` of the attributes
        of the model (:mod:`.weights.attribute_graph`), and the numbers of the ``weights`` of the
        model; and the values from the file by the number of their variable.
    """
    tf_keras_modules.provide()
    import tensorflow as tf
    import tf_keras

    result: dict[str, Any] = {"version": tf_keras.__version__, "failure": None}
    try:
        inputs = tf_keras_worker.inputs_of(source, tensors, 0)
        build = tf_keras_worker.calling(source, inputs)
        model, assigned = tf_keras_assignments.loaded_completely(source, build)
    except Exception as error:
        return {**result, "failure": tf_keras_worker.reason(error)}, {}
    graph = graph_of(model, Framework(tf_keras.layers.Layer, tf.Variable))
    weights = {id(variable) for variable in model.weights}
    numbers = [n for n, item in enumerate(graph.variables) if id(item) in weights]
    if len(numbers) < len(weights):
        return {**result, "failure": "no attribute leads to some of its weights"}, {}
    values = {
        str(number): np.asarray(item)
        for number, item in enumerate(graph.variables)
        if id(item.handle) in assigned.values
    }
    return {**result, "edges": graph.edges, "weights": numbers}, values
