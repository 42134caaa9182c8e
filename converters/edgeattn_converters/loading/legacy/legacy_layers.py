"""Layers, models and functions of Keras 1 and 2 that programs use to build a model."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

from edgeattn_converters.keras_classes import is_stateful
from edgeattn_converters.loading.eras import implicit_masks
from edgeattn_converters.loading.legacy import (
    keras_shape,
    layer_shapes,
    legacy_arguments,
    legacy_attributes,
    legacy_backend,
    legacy_calls,
    legacy_classes,
    legacy_identifiers,
    legacy_merge,
    legacy_models,
    legacy_modules,
    places_of_arguments,
    tensorflow_1,
    training_names,
    training_tensors,
)
from edgeattn_converters.loading.legacy.argument_types import layer_classes
from edgeattn_converters.loading.legacy.legacy_program import OF_TF_KERAS, Program
from edgeattn_converters.loading.migrate import keras1
from edgeattn_converters.loading.migrate.context import safe_input_name
from edgeattn_converters.loading.own_code import (
    autograph,
    cell_states,
    classes_of_keras_2,
    masks_of_classes,
    own_functions,
)
from edgeattn_converters.loading.own_code.own_classes import is_own_class

# Functions that only concern training.
_OF_TRAINING = {
    "regularizers": ("l1l2", "activity_l1", "activity_l2", "activity_l1l2", "WeightRegularizer",
                     "ActivityRegularizer"),
    "constraints": ("maxnorm", "nonneg", "unitnorm"),
}  # fmt: skip

_CREATES = "_creates_layers_as_in_keras_2"
# Of the calls of classes of the user that are running.
_creating_calls: list[None] = []

_INITIALIZERS = {"normal": "RandomNormal", "uniform": "RandomUniform", "zero": "Zeros",
                 "one": "Ones"}  # fmt: skip


@contextlib.contextmanager
def usable(program: Program | None = None) -> Iterator[None]:
    """Let programs import the modules of Keras 1 and 2, and use their layers and functions.

    ``program`` is what is known about the program, by default that it is one for Keras 3.
    """
    import keras
    import tensorflow as tf

    legacy_backend.provide()
    tensorflow_1.provide()
    # Classes of the program are called later, too.
    keras_shape.provide(keras.KerasTensor, keras.Variable, tf.Tensor, tf.Variable)
    legacy_attributes.provide_on_variables()
    legacy_models.let_build_again()
    with accepted(program or Program()), legacy_modules.importable():
        yield


@contextlib.contextmanager
def accepted(program: Program) -> Iterator[None]:
    """Let programs create layers and models as in Keras 1 and 2."""
    import keras
    import tensorflow as tf

    optimizer = next(
        cls for cls in keras.optimizers.Optimizer.__mro__ if cls.__name__ == "BaseOptimizer"
    )
    with legacy_identifiers.accepted(), contextlib.ExitStack() as stack:

        def replace(place: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(place, name, value, create=True))

        for cls in layer_classes():
            replace(cls, "__init__", _constructor(cls, program))
        sequential = _in_place(keras.Sequential.__init__, "Sequential", program)
        replace(keras.Sequential, "__init__", sequential)
        created = _input(keras.Input, program)
        for root in (keras, tf.keras):
            for module in (root, root.layers, root.models):
                replace(module, "Input", created)
        for module in (keras.layers, tf.keras.layers):
            for cls in (keras.Model, keras.Sequential):
                replace(module, cls.__name__, cls)
            for name, function in _layers(program).items():
                replace(module, name, function)
        for module_name, names in _OF_TRAINING.items():
            for root in (keras, tf.keras):
                for name in names:
                    replace(getattr(root, module_name), name, lambda *_, **__: None)
        for root in (keras, tf.keras):
            for name, current in _INITIALIZERS.items():
                replace(root.initializers, name, getattr(keras.initializers, current))
            replace(root.utils, "multi_gpu_model", lambda model, *_, **__: model)
        images = tf.keras.preprocessing.image.ImageDataGenerator
        replace(keras.preprocessing.image, "ImageDataGenerator", images)
        replace(keras.Sequential, "add", legacy_merge.adding(keras.Sequential.add))
        replace(keras.layers.TimeDistributed, "__call__", _with_several_inputs(keras.layers.Layer))
        replace(keras.KerasTensor, "__getitem__", _of_any_key(keras.KerasTensor.__getitem__))
        # Neither optimizers nor losses have an effect on a model that is not trained.
        replace(keras.Model, "compile", lambda *_, **__: None)
        replace(optimizer, "__init__", _with_rate(optimizer.__init__))
        training_names.provide(replace)
        tensorflow_1.provide_settings(replace)
        legacy_models.provide(replace, program)
        legacy_attributes.provide(replace, program)
        if program.version < (3,):
            replace(keras.layers.Layer, "__new__", legacy_attributes.with_arguments_of_methods())
            stack.enter_context(cell_states.of_any_shape())
            stack.enter_context(layer_shapes.of_tensorflow())
        elif program.may_be_older:
            # It fails in Keras 3 otherwise.
            new = legacy_attributes.building_outside_functions()
            replace(keras.layers.Layer, "__new__", new)
        stack.enter_context(legacy_calls.as_layers())
        yield


def _of_any_key(get_item: Callable[..., Any]) -> Callable[..., Any]:
    """Slices ``x[:]`` and ``x[...]`` too: Keras 3 accepts one key in a tuple only."""

    def get(tensor: Any, key: Any) -> Any:
        return get_item(tensor, key if isinstance(key, int | list | tuple) else (key,))

    return get


def _constructor(cls: Any, program: Program) -> Callable[..., None]:
    """The constructor of a class, called with the arguments of Keras 3."""
    create = cls.__init__
    names = places_of_arguments.names(create)

    # Without functools.wraps: Keras reads both the signature and the names of the arguments.
    # A layer may be created with an argument that is called "layer".
    def with_arguments(layer: Any, /, *args: Any, **kwargs: Any) -> None:
        difference = places_of_arguments.difference(cls.__name__, names, args, program)
        args, kwargs = places_of_arguments.by_name(cls.__name__, names, args, kwargs, program)
        given = {*keras1.keras2_names(cls.__name__, kwargs), *list(names)[: len(args)]}
        args, kwargs = legacy_arguments.current(cls.__name__, args, kwargs, program, given)
        if is_own_class(type(layer)):
            _adapt(type(layer), program)
        wrapped = None
        with contextlib.ExitStack() as stack:
            if cls.__name__ == "Bidirectional":
                wrapped = args[0] if args else kwargs.get("layer")
                if program.version < (3,):
                    stack.enter_context(classes_of_keras_2.found_in_wrappers(wrapped))
            create(layer, *args, **kwargs)
        if (program.version < (3,) or program.may_be_older) and is_stateful(layer):
            # The number of samples is not kept, without which Keras 3 does not keep a state.
            layer.stateful = False
            program.stateful.append(layer.name)
        program.record(cls.__name__, layer.name, given)
        if difference is not None:
            program.notes.append(f"{layer.name}: {difference}. {OF_TF_KERAS}")
        if wrapped is not None:
            own_functions.keep_in_forward_layer(layer, wrapped, program)

    setattr(with_arguments, places_of_arguments.NAMES, names)
    return with_arguments


@contextlib.contextmanager
def places_accepted(program: Program) -> Iterator[None]:
    """Let constructors of layers have their arguments in the places of Keras 2."""
    with contextlib.ExitStack() as stack:
        for cls in layer_classes():
            create: Any = vars(cls)["__init__"]
            if cls.__name__ in places_of_arguments.CLASSES:
                if cls.__name__ == "Embedding":
                    create = _without_length(create)
                changed = _in_place(create, cls.__name__, program)
            elif cls.__name__.startswith("AveragePooling"):
                changed = _with_pool_size(create)
            else:
                continue
            stack.enter_context(mock.patch.object(cls, "__init__", changed))
        yield


def create_in_calls(cls: Any, program: Program) -> None:
    """Let ``call`` of a class, and of its parents, create layers without weights as in Keras 2.

    Keras 3 can do so too, outside of a graph of TensorFlow; then only the state of random
    generators differs. It lasts, because they are created whenever the model is called.
    """
    for parent in filter(is_own_class, cls.__mro__):
        method = vars(parent).get("call")
        if inspect.isfunction(method) and not hasattr(method, _CREATES):
            parent.call = _creating(method, program)


def _creating(method: Callable[..., Any], program: Program) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _creating_calls:
            return method(*args, **kwargs)
        _creating_calls.append(None)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(classes_of_keras_2.seeds_in_graphs())
                if program.version < (3,):
                    stack.enter_context(places_accepted(program))
                    stack.enter_context(classes_of_keras_2.assignable_kernels())
                    stack.enter_context(classes_of_keras_2.identity_by_default())
                    stack.enter_context(layer_shapes.of_tensorflow())
                return method(*args, **kwargs)
        finally:
            _creating_calls.pop()

    setattr(call, _CREATES, True)
    return call


def _with_pool_size(create: Callable[..., Any]) -> Callable[..., Any]:
    """The constructor of an AveragePooling with the default of Keras 2."""

    @functools.wraps(create)
    def with_default(layer: Any, /, pool_size: Any = 2, *args: Any, **kwargs: Any) -> Any:
        return create(layer, pool_size, *args, **kwargs)

    return with_default


def _without_length(create: Callable[..., Any]) -> Callable[..., Any]:
    """The constructor of an Embedding, without the length of its inputs."""

    @functools.wraps(create)
    def without(layer: Any, /, *args: Any, input_length: Any = None, **kwargs: Any) -> Any:
        return create(layer, *args, **kwargs)

    return without


def _in_place(create: Callable[..., Any], name: str, program: Program) -> Callable[..., Any]:
    """A constructor with its arguments in the places of the version of a program."""
    names = places_of_arguments.names(create)

    # Without functools.wraps, see above.
    def with_places(layer: Any, /, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _by_name(name, names, program, args, kwargs)
        return create(layer, *args, **kwargs)

    setattr(with_places, places_of_arguments.NAMES, names)
    return with_places


def _input(create: Callable[..., Any], program: Program) -> Callable[..., Any]:
    """``Input`` with its arguments in the places of the version of a program."""
    names = places_of_arguments.names(create, first=0)

    @functools.wraps(create)
    def with_places(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _by_name("Input", names, program, args, kwargs)
        if isinstance(name := kwargs.get("name"), str) and program.version < (3,):
            kwargs["name"] = safe_input_name(name)
        return create(*args, **kwargs)

    return with_places


def _by_name(
    name: str,
    names: Mapping[str, Any],
    program: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    difference = places_of_arguments.difference(name, names, args, program)
    if difference is not None:
        program.notes.append(f"{name}: {difference}. {OF_TF_KERAS}")
    return places_of_arguments.by_name(name, names, args, kwargs, program)


def _adapt(cls: Any, program: Program) -> None:
    """Let a class of the user compute as in the Keras that saved the weights."""
    autograph.convert_loops(cls)
    masks_of_classes.trace_masks(cls)
    create_in_calls(cls, program)
    if program.version < (3,):
        adapt_to_keras_2(cls)


def adapt_to_keras_2(cls: Any) -> None:
    """Let a class of the user, of a program or a file, have what every Keras 2 gave it."""
    for parent in filter(is_own_class, cls.__mro__):
        legacy_attributes.pass_shapes(parent)
        legacy_attributes.pass_arguments(parent)
    implicit_masks.pass_masks(cls)
    classes_of_keras_2.create_kernels(cls)
    classes_of_keras_2.restore_weights(cls)
    classes_of_keras_2.infer_output_shape(cls)
    classes_of_keras_2.provide_weight_lists(cls)
    legacy_attributes.ignore_losses(cls)
    training_tensors.accept(cls)
    cell_states.accept(cls)


def _with_several_inputs(cls: Any) -> Callable[..., Any]:
    """The call of a TimeDistributed, which had several inputs in Keras 2."""
    from edgeattn_converters.loading.migrate import time_distributed

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if args:
            time_distributed.accept_several_inputs(layer, args[0])
        return cls.__call__(layer, *args, **kwargs)

    return call


def _with_rate(create: Callable[..., None]) -> Callable[..., None]:
    """The constructor of an optimizer without the arguments of Keras 1 and 2."""

    def without(optimizer: Any, *args: Any, **named: Any) -> None:
        old = ("lr", "decay", "schedule_decay")
        create(optimizer, *args, **{key: value for key, value in named.items() if key not in old})

    return without


def _layers(program: Program) -> dict[str, Callable[..., Any]]:
    """The functions that create the layers that Keras 3 lacks."""
    return {**legacy_merge.functions(program), **legacy_classes.functions(program)}
