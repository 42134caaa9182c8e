"""The variables that tf_keras loads from a file, in the process of :mod:`.tf_keras_worker`."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np

from edgeattn_converters.loading import tf_keras_modules, tf_keras_worker
from edgeattn_converters.loading.weights.attribute_graph import Framework, graph_of


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
        with _recorded() as assigned:
            model = tf_keras_worker.loaded(source, tf_keras_worker.inputs_of(source, tensors, 0))
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
        # That of mixed precision contains another one.
        if id(getattr(item, "_variable", item)) in assigned
    }
    return {**result, "edges": graph.edges, "weights": numbers}, values


@contextlib.contextmanager
def _recorded() -> Iterator[dict[int, Any]]:
    """Return the variables, by id, to which tf_keras assigns values of a file in the context."""
    from tensorflow.python.ops import resource_variable_ops
    from tf_keras.src.saving import saving_lib
    from tf_keras.src.saving.legacy import hdf5_format

    assigned: dict[int, Any] = {}

    def recording(assign: Any) -> Any:
        def recorded(variable: Any, *args: Any, **kwargs: Any) -> Any:
            assigned[id(variable)] = variable
            return assign(variable, *args, **kwargs)

        return recorded

    def while_loading(load: Any) -> Any:
        def loading(*args: Any, **kwargs: Any) -> Any:
            with contextlib.ExitStack() as stack:
                for name in ("BaseResourceVariable", "ResourceVariable"):
                    cls = getattr(resource_variable_ops, name)
                    changed = recording(cls.assign)
                    stack.enter_context(mock.patch.object(cls, "assign", changed))
                return load(*args, **kwargs)

        return loading

    with contextlib.ExitStack() as stack:
        for module, name in (
            (saving_lib, "_load_state"),
            (hdf5_format, "load_weights_from_hdf5_group"),
        ):
            changed = while_loading(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, changed))
        yield assigned
