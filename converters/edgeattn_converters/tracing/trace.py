"""Traces a Keras model to a frozen TensorFlow function with fixed shapes and ordered outputs."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.tensors import Specs, TensorSpec
from edgeattn_converters.graphs.constant_results import constant_results
from edgeattn_converters.graphs.free_squeezes import squeezes_of_free_batches
from edgeattn_converters.graphs.kept_values import without_assignments
from edgeattn_converters.graphs.known_lists import known_lists
from edgeattn_converters.graphs.signatures import with_constants
from edgeattn_converters.graphs.single_precision import (
    half_inside,
    in_float32,
    with_live_variables,
)
from edgeattn_converters.loading.assigned_weights import keeps_value
from edgeattn_converters.loading.fixed_time_axis import TimeSteps
from edgeattn_converters.tracing import joined_batch, known_batch
from edgeattn_converters.tracing.attended import Attended, attended_inputs
from edgeattn_converters.tracing.attention_outputs import AttentionMap, CollectMaps, maps_of
from edgeattn_converters.tracing.batch_axis import check_batch_axes, has_one_row, set_shapes
from edgeattn_converters.tracing.branches import branch_counts
from edgeattn_converters.tracing.graph_form import (
    averages_of_known_shape,
    inlined,
    known_branches,
    no_argpartition,
    reshapes_of_free_batches,
    single_elements_vectorized,
    sorted_top_k,
    sums_by_shape,
    switches_as_conditions,
    without_calls,
)
from edgeattn_converters.tracing.keras_call import call, declared_shapes, named_outputs
from edgeattn_converters.tracing.map_selection import Doubtful, MapSelection
from edgeattn_converters.tracing.softmax_search import NO_PRODUCT
from edgeattn_converters.tracing.specs import (
    has_known_axes,
    input_specs,
    only_batch,
    output_spec,
    with_free_batch,
)
from edgeattn_converters.tracing.tokens import TokenLimits, sequence_lengths, token_limits

# A batch size that tells the batch axis from other axes.
PROBE_BATCH = 3


@dataclass(frozen=True)
class Interface:
    """Specs of a model's inputs, outputs and attention maps, with a free batch axis.

    ``doubtful`` are layers that may be attention but whose maps are not exported. ``tokens`` are
    names of inputs with the limits of tokens at every value of a sample, see ``vocabulary``.
    ``attended`` are the inputs at the keys and queries of maps, if the graph shows them.
    ``mixes_samples`` says that outputs of a sample depend on the others of its batch; it is known
    after the reference was computed. ``batch`` is the number of samples of a batch if the model
    accepts no other, as exported graphs may, or if ``any_batch`` no free one. ``half`` is which of
    float16 and bfloat16 parts of the model compute in; :func:`trace` computes these in float32.
    ``branches`` are names of inputs that select one of so many branches. ``without_product`` are
    names of maps that multiply no data, and are exported because the user named their layers.
    """

    inputs: Specs
    outputs: Specs
    attention: Specs
    doubtful: tuple[Doubtful, ...] = ()
    tokens: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    attended: tuple[Attended, ...] = ()
    mixes_samples: bool = False
    batch: int | None = None
    any_batch: bool = False
    half: tuple[str, ...] = ()
    branches: tuple[tuple[str, int], ...] = ()
    without_product: tuple[str, ...] = ()

    @property
    def all_outputs(self) -> Specs:
        return (*self.outputs, *self.attention)

    @property
    def vocabulary(self) -> dict[str, TokenLimits]:
        """The limits of the tokens at every value of a sample.

        By the names of the inputs that have tokens.
        """
        shapes = {spec.name: [axis or 1 for axis in spec.shape[1:]] for spec in self.inputs}
        return {
            name: TokenLimits(*(np.array(item).reshape(shapes[name]) for item in limits))
            for name, *limits in self.tokens
        }


@dataclass(frozen=True)
class Traced:
    """A concrete function whose inputs and outputs have the order of ``inputs`` and ``outputs``.

    ``attention`` names the outputs that are attention maps.
    """

    function: Any
    inputs: Specs
    outputs: Specs
    attention: tuple[str, ...]


@dataclass(frozen=True)
class _Concrete:
    """A concrete function whose outputs are those of a model, by ``names``, and then ``maps``.

    ``in_loops`` are maps that it cannot return, because they are inside a loop. ``switches`` are
    indices with the number of branches of which they select one.
    """

    function: Any
    names: Sequence[str]
    maps: Sequence[AttentionMap]
    in_loops: Sequence[AttentionMap]
    switches: Sequence[tuple[Any, int]]

    @property
    def all_names(self) -> list[str]:
        return [*self.names, *(item.name for item in self.maps)]


def interface_of(
    model: Any, *, time_steps: TimeSteps | None = None, attention: Sequence[str] = ()
) -> Interface:
    """The interface of ``model``, with every axis fixed but the batch axis.

    ``attention`` names layers whose maps are exported in addition to those that are detected.
    Raises :class:`UsageError` if the model has no such layer or the layer has no map, or if an axis
    is free and ``time_steps`` is missing.
    """
    inputs = input_specs(model, time_steps)
    selection = MapSelection(model, attention)
    trace_batch = functools.partial(_concrete, model, inputs, expose=None)
    traced, batch, any_batch = known_batch.traced(model, only_batch(model), trace_batch)
    if batch is None and has_one_row(traced.function.outputs[: len(traced.names)]):
        batch = 1
        traced = _concrete(model, inputs, batch=batch, expose=None)
    shapes, without_batch = _free_shapes(model, inputs, traced, batch)
    tensors, count = traced.function.outputs, len(traced.names)
    outputs = [
        output_spec(model, name, shape, tensor)
        for name, shape, tensor in zip(traced.names, shapes, tensors, strict=False)
    ]
    map_specs = [
        (
            item,
            TensorSpec(item.name, tuple(shape.as_list()) if shape.rank else (), tensor.dtype.name),
        )
        for item, shape, tensor in zip(traced.maps, shapes[count:], tensors[count:], strict=True)
    ]
    exported, doubtful = selection.select(map_specs, traced.in_loops, without_batch)
    whole = without_calls(traced.function)
    tokens = token_limits(whole.graph, whole.inputs[: len(inputs)])
    branches = branch_counts(traced.switches, traced.function.inputs[: len(inputs)])
    names = {spec.name for spec in exported}
    return Interface(
        inputs,
        tuple(outputs),
        exported,
        doubtful,
        tuple(
            (inputs[k].name, tuple(item.first.ravel().tolist()), tuple(item.stop.ravel().tolist()))
            for k, item in tokens.items()
        ),
        tuple(attended_inputs(traced.maps, names, inputs, traced.function)),
        batch=batch,
        any_batch=any_batch,
        half=half_inside(traced.function),
        branches=tuple((inputs[k].name, count) for k, count in branches.items()),
        without_product=tuple(
            item.name for item in traced.maps if item.doubt == NO_PRODUCT and item.name in names
        ),
    )


def _free_shapes(
    model: Any, inputs: Specs, traced: _Concrete, batch: int | None
) -> tuple[list[Any], set[str]]:
    """The shapes of the outputs and maps with a free batch axis, and the names of maps without one.

    ``batch`` is the batch size of ``traced``, if it is fixed.
    """
    shapes = [tensor.shape for tensor in traced.function.outputs]
    count = len(traced.names)
    if batch is not None:
        # An output with another first axis is refused while it is traced.
        free = [type(shape)([None, *shape[1:]]) if shape.rank else shape for shape in shapes]
        return free, _without_batch(traced.maps, shapes[count:], batch)
    if all(item.known for item in traced.maps) and all(map(has_known_axes, shapes)):
        return shapes, set()
    # While the batch axis is free, it looks like any other free first axis, and TensorFlow does not
    # infer shapes that are computed from it.
    multiplying = [item.name for item in traced.maps if item.doubt != NO_PRODUCT]
    fixed = _concrete(model, inputs, batch=PROBE_BATCH, expose=None, multiplying=multiplying)
    fixed_shapes = [tensor.shape for tensor in fixed.function.outputs]
    known = dict(zip(fixed.all_names, fixed_shapes, strict=True))
    merged = [
        with_free_batch(shape, known.get(name, shape), PROBE_BATCH)
        for name, shape in zip(traced.all_names, shapes, strict=True)
    ]
    return merged, _without_batch(fixed.maps, fixed_shapes[len(fixed.names) :], PROBE_BATCH)


def _without_batch(maps: Sequence[AttentionMap], shapes: Sequence[Any], batch: int) -> set[str]:
    """The names of the maps whose first axis is not that of this batch size."""
    return {
        item.name
        for item, shape in zip(maps, shapes, strict=True)
        if not shape.rank or shape[0] != batch
    }


def trace(
    model: Any,
    interface: Interface,
    *,
    batch: int | None,
    attention: bool,
    freeze: bool = True,
    lowering: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    change: Callable[[], None] | None = None,
) -> Traced:
    """Trace ``model`` for this batch size; ``None`` keeps the batch axis free.

    A model that accepts only one batch size, or no free one, is traced for a known one.
    ``lowering`` is a context in which the model is traced. ``change`` changes the graph after maps
    have been found in it, which have known forms. ``freeze`` turns weights to constants,
    for files, in which every ``top_k`` sorts.
    """
    batch = batch if interface.any_batch and batch else interface.batch or batch
    expose = [spec.name for spec in interface.attention] if attention else []
    with lowering(), sorted_top_k() if freeze else contextlib.nullcontext():
        traced = _concrete(
            model,
            interface.inputs,
            batch=batch,
            expose=expose,
            inline=freeze,
            shapes={spec.name: spec.shape for spec in interface.outputs},
            change=change,
            multiplying=[name for name in expose if name not in interface.without_product],
        )
    function, map_names = traced.function, [item.name for item in traced.maps]
    if freeze or interface.half:
        constant = with_constants(function)
        constant = in_float32(constant, interface.half)
        function = constant if freeze else with_live_variables(function, constant)
    by_name = {spec.name: spec for spec in interface.all_outputs}
    specs = [by_name[name] for name in (*traced.names, *map_names)]
    return Traced(
        function,
        tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in interface.inputs),
        tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs),
        tuple(map_names),
    )


def _concrete(
    model: Any,
    inputs: Specs,
    *,
    batch: int | None,
    expose: Sequence[str] | None,
    inline: bool = False,
    shapes: Mapping[str, tuple[int | None, ...]] | None = None,
    change: Callable[[], None] | None = None,
    multiplying: Sequence[str] = (),
) -> _Concrete:
    """Trace the model as a concrete function.

    ``expose`` names the maps to return; ``None`` means all. ``inline`` traces a graph for
    converters, which TensorFlow itself may be unable to run. ``shapes`` are known ones of outputs.
    ``change`` changes the graph after maps have been found. ``multiplying`` names maps that
    multiply data while the batch axis is free.
    """
    import tensorflow as tf

    names: list[str] = []
    maps: list[AttentionMap] = []
    in_loops: list[AttentionMap] = []
    switches: list[tuple[Any, int]] = []

    kept = [variable for variable in getattr(model, "weights", ()) if keeps_value(variable)]

    def function(*tensors: Any) -> list[Any]:
        graph = tf.compat.v1.get_default_graph()
        context: contextlib.AbstractContextManager[CollectMaps] = (
            contextlib.nullcontext(lambda *_: []) if expose == [] else maps_of(model, multiplying)
        )
        with context as collect_maps:
            with contextlib.ExitStack() as stack:
                if inline or expose != []:
                    stack.enter_context(known_lists())
                if expose != []:
                    stack.enter_context(single_elements_vectorized())
                stack.enter_context(known_branches())
                found_switches = stack.enter_context(switches_as_conditions())
                stack.enter_context(averages_of_known_shape())
                stack.enter_context(no_argpartition())
                stack.enter_context(reshapes_of_free_batches())
                stack.enter_context(squeezes_of_free_batches(model, batch))
                stack.enter_context(constant_results())
                stack.enter_context(without_assignments(kept))
                if inline:
                    stack.enter_context(inlined())
                    stack.enter_context(sums_by_shape())
                result = call(model, tensors)
            outputs = dict(named_outputs(model, result, [spec.name for spec in inputs]))
            found = collect_maps(sequence_lengths(inputs, tensors), list(outputs.values()))
            exposed = [item for item in found if expose is None or item.name in expose]
        if change is not None:
            change()
        names[:] = list(outputs)
        switches[:] = found_switches
        # A layer inside a loop computes its weights in the loop's graph, which they cannot leave.
        maps[:] = [item for item in exposed if item.weights.graph is graph]
        in_loops[:] = [item for item in exposed if item.weights.graph is not graph]
        others = (tf.float64, tf.float16, tf.bfloat16)
        # Every output needs a tensor of its own, also one that is an input or another output.
        values = [
            tf.cast(value, tf.float32) if value.dtype in others else tf.identity(value)
            for value in (*outputs.values(), *(item.weights for item in maps))
        ]
        named = dict(zip(names, values, strict=False))
        check_batch_axes(model, result, named, inputs, batch)
        for value, shape in zip(values, declared_shapes(model, result), strict=False):
            value.set_shape([batch, *shape[1:]])
        set_shapes(named, shapes or {}, batch)
        return values

    signature = [
        tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name=f"input_{index}")
        for index, spec in enumerate(inputs)
    ]
    concrete = tf.function(function, input_signature=signature, autograph=False)
    with joined_batch.explained(model, inputs):
        return _Concrete(concrete.get_concrete_function(), names, maps, in_loops, switches)
