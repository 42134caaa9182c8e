"""What classes of the user that are written for Keras 2 find in their layers."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.weights import replaced_weights

# The first release of Keras that is tf.keras, without a suffix of its version.
FIRST_OF_TENSORFLOW = (2, 4)

# The arguments of add_weight in Keras 2, in their order.
_OF_WEIGHTS = ("name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint")
# Those that choose where and how its variable is kept.
_OF_VARIABLES = frozenset({"aggregation", "caching_device", "collections", "layout", "partitioner",
                           "synchronization", "use_resource"})  # fmt: skip
_RESTORES = "_restores_weights"


def is_of_tensorflow(stored: object, version: Sequence[int]) -> bool:
    """Return whether the Keras of a stored version, and its numbers, is tf.keras 1 or 2."""
    return str(stored).endswith("-tf") or FIRST_OF_TENSORFLOW <= tuple(version) < (3,)


def computes_in_graph(stored: object, version: Sequence[int]) -> bool:
    """Return whether the Keras of a stored version built layers in the graph of TensorFlow 1.

    This is any Keras of its own before 2.4, and tf.keras before 2.3; 2.2.4-tf is also that of
    TensorFlow 2.0 and 2.1.
    """
    return () < tuple(version) < ((2, 3) if str(stored).endswith("-tf") else FIRST_OF_TENSORFLOW)


def restore_weights(cls: Any) -> None:
    """Let ``call`` of a class, and of its parents, assign tensors to attributes with weights.

    The next call gets the weights again. In Keras before 2.4, a call was part of one graph, and the
    tensors of a graph are unknown in any other.
    """
    for parent in cls.__mro__:
        method = vars(parent).get("call")
        if is_own_class(parent) and inspect.isfunction(method) and not hasattr(method, _RESTORES):
            parent.call = _restoring(method)


def _restoring(method: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    @functools.wraps(method)
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        weights = {
            name: value for name, value in vars(layer).items() if isinstance(value, keras.Variable)
        }
        try:
            return method(layer, *args, **kwargs)
        finally:
            vars(layer).update(weights)

    setattr(call, _RESTORES, True)
    return call


@contextlib.contextmanager
def seeds_in_graphs() -> Iterator[None]:
    """Let ``call`` create layers such as ``Dropout``, which have the state of a random generator.

    It is a variable in Keras 3. A graph may create none when it is traced again, and layers that
    each call creates do not need one: nothing remains of them.
    """
    import keras
    import tensorflow as tf
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    create = keras.random.SeedGenerator.__init__

    @functools.wraps(create)
    def without_variable(
        generator: Any, seed: Any = None, name: str | None = None, **kwargs: Any
    ) -> None:
        if tf.executing_eagerly() or in_stateless_scope():
            create(generator, seed, name, **kwargs)
            return
        generator.name, generator.state = name, tf.zeros(2, tf.uint32)
        # A random number each time, whatever the seed.
        generator.next = lambda **_: tf.cast(
            tf.random.uniform((2,), maxval=tf.int32.max, dtype=tf.int32), tf.uint32
        )

    with mock.patch.object(keras.random.SeedGenerator, "__init__", without_variable):
        yield


@contextlib.contextmanager
def identity_by_default() -> Iterator[None]:
    """Let ``super().call(x)`` of a class derived from ``Layer`` return ``x``, as in Keras 2."""
    import keras

    def call(_layer: Any, inputs: Any, *_args: Any, **_kwargs: Any) -> Any:
        return inputs

    with mock.patch.object(keras.layers.Layer, "call", call):
        yield


# The attributes that are properties in Keras 3, by the class.
_KERNELS = {
    "Dense": "kernel",
    "EinsumDense": "kernel",
    "BaseConv": "kernel",
    "Embedding": "embeddings",
}


def create_kernels(cls: Any) -> None:
    """Let ``build`` of a class derived from such a layer create its kernel, as in Keras 2."""
    for parent in filter(is_own_class, cls.__mro__):
        # A class of the user may have the name of one of Keras.
        of_keras = [c.__name__ for c in parent.__mro__ if not is_own_class(c)]
        name = next((_KERNELS[kind] for kind in of_keras if kind in _KERNELS), None)
        if name is not None and "build" in vars(parent) and name not in vars(parent):
            setattr(parent, name, _created_in_build(name, parent))


def _created_in_build(name: str, cls: Any) -> property:
    import keras

    def of_keras() -> Any:
        # It changes within assignable_kernels.
        return next(vars(parent)[name] for parent in cls.__mro__[1:] if name in vars(parent))

    def value(layer: Any) -> Any:
        created = vars(layer).get(f"_{name}")
        return created if created is not None and not layer.built else of_keras().fget(layer)

    def assign(layer: Any, value: Any) -> None:
        if isinstance(value, keras.Variable):
            setattr(layer, f"_{name}", value)
        else:
            of_keras().__set__(layer, value)

    return property(value, assign)


@contextlib.contextmanager
def assignable_kernels() -> Iterator[None]:
    """Let ``call`` assign a tensor to the kernel of a layer of Keras, as weight normalization does.

    In Keras 3, a kernel is a property. The layer has its variable again behind the context.
    """
    import keras
    from keras.src.layers.convolutional.base_conv import BaseConv

    assigned: dict[tuple[int, str], Any] = {}

    def assignable(name: str, get: Callable[[Any], Any]) -> property:
        def value(layer: Any) -> Any:
            key = id(layer), name
            return assigned[key] if key in assigned else get(layer)

        def assign(layer: Any, value: Any) -> None:
            assigned[id(layer), name] = value
            replaced_weights.record(layer)

        return property(value, assign)

    with contextlib.ExitStack() as stack:
        classes = (keras.layers.Dense, keras.layers.EinsumDense, BaseConv, keras.layers.Embedding)
        for cls in classes:
            name = _KERNELS[cls.__name__]
            changed = assignable(name, vars(cls)[name].fget)
            stack.enter_context(mock.patch.object(cls, name, changed))
        yield


def accept_inputs_by_any_name(cls: Any) -> None:
    """Let a class call its inputs otherwise than the layer of Keras from which it is derived.

    Keras 3 finds the shapes for ``build(sequences_shape)`` by the name of an argument of ``call``,
    which was ``inputs`` in Keras 2.
    """
    named = {f"{name}_shape" for name in inspect.signature(cls.call).parameters}
    for name in ("build", "compute_output_shape"):
        method = getattr(cls, name)
        shapes = list(inspect.signature(method).parameters)[1:]
        if len(shapes) > 1 and shapes[0].endswith("_shape") and shapes[0] not in named:
            setattr(cls, name, _of_one_shape(method))


def _of_one_shape(method: Callable[..., Any]) -> Callable[..., Any]:
    def of_one_shape(layer: Any, input_shape: Any) -> Any:
        return method(layer, input_shape)

    return of_one_shape


def infer_output_shape(cls: Any) -> None:
    """Let a class have the output shape of its ``call`` if it does not define one, as in Keras 2.

    In Keras 3, layers around it, such as TimeDistributed, then fail.
    """
    from keras.src.utils.python_utils import default, is_default

    if is_default(cls.compute_output_shape):
        cls.compute_output_shape = default(_shape_of_call)


def _shape_of_call(layer: Any, input_shape: Any) -> Any:
    import keras
    from keras.src.backend import compute_output_spec

    def tensor(shape: Any) -> Any:
        return keras.KerasTensor(shape, dtype=layer.compute_dtype)

    several = bool(input_shape) and isinstance(input_shape[0], list | tuple)
    inputs = [tensor(shape) for shape in input_shape] if several else tensor(input_shape)
    outputs = compute_output_spec(layer.call, inputs)
    return keras.tree.map_structure(lambda output: output.shape, outputs)


def weight_by_name(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``add_weight("kernel", (3, 4), "float32")``, the order of Keras 2, by name.

    Keras 3 has another order, which begins with the shape, and reports what Keras 2 rejects, too.
    Arguments that concern the variable of TensorFlow are left out, and ``experimental_autocast``
    has the name of today.
    """
    kwargs = {
        key.removeprefix("experimental_"): value
        for key, value in kwargs.items()
        if key not in _OF_VARIABLES
    }
    named = dict(zip(_OF_WEIGHTS, args, strict=False))
    name, shape = (*args, 0, 0)[:2]
    in_keras_2 = isinstance(name, str) or (name is None and isinstance(shape, list | tuple))
    if not in_keras_2 or len(args) > len(_OF_WEIGHTS) or named.keys() & kwargs.keys():
        return args, kwargs
    # None is the default of each.
    return (), {**{key: value for key, value in named.items() if value is not None}, **kwargs}


def provide_weight_lists(cls: Any) -> None:
    """Let a class set ``trainable_weights`` and read ``_trainable_weights``, as in Keras 2.

    Keras 3 finds the weights itself: those of ``add_weight`` and of layers in attributes.
    """
    import keras

    for name in ("trainable_weights", "non_trainable_weights"):
        found = getattr(keras.layers.Layer, name)
        if getattr(cls, name) is found:
            setattr(cls, name, property(found.fget, _ignored))
        if not hasattr(cls, f"_{name}"):
            variables = f"_{name.replace('weights', 'variables')}"
            setattr(cls, f"_{name}", property(_own(variables), _ignored))


def _ignored(_layer: Any, _value: Any) -> None:
    """Set nothing."""


def _own(name: str) -> Any:
    def variables(layer: Any) -> list[Any]:
        return list(getattr(layer, name))

    return variables


@contextlib.contextmanager
def found_in_wrappers(layer: Any) -> Iterator[None]:
    """Let ``Bidirectional`` create its layers from the config of ``layer`` if that, or a layer in
    it, is of a class of the user, which only Keras 3 requires to be registered."""
    import keras

    parts = layer._flatten_layers() if isinstance(layer, keras.layers.Layer) else ()
    own = {type(part).__name__: type(part) for part in parts if is_own_class(type(part))}
    with keras.saving.custom_object_scope(own):
        yield
