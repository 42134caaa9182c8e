"""What programs ask layers, models and tensors of Keras 1 and 2 for, and Keras 3 does not have."""

import functools
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeattn_converters.loading.legacy import layer_shapes
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.legacy.tensor_shapes import Dtype, Shape, shapes_in
from edgeattn_converters.loading.own_code.classes_of_keras_2 import (
    FIRST_OF_TENSORFLOW,
    accept_inputs_by_any_name,
)
from edgeattn_converters.loading.own_code.own_classes import is_own_class

# Arguments that Keras 2 passed to ``call`` itself, with what it passed at inference.
_PASSED = {"training": False, "mask": None}


def provide(replace: Callable[[Any, str, Any], None], program: Program) -> None:
    """Add the attributes and methods; ``replace`` sets an attribute of a class."""
    import keras
    from keras.src.models.functional import Functional
    from keras.src.ops.node import KerasHistory, Node

    layer = keras.layers.Layer
    for kind, tensors in (("input", _inputs), ("output", _outputs)):
        at = functools.partial(_at, tensors)
        replace(layer, f"get_{kind}_at", _method(at))
        replace(layer, f"get_{kind}_shape_at", _method(functools.partial(_shape_at, at)))
        shape = functools.partial(_shape_at, at, place=0)
        replace(layer, f"{kind}_shape", _Attribute(shape))
        if FIRST_OF_TENSORFLOW <= program.version < (3,):
            in_list = _Attribute(functools.partial(_in_list, shape))
            replace(keras.layers.InputLayer, f"{kind}_shape", in_list)
        replace(keras.Sequential, kind, property(_of_sequential(kind, program)))
    # A model may start at it: Model(model.get_layer("words").input, ...).
    replace(keras.layers.InputLayer, "input", property(lambda self: self.output))
    replace(keras.KerasTensor, "get_shape", lambda self: Shape(self._shape))
    if program.version < (3,):
        for name, value in _OF_TENSORS.items():
            replace(keras.KerasTensor, name, value)
        replace(KerasHistory, "layer", property(lambda history: history.operation))
        for name, value in _OF_NODES.items():
            replace(Node, name, property(value))
        for name in ("inbound_nodes", "outbound_nodes"):
            replace(layer, name, property(operator.attrgetter(f"_{name}")))
    # Neither losses nor metrics have an effect on a model that is not trained.
    for cls, name in ((Functional, "add_loss"), (layer, "add_metric"), (layer, "add_update")):
        replace(cls, name, lambda *_, **__: None)


def provide_on_variables() -> None:
    """Add methods of ``tf.Variable`` to weights. It lasts, because classes are called later."""
    import keras

    methods = {
        "get_shape": lambda variable: variable.shape,
        "read_value": lambda variable: variable.value,
    }
    for name, method in methods.items():
        setattr(keras.Variable, name, method)


def ignore_losses(cls: Any) -> None:
    """Let methods of a class add losses, metrics and updates, which have no effect on its outputs.

    Keras 3 has no metrics and updates in ``call``, and no ``add_loss(loss, inputs=inputs)``. It
    lasts, because a model is called again after its program has run.
    """
    import keras

    for name in ("add_loss", "add_metric", "add_update"):
        if getattr(cls, name, None) is getattr(keras.layers.Layer, name, None):
            setattr(cls, name, lambda *_, **__: None)


def _fixed(_tensor: Any, _value: Any) -> None:
    raise AttributeError("The shape and the dtype of a tensor cannot be set.")


def _set_shape(tensor: Any, shape: Any) -> None:
    tensor._shape = tuple(map(_number, Shape(tensor._shape).merge_with(shape)))


def _number(size: Any) -> int | None:
    return None if size is None else int(size)


# Attributes and methods of tensors of the model in tf_keras.
_OF_TENSORS: dict[str, Any] = {
    "shape": property(lambda self: Shape(self._shape), _fixed),
    "dtype": property(lambda self: Dtype(self._dtype), _fixed),
    "set_shape": _set_shape,
    "ref": lambda self: _Reference(self),
    "node": property(
        lambda self: self._keras_history.operation._inbound_nodes[self._keras_history.node_index]
    ),
}


def _parents(node: Any) -> Any:
    found = [tensor._keras_history.operation for tensor in node.input_tensors]
    return found[0] if len(found) == 1 else found


# Those of calls.
_OF_NODES: dict[str, Callable[[Any], Any]] = {
    "layer": lambda node: node.operation,
    "outbound_layer": lambda node: node.operation,
    "inbound_layers": _parents,
    "keras_inputs": lambda node: node.input_tensors,
}


@dataclass(frozen=True, eq=False)
class _Reference:
    """Stands for a tensor in sets and dictionaries, in which tensors of Keras 2 cannot be."""

    tensor: Any

    def deref(self) -> Any:
        """Return the tensor."""
        return self.tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reference) and self.tensor is other.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


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


def _in_list(shape: Callable[[Any], Any], layer: Any) -> list[Any]:
    return [shape(layer)]


def with_arguments_of_methods() -> Callable[..., Any]:
    """Return ``__new__`` of layers whose ``build`` and ``call`` get arguments as in tf.keras.

    Shapes had methods, and ``training`` and ``mask`` were passed without a default, too. ``build``
    of a layer of Keras accepts the shape of an argument of ``call`` with another name.
    """

    def adapt(cls: Any) -> None:
        if is_own_class(cls):
            accept_inputs_by_any_name(cls)
        for parent in filter(is_own_class, cls.__mro__):
            pass_shapes(parent)
            pass_arguments(parent)

    return _creating(adapt)


def building_outside_functions() -> Callable[..., Any]:
    """Return ``__new__`` of layers whose ``build`` runs outside of any function, as in Keras 2."""

    def adapt(cls: Any) -> None:
        for parent in filter(is_own_class, cls.__mro__):
            _wrap(parent, "build", _outside_functions)

    return _creating(adapt)


def _creating(adapt: Callable[[Any], None]) -> Callable[..., Any]:
    """Return ``__new__`` of layers that adapts their class first."""
    import keras

    create = keras.layers.Layer.__new__

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        adapt(cls)
        return create(cls, *args, **kwargs)

    return new


def pass_arguments(cls: Any) -> None:
    """Let ``call`` of a class of the user have ``training`` and ``mask`` without their defaults.

    Keras 2 passes both to ``call(self, x, training)``.
    """
    call = vars(cls).get("call")
    if inspect.isfunction(call):
        _set_defaults(inspect.unwrap(call))


def pass_shapes(cls: Any) -> None:
    """Let methods of a class of the user get shapes with the methods of TensorShape."""
    _wrap(cls, "build", lambda build: _with_shapes(_outside_functions(build)))
    _wrap(cls, "compute_output_shape", _with_shapes)


def _wrap(cls: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Wrap a method that a class defines, once."""
    method = vars(cls).get(name)
    if inspect.isfunction(method) and inspect.unwrap(method) is method:
        setattr(cls, name, wrapper(method))


def _with_shapes(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        named = {name: shapes_in(value) for name, value in kwargs.items()}
        with layer_shapes.of_tensorflow():
            return method(layer, *map(shapes_in, args), **named)

    return called


def _outside_functions(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method run outside of the function that calls it.

    Tensors that it keeps, as for the positions of tokens, would otherwise be those of the function
    of the layer around it, unknown in any other.
    """
    import tensorflow as tf

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        with tf.init_scope():
            return method(*args, **kwargs)

    return called


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
