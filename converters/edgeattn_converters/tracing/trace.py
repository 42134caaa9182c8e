"""A Keras model as a frozen TensorFlow function with fixed shapes and outputs in known order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.lowering.replacement import all_layers
from edgeattn_converters.tracing.attention_outputs import Asked, Doubtful, Map, maps_of
from edgeattn_converters.tracing.dataflow import is_data

# A batch of so many tells the batch's axis from all others.
PROBED = 3


@dataclass(frozen=True)
class Interface:
    """A model's inputs and outputs by name; the batch axis is free, as Keras has it.

    ``attention`` are the maps that can be told beside the outputs, ``doubtful`` the layers that may
    have one which is not told.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attention: tuple[TensorSpec, ...]
    doubtful: tuple[Doubtful, ...] = ()

    @property
    def all_outputs(self) -> tuple[TensorSpec, ...]:
        return (*self.outputs, *self.attention)


@dataclass(frozen=True)
class Traced:
    """``function``'s tensors are in the specs' order; frozen, its weights are constants."""

    function: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attention: tuple[str, ...]


def interface_of(
    model: Any, *, time_steps: int | None = None, attention: Sequence[str] = ()
) -> Interface:
    """What goes into ``model`` and comes out of it, every axis but the batch's fixed.

    ``attention`` names layers whose maps are wanted beside those that are found by themselves;
    :class:`UsageError` where the model has no such layer, or that one has no map.
    """
    inputs = _inputs(model, time_steps)
    asked = Asked(model, attention)
    concrete, names, maps, lost = _concrete(model, inputs, batch=None, expose=None)
    specs = [
        TensorSpec(name, tuple(tensor.shape.as_list()), tensor.dtype.name)
        for name, tensor in zip(
            [*names, *(item.name for item in maps)], concrete.outputs, strict=True
        )
    ]
    for spec in specs[: len(names)]:
        if None in spec.shape[1:]:
            raise UnsupportedModelError(f"The size of output {spec} depends on the input's values.")
    strange: set[str] = set()
    if any(not item.known for item in maps):
        # With the batch free, another first axis than the batch's cannot be told from it.
        fixed, _, again, _ = _concrete(model, inputs, batch=PROBED, expose=None)
        shapes = [tensor.shape.as_list() for tensor in fixed.outputs[len(names) :]]
        strange = {
            item.name for item, shape in zip(again, shapes, strict=True) if shape[0] != PROBED
        }
    told, doubtful = asked.choose(list(zip(maps, specs[len(names) :], strict=True)), lost, strange)
    return Interface(inputs, tuple(specs[: len(names)]), told, doubtful)


def trace(
    model: Any,
    interface: Interface,
    *,
    batch: int | None,
    attention: bool,
    freeze: bool = True,
    lowering: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Traced:
    """``model`` with its inputs and outputs as ``interface`` names them, for this batch size.

    The lowering's context holds while the model is traced.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    wanted = [spec.name for spec in interface.attention] if attention else []
    with lowering():
        concrete, names, found, _ = _concrete(
            model, interface.inputs, batch=batch, expose=wanted, inline=freeze
        )
    maps = [item.name for item in found]
    if freeze:
        # Control flow stays as While and If: TFLite knows no Enter and Exit.
        concrete = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    there = {spec.name: spec for spec in interface.all_outputs}
    specs = [there[name] for name in (*names, *maps)]
    return Traced(
        concrete,
        tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in interface.inputs),
        tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs),
        tuple(maps),
    )


def _concrete(
    model: Any,
    inputs: tuple[TensorSpec, ...],
    *,
    batch: int | None,
    expose: Sequence[str] | None,
    inline: bool = False,
) -> tuple[Any, list[str], list[Map], list[Map]]:
    """The traced function, the names of its outputs, the maps behind them, and those that are lost.

    ``expose`` names the maps that are wanted; ``None`` asks for all there are. ``inline`` makes a
    graph for converters, which TensorFlow itself need not be able to run.
    """
    import tensorflow as tf

    names: list[str] = []
    maps: list[Map] = []
    lost: list[Map] = []
    lengths = [
        axis for spec in inputs for axis in spec.shape[1 : max(2, len(spec.shape) - 1)] if axis
    ]

    def function(*tensors: Any) -> list[Any]:
        graph = tf.compat.v1.get_default_graph()
        context: contextlib.AbstractContextManager[Callable[[], list[Map]]] = (
            contextlib.nullcontext(list) if expose == [] else maps_of(model, lengths)
        )
        with context as found:
            with contextlib.ExitStack() as stack:
                if inline:
                    stack.enter_context(_inlined())
                    stack.enter_context(_sums_by_shape())
                answer = model(pack(model, tensors), training=False)
            outputs = dict(named_outputs(model, answer, [spec.name for spec in inputs]))
            # Weights of a layer inside a loop live in the loop's own graph: they cannot leave it.
            told = [item for item in found() if expose is None or item.name in expose]
        names[:] = list(outputs)
        maps[:] = [item for item in told if item.weights.graph is graph]
        lost[:] = [item for item in told if item.weights.graph is not graph]
        # An identity of its own: an output may be an input, or another output, as it stands.
        values = (*outputs.values(), *(item.weights for item in maps))
        return [tf.identity(value) for value in values]

    signature = [
        tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name=f"input_{index}")
        for index, spec in enumerate(inputs)
    ]
    concrete = tf.function(function, input_signature=signature, autograph=False)
    return concrete.get_concrete_function(), names, maps, lost


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Functions within the model, such as those that Keras compiles for grouped convolutions, are
    traced into its graph: a converter cannot look into a call.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def _sums_by_shape() -> Iterator[None]:
    """Sums of data are sums, whatever their shapes.

    Keras adds a tensor as a bias where all its axes but one are 1. With the batch fixed to 1 that
    befalls data of one feature, (1, time, 1), which it never is while the batch is free: TFLite has
    no such bias, and as many features as steps would get it along the wrong axis.
    """
    import keras
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy

    original = numpy.add

    def add(x1: Any, x2: Any) -> Any:
        if not (tf.is_tensor(x1) and tf.is_tensor(x2)) or len(x2.shape) < 2 or not is_data(x2):
            return original(x1, x2)
        dtype = keras.backend.result_type(x1.dtype.name, x2.dtype.name)
        return tf.add(tf.cast(x1, dtype), tf.cast(x2, dtype))

    numpy.add = add
    try:
        yield
    finally:
        numpy.add = original


def _inputs(model: Any, time_steps: int | None) -> tuple[TensorSpec, ...]:
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise UnsupportedModelError(
            f"The model ({type(model).__name__}) does not say what its inputs are.",
            hint="Build it with the functional API: keras.Model(inputs, model(inputs)).",
        )
    names = unique([layer_name(tensor) for tensor in tensors])
    return tuple(
        _fixed(TensorSpec(name, tuple(tensor.shape), dtype_of(tensor)), time_steps)
        for name, tensor in zip(names, tensors, strict=True)
    )


def _fixed(spec: TensorSpec, time_steps: int | None) -> TensorSpec:
    axes = list(spec.shape)
    if len(axes) > 1 and axes[1] is None and time_steps is not None:
        axes[1] = time_steps
    if None in axes[1:]:
        raise UsageError(
            f"Input {spec} has a free axis, and an edge artifact needs every length fixed.",
            hint="Say how many steps a sequence has: --time-steps N (shorter ones are padded).",
        )
    # A fixed batch in the file (batch_shape, stateful models) is the training's, not the device's.
    return replace(spec, shape=(None, *axes[1:]))


def dtype_of(tensor: Any) -> str:
    dtype = tensor.dtype
    return dtype if isinstance(dtype, str) else str(dtype.name)


def layer_name(tensor: Any) -> str:
    """The name of the layer that a symbolic tensor comes from."""
    history = getattr(tensor, "_keras_history", None)
    layer = getattr(history, "operation", None) or getattr(history, "layer", None)
    return str(getattr(layer, "name", None) or tensor.name.split(":")[0])


def unique(names: list[str], taken: Sequence[str] = ()) -> list[str]:
    """``names``, a number behind those that came before or are taken."""
    result: list[str] = []
    for name in names:
        free, count = name, 0
        while free in result or free in taken:
            count += 1
            free = f"{name}_{count}"
        result.append(free)
    return result


def pack(model: Any, tensors: tuple[Any, ...]) -> Any:
    """The flat inputs in the structure that the model was built with."""
    struct = getattr(model, "_inputs_struct", None)  # Keras 3 functional
    if struct is not None:
        import keras

        return keras.tree.pack_sequence_as(struct, list(tensors))
    nested = getattr(model, "_nested_inputs", None)  # tf_keras functional
    if nested is not None:
        import tensorflow as tf

        return tf.nest.pack_sequence_as(nested, list(tensors))
    return tensors[0] if len(tensors) == 1 else list(tensors)


def named_outputs(model: Any, outputs: Any, taken: Sequence[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(outputs, dict) and not any(
        isinstance(v, dict | list | tuple) for v in outputs.values()
    ):
        flat = [(str(name), value) for name, value in outputs.items()]
    else:
        import tensorflow as tf

        values = tf.nest.flatten(outputs)
        symbolic = list(getattr(model, "outputs", None) or [])
        known = [f"output_{index}" for index in range(len(values))]
        if len(symbolic) == len(values):
            known = [layer_name(tensor) for tensor in symbolic]
        flat = list(zip(known, values, strict=True))
    # An output that is an input has its name: a file needs two.
    names = unique([name for name, _ in flat], taken)
    yield from zip(names, [value for _, value in flat], strict=True)


def vocabulary_of(model: Any, interface: Interface) -> dict[str, int]:
    """For each input that an Embedding reads directly, how many different tokens it takes."""
    sizes: dict[str, int] = {}
    names = [spec.name for spec in interface.inputs]
    by_id = {id(tensor): name for name, tensor in zip(names, model.inputs, strict=True)}
    for layer in all_layers(model):
        if type(layer).__name__ != "Embedding":
            continue
        for node in getattr(layer, "_inbound_nodes", []):
            tensors = getattr(node, "input_tensors", [])
            for tensor in tensors if isinstance(tensors, list | tuple) else [tensors]:
                name = by_id.get(id(tensor))
                if name is not None:
                    size = int(layer.input_dim)
                    sizes[name] = min(size, sizes.get(name, size))
    if not sizes and len(names) == 1:
        # Sequential and nested models: the one input is what the embedding reads.
        found = [
            int(layer.input_dim)
            for layer in all_layers(model)
            if type(layer).__name__ == "Embedding"
        ]
        if found and not np.issubdtype(np.dtype(interface.inputs[0].dtype), np.complexfloating):
            sizes[names[0]] = min(found)
    return sizes
