"""Load an audited file as a Keras 3 model that computes what the Keras that saved it computed.

Files of all Keras versions take one path: the configuration is migrated to the current Keras, built
with safe mode on, and the weights are assigned by the names in the file. Nothing stored in the file
is executed, and no module that it names is imported.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn_converters.loading import (
    classes_of_keras_2,
    config_inspection,
    fixed_time_axis,
    implicit_masks,
    own_layers,
    programs,
    quantized_layers,
    removed_layers,
    subclassed,
    values_of_build,
)
from edgeattn_converters.loading.architecture import (
    built_in_config,
    check_architecture,
    load_weights,
    read_architecture,
)
from edgeattn_converters.loading.audit import ModelFile, as_damaged
from edgeattn_converters.loading.build import (
    accepted_arguments,
    build_model,
    build_sublayers,
    reset_names,
)
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.cross_check import (
    compare_with_signature,
    compare_with_stock_loader,
)
from edgeattn_converters.loading.custom_objects import load_custom_objects
from edgeattn_converters.loading.masks_of_classes import may_create_masks
from edgeattn_converters.loading.migrate import (
    built_layers,
    channels_first,
    lookup_removal,
    mixed_precision,
    model_config,
    preprocessing,
    theano,
)
from edgeattn_converters.loading.migrate.context import Context, era_of, missing_error
from edgeattn_converters.loading.notes import combined_notes
from edgeattn_converters.loading.own_functions import gelu_notes, softmax_notes
from edgeattn_converters.loading.removed_layers import RemovedLayers
from edgeattn_converters.loading.signature import load_signature
from edgeattn_converters.loading.training_mode import check_repeatable, training_notes
from edgeattn_converters.loading.weights.weights_file import WeightsFile, open_weights
from edgeattn_converters.options import ModelSource

_NOT_KERAS = {"tflite": "a TFLite model", "onnx": "an ONNX model", "bundle": "an edgeattn bundle"}
# First character of a TensorFlow scope name.
_SCOPE_START = re.compile(r"[A-Za-z0-9.]")


@dataclass(frozen=True)
class _Request:
    """How to load a model.

    ``undecided`` are the layers of the user's function whose defaults are not known; None if no
    function built the model, and its layers may all rely on defaults.
    """

    objects: Mapping[str, Any]
    time_steps: fixed_time_axis.TimeSteps | None
    allow_free_time: bool
    undecided: frozenset[str] | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A Keras 3 model ready to be converted, with notes for the user about what was migrated.

    ``stateful`` are the names of the layers that kept their state from one batch to the next.
    ``preprocessing`` are the layers that were removed, by the name of the input.
    """

    file: ModelFile
    model: Any
    notes: tuple[str, ...]
    stateful: tuple[str, ...] = ()
    preprocessing: Mapping[str, RemovedLayers] = field(default_factory=dict)

    @property
    def stored_inputs(self) -> dict[str, str]:
        """By the name of an input in place of removed layers, the input ahead of these."""
        return {
            name: str(removed.input_layer["config"]["name"])
            for name, removed in self.preprocessing.items()
        }


def load_model(
    file: ModelFile,
    *,
    custom_objects: Path | None = None,
    architecture: str | None = None,
    time_steps: fixed_time_axis.TimeSteps | None = None,
    allow_free_time: bool = False,
    samples: Path | None = None,
) -> LoadedModel:
    """Load an audited file.

    ``custom_objects`` is a Python file of the user that defines classes of the model,
    ``architecture`` is ``FILE.json`` or ``FILE.py:FUNCTION``, for a file that contains weights
    only. ``time_steps`` is the length of a free time axis, or of that of each input by name;
    ``allow_free_time`` leaves it free, to inspect the model without converting it. ``samples`` is a
    file with inputs of the model, whose shapes a subclassed model may not store. Raises
    :class:`UsageError` if an option does not fit the file, :class:`UnsupportedModelError` if the
    model cannot be loaded faithfully, and :class:`UnsafeModelError` if the file declares more
    weights than it stores.
    """
    if file.kind in _NOT_KERAS:
        hint = f"List its contents: edgeattn inspect {file.path}"
        if file.kind != "bundle":
            hint = (
                "Pass the Keras file that it was converted from. To compare the two: edgeattn "
                f"validate {file.path} --model KERAS_FILE"
            )
        raise UsageError(
            f"{file.path.name} is {_NOT_KERAS[file.kind]}, not a Keras model.", hint=hint
        )
    check_architecture(file, architecture)
    # Layers whose names no file stores, such as those in classes of the user, have the same names
    # whenever a file is loaded.
    reset_names()
    channels_first.compute_with_channels_last()
    version = config_inspection.version_numbers(file.keras_version)
    objects = load_custom_objects(custom_objects, version)
    arrays = subclassed.sample_arrays(samples)
    request = _Request(objects, time_steps, allow_free_time)
    if file.kind == "saved-model" and not file.config:
        loaded = _load_signature(file, time_steps, allow_free_time)
    elif architecture is not None and not architecture.endswith(".json"):
        loaded = _load_program(programs.run(file, architecture, arrays), request)
    else:
        stored = read_architecture(Path(architecture), file) if architecture else file.config
        if not config_inspection.is_model(stored):
            stored = subclassed.with_build_config(stored, arrays)
        try:
            loaded = _load_stored(file, stored, request)
        except UnsupportedModelError as error:
            if file.kind != "saved-model":
                raise
            try:
                loaded = _load_signature(file, time_steps, allow_free_time, because=error.message)
            except (UnsupportedModelError, UnsafeModelError) as of_graph:
                raise UnsupportedModelError(
                    f"{error.message}\nNor can the graph in the folder be converted: "
                    f"{of_graph.message}",
                    hint=error.hint,
                ) from error
    model = subclassed.as_functional(
        loaded.model, arrays, time_steps, allow_free_time=allow_free_time
    )
    check_repeatable(model)
    loaded = replace(loaded, model=model)
    notes = (*loaded.notes, *softmax_notes(model), *training_notes(model))
    if str(file.keras_version).startswith("3") and (architecture or ".json").endswith(".json"):
        notes += gelu_notes(model)
    loaded = replace(loaded, notes=combined_notes(notes))
    return _with_valid_name(loaded)


def load_with_free_time(file: ModelFile, source: ModelSource) -> LoadedModel:
    """Load the audited file of ``source`` with its time axis as free as it is stored."""
    return load_model(
        file,
        custom_objects=None if source.custom_objects is None else Path(source.custom_objects),
        architecture=source.architecture,
        allow_free_time=True,
    )


def _load_signature(
    file: ModelFile,
    time_steps: fixed_time_axis.TimeSteps | None,
    allow_free_time: bool,
    *,
    because: str | None = None,
) -> LoadedModel:
    model, notes = load_signature(
        file.path, time_steps, allow_free_time=allow_free_time, signature=file.signature
    )
    if file.signature is not None:
        return LoadedModel(file, model, notes)
    reason = because or "The folder does not list Keras layers."
    return LoadedModel(file, model, (f"{reason} {notes[0]}", *notes[1:]))


def _load_program(built: programs.Built, request: _Request) -> LoadedModel:
    """Load weights into the model that a function or variable of the user's file defines."""
    request = replace(request, undecided=frozenset(built.program.undecided))
    loaded = _load_built(built.file, built.model, request)
    if loaded.model is built.model:
        kept = built.with_trained_values()
        if kept is not built.model:
            loaded = _load_built(built.file, kept, request)
        if unsaved := own_layers.variables_of_tensorflow(built.model):
            again = own_layers.variables_of_tensorflow(built.build())
            built.program.notes.extend(own_layers.check_unsaved(unsaved, again))
    return replace(loaded, notes=(*dict.fromkeys(built.program.notes), *loaded.notes))


def _load_built(file: ModelFile, model: Any, request: _Request) -> LoadedModel:
    """Load weights into a built model.

    A model of Keras' own layers is migrated like a stored one. Layers of the user's classes cannot
    be rebuilt reliably from their configs, so such a model is changed in place.
    """
    build_sublayers(model)
    with open_weights(file) as weights:
        version = config_inspection.version_numbers(file.keras_version) or weights.version()
        stored = built_in_config(model)
        if stored is not None and (
            weights.is_layered
            or version
            or weights.is_quantized
            or quantized_layers.is_quantized(model)
            or channels_first.is_used(stored)
            or preprocessing.is_used(stored)
        ):
            return _load_stored(file, stored, request)
        if quantized_layers.is_quantized(model):
            raise quantized_layers.weights_error(file.path.name)
        if not weights.is_layered:
            try:
                load_weights(file, model)
            except UnsupportedModelError as error:
                if weights.is_quantized:
                    raise quantized_layers.weights_error(file.path.name) from error
                raise
        if file.backend == "theano":
            theano.check_built(model)
        notes: list[str] = []
        if version and version < built_layers.SAME_AS_CURRENT:
            notes.extend(built_layers.adapt(model, version, request.undecided))
        if weights.is_layered:
            _assign(weights, model, built_layers.described(model), version, file, notes)
    return LoadedModel(file, model, tuple(notes))


def _assign(
    weights: WeightsFile,
    model: Any,
    stored: Config,
    version: tuple[int, ...],
    file: ModelFile,
    notes: list[str],
) -> None:
    """Assign the weights by the names of the layers, or in order, which a note then says."""
    named = weights.by_order(model, stored)
    notes.extend(named.order_notes())
    with as_damaged(file.path):
        named.assign(model, stored, major=era_of(version) or 3, backend=file.backend)


def _load_stored(file: ModelFile, stored: Config, request: _Request) -> LoadedModel:
    """Migrate the stored config, build the model, assign its weights and cross-check it."""
    with as_damaged(file.path):
        model_config.require_layers(stored)
        stored = model_config.with_connections(stored)
    with open_weights(file) as weights:
        with as_damaged(file.path):
            stored = weights.with_layer_names(stored)
        ctx, config, model = _build(file, stored, weights, request)
        if file.kind == "weights-hdf5":
            named = weights.by_order(model, stored)
            if named.names:
                # The migration depends on the shapes of the weights of each layer.
                ctx, config, model = _build(file, stored, named, request)
                ctx.notes.extend(named.order_notes())
            weights = named
            ctx.notes.extend(weights.nested_notes(model, stored))
            if file.backend == "theano":
                ctx.notes.extend(theano.order_notes(config))
        with as_damaged(file.path):
            try:
                weights.assign(model, stored, major=ctx.era, backend=file.backend)
            except UnsupportedModelError as error:
                raise subclassed.explained(model, error) from error

            def rebuild() -> Any:
                reset_names()
                return _build(file, stored, weights, request)[2]

            in_graph = classes_of_keras_2.computes_in_graph(file.keras_version, ctx.version)
            kept = values_of_build.with_trained(model, ctx.created, rebuild, in_graph=in_graph)
            if kept is not model:
                model = kept
                weights.assign(model, stored, major=ctx.era, backend=file.backend)
            removed = removed_layers.with_tables(ctx.removed, file, stored, weights)
            ctx.notes[:] = removed_layers.explained(ctx.notes, removed)
        if quantized_layers.is_quantized(model):
            quantized, config = model, quantized_layers.in_float(config)
            # Two values of 4 bits are stored as one.
            model = build_model(file, config, request.objects, 2 * weights.size())
            ctx.notes.append(quantized_layers.assign_dequantized(model, quantized))
            return LoadedModel(file, model, tuple(ctx.notes), tuple(ctx.stateful), removed)
    if not request.allow_free_time:
        preprocessing.require_removed(model)

        def as_saved_by(version: str) -> Any:
            other = replace(file, keras_version=version)
            return _load_stored(other, stored, replace(request, allow_free_time=True)).model

        ctx.notes.extend(compare_with_stock_loader(file, stored, model, ctx, as_saved_by))
        if weights.is_listed:
            ctx.notes.extend(compare_with_signature(file, stored, model, request.time_steps))
    return LoadedModel(file, model, tuple(ctx.notes), tuple(ctx.stateful), removed)


def _build(
    file: ModelFile, stored: Config, weights: WeightsFile, request: _Request
) -> tuple[Context, dict[str, Any], Any]:
    """Return the facts about the file, the migrated config and the model, with zeros as weights."""
    objects = request.objects
    with as_damaged(file.path):
        ctx = _context(file, stored, objects, weights)
        ctx = replace(ctx, of_program=request.undecided is not None)
        ctx.notes.extend(built_layers.era_notes(file.path.name, stored, ctx, request.undecided))
        config = model_config.migrate_model(stored, ctx)
        if ctx.missing:
            raise missing_error(ctx.missing)
        removal = lookup_removal.remove_lookups(config, ctx.notes)
        config = removal.config
        if not request.allow_free_time:
            preprocessing.require_none_over_time(config)
        ctx.removed.update(removal.chains)
        config = mixed_precision.in_float32(config, ctx.notes)
        if not request.allow_free_time:
            config = fixed_time_axis.fix_time_axis(config, request.time_steps)
        size = weights.size()
    try:
        masks = implicit_masks.passed() if ctx.era < 3 else contextlib.nullcontext()
        with own_layers.created_as_stored(objects, ctx), masks:
            with values_of_build.recorded(ctx.created):
                model = build_model(file, config, objects, size)
            if unsaved := own_layers.variables_of_tensorflow(model):
                again = own_layers.variables_of_tensorflow(build_model(file, config, objects, size))
                ctx.notes.extend(own_layers.check_unsaved(unsaved, again))
        own_layers.adapt(model, ctx)
        return ctx, config, model
    except UnsupportedModelError:
        # The error about a missing length is more helpful, if there is one.
        if request.allow_free_time:
            fixed_time_axis.fix_time_axis(config, None)
        raise


def _with_valid_name(loaded: LoadedModel) -> LoadedModel:
    """Rename a model whose name is no TensorFlow scope, with which Keras could not predict."""
    name = loaded.model.name
    if _SCOPE_START.match(name):
        return loaded
    loaded.model.name = "model"
    note = f"Renamed the model to 'model', because TensorFlow does not accept {name!r}."
    return replace(loaded, notes=(*loaded.notes, note))


def _context(
    file: ModelFile, stored: Config, objects: Mapping[str, Any], weights: WeightsFile
) -> Context:
    of_config = config_inspection.version_numbers(stored.get("keras_version"))
    version = config_inspection.version_numbers(file.keras_version)
    separate = file.kind == "weights-hdf5"
    if separate:
        version = version or weights.version()
    numbers = version or of_config
    return Context(
        # A whole file has one version; an architecture in a separate file has its own.
        major=config_inspection.major_version(
            of_config if separate else version or of_config, stored
        ),
        version=numbers,
        accepted=accepted_arguments,
        custom_objects=objects,
        shapes=weights.shapes(stored),
        masked=config_inspection.is_model(stored)
        and (config_inspection.has_masks(stored) or any(map(may_create_masks, objects.values()))),
        backend=file.backend,
        of_tensorflow=classes_of_keras_2.is_of_tensorflow(file.keras_version, numbers),
    )
