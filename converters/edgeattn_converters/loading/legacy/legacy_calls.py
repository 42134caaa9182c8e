"""Functions that programs for Keras 2 call with Keras tensors: of TensorFlow, and of the backend.

Keras 2 put a layer around such a call. TensorFlow 2.3 and earlier accepted every function; later
ones those that TensorFlow offers to other modules if they fail, its dispatch.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any
from unittest import mock

from edgeattn_converters.loading.legacy.call_layers import BACKEND, has_tensors, result_of

# The attribute of functions with dispatch.
_DISPATCHED = "_tf_fallback_dispatchers"
# Functions of the backend that return no tensor, with their results for Keras tensors.
_VALUES: dict[str, Callable[[Any], Any]] = {
    "dtype": lambda tensor: tensor.dtype,
    "is_keras_tensor": lambda tensor: True,
    "is_sparse": lambda tensor: bool(tensor.sparse),
    "is_variable": lambda tensor: False,
    "ndim": lambda tensor: len(tensor.shape),
}
# Of the contexts of :func:`as_layers` that are open.
_open: list[None] = []


@contextlib.contextmanager
def as_layers() -> Iterator[None]:
    """Let functions of TensorFlow, and of the backend of Keras 2, accept Keras tensors."""
    import keras
    import tensorflow as tf

    _register()
    _multiply_by_numbers()
    _open.append(None)
    with contextlib.ExitStack() as stack:
        stack.callback(_open.pop)
        for module, accepting in (
            (tf.signal, _not_dispatched),
            (keras.backend, _of_backend),
            (tf.keras.backend, _of_backend),
        ):
            for name, function in list(vars(module).items()):
                if isinstance(function, FunctionType) and not hasattr(function, _DISPATCHED):
                    changed = accepting(function, name)
                    stack.enter_context(mock.patch.object(module, name, changed))
        yield


@functools.cache
def _register() -> None:
    import tensorflow as tf

    class OfKerasTensors(tf.__internal__.dispatch.GlobalOpDispatcher):
        """Gets the functions with dispatch that do not accept their arguments."""

        def handle(self, op: Any, args: Any, kwargs: Any) -> Any:
            if not _open or not has_tensors(args, kwargs):
                return self.NOT_SUPPORTED
            return result_of(op, _path(op), args, kwargs)

    OfKerasTensors().register()


@functools.cache
def _multiply_by_numbers() -> None:
    """Let a Keras tensor times a number be dense. Keras 3 takes numbers and arrays for sparse ones,
    and so the product, which functions of TensorFlow then do not accept.

    It lasts, because a model is built again after its program has run.
    """
    import keras
    from keras.src.ops.numpy import Multiply

    of_keras = Multiply.compute_output_spec

    @functools.wraps(of_keras)
    def compute_output_spec(operation: Any, x1: Any, x2: Any) -> Any:
        product = of_keras(operation, x1, x2)
        sparse = any(getattr(factor, "sparse", False) for factor in (x1, x2))
        return keras.KerasTensor(product.shape, product.dtype, sparse=sparse)

    Multiply.compute_output_spec = compute_output_spec


def _not_dispatched(function: Callable[..., Any], _name: str) -> Callable[..., Any]:
    """Return a function without dispatch, such as ``tf.signal.rfft``, that has it."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if not _open or not has_tensors(args, kwargs):
            return function(*args, **kwargs)
        return result_of(function, _path(function), args, kwargs)

    return called


def _of_backend(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function of the backend of Keras 2; some accept Keras tensors themselves."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if _open and name in _VALUES and has_tensors(args, kwargs):
            return _VALUES[name](*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError, AttributeError):
            if not _open or not has_tensors(args, kwargs):
                raise
        return result_of(function, f"{BACKEND}{name}", args, kwargs)

    return called


def _path(function: Any) -> str:
    """Return the name of a function in a file of Keras 2, such as ``math.log``."""
    from tensorflow.python.util import tf_export

    name = tf_export.get_canonical_name_for_symbol(function, add_prefix_to_v1_names=True)
    return str(name or getattr(function, "__name__", "function"))
