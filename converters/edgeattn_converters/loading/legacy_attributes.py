"""What programs ask layers, models and tensors of Keras 1 and 2 for, and Keras 3 does not have."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from edgeattn_converters.loading.classes_of_keras_2 import accept_inputs_by_any_name
from edgeattn_converters.loading.legacy_program import Program
from edgeattn_converters.loading.own_classes import is_own_class

# Arguments that Keras 2 passed to ``call`` itself, with what it passed at inference.
_PASSED = {"training": False, "mask": None}


def provide(replace: Callable[[Any, str, Any], None], program: Program) -> None:
    """Add the attributes and methods; ``replace`` sets an attribute of a class."""
    import keras
    import tensorflow as tf
    from keras.src.models.functional import Functional

    layer = keras.layers.Layer
    for kind, tensors in (("input", _inputs), ("output", _outputs)):
        at = functools.partial(_at, tensors)
        replace(layer, f"get_{kind}_at", _method(at))
        replace(layer, f"get_{kind}_shape_at", _method(functools.partial(_shape_at, at)))
        replace(layer, f"{kind}_shape", _Attribute(functools.partial(_shape_at, at, place=0)))
        replace(keras.Sequential, kind, property(_of_sequential(kind, program)))
    # A model may start at it: Model(model.get_layer("words").input, ...).
    replace(keras.layers.InputLayer, "input", property(lambda self: self.output))
    replace(keras.KerasTensor, "get_shape", lambda self: tf.TensorShape(self.shape))
    # Neither losses nor metrics have an effect on a model that is not trained.
    for cls, name in ((Functional, "add_loss"), (layer, "add_metric"), (layer, "add_update")):
        replace(cls, name, lambda *_, **__: None)


def _of_sequential(kind: str, program: Program) -> Callable[[Any], Any]:
    """The ``input`` or ``output`` of a Sequential: its own, and in Keras 3 that of its first call.

    Without a call, Keras 3 has none.
    """
    import keras

    of_call = getattr(keras.Sequential, kind).fget

    def tensors(model: Any) -> Any:
        if program.version >= (3,) and model._inbound_nodes:
            return of_call(model)
        own = getattr(model, f"{kind}s", None)
        if not own:  # without the shape of its input
            return of_call(model)
        return own[0] if len(own) == 1 else own

    return tensors


class _Attribute:
    """An attribute that is computed until an object assigns it, unlike that of a property."""

    def __init__(self, value: Callable[[Any], Any]) -> None:
        self._value = value

    def __get__(self, owner: Any, _cls: Any) -> Any:
        return self if owner is None else self._value(owner)


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda layer, place=0, **named: function(layer, named.get("node_index", place))


def _inputs(node: Any) -> Any:
    # The node of an Input has no inputs; in Keras 2 it was its own.
    return node.input_tensors or node.outputs


def _outputs(node: Any) -> Any:
    return node.outputs


def _at(tensors: Callable[[Any], Any], layer: Any, place: int) -> Any:
    """The tensors of the ``place``-th call of a layer: a list, or the only one."""
    if place >= len(layer._inbound_nodes):
        raise AttributeError(f"The layer {layer.name} was not called {place + 1} times.")
    found = list(tensors(layer._inbound_nodes[place]))
    return found[0] if len(found) == 1 else found


def _shape_at(at: Callable[[Any, int], Any], layer: Any, place: int) -> Any:
    found = at(layer, place)
    return [item.shape for item in found] if isinstance(found, list) else found.shape


class Shape(tuple[int | None, ...]):
    """The shape that ``build`` gets, as the TensorShape of tf.keras."""

    __slots__ = ()

    def as_list(self) -> list[int | None]:
        """Return the sizes as a list."""
        return list(self)

    @property
    def ndims(self) -> int:
        """The number of axes."""
        return len(self)

    rank = ndims


def with_arguments_of_methods() -> Callable[..., Any]:
    """Return ``__new__`` of layers whose ``build`` and ``call`` get arguments as in tf.keras.

    Shapes had methods, and ``training`` and ``mask`` were passed without a default, too. ``build``
    of a layer of Keras accepts the shape of an argument of ``call`` with another name.
    """
    import keras

    create = keras.layers.Layer.__new__

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if is_own_class(cls):
            accept_inputs_by_any_name(cls)
        for parent in filter(is_own_class, cls.__mro__):
            build, call = (vars(parent).get(name) for name in ("build", "call"))
            if inspect.isfunction(build) and inspect.unwrap(build) is build:
                parent.build = _with_shapes(build)
            if inspect.isfunction(call):
                _set_defaults(inspect.unwrap(call))
        return create(cls, *args, **kwargs)

    return new


def _with_shapes(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def build(layer: Any, *args: Any, **kwargs: Any) -> Any:
        named = {name: _shape(value) for name, value in kwargs.items()}
        return method(layer, *map(_shape, args), **named)

    return build


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if all(item is None or isinstance(item, int) for item in value):
        return Shape(value)
    return type(value)(map(_shape, value))


def _set_defaults(call: Any) -> None:
    parameters = list(inspect.signature(call).parameters.values())
    in_place = [item for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD]
    defaults: list[Any] = []
    for item in reversed(in_place):
        default = item.default
        if default is item.empty:
            if item.name not in _PASSED:
                break
            default = _PASSED[item.name]
        defaults.insert(0, default)
    call.__defaults__ = tuple(defaults)
