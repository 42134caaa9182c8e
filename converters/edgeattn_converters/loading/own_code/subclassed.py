"""Models of the user's own subclass of ``keras.Model``, which do not list their inputs.

Keras stores the shapes with which such a model was built; samples have shapes and dtypes.
"""

import contextlib
import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn.samples.npz import read_npz
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers
from edgeattn_converters.loading.fixed_time_axis import TimeSteps, free_axes_error
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.own_code import (
    call_arguments,
    outputs_of_calls,
    own_files,
    returned_values,
    undefined_names,
)
from edgeattn_converters.loading.own_code.nested_inputs import (
    InputPath,
    free_batch,
    input_names,
    is_free,
    is_shape,
    mapped,
    shapes_by_name,
    with_time_steps,
)

_DTYPES = ("float32", "int32")
# Samples of a batch for a call of code of the user that fails without their number.
KNOWN_BATCH = 3
# The array of labels in a file of samples.
LABELS = "y"
NO_SHAPE = "Pass samples, which have the shapes of the inputs, to convert: --samples FILE.npz"
_AS_WEIGHTS = (
    "save the weights of the model, model.save_weights('model.weights.h5'), and pass a function "
    "that creates it: --architecture FILE.py:FUNCTION"
)


def sample_arrays(path: Path | None, ignore: Collection[str] = ()) -> dict[str, Any]:
    """Return the arrays of a file of samples that may be inputs, by name, without ignored ones."""
    if path is None or path.suffix.lower() not in (".npz", ".npy"):
        return {}
    if path.suffix.lower() == ".npy":
        try:
            return {"inputs": np.load(path, allow_pickle=False, mmap_mode="r")}
        except (OSError, ValueError, EOFError):
            return {}  # reading the samples reports what is wrong with the file
    return {
        name: array
        for name, array in read_npz(path).items()
        if name != LABELS and not name.startswith(f"{LABELS}/") and name not in ignore
    }


def with_build_config(stored: Config, samples: Mapping[str, Any]) -> Config:
    """Return the stored config of a subclassed model with the shapes of its inputs."""
    shape = (stored.get("build_config") or {}).get("input_shape")
    if shape is not None and len(samples) > 1 and is_shape(shape):
        # Keras stores the shape of the first argument of call only.
        shapes = {f"{name}_shape": list(array.shape) for name, array in samples.items()}
        return {**stored, "build_config": {"shapes_dict": free_batch(shapes)}}
    if shape is None and len(samples) == 1:
        shape = list(next(iter(samples.values())).shape)
    elif shape is None and samples:
        shape = {name: list(array.shape) for name, array in samples.items()}
    if shape is None:
        return stored
    return {**stored, "build_config": {"input_shape": free_batch(shape)}}


def as_functional(
    model: Any, samples: Mapping[str, Any], time_steps: TimeSteps | None, *, allow_free_time: bool
) -> Any:
    """Return a functional model that calls the subclassed model; others unchanged.

    Raises :class:`UnsupportedModelError` if the shapes are unknown or the call fails, and
    :class:`.FreeAxesError` if the number of time steps is.
    """
    if getattr(model, "inputs", None):
        return model
    recorded = shapes = _recorded_shapes(model)
    by_name = len(shapes) > 1
    if not shapes and not _has_call(model):
        raise _without_call(model)
    if not shapes:
        # A program may set ``built`` of a model that was never called.
        shapes = {name: list(array.shape) for name, array in samples.items()}
        by_name = len(shapes) > 1 and set(shapes) <= set(call_arguments.inputs(model))
    if not shapes:
        raise UnsupportedModelError(
            f"The model is a subclass of keras.Model ({type(model).__name__}) without the shapes "
            "of its inputs.",
            hint=NO_SHAPE,
        )
    if len(shapes) == 1 < len(samples) and set(samples) <= set(call_arguments.inputs(model)):
        # Keras stores the shape of the first argument of call only.
        shapes, by_name = {name: list(array.shape) for name, array in samples.items()}, True
    samples = call_arguments.in_call_order(model, samples)
    shape = {key.removesuffix("_shape"): value for key, value in shapes.items()}
    shape = shape if len(shape) > 1 else next(iter(shape.values()))
    shape = free_batch(shape)
    names = _input_names(shape, samples)
    error = free_axes_error(shapes_by_name(shape, names), time_steps)
    shape = with_time_steps(shape, time_steps, names)
    if error is not None and is_free(shape) and not allow_free_time:
        raise error
    # The recorded shapes of samples are a dictionary also if they are arguments.
    if by_name and (not recorded or isinstance(next(iter(recorded.values())), Mapping)):
        return _called_by_name_or_with_dictionary(model, shape, samples)
    return _called(model, shape, samples, by_name=by_name)


def _called_by_name_or_with_dictionary(
    model: Any, shapes: Mapping[str, Any], samples: Mapping[str, Any]
) -> Any:
    """Call a model whose arguments may be a dictionary with keys that ``call`` has as arguments."""
    try:
        return _called(model, shapes, samples, by_name=True)
    except UnsupportedModelError:
        with contextlib.suppress(UnsupportedModelError):
            return _called(model, shapes, samples, by_name=False)
        raise


def _recorded_shapes(model: Any) -> dict[str, Any]:
    """The shapes of the arguments of ``build``; a call that fails may leave None."""
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    return {} if all(shape is None for shape in shapes.values()) else shapes


def is_called_by_name(model: Any, functional: Any) -> bool:
    """Return whether ``functional``, from :func:`as_functional`, passes several arguments."""
    names = () if functional is model else functional._inputs_struct
    if not isinstance(names, Mapping):
        return False
    return len(names) > 1 and set(names) <= set(call_arguments.inputs(model))


def is_subclassed(model: Any) -> bool:
    """Return whether the model is of a subclass of keras.Model and does not list its inputs."""
    import keras

    return isinstance(model, keras.Model) and not derives_from(model, "Functional", "Sequential")


def require_listed_layers(file_name: str, stored: Config) -> None:
    """Raise :class:`UnsupportedModelError` for a subclassed model in a whole ``.h5`` file.

    Its weights are in the order of layers that the config does not list.
    """
    if is_model(stored) or stored_layers(stored):
        return
    kind = str(stored.get("class_name")).rsplit(">", 1)[-1]
    raise UnsupportedModelError(
        f"{file_name} contains a model of the class {kind} without a list of its layers, as .h5 "
        "files of subclasses of keras.Model do.",
        hint="Load the weights into the class and save a .keras file: create the model, call it "
        f"with its inputs, then model.load_weights({file_name!r}) and model.save('model.keras'). "
        f"Convert that with the file of the class: --custom-objects FILE.py. Or {_AS_WEIGHTS}",
    )


def create_weights(
    model: Any, samples: Mapping[str, Any], notes: list[str]
) -> UnsupportedModelError | None:
    """Call a subclassed model whose ``build`` was called only, so that its layers have weights.

    Keras 3 does not call it then, as Keras 2 did, but records the shape. If the class defines
    ``build``, Keras cannot load its file for this reason. Without a shape, that of the samples is
    used; several are a dictionary or else a list, whose order is added to ``notes``. Returns why
    the call failed, or None.
    """
    layers = list(model._flatten_layers())
    if not is_subclassed(model) or (all(layer.built for layer in layers) and model.weights):
        return None
    samples = call_arguments.in_call_order(model, samples)
    shapes = _recorded_shapes(model)
    by_name = len(shapes) > 1
    if not shapes:
        shapes = {name: list(array.shape) for name, array in samples.items()}
    if not shapes:
        return None
    shape: Any = {key.removesuffix("_shape"): value for key, value in shapes.items()}
    shape = next(iter(shape.values())) if len(shape) == 1 else shape
    # Other names are the keys of a dictionary, the only argument.
    may_be_dictionary = isinstance(shape, Mapping) and len(shape) > 1 and not by_name
    shape = free_batch(shape)
    try:
        if may_be_dictionary and set(shape) <= set(call_arguments.inputs(model)):
            by_name = True
            _called_by_name_or_with_dictionary(model, shape, samples)
        else:
            _called(model, shape, samples, by_name=by_name)
    except UnsupportedModelError as error:
        if by_name or not isinstance(shape, Mapping) or set(shape) != set(samples):
            return error
        return None if _called_with_list(model, shape, samples, notes) else error
    return None


def _called_with_list(
    model: Any, shapes: Mapping[str, Any], samples: Mapping[str, Any], notes: list[str]
) -> bool:
    """Call a model that takes no dictionary with a list; return whether it takes that."""
    listed = list(shapes.values())
    try:
        _called(model, listed, samples, by_name=False)
    except UnsupportedModelError:
        return False
    # The failed call with a dictionary has recorded that one.
    model._build_shapes_dict = {"input_shape": listed}
    notes.append(call_arguments.list_note(model, list(shapes)))
    return True


def _samples_hint(model: Any) -> str:
    names = call_arguments.required(model)
    if LABELS in names:
        return (
            f"Rename the argument {LABELS} of call: arrays with this name are labels. Then pass "
            "samples with arrays named as the arguments: --samples FILE.npz"
        )
    if len(names) == 1:
        return (
            "Pass samples with the shapes of the inputs: --samples FILE.npz. If call takes a "
            "dictionary, name the arrays as its keys; if it takes a list, save them in its order."
        )
    return (
        f"Pass samples with arrays named as the arguments of call ({', '.join(names)}): "
        "--samples FILE.npz"
    )


def explained(model: Any, error: UnsupportedModelError) -> UnsupportedModelError:
    """Return an error about weights with its cause, if that is the call of a subclass: it fails, or
    the file lacks shapes of its inputs."""
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
    if getattr(model, "inputs", None) or not unbuilt:
        return error
    if len(call_arguments.required(model)) == 1:
        failure = create_weights(model, {}, [])
        if failure is not None:
            return failure
    return UnsupportedModelError(
        f"The model is a subclass of keras.Model ({type(model).__name__}), and the file does not "
        f"contain the shapes of all its inputs: layer {unbuilt[-1]!r} has no weights yet.",
        hint=_samples_hint(model),
    )


def _called(model: Any, shape: Any, samples: Mapping[str, Any], *, by_name: bool) -> Any:
    import keras

    # Keras calls a model that is a class of the user without its compute_output_shape in predict.
    outputs_of_calls.infer(type(model))
    known = {name: str(array.dtype) for name, array in samples.items()}
    always = call_arguments.not_in_training(model)
    failure: Exception | None = None
    # Code may need the number of samples, as keras.ops.zeros((x.shape[0], 4)) does.
    of_batch = mapped(lambda axes, _: [KNOWN_BATCH, *axes[1:]], shape)
    for axes, dtype in itertools.product((shape, of_batch), _DTYPES):
        inputs = _inputs(axes, known, dtype)
        try:
            outputs = model(**inputs, **always) if by_name else model(inputs, **always)
            return keras.Model(inputs, outputs, name=model.name)
        except Exception as error:
            failure = failure or error
    if isinstance(failure, NotImplementedError) and not _has_call(model):
        raise _without_call(model) from failure
    if failure is not None and "non-tensor" in str(failure):
        inputs = _inputs(shape, known, _DTYPES[0])
        raise returned_values.error(model, inputs, failure, by_name=by_name) from failure
    raise Keras3ModelError(
        f"The model ({type(model).__name__}) cannot be called with inputs of shape {shape}: "
        f"{'' if failure is None else error_text.reason(failure)}",
        hint=call_arguments.hint_for_others(model, shape if by_name else {})
        or (NO_SHAPE if failure is None else _hint(model, samples, failure)),
    ) from failure


def _has_call(model: Any) -> bool:
    """Return whether the class of a model, or a parent of it, computes something."""
    import keras

    parents = (parent for parent in type(model).__mro__ if parent not in keras.Model.__mro__)
    return any("call" in vars(item) for item in (model, *parents))


def _without_call(model: Any) -> UnsupportedModelError:
    import keras

    if type(model) is keras.Model:
        problem = "The class of the model creates a keras.Model without layers from its config."
        return UnsupportedModelError(problem, hint=f"With the class, {_AS_WEIGHTS}")
    name = type(model).__name__
    parts = [key for key, value in vars(model).items() if isinstance(value, keras.layers.Layer)]
    layers = f" from its layers {enumerated(list(map(repr, parts)))}" if len(parts) > 1 else ""
    return UnsupportedModelError(
        f"The model is a subclass of keras.Model ({name}) without a method call: Keras cannot "
        "compute its outputs.",
        hint=f"Add call(self, inputs) to the class {name}; it returns what the model computes"
        f"{layers}. {NO_SHAPE}",
    )


def _hint(model: Any, samples: Mapping[str, Any], failure: Exception) -> str:
    others = _samples_hint(model) if samples else NO_SHAPE
    place = own_files.last_call(failure)
    if not place:
        return others
    if missing := undefined_names.hint(failure):
        return missing
    hint = f"If the shape is right, change {place} so that it runs in the current Keras."
    return hint if len(samples) == 1 else f"{hint} {others}"


def _inputs(shape: Any, known: Mapping[str, str], dtype: str) -> Any:
    """Return input tensors in the structure of ``shape``; samples determine names and dtypes."""
    import keras

    def tensor(axes: Any, name: str) -> Any:
        kind = known.get(name, dtype)
        kind = "float32" if kind.startswith("float") else kind
        return keras.Input(batch_shape=tuple(axes), dtype=kind, name=name)

    names = _input_names(shape, known)
    return mapped(lambda axes, path: tensor(axes, names[path]), shape)


def _input_names(shape: Any, samples: Mapping[str, Any]) -> dict[InputPath, str]:
    """Return the names of the inputs; samples determine those of one input, or of a flat list."""
    names = input_names(shape)
    if isinstance(shape, Mapping) or any(len(path) > 1 for path in names):
        return names
    # The samples are in the order of the list.
    return dict(zip(names, samples, strict=True)) if len(samples) == len(names) else names
