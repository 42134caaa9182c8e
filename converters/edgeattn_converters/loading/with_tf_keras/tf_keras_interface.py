"""The inputs and outputs of a model of tf_keras, by name.

Only for the worker process that runs a program of the user with tf_keras.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn_converters.loading.own_code import call_arguments
from edgeattn_converters.loading.with_tf_keras import tf_keras_worker
from edgeattn_converters.loading.with_tf_keras.tf_keras_worker import NotLoadedError


@dataclass(frozen=True)
class Input:
    """An input: its shape, whose first axis is that of the samples, and the name of its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Interface:
    """The inputs of a model, and how it takes them.

    ``structure`` is that of its only argument, with the numbers of the inputs. ``by_name`` is
    whether the inputs are arguments of the model.
    """

    inputs: tuple[Input, ...]
    structure: Any
    by_name: bool = False

    @property
    def is_list(self) -> bool:
        """Whether the model takes several inputs by their order only."""
        return isinstance(self.structure, list) and len(self.inputs) > 1

    def packed(self, arrays: Sequence[Any]) -> Any:
        """Return what a call of the model takes."""
        import tensorflow as tf

        return tf.nest.map_structure(lambda number: arrays[number], self.structure)

    def call(self, model: Any, arrays: Sequence[Any]) -> Any:
        """Return the outputs for tensors."""
        return tf_keras_worker.called(model, self.packed(arrays), by_name=self.by_name)

    def with_any_batch(self) -> "Interface":
        """Return the interface with a free number of samples."""
        inputs = (replace(item, shape=(None, *item.shape[1:])) for item in self.inputs)
        return replace(self, inputs=tuple(inputs))


def of_samples(model: Any, samples: Mapping[str, Any]) -> Interface:
    """Return the inputs of a subclassed model, which are those of the samples.

    Several are its arguments or a dictionary, or a list if it does not compute those.
    """
    if not samples:
        raise NotLoadedError("no samples have the shapes of its inputs")
    samples = call_arguments.in_call_order(model, samples)
    inputs = tuple(
        Input(name, (None, *array.shape[1:]), _dtype(array)) for name, array in samples.items()
    )
    if len(inputs) == 1:
        return Interface(inputs, 0)
    numbers = {item.name: number for number, item in enumerate(inputs)}
    if set(numbers) <= set(_arguments(model)):
        return Interface(inputs, numbers, by_name=True)
    named, listed = Interface(inputs, numbers), Interface(inputs, list(range(len(inputs))))
    first = [np.asarray(array[:1]) for array in samples.values()]
    return (
        listed if not _computes(model, named, first) and _computes(model, listed, first) else named
    )


def _computes(model: Any, interface: Interface, arrays: Sequence[Any]) -> bool:
    try:
        interface.call(model, arrays)
    except Exception:  # of the user's code
        return False
    return True


def of_model(model: Any, samples: Mapping[str, Any]) -> Interface:
    """Return the inputs of a model that was built."""
    import tensorflow as tf

    if model.inputs and getattr(model, "_nested_inputs", None) is not None:
        names = model.input_names
        numbers = list(range(len(names)))
        inputs = (
            Input(name, tuple(tensor.shape.as_list()), tensor.dtype.name)
            for name, tensor in zip(names, model.inputs, strict=True)
        )
        structure = tf.nest.pack_sequence_as(model._nested_inputs, numbers)
        return Interface(tuple(inputs), structure)
    if samples:
        return of_samples(model, samples)
    return _of_calls(model)


def _of_calls(model: Any) -> Interface:
    """Return the input with which the program called a subclassed model."""
    import tensorflow as tf

    arguments: Any
    arguments, named = model.save_spec() or ((), {})
    if len(arguments) != 1 or named:
        raise NotLoadedError("it takes several inputs whose names are unknown")
    specs = arguments[0]
    if isinstance(specs, tf.TensorSpec):
        return Interface((_of_spec("inputs", specs),), 0)
    if not isinstance(specs, Mapping) or not all(
        isinstance(item, tf.TensorSpec) for item in specs.values()
    ):
        raise NotLoadedError("it takes several inputs whose names are unknown")
    inputs = tuple(_of_spec(name, spec) for name, spec in specs.items())
    return Interface(inputs, {item.name: number for number, item in enumerate(inputs)})


def _of_spec(name: str, spec: Any) -> Input:
    return Input(name, (None, *spec.shape.as_list()[1:]), spec.dtype.name)


def output_names(model: Any, outputs: Any) -> list[str]:
    """Return the names of outputs in the order of ``tf.nest``."""
    import tensorflow as tf

    flat = tf.nest.flatten(outputs)
    if isinstance(outputs, Mapping) and len(flat) == len(outputs):
        return sorted(map(str, outputs))
    known = list(getattr(model, "output_names", None) or ())
    if len(known) == len(flat) == len(set(known)):
        return known
    return [f"{model.name}_{number}" if number else str(model.name) for number in range(len(flat))]


def _dtype(array: Any) -> str:
    return "float32" if np.issubdtype(array.dtype, np.floating) else str(array.dtype)


def _arguments(model: Any) -> list[str]:
    return [name for name in inspect.signature(model.call).parameters if name != "training"]
