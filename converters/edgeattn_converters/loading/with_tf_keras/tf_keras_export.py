"""The inference graph of a model that tf_keras loads, as a SavedModel with one signature.

Only for the worker process that runs a program of the user with tf_keras. The graph is exported
only if it is known to compute what the trained model computed: every variable that it reads has one
value from the file, no weights in the file are left over, and the outputs are those of ``predict``,
the same in each call, for each sample alone, and for a second model that the program builds.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.printable import enumerated
from edgeattn_converters.loading.comparison_samples import SAMPLES, Kind, padded_groups
from edgeattn_converters.loading.output_differences import TOLERANCE, difference, unknown_outputs
from edgeattn_converters.loading.own_code import call_arguments, local_packages
from edgeattn_converters.loading.own_code.own_classes import own_objects
from edgeattn_converters.loading.training_mode import CALLS
from edgeattn_converters.loading.with_tf_keras import (
    tf_keras_assignments,
    tf_keras_interface,
    tf_keras_modules,
    tf_keras_worker,
)
from edgeattn_converters.loading.with_tf_keras.tf_keras_assignments import Assignments
from edgeattn_converters.loading.with_tf_keras.tf_keras_interface import Interface
from edgeattn_converters.loading.with_tf_keras.tf_keras_samples import Sized, kinds_of
from edgeattn_converters.loading.with_tf_keras.tf_keras_worker import NotLoadedError

SIGNATURE = "serving_default"
_LISTED = 3


def export(
    source: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Save the graph of the model of ``source`` in its ``folder``.

    Args:
        source: as for :func:`.tf_keras_worker.outputs` without ``structure`` and its like;
            ``folder``, an empty one; ``time_steps``, lengths for samples; ``version``, whether the
            file contains that of the Keras that saved it; and the ``activations`` that it names.
        tensors: samples of the user by name.

    Returns:
        The version of tf_keras, why nothing was saved, if so, whether the model loads, the names
        of the layers that kept a state between batches, and those of the outputs with values that
        are unknown for all samples. Samples by ``"group/inputs/name"`` and outputs by
        ``"group/outputs/name"``.
    """
    tf_keras_modules.provide()
    import tf_keras

    result: dict[str, Any] = {"version": tf_keras.__version__, "failure": None, "loads": True}
    samples = dict(tensors or {})
    try:
        model, assigned = _loaded(source, samples)
    except Exception as error:
        loads = isinstance(error, NotLoadedError)  # the weights do not fit
        return {**result, "failure": tf_keras_worker.reason(error), "loads": loads}, {}
    try:
        exported, arrays = _exported(source, samples, model, assigned)
    except Exception as error:
        return {**result, "failure": tf_keras_worker.reason(error)}, {}
    return result | exported, arrays


def _exported(
    source: Mapping[str, Any], samples: Mapping[str, Any], model: Any, assigned: Assignments
) -> tuple[dict[str, Any], dict[str, Any]]:
    if source["function"] is None:
        _require_clear(source)
    if not source["version"]:
        _require_one_layout(source, model, assigned)
    graph = _Graph.of(model, tf_keras_interface.of_model(model, samples))
    _require_assigned(graph.function, assigned)
    groups = list(_groups(graph, source["time_steps"], samples))
    outputs = [_predicted(model, graph.interface, arrays) for arrays in groups]
    computed = [k for k, values in enumerate(outputs) if not isinstance(values, Exception)]
    if not computed:
        failure = f"it fails for all samples: {tf_keras_worker.reason(outputs[-1])}"
        raise NotLoadedError(_other_names(graph.interface, samples) + failure)
    groups, expected = [groups[k] for k in computed], [outputs[k] for k in computed]
    _require_equal(graph, groups, expected)
    graph.save(Path(source["folder"]))
    with local_packages.run_again(Path(source["script"])):
        again, _ = _loaded(source, samples)
    other = _Graph.of(again, tf_keras_interface.of_model(again, samples))
    if _differ([other(arrays) for arrays in groups], expected):
        raise NotLoadedError("the program computes something else each time it runs")
    names = list(graph.names)
    inputs = [item.name for item in graph.interface.inputs]
    arrays: dict[str, Any] = {}
    for group, (given, outputs) in enumerate(zip(groups, expected, strict=True)):
        arrays |= {f"{group}/inputs/{k}": x for k, x in zip(inputs, given, strict=True)}
        arrays |= {f"{group}/outputs/{k}": x for k, x in zip(names, outputs, strict=True)}
    unknown = [names[number] for number in unknown_outputs(expected)]
    of_list = isinstance(samples, Mapping) and graph.interface.is_list and not model.inputs
    return {
        "stateful": graph.stateful,
        "unknown": unknown,
        "groups": len(groups),
        "note": call_arguments.list_note(model, inputs) if of_list else None,
    }, arrays


def _loaded(source: Mapping[str, Any], samples: Mapping[str, Any]) -> tuple[Any, Assignments]:
    """Return the model with the weights of its file, all of which it has."""
    import tf_keras

    def build(model: Any) -> None:
        if not samples and _has_weights(model):
            return  # the program has called it
        interface = tf_keras_interface.of_samples(model, samples)
        interface.call(model, [np.asarray(samples[item.name]) for item in interface.inputs])

    # The names of layers are those of a new process.
    tf_keras.backend.clear_session()
    model, assigned = tf_keras_assignments.loaded_completely(source, build)
    tf_keras_worker.compute_in_float32(model)
    return model, assigned


def _has_weights(model: Any) -> bool:
    try:
        return bool(model.weights)
    except ValueError:  # of a Sequential inside whose layers have no weights yet
        return False


def _require_clear(source: Mapping[str, Any]) -> None:
    """Raise an error if an activation may be the user's or that of Keras, see own_functions.py."""
    import tf_keras

    module = sys.modules[local_packages.module_name(Path(source["script"]))]
    own, chosen = own_objects(module), getattr(module, "custom_objects", None)
    for name in source["activations"]:
        is_own = name in own and not isinstance(own[name], type)
        is_chosen = isinstance(chosen, dict) and name in chosen
        if is_own and not is_chosen and hasattr(tf_keras.activations, name):
            raise NotLoadedError(f"the activation {name} may be that of Keras")


def _require_one_layout(source: Mapping[str, Any], model: Any, assigned: Assignments) -> None:
    """Raise an error if another Keras could have saved a file without a version.

    Other versions store the same weights in other groups, and would assign others to ``model``.
    """
    ours = [np.asarray(weight) for weight in model.weights]
    for layout in (tf_keras_assignments.as_keras_2_14, tf_keras_assignments.as_keras_2_13):
        with contextlib.suppress(Exception), layout():
            with tf_keras_assignments.recorded() as others:
                tf_keras_worker.load_weights(model, source)
            fits = others.values.keys() == assigned.values.keys() and not others.left_over
            values = [np.asarray(weight) for weight in model.weights]
            if fits and not all(map(np.array_equal, ours, values)):
                break
    else:
        tf_keras_worker.load_weights(model, source)
        return
    raise NotLoadedError("the file does not contain its version, and others load other weights")


@dataclass(frozen=True)
class _Graph:
    """The inference function of a model.

    Attributes:
        interface: the inputs.
        names: the names of the outputs in the order of ``tf.nest``.
        function: the concrete function, whose inputs and outputs have these names.
        stateful: the names of the layers that kept a state between batches, and start from zero.
        kinds: the kinds of samples for the layers.
    """

    interface: Interface
    names: tuple[str, ...]
    function: Any
    stateful: list[str]
    kinds: list[Kind]

    @classmethod
    def of(cls, model: Any, interface: Interface) -> "_Graph":
        """Trace a model for any number of samples, or else for the number that it was built with.

        A layer may have that number in its code.
        """
        facts = _without_states(model), _kinds(model)
        free = interface.with_any_batch()
        try:
            return cls(free, *_traced(model, free), *facts)
        except Exception:
            if interface == free:
                raise
        return cls(interface, *_traced(model, interface), *facts)

    @property
    def batch(self) -> int | None:
        """The number of samples; None for any."""
        return self.interface.inputs[0].shape[0]

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """Return the outputs in the order of their names."""
        import tensorflow as tf

        from edgeattn_converters.loading.signatures.signature_batch import call_signature

        inputs = zip(self.interface.inputs, arrays, strict=True)
        given = {item.name: tf.constant(array, item.dtype) for item, array in inputs}
        outputs = call_signature(self.function, given)
        return [np.asarray(outputs[name], "float64") for name in self.names]

    def save(self, folder: Path) -> None:
        """Save the function as the only signature of a SavedModel."""
        import tensorflow as tf

        module = tf.Module()
        module.weights = list(self.function.graph.variables)
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: self.function})


def _traced(model: Any, interface: Interface) -> tuple[tuple[str, ...], Any]:
    import tensorflow as tf

    names: list[str] = []
    order = [item.name for item in interface.inputs]

    # With AutoGraph, as in predict.
    @tf.function  # type: ignore[untyped-decorator]
    def serve(**given: Any) -> Any:
        outputs = interface.call(model, [given[name] for name in order])
        names[:] = tf_keras_interface.output_names(model, outputs)
        flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(outputs)]
        return dict(zip(names, map(tf.identity, flat), strict=True))

    specs = {item.name: tf.TensorSpec(item.shape, item.dtype) for item in interface.inputs}
    function = serve.get_concrete_function(**specs)
    return tuple(names), function


def _kinds(model: Any) -> list[Kind]:
    kinds = kinds_of(list(model._flatten_layers()))
    # Functions such as logarithms are NaN for some of the others.
    return kinds + [replace(kind, is_between_0_and_1=True) for kind in kinds]


def _without_states(model: Any) -> list[str]:
    """Let each batch start from zero states; return the names of layers that kept theirs."""
    names = []
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
            names.append(layer.name)
            layer.stateful = False
    return names


def _require_assigned(function: Any, assigned: Assignments) -> None:
    """Raise an error if the graph reads a variable, or a table, whose value is not in the file."""
    import tensorflow as tf

    names = {id(variable.handle): variable.name for variable in function.graph.variables}
    others = [
        names.get(id(handle), "a table")
        for handle in function.captured_inputs
        if handle.dtype == tf.resource and id(handle) not in assigned.values
    ]
    if others:
        listed = enumerated(list(map(repr, others[:_LISTED])))
        raise NotLoadedError(f"the outputs depend on {listed}, which the file does not contain")


def _groups(graph: _Graph, time_steps: Any, samples: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield samples for the inputs: generated ones, and those of the user."""
    inputs = graph.interface.inputs
    rows = np.arange(graph.batch or SAMPLES) % SAMPLES
    tensors = [Sized.of(item, time_steps) for item in inputs]
    for kind in graph.kinds:
        for group in padded_groups(tensors, kind):
            yield [array[rows] for array in group]
    if given := _arrays_of_inputs(graph.interface, samples):
        arrays = [np.asarray(given[item.name]).astype(item.dtype) for item in inputs]
        rows = np.arange(graph.batch or len(arrays[0])) % len(arrays[0])
        yield [array[rows] for array in arrays]


def _arrays_of_inputs(interface: Interface, samples: Mapping[str, Any]) -> Mapping[str, Any]:
    """The samples of the user by the names of the inputs; none if they have other names."""
    names = [item.name for item in interface.inputs]
    if len(names) == len(samples) == 1:
        return dict(zip(names, samples.values(), strict=True))
    return samples if set(names) <= set(samples) else {}


def _other_names(interface: Interface, samples: Mapping[str, Any]) -> str:
    """Which names samples have that were not used, as they are not those of the inputs."""
    if not samples or _arrays_of_inputs(interface, samples):
        return ""
    names = [item.name for item in interface.inputs]
    listed = enumerated(list(map(repr, names))), enumerated(list(map(repr, samples)))
    return "its inputs are {}, the arrays of the samples {}; ".format(*listed)


def _predicted(model: Any, interface: Interface, arrays: Sequence[Any]) -> Any:
    """Return what ``predict`` computes, or its error, as for a word that a model lacks."""
    try:
        packed = interface.packed(arrays)
        values = tf_keras_worker.predicted(model, packed, by_name=interface.by_name)
    except Exception as error:
        return error
    return [np.asarray(value, "float64") for value in values]


def _require_equal(
    graph: _Graph, groups: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]
) -> None:
    """Raise an error unless the graph computes ``expected``, each time and for each sample."""
    for _ in range(CALLS):
        if _differ([graph(arrays) for arrays in groups], expected):
            raise NotLoadedError("its graph computes something else than predict, or at random")
    if graph.batch not in (None, 1):
        return
    for arrays, values in zip(groups, expected, strict=True):
        rows = [graph([array[k : k + 1] for array in arrays]) for k in range(len(arrays[0]))]
        alone = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        if _differ([alone], [values]):
            raise NotLoadedError("the outputs for a sample depend on the others of its batch")


def _differ(actual: Sequence[Any], expected: Sequence[Any]) -> bool:
    return difference(actual, expected).error > TOLERANCE
