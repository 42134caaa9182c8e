"""Layers of the user's classes, created and called as in the Keras that saved the file.

Keras 2 and 3 differ in what a class finds when it runs: ``hard_sigmoid`` is another function, a
``tf.Variable`` is a weight in Keras 2 only, and a class without ``**kwargs`` does not keep the name
that its layer has in the file.
"""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any
from unittest import mock

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.legacy import (
    argument_types,
    layer_shapes,
    legacy_identifiers,
    legacy_layers,
    legacy_models,
)
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.migrate import built_layers
from edgeattn_converters.loading.migrate.context import Context
from edgeattn_converters.loading.migrate.custom_layers import LAYER_ARGUMENTS
from edgeattn_converters.loading.migrate.keras2 import HARD_SIGMOID_NOTE
from edgeattn_converters.loading.own_code import (
    autograph,
    cell_states,
    classes_of_keras_2,
    custom_objects,
    masks_of_classes,
    outputs_of_calls,
)
from edgeattn_converters.loading.own_code.own_classes import is_own_class, source_of
from edgeattn_converters.loading.weights import replaced_weights, tracking_order

# Where programs find the activations.
_MODULES = ("keras.activations", "keras._tf_keras.keras.activations", "keras.src.activations")
_HARD_SIGMOID = "hard_sigmoid"


@contextlib.contextmanager
def created_as_stored(
    objects: Mapping[str, Any], ctx: Context, functions: Mapping[str, Any]
) -> Iterator[None]:
    """Give layers of the user's classes the names and variables that they have in the file.

    ``functions`` are those that Keras passes to a class in place of their registered names.

    Raises :class:`UnsupportedModelError` if the file lacks arguments of a class.
    """
    import keras

    program = Program(ctx.version, of_tensorflow=ctx.of_tensorflow)
    classes: set[Any] = {
        value
        for value in objects.values()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    }
    with contextlib.ExitStack() as stack:
        for cls in classes:
            autograph.convert_loops(cls)
            classes_of_keras_2.accept_inputs_by_any_name(cls)
        # Before a method of a parent is replaced.
        creators = {cls: _creator(cls, ctx) for cls in classes}
        for cls, creator in creators.items():
            create = functools.partial(_with_functions, creator, functions)
            stack.enter_context(mock.patch.object(cls, "from_config", staticmethod(create)))
            legacy_layers.create_in_calls(cls, program)
        if classes and ctx.era < 3:
            from edgeattn_converters.loading.migrate import legacy_mask_layers

            for cls in classes:
                masks_of_classes.trace_masks(cls)
                legacy_layers.adapt_to_keras_2(cls)
                legacy_mask_layers.join_masks(cls)
            stack.enter_context(weights_of_keras_2())
            stack.enter_context(legacy_identifiers.accepted())
            stack.enter_context(cell_states.of_any_shape())
            stack.enter_context(layer_shapes.of_tensorflow())
            stack.enter_context(legacy_layers.places_accepted(program))
            stack.enter_context(legacy_models.created(program))
            stack.enter_context(argument_types.accepted())
            if ctx.of_tensorflow:
                stack.enter_context(tracking_order.recorded())
            stack.enter_context(_activations_of_keras_2())
            _bind_activations(classes)
        if classes and (ctx.of_tensorflow or ctx.era == 3):
            for cls in classes:
                outputs_of_calls.infer(cls)
            stack.enter_context(outputs_of_calls.inferred())
        yield


def _with_functions(
    create: Callable[..., Any],
    functions: Mapping[str, Any],
    config: Config,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Return a layer from a config in which functions are in place of their names.

    Follows ``class_and_config_for_serialized_keras_object`` of Keras, for configs in formats before
    that of ``.keras`` files.
    """
    found = {k: functions.get(v, v) if isinstance(v, str) else v for k, v in config.items()}
    return create(found, *args, **kwargs)


def _creator(cls: Any, ctx: Context) -> Callable[..., Any]:
    """The function that creates a layer of a class of the user from its config."""
    # A from_config of the user may accept other arguments than the constructor.
    own = any("from_config" in vars(parent) and is_own_class(parent) for parent in cls.__mro__)
    if own:
        return functools.partial(_named, _with_stored(cls.from_config, ctx.unnamed))
    return functools.partial(_named_with_accepted, cls, cls.from_config)


def _with_stored(from_config: Callable[..., Any], unnamed: Container[str]) -> Callable[..., Any]:
    """The ``from_config`` of a class whose ``get_config`` may return no name, as in Keras.

    ``unnamed`` are the names of the layers whose config had none.
    """

    def create(config: Config, *args: Any, **kwargs: Any) -> Any:
        stored = {k: v for k, v in config.items() if k != "name" or v not in unnamed}
        return from_config(stored, *args, **kwargs)

    return create


def _named(from_config: Callable[..., Any], config: Config, *args: Any, **kwargs: Any) -> Any:
    """Return a layer with its stored name, whatever its constructor does with it."""
    name = config.get("name")
    layer = from_config(config, *args, **kwargs)
    if isinstance(name, str):
        layer.name = name
    return layer


def _named_with_accepted(
    cls: Any, from_config: Callable[..., Any], config: Config, *args: Any, **kwargs: Any
) -> Any:
    def create(stored: Config) -> Any:
        # A functional model is created from its layers, not by the constructor of the class.
        arguments = stored if "layers" in stored else _accepted(cls, stored)
        return from_config(arguments, *args, **kwargs)

    return _named(create, config)


def _accepted(cls: Any, config: Config) -> dict[str, Any]:
    """Return ``config`` without arguments of every layer that the constructor does not accept."""
    # The signature of the class itself is that of Layer.__new__.
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    missing = [
        item.name
        for item in parameters
        if item.default is item.empty
        and item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
        and item.name not in config
    ]
    if missing:
        raise UnsupportedModelError(
            f"The file does not contain {enumerated(list(map(repr, missing)))} of your class "
            f"{cls.__name__}, which had no get_config with it when the model was saved.",
            hint="In the file of --custom-objects, give each of these arguments the value of the "
            f"trained model as a default: def __init__(self, {missing[0]}=VALUE, ...)",
        )
    if custom_objects.accepts_keywords(cls):
        return dict(config)
    accepted = {item.name for item in parameters}
    return {k: v for k, v in config.items() if k in accepted or k not in LAYER_ARGUMENTS}


@contextlib.contextmanager
def weights_of_keras_2() -> Iterator[None]:
    """Let each ``tf.Variable`` in an attribute be a weight of a layer, in the order of Keras 2.

    Lists, tuples and dictionaries may contain it when they are assigned. Keras 2 also let classes
    add weights to a layer that is built, such as the one they wrap, and ``add_weight`` had the
    name first.
    """
    import keras

    set_attribute = keras.layers.Layer.__setattr__
    add_weight = keras.layers.Layer.add_weight
    # By id, with the original: several attributes and layers may share a variable.
    created: dict[int, tuple[Any, Any]] = {}

    def with_name_first(layer: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = classes_of_keras_2.weight_by_name(args, kwargs)
        return add_weight(layer, *args, **kwargs)

    def add_variable(layer: Any, *args: Any, **kwargs: Any) -> Any:
        # Its former name, which calls the method of a class that has its own.
        return layer.add_weight(*args, **kwargs)

    def with_weights(layer: Any, name: str, value: Any) -> None:
        if is_own_class(type(layer)) and not name.startswith("_self_"):
            value = _with_weights(layer, value, created)
        before = vars(layer).get(name)
        if isinstance(before, keras.Variable) and not isinstance(value, keras.Variable):
            replaced_weights.record(layer)
        set_attribute(layer, name, value)

    with (
        mock.patch.object(keras.layers.Layer, "__setattr__", with_weights),
        mock.patch.object(keras.layers.Layer, "add_weight", with_name_first),
        mock.patch.object(keras.layers.Layer, "add_variable", add_variable),
        mock.patch.object(keras.layers.Layer, "_lock_state"),
    ):
        yield


def _with_weights(layer: Any, value: Any, created: dict[int, tuple[Any, Any]]) -> Any:
    """Return the value of an attribute with a weight of the layer for each ``tf.Variable``.

    ``created`` are the weights that exist, by the id of their variable; new ones are added.
    """
    import tensorflow as tf

    try:
        items = tf.nest.flatten(value)
    except TypeError:  # a dictionary whose keys cannot be sorted
        return value
    if not any(isinstance(item, tf.Variable) for item in items):
        return value
    if not hasattr(layer, "_tracker"):
        layer._initialize_tracker()
    items = [_weight(item, created) if isinstance(item, tf.Variable) else item for item in items]
    for item in items:
        # Keras 2 sorts the variables of a dictionary by their keys, Keras 3 does not.
        layer._tracker.track(item)
    return tf.nest.pack_sequence_as(value, items)


def _weight(variable: Any, created: dict[int, tuple[Any, Any]]) -> Any:
    """Return the Keras variable that replaces a ``tf.Variable``."""
    import keras
    import tensorflow as tf

    if id(variable) not in created:
        title = variable.name.split(":")[0].replace("/", "_")
        with tf.init_scope():
            value = variable.numpy()
        # Keras traces models to build their layers, and creates the values of variables afterwards.
        weight = keras.Variable(
            lambda *_, **__: value,
            shape=value.shape,
            trainable=variable.trainable,
            dtype=variable.dtype.name,
            name=title,
        )
        created[id(variable)] = (variable, weight)
    return created[id(variable)][1]


@contextlib.contextmanager
def _activations_of_keras_2() -> Iterator[None]:
    """Let ``hard_sigmoid`` be that of Keras 1 and 2, under every name that programs have for it."""
    from keras.src.activations import ALL_OBJECTS_DICT

    from edgeattn_converters.loading.migrate.registered_objects import hard_sigmoid_keras2

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(ALL_OBJECTS_DICT, {_HARD_SIGMOID: hard_sigmoid_keras2}))
        for name in _MODULES:
            if name in sys.modules:
                module = sys.modules[name]
                patch = mock.patch.object(module, _HARD_SIGMOID, hard_sigmoid_keras2)
                stack.enter_context(patch)
        yield


def _bind_activations(classes: set[type]) -> None:
    """Replace the function where the user's files have imported it by name."""
    from keras.src.activations.activations import hard_sigmoid

    from edgeattn_converters.loading.migrate.registered_objects import hard_sigmoid_keras2

    for module in {sys.modules.get(cls.__module__) for cls in classes}:
        for name, value in list(vars(module).items()) if module else ():
            if value is hard_sigmoid:
                setattr(module, name, hard_sigmoid_keras2)


def adapt(model: Any, ctx: Context) -> None:
    """Let layers of the user's classes call what the Keras that saved the file had, in place.

    Adds notes to ``ctx`` on what was replaced inside them, and on defaults that have changed.
    """
    own = [layer for layer in model._flatten_layers() if is_own_class(type(layer))]
    if ctx.version and ctx.version < built_layers.SAME_AS_CURRENT:
        inner = {id(part): part for layer in own for part in layer._flatten_layers()}
        ctx.notes.extend(built_layers.adapt_inner(inner.values(), ctx))
    if ctx.era < 3:
        if any(_HARD_SIGMOID in source_of(type(layer)) for layer in own):
            ctx.notes.append(HARD_SIGMOID_NOTE)
        for layer in own:
            layer.call = _with_activations_of_keras_2(layer.call)


def _with_activations_of_keras_2(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _activations_of_keras_2():
            return call(*args, **kwargs)

    return wrapped
