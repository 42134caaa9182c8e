"""Load an audited file as a Keras 3 model that computes what the Keras that saved it computed.

Files of all Keras versions take one path: the configuration is migrated to the current Keras, built
with safe mode on, and the weights are assigned by the names in the file. Nothing stored in the file
is executed, and no module that it names is imported.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn_converters.graphs.free_squeezes import squeezes_of_free_batches
from edgeattn_converters.loading import config_inspection, fixed_time_axis, programs
from edgeattn_converters.loading.activation_notes import gelu_notes, softmax_notes
from edgeattn_converters.loading.architecture import check_architecture, read_architecture
from edgeattn_converters.loading.assigned_weights import keep_values
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.build import reset_names
from edgeattn_converters.loading.built_model import load_in_order
from edgeattn_converters.loading.eras import bilinear_positions, image_order, several_batch_axes
from edgeattn_converters.loading.formats import saved_model
from edgeattn_converters.loading.keras_3_failures import Keras3Error
from edgeattn_converters.loading.legacy import recurrent_base
from edgeattn_converters.loading.loaded_model import LoadedModel, LoadRequest
from edgeattn_converters.loading.migrate import channels_first, preprocessing
from edgeattn_converters.loading.notes import combined_notes
from edgeattn_converters.loading.own_code import subclassed
from edgeattn_converters.loading.own_code.backends_of_classes import backend_notes
from edgeattn_converters.loading.own_code.custom_objects import (
    load_custom_objects,
    registered_objects,
)
from edgeattn_converters.loading.own_code.local_packages import run_again
from edgeattn_converters.loading.own_code.unsaved_variables import outside_notes, random_value_notes
from edgeattn_converters.loading.signatures.random_outputs import RandomOutputsError
from edgeattn_converters.loading.signatures.signature import load_signature
from edgeattn_converters.loading.stored_model import load_stored
from edgeattn_converters.loading.training_mode import check_repeatable, training_notes
from edgeattn_converters.loading.weights import replaced_weights
from edgeattn_converters.loading.weights.assignment import require_values
from edgeattn_converters.loading.with_tf_keras import graph_of_tf_keras, tf_keras_check
from edgeattn_converters.loading.with_tf_keras.tf_keras_process import UserProgram
from edgeattn_converters.loading.with_tf_keras.weights_of_tf_keras import WeightsOfTfKeras
from edgeattn_converters.options import ModelSource

_NOT_KERAS = {"tflite": "a TFLite model", "onnx": "an ONNX model", "bundle": "an edgeattn bundle"}
# First character of a TensorFlow scope name.
_SCOPE_START = re.compile(r"[A-Za-z0-9.]")


def load_model(
    file: ModelFile,
    *,
    custom_objects: Path | None = None,
    architecture: str | None = None,
    time_steps: fixed_time_axis.TimeSteps | None = None,
    allow_free_time: bool = False,
    samples: Path | None = None,
    ignore: Collection[str] = (),
) -> LoadedModel:
    """Load an audited file.

    ``custom_objects`` is a Python file of the user that defines classes of the model,
    ``architecture`` is ``FILE.json`` or ``FILE.py:FUNCTION``, for a file that contains weights
    only. ``time_steps`` is the length of a free time axis, or of that of each input by name;
    ``allow_free_time`` leaves it free, to inspect the model without converting it. ``samples`` is a
    file with inputs of the model, whose shapes a subclassed model may not store, without the arrays
    named in ``ignore``. Raises
    :class:`UsageError` if an option does not fit the file, :class:`UnsupportedModelError` if the
    model cannot be loaded faithfully, and :class:`UnsafeModelError` if the file declares more
    weights than it stores.
    """
    # Read when it is needed, because the file of the architecture may be missing.
    program_of = functools.cache(functools.partial(_program, architecture, custom_objects, file))
    weights = WeightsOfTfKeras(
        program_of,
        subclassed.sample_arrays(samples, ignore),
        time_steps,
        allow_free_time,
    )
    load = functools.partial(
        _load_once,
        weights=weights,
        architecture=architecture,
        custom_objects=custom_objects,
        time_steps=time_steps,
        allow_free_time=allow_free_time,
    )
    try:
        loaded = load(file)
        program = program_of()
        if program is None:
            return loaded
        return _verified(loaded, file, program, load, weights)
    except Keras3Error as failure:
        program = program_of()
        if program is None:
            raise
        request = LoadRequest({}, time_steps, allow_free_time)
        try:
            graph = graph_of_tf_keras.load_graph(file, program, weights.samples, request, failure)
        except graph_of_tf_keras.NotUsedError as error:
            raise graph_of_tf_keras.with_reason(failure, error) from failure
        if graph is None:
            raise
        return graph


def _verified(
    loaded: LoadedModel,
    file: ModelFile,
    program: UserProgram,
    load: Callable[[ModelFile], LoadedModel],
    weights: WeightsOfTfKeras,
) -> LoadedModel:
    """Return a model of the user's program or classes with notes on values that no file contains,
    compared with the same model in tf_keras."""
    if loaded.is_graph:
        return _with_unused(loaded, program.script)

    def again() -> Any:
        return _load_again(load, file, program.script).model

    if program.script is not None:
        notes = outside_notes(loaded.model, again)
        notes += random_value_notes(loaded.model, again, program.script)
        loaded = replace(loaded, notes=(*loaded.notes, *notes))
    if weights.allow_free_time:
        return loaded

    def compared(loaded: LoadedModel) -> LoadedModel:
        return tf_keras_check.with_comparison(
            loaded,
            program,
            weights.samples,
            weights.time_steps,
            # tf_keras has no other backend.
            lambda version: (
                _load_again(
                    load,
                    replace(loaded.file, keras_version=version, backend="tensorflow"),
                    program.script,
                ).model
            ),
            weights.error or replaced_weights.unclear_order(loaded.model),
        )

    try:
        return compared(loaded)
    except tf_keras_check.DifferentOutputsError as error:
        if weights.error is not None:
            raise weights.error from error
        weights.is_required = True
        loaded = replace(_load_again(load, file, program.script), notes=loaded.notes)
        if weights.error is None:
            raise
        weights.error = error
        return compared(replace(loaded, notes=(*loaded.notes, *weights.notes())))


def _program(
    architecture: str | None, custom_objects: Path | None, file: ModelFile
) -> UserProgram | None:
    """Return the user's files that a model needs beside that of its weights; None if none."""
    if architecture is None:
        return UserProgram(custom_objects) if custom_objects else None
    if architecture.endswith(".json"):
        config = read_architecture(Path(architecture), file)
        return UserProgram(custom_objects, config=config)
    path, _, function = architecture.rpartition(":")
    return UserProgram(Path(path), function)


def _with_unused(loaded: LoadedModel, script: Path | None) -> LoadedModel:
    """Add a note to the graph of a folder that the user's classes are not part of it.

    Its variables are in the folder. A search for others would change it: TensorFlow adds the values
    that gradients need to the outputs and the loops of a graph that is called under a tape.
    """
    if script is None:
        return loaded
    note = f"{script.name} has no effect: the graph contains what the classes of the model compute."
    return replace(loaded, notes=(*loaded.notes, note))


def _load_again(
    load: Callable[[ModelFile], LoadedModel], file: ModelFile, script: Path | None
) -> LoadedModel:
    """Load a file again, with the files of the user run again."""
    with contextlib.nullcontext() if script is None else run_again(script):
        return load(file)


@squeezes_of_free_batches()
def _load_once(
    file: ModelFile,
    *,
    architecture: str | None,
    custom_objects: Path | None,
    time_steps: fixed_time_axis.TimeSteps | None,
    allow_free_time: bool,
    weights: WeightsOfTfKeras,
) -> LoadedModel:
    """Load a file, see :func:`load_model`, without a check of the variables of its program."""
    from edgeattn_converters.loading.migrate import time_distributed  # imports Keras

    _require_keras(file)
    check_architecture(file, architecture)
    # Layers whose names no file stores, such as those in classes of the user, have the same names
    # whenever a file is loaded.
    reset_names()
    several_batch_axes.accept()
    image_order.reset()
    channels_first.compute_with_channels_last()
    version = config_inspection.version_numbers(file.keras_version)
    objects = load_custom_objects(custom_objects, version)
    arrays = weights.samples
    request = LoadRequest(
        objects,
        time_steps,
        allow_free_time,
        assigning=weights.assign,
        registered=registered_objects(custom_objects),
        script=custom_objects,
    )
    loaded = _load(file, architecture, arrays, request)
    recurrent_base.require_stateless(loaded.model)
    from_file = {id(variable) for variable in loaded.model.weights}
    model = subclassed.as_functional(
        loaded.model, arrays, time_steps, allow_free_time=allow_free_time
    )
    # This call may be the first one of a layer, which creates random weights.
    require_values(model, from_file)
    if not allow_free_time:
        preprocessing.require_removed(model)
    time_distributed.compute_every_step(model)
    assignment_notes = keep_values(model)
    # The last digits of weights that calls assign may change.
    check_repeatable(model, tolerance=1e-5 if assignment_notes else 0.0)
    by_name = subclassed.is_called_by_name(loaded.model, model)
    loaded = replace(loaded, model=model, is_called_by_name=by_name)
    notes = (*loaded.notes, *weights.notes(), *softmax_notes(model), *training_notes(model))
    notes += (*assignment_notes, *bilinear_positions.notes(), *backend_notes(model, file))
    if str(file.keras_version).startswith("3") and (architecture or ".json").endswith(".json"):
        notes += gelu_notes(model, _stored(file, architecture))
    loaded = replace(loaded, notes=combined_notes(notes))
    return _with_valid_name(loaded)


def _require_keras(file: ModelFile) -> None:
    """Raise :class:`UsageError` for files of the other formats that edgeattn reads."""
    if file.kind not in _NOT_KERAS:
        return
    hint = f"List its contents: edgeattn inspect {file.path}"
    if file.kind != "bundle":
        hint = (
            "Pass the Keras file that it was converted from. To compare the two: edgeattn "
            f"validate {file.path} --model KERAS_FILE"
        )
    raise UsageError(f"{file.path.name} is {_NOT_KERAS[file.kind]}, not a Keras model.", hint=hint)


def _load(
    file: ModelFile, architecture: str | None, arrays: Mapping[str, Any], request: LoadRequest
) -> LoadedModel:
    """Load the layers of a file, or else its graph. ``arrays`` are samples of the model."""
    if file.kind == "saved-model" and not file.config:
        return _load_signature(file, request)
    if architecture is not None and not architecture.endswith(".json"):
        run = functools.partial(programs.run, file, architecture, arrays)
        return load_in_order(file, Path(architecture.rpartition(":")[0]), run, request)
    stored = _stored(file, architecture)
    if not config_inspection.is_model(stored):
        stored = subclassed.with_build_config(stored, arrays)
    try:
        return load_stored(file, stored, request)
    except UnsupportedModelError as error:
        if file.kind != "saved-model":
            raise
        try:
            return _load_signature(file, request, because=_in_one_line(error.message))
        except RandomOutputsError:
            raise
        except (UnsupportedModelError, UnsafeModelError) as of_graph:
            raise UnsupportedModelError(
                _both_reasons(error.message, of_graph.message), hint=error.hint
            ) from error


def _stored(file: ModelFile, architecture: str | None) -> Any:
    """Return the config of a model that is not built by a program."""
    return read_architecture(Path(architecture), file) if architecture else file.config


def _in_one_line(message: str) -> str:
    """Return a message with a list of lines, "Two layers:", as a sentence."""
    first, *others = (line.strip() for line in message.splitlines())
    return " ".join([first, *others])


def _both_reasons(of_layers: str, of_graph: str) -> str:
    """Return why neither the layers nor the graph of a folder load; the same reason only once."""
    reason = of_layers.partition(": ")[2]
    if reason and of_graph.endswith(reason):
        return of_layers
    end = "" if of_layers.endswith(".") else "."
    return f"{of_layers}{end} Nor can the graph in the folder be converted: {of_graph}"


def load_with_free_time(file: ModelFile, source: ModelSource) -> LoadedModel:
    """Load the audited file of ``source`` with its time axis as free as it is stored."""
    return load_model(
        file,
        custom_objects=None if source.custom_objects is None else Path(source.custom_objects),
        architecture=source.architecture,
        allow_free_time=True,
    )


def _load_signature(
    file: ModelFile, request: LoadRequest, *, because: str | None = None
) -> LoadedModel:
    model, notes = load_signature(
        file.path,
        request.time_steps,
        allow_free_time=request.allow_free_time,
        signature=file.signature,
    )
    if file.signature is not None:
        return LoadedModel(file, model, notes)
    reason = because or saved_model.reason_for_graph(file.path)
    return LoadedModel(file, model, (f"{reason} {notes[0]}", *notes[1:]))


def _with_valid_name(loaded: LoadedModel) -> LoadedModel:
    """Rename a model whose name is no TensorFlow scope, with which Keras could not predict."""
    name = loaded.model.name
    if _SCOPE_START.match(name):
        return loaded
    loaded.model.name = "model"
    note = f"Renamed the model to 'model', because TensorFlow does not accept {name!r}."
    return replace(loaded, notes=(*loaded.notes, note))
