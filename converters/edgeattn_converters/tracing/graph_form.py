"""How Keras and TensorFlow write a model down as a graph, while converters trace it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.graphs.operation_creation import Creation, created_by
from edgeattn_converters.graphs.signatures import CALLS, with_constants


@contextlib.contextmanager
def inlined() -> Iterator[None]:
    """Trace functions within the model into its graph, because converters cannot convert calls.

    Keras compiles such functions for grouped convolutions.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def known_branches() -> Iterator[None]:
    """Trace only one branch of a condition whose value is known while tracing.

    The result of both has no known rank if the batch axis is free. ``keras.ops.associative_scan``
    writes such conditions, about numbers of steps, and ``tf.image.ssim_multiscale`` about sizes.
    """
    import tensorflow as tf
    from tensorflow.python.ops import cond as conditions  # which functions of TensorFlow call, too

    original = conditions.cond

    def cond(pred: Any, true_fn: Any = None, false_fn: Any = None, **options: Any) -> Any:
        known = tf.get_static_value(pred) if tf.is_tensor(pred) else None
        if known is None:
            return original(pred, true_fn, false_fn, **options)
        return tf.nest.map_structure(_as_tensor, true_fn() if known else false_fn())

    conditions.cond = cond
    try:
        yield
    finally:
        conditions.cond = original


@contextlib.contextmanager
def switches_as_conditions() -> Iterator[list[tuple[Any, int]]]:
    """Trace ``keras.ops.switch`` and ``tf.switch_case`` as conditions inside each other.

    Neither TFLite nor ONNX has an operator that selects one of several branches. Yields the indices
    with the number of their branches.
    """
    import tensorflow as tf
    from tensorflow.python.ops import cond_v2

    original = cond_v2.indexed_case
    switches: list[tuple[Any, int]] = []

    def indexed_case(branch_index: Any, branch_fns: Sequence[Any], **_: Any) -> Any:
        index = tf.convert_to_tensor(branch_index)
        switches.append((index, len(branch_fns)))
        *before, last = branch_fns  # TensorFlow takes the last branch for any other index, too

        def from_branch(k: int) -> Any:
            if k == len(before):
                return last()
            return tf.cond(tf.equal(index, k), before[k], lambda: from_branch(k + 1))

        return from_branch(0)

    cond_v2.indexed_case = indexed_case
    try:
        yield switches
    finally:
        cond_v2.indexed_case = original


@contextlib.contextmanager
def averages_of_known_shape() -> Iterator[None]:
    """Trace averages with a vector of weights as sums over the axis.

    Keras multiplies with the weights along an axis that is a tensor, after which TensorFlow does
    not even know the number of axes.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy

    original = numpy.average

    def average(x: Any, axis: Any = None, weights: Any = None) -> Any:
        if isinstance(axis, int) and weights is not None:
            x, weights = tf.convert_to_tensor(x), tf.convert_to_tensor(weights)
            if weights.shape.rank == 1 and (x.shape.rank or 0) > 1:
                sizes = [1] * x.shape.rank
                sizes[axis] = -1
                weights = tf.reshape(weights, sizes)
        return original(x, axis=axis, weights=weights)

    numpy.average = average
    try:
        yield
    finally:
        numpy.average = original


@contextlib.contextmanager
def reshapes_of_free_batches() -> Iterator[None]:
    """Trace reshapes to a shape with one unknown size, as in ``tf.reshape(x, [x.shape[0], 6])``.

    They work in ``model.predict`` as long as all batches have one size, which it knows then.
    ``keras.ops.unfold`` and ``unravel_index`` have them, and layers of the user.
    """
    import tensorflow as tf

    original = tf.reshape

    def reshape(tensor: Any, shape: Any, name: Any = None) -> Any:
        if isinstance(shape, list | tuple | tf.TensorShape):
            sizes = list(shape)
            unknown = [k for k, size in enumerate(sizes) if size is None]
            if len(unknown) == 1 and not any(isinstance(n, int) and n < 0 for n in sizes):
                shape = [*sizes[: unknown[0]], -1, *sizes[unknown[0] + 1 :]]
        return original(tensor, shape, name)

    tf.reshape = reshape
    try:
        yield
    finally:
        tf.reshape = original


@contextlib.contextmanager
def no_argpartition() -> Iterator[None]:
    """Raise :class:`UnsupportedModelError` for ``keras.ops.argpartition`` in layers of the user.

    In functional models, its operation is refused when they are loaded.
    """
    from keras.src.backend.tensorflow import numpy

    original = numpy.argpartition

    def argpartition(x: Any, kth: int, axis: int = -1) -> Any:
        error = UnsupportedModelError(
            "A layer calls keras.ops.argpartition, which Keras computes with TensorFlow for a "
            "single row of integers only.",
            hint="Use keras.ops.argsort or keras.ops.top_k in its place.",
        )
        error.__dict__["_keras_call_info_injected"] = (
            True  # or Keras raises another one without the hint
        )
        raise error

    numpy.argpartition = argpartition
    try:
        yield
    finally:
        numpy.argpartition = original


@contextlib.contextmanager
def sorted_top_k() -> Iterator[list[str]]:
    """Trace every ``top_k`` with sorted results; yields the names of those that are not.

    TensorFlow defines no order for ``sorted=False``, and has another one than TFLite and ONNX,
    which sort. An attention map with a row for each of the k positions has that order.
    """
    unsorted: list[str] = []

    def creation(
        create: Creation, graph: Any, kind: str, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        attributes = kwargs.get("attrs")
        found = kind == "TopKV2" and attributes is not None and not attributes["sorted"].b
        if attributes is not None and found:
            attributes["sorted"].b = True
        operation = create(graph, kind, inputs, *args, **kwargs)
        if found:
            unsorted.append(operation.name)
        return operation

    with created_by(creation):
        yield unsorted


@contextlib.contextmanager
def single_elements_vectorized() -> Iterator[None]:
    """``vectorized_map`` has the same graph for a single element as for several.

    TensorFlow calls its function with the single element instead. In a file for one sample, the
    attention weights of the sample would have no batch axis, and may not be found.
    """
    from tensorflow.python.ops import array_ops
    from tensorflow.python.ops.parallel_for import control_flow_ops

    pfor, gather = control_flow_ops.pfor, control_flow_ops._broadcasting_gather

    def replaced(loop_fn: Callable[[Any], Any], iters: Any, **options: Any) -> Any:
        def body(i: Any) -> Any:
            before = control_flow_ops._broadcasting_gather
            # Of several elements, others may be single: these are the same in every iteration.
            is_single = isinstance(iters, int) and iters == 1
            control_flow_ops._broadcasting_gather = array_ops.gather if is_single else gather
            try:
                return loop_fn(i)
            finally:
                control_flow_ops._broadcasting_gather = before

        return pfor(body, iters, **options)

    control_flow_ops.pfor = replaced
    try:
        yield
    finally:
        control_flow_ops.pfor = pfor


def without_calls(function: Any) -> Any:
    """The concrete function with the functions that it calls as part of its graph."""
    kinds = {operation.type for operation in function.graph.get_operations()}
    if not kinds.intersection(CALLS):
        return function
    return with_constants(function)


def _as_tensor(value: Any) -> Any:
    """Numbers as tensors, as conditions return them."""
    import tensorflow as tf

    is_number = isinstance(value, bool | int | float | np.ndarray | np.generic)
    return tf.convert_to_tensor(value) if is_number else value


@contextlib.contextmanager
def sums_by_shape() -> Iterator[None]:
    """Add data tensors as tensors, not as biases.

    Keras adds a tensor as a bias if all its axes but one are 1. With a batch of 1 this includes
    data with one feature, (1, time, 1). TFLite has no such bias, and if there are as many features
    as steps, it would be added along the wrong axis.
    """
    import keras
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy

    original = numpy.add

    def add(x1: Any, x2: Any) -> Any:
        if not (tf.is_tensor(x1) and hasattr(x2, "shape")):
            return original(x1, x2)
        if len(x2.shape) < 2 or not is_data(x2):
            size = _size_of_first_axis_bias(x1, x2)
            if size is None:
                return original(x1, x2)
            x2 = tf.reshape(x2, [size, *[1] * (len(x1.shape) - 2)])
        dtype = keras.backend.result_type(x1.dtype.name, x2.dtype.name)
        return tf.add(tf.cast(x1, dtype), tf.cast(x2, dtype))

    numpy.add = add
    try:
        yield
    finally:
        numpy.add = original


def _size_of_first_axis_bias(x1: Any, x2: Any) -> int | None:
    """The size of the first axis after the batch if Keras adds ``x2`` along it, otherwise None.

    The TFLite converter does not convert such a bias.
    """
    sizes = [size for size in x2.shape if size != 1]
    if len(sizes) != 1 or len(x1.shape) < 3 or sizes[0] == x1.shape[-1]:
        return None
    return sizes[0] if sizes[0] == x1.shape[1] else None
