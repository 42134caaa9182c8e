"""SavedModels without Keras layers, such as those of ``model.export``: their signature as a model.

The graph is all that such a folder contains, so its functions have to run. They may consist of
operations that compute on tensors only; nothing is loaded before all of them are known to.
"""

import difflib
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.printable import counted
from edgeattn_converters.graphs.single_precision import without_half
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.build import root_cause
from edgeattn_converters.loading.fixed_time_axis import (
    TimeSteps,
    free_axes_error,
    length_of,
    with_sizes,
)
from edgeattn_converters.loading.migrate import mixed_precision
from edgeattn_converters.loading.signatures import one_signature, random_outputs
from edgeattn_converters.loading.signatures.signature_batch import (
    LIMITS,
    is_close,
    random_inputs,
    single_sample,
    undefined,
)
from edgeattn_converters.loading.signatures.signature_inputs import (
    functions_of,
    inference_function,
    without_outputs,
)
from edgeattn_converters.loading.signatures.signature_layer import signature_layer
from edgeattn_converters.loading.signatures.signature_operations import (
    SAVE_A_FUNCTION,
    unsupported,
    without_assignments,
    without_gpus,
)

DEFAULT = "serving_default"
# Steps of random inputs whose number is free.
_ANY_LENGTH = 8


def load_signature(
    path: Path,
    time_steps: TimeSteps | None,
    *,
    allow_free_time: bool,
    signature: str | None = None,
) -> tuple[Any, tuple[str, ...]]:
    """Return a functional model that calls a signature of a SavedModel, and notes about it.

    That is ``signature``, or else ``serving_default``, or the only one that there is. Raises
    :class:`UnsafeModelError` if an operation may do more than compute,
    :class:`UnsupportedModelError` if the folder has no such signature or is damaged, and
    :class:`UsageError` if it lacks the chosen one, or if the number of time steps is free and not
    given.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    message = SavedModel()
    try:
        message.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's exceptions have no public base class
        raise unsupported(path, f"is damaged: {error}") from error
    message, left_out = one_signature.checked(
        path, message, lambda names: _chosen(path, names, signature)
    )
    try:
        with one_signature.folder(path, message if left_out else None) as place:
            loaded = tf.saved_model.load(str(place))
        functions = dict(getattr(loaded, "signatures", {}))
    except Exception as error:
        raise unsupported(path, f"cannot be loaded: {error_text.beginning(error, 200)}") from error
    name = _chosen(path, functions, signature)
    function, more = inference_function(path, message, name, functions[name])
    function = without_assignments(path, name, function)
    function = without_gpus(path, name, function)
    function, half = without_half(function)
    notes = [
        _note_of(name, functions_of(message)),
        *left_out,
        *more,
        *mixed_precision.notes_on(half),
    ]
    _, inputs = function.structured_input_signature
    count, single = _count(path, inputs), None
    _check_first_axes(path, name, function.structured_outputs, count)
    if count is not None:
        single = function
        if count > 1:
            single, note = _single_sample(path, function, count, time_steps)
            notes.append(note)
    random_outputs.check_repeatable(path, name, function, count, time_steps)
    layer = signature_layer(loaded, functions[name].variables, function, single, count or 1)
    model = _model(path, layer, inputs, time_steps, allow_free_time)
    if any(None in spec.shape.as_list()[1:] for spec in inputs.values()) and time_steps:
        _check_rows(path, layer, inputs, time_steps)
    return model, tuple(notes)


def _single_sample(
    path: Path, function: Any, count: int, time_steps: TimeSteps | None
) -> tuple[Any, str]:
    """Return a signature of ``count`` samples as a function of one, and a note about it."""
    import tensorflow as tf

    def axes_of(name: str, spec: Any) -> list[int]:
        axes = with_sizes(spec.shape.as_list(), length_of(time_steps, name))
        return [axis or _ANY_LENGTH for axis in axes[1:]]

    together = f"computes {counted(count, 'sample')} at a time, and files for devices compute one"
    try:
        single = single_sample(function, count, axes_of)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise unsupported(
            path,
            f"{together}. Whether they depend on each other is unknown, because random inputs "
            f"fail: {root_cause(error)}",
            _any_number(function),
        ) from error
    if single is None:
        raise unsupported(
            path,
            f"{together}, but a sample has other outputs beside others than beside copies of "
            "itself.",
            "Remove what the model computes of several samples together, such as a mean over the "
            f"first axis. {_any_number(function)}",
        )
    note = (
        f"The signature computes {counted(count, 'sample')} at a time, the files one. On random "
        "inputs, no sample depended on the others; the reference is computed as many at a time."
    )
    if single.is_repeated:
        note += (
            f" The files compute {counted(count, 'copy', 'copies')} of a sample, in about {count} "
            "times the time of one, because the graph contains the number of samples. "
            f"{_any_number(function)}"
        )
    return single.function, note


def _any_number(function: Any) -> str:
    """What to do to save a signature for any number of samples."""
    _, specs = function.structured_input_signature
    name, spec = next(iter(specs.items()))
    axes = ", ".join(map(str, [None, *spec.shape.as_list()[1:]]))
    return (
        "Save it with a signature for any number of samples: "
        f"{name} = tf.TensorSpec(({axes}), tf.{spec.dtype.name}). Or convert the Keras file of the "
        "model, if there is one."
    )


def _check_rows(path: Path, layer: Any, specs: Mapping[str, Any], time_steps: TimeSteps) -> None:
    """Raise an error if a sample alone gives another result than beside another sample.

    A file for a device has one sample a call. Graphs that model.export of Keras 3.15 writes for
    TimeDistributed with a free number of steps compute as many steps as there are samples.
    """
    import tensorflow as tf

    def axes_of(name: str, spec: Any) -> list[int]:
        axes = with_sizes(spec.shape.as_list(), length_of(time_steps, name))
        return [axis or 1 for axis in axes[1:]]

    for limits in LIMITS:
        pair = random_inputs(specs, 2, axes_of, limits)
        try:
            both = layer(pair)
            alone = layer({name: value[:1] for name, value in pair.items()})
        except (ValueError, tf.errors.OpError):
            return  # random values may not be valid inputs
        if undefined(alone) is None:
            break
    for name, value in alone.items():
        if not is_close(np.asarray(both[name])[:1], np.asarray(value)):
            raise unsupported(
                path,
                f"computes another output {name!r} for a sample alone than for the same sample "
                "beside another one, as graphs of model.export do that contain TimeDistributed "
                "with a free number of steps: they compute as many steps as there are samples.",
                "Convert the .keras or .h5 file of the model, or export the model with a fixed "
                "number of steps: keras.Input((N, ...)).",
            )


def _chosen(path: Path, functions: Collection[str], wanted: str | None) -> str:
    names = sorted(functions)
    listed = ", ".join(map(repr, names))
    if wanted is not None and wanted not in functions:
        similar = difflib.get_close_matches(wanted, names, 1)
        suggestion = f" Did you mean {similar[0]}?" if similar else ""
        raise UsageError(
            f"--signature {wanted}: the folder has no such signature.{suggestion}",
            hint=f"Pass one of {listed}." if names else "Leave --signature out.",
        )
    if not names:
        raise unsupported(
            path,
            "has no signature.",
            f"Save the module with {SAVE_A_FUNCTION}",
        )
    if wanted is not None:
        return wanted
    if DEFAULT in functions:
        return DEFAULT
    if len(names) == 1:
        return names[0]
    raise unsupported(
        path,
        f"has the signatures {listed}, but none is named {DEFAULT!r}.",
        f"Choose one: --signature {shlex.quote(names[0])}",
    )


def _note_of(name: str, functions: Mapping[str, Collection[str]]) -> str:
    """What the model is, with the signatures that call other functions."""
    note = f"The model is the graph of the signature {name!r}; the artifacts are compared with it."
    # serve and serving_default of model.export call the same one.
    others = [key for key, called in functions.items() if called != functions[name]]
    if others:
        listed = ", ".join(map(repr, sorted(others)))
        note += f" To convert another one ({listed}), pass --signature NAME."
    return note


def _model(
    path: Path,
    layer: Any,
    specs: Mapping[str, Any],
    time_steps: TimeSteps | None,
    allow_free_time: bool,
) -> Any:
    import keras
    import tensorflow as tf

    # A fixed batch size is that of the layer.
    axes = {name: [None, *spec.shape.as_list()[1:]] for name, spec in specs.items()}
    missing = None if allow_free_time else free_axes_error(axes, time_steps)
    if missing is not None:
        raise missing
    inputs = {}
    for name, spec in specs.items():
        shape = axes[name]
        if not allow_free_time:
            shape = with_sizes(shape, length_of(time_steps, name))
        inputs[name] = keras.Input(batch_shape=tuple(shape), dtype=spec.dtype.name, name=name)
    try:
        outputs = layer(inputs)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        shapes = ", ".join(f"{name} {tuple(item.shape)}" for name, item in inputs.items())
        raise unsupported(
            path, f"does not compute inputs of the shapes {shapes}: {root_cause(error)}"
        ) from error
    return keras.Model(inputs, outputs, name="model")


def _count(path: Path, specs: Mapping[str, Any]) -> int | None:
    """The number of samples that a signature computes, None for any number."""
    sizes = {spec.shape[0] for spec in specs.values()}
    if len(sizes) == 1:
        return next(iter(sizes))
    shapes = ", ".join(f"{name} {tuple(spec.shape)}" for name, spec in specs.items())
    raise unsupported(
        path,
        f"has inputs for different numbers of samples: {shapes}.",
        "Save it with a signature whose inputs all have the samples as first axis.",
    )


def _check_first_axes(
    path: Path, signature: str, outputs: Mapping[str, Any], count: int | None
) -> None:
    """Raise an error if an output of a signature does not have one row for each sample.

    A first axis of one element passes for any number of samples: such models compute one at a time.
    """
    rows = 1 if count is None else count
    others = [
        name
        for name, spec in outputs.items()
        if spec.shape.rank is not None and not (spec.shape.rank and spec.shape[0] in (rows, None))
    ]
    if not others:
        return
    name, shape = others[0], tuple(outputs[others[0]].shape)
    if count is None:
        problem = (
            f"returns its output {name!r} without a batch axis: its shape is {shape} for any "
            "number of samples."
        )
        hint = "Save it with a signature that returns one result for each sample"
    else:
        problem = (
            f"returns its output {name!r} of the shape {shape} for {counted(count, 'sample')}: "
            "its first axis is not that of the samples."
        )
        hint = "Save it with a signature whose inputs and outputs have an axis of samples"
        if count == 1:
            hint = f"Save it with a signature that returns tf.expand_dims({name}, 0)"
    if len(others) < len(outputs):
        hint += f", or without the output: {without_outputs(path, signature, others)}"
    raise unsupported(path, problem, hint)
