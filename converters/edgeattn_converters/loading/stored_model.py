"""Models that are built from a stored configuration, with the weights of a file.

The configuration is migrated to the current Keras and the result compared with the stock loader.
"""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading import (
    config_inspection,
    fixed_time_axis,
    lora,
    quantized_layers,
    removed_layers,
)
from edgeattn_converters.loading.audit import ModelFile, as_damaged
from edgeattn_converters.loading.build import accepted_arguments, build_model, reset_names
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.cross_check import (
    compare_with_signature,
    compare_with_stock_loader,
)
from edgeattn_converters.loading.eras import (
    batch_products,
    bilinear_positions,
    dim_ordering,
    fused_epsilon,
    image_order,
    implicit_masks,
    masked_steps,
    original_keras,
)
from edgeattn_converters.loading.formats import keras_archive
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.loaded_model import LoadedModel, LoadRequest
from edgeattn_converters.loading.migrate import (
    built_layers,
    custom_layers,
    lookup_removal,
    mixed_precision,
    model_config,
    preprocessing,
    pruned_layers,
    theano,
)
from edgeattn_converters.loading.migrate.context import Context, missing_error
from edgeattn_converters.loading.own_code import (
    classes_of_keras_2,
    hidden_layers,
    own_layers,
    registrations,
    subclassed,
    values_of_build,
)
from edgeattn_converters.loading.own_code.masks_of_classes import may_create_masks
from edgeattn_converters.loading.own_code.unsaved_variables import unsaved_notes
from edgeattn_converters.loading.weights import from_hdf5, own_loading
from edgeattn_converters.loading.weights.assignment import MISMATCH
from edgeattn_converters.loading.weights.declared_weights import (
    MoreWeightsError,
    other_architecture,
)
from edgeattn_converters.loading.weights.weights_file import WeightsFile, open_weights


def load_stored(file: ModelFile, stored: Config, request: LoadRequest) -> LoadedModel:
    """Migrate the stored config, build the model, assign its weights and cross-check it."""
    with as_damaged(file.path):
        model_config.require_layers(stored)
        if file.kind != "saved-model":
            stored = pruned_layers.without_wrappers(stored, request.objects)
        stored, objects = registrations.with_registered(stored, request.objects, request.registered)
        request = replace(request, objects=objects)
        stored = custom_layers.with_own_names(stored, objects)
        stored = model_config.with_connections(stored)
        is_of_keras_1 = _major(file, stored) == 1
    if not is_of_keras_1:
        return _load_complete(file, stored, request)
    return dim_ordering.load_in_order(
        stored, lambda complete: _load_complete(file, complete, request)
    )


def _load_complete(file: ModelFile, stored: Config, request: LoadRequest) -> LoadedModel:
    """Load a model whose config has the order of the axes of each layer."""
    with open_weights(file) as weights:
        with as_damaged(file.path):
            if file.kind == "keras-hdf5" and weights.size():
                subclassed.require_listed_layers(file.path.name, stored)
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
            if file.backend == "theano" and ctx.era > 1:  # the kernels of Keras 1 show the order
                ctx.notes.extend(theano.order_notes(config))
        ctx.notes.extend(weights.pruning_notes(stored))
        weights = replace(weights, saved_by=ctx.version)
        with as_damaged(file.path):
            try:
                _assign(weights, model, stored, ctx, file, request)
            except UnsupportedModelError as error:
                raise _explained(model, error, request) from error

            def rebuild() -> Any:
                reset_names()
                return _build(file, stored, weights, request)[2]

            ctx.notes.extend(unsaved_notes(model, rebuild, are_loaded=True))
            in_graph = classes_of_keras_2.computes_in_graph(file.keras_version, ctx.version)
            kept = values_of_build.with_trained(model, ctx.created, rebuild, in_graph=in_graph)
            if kept is not model:
                model = kept
                _assign(weights, model, stored, ctx, file, request)
            removed = removed_layers.with_tables(ctx.removed, file, stored, weights)
            ctx.notes[:] = removed_layers.explained(ctx.notes, removed)
        if quantized_layers.is_quantized(model):
            quantized, config = model, quantized_layers.in_float(config)
            # Two values of 4 bits are stored as one.
            model = build_model(file, config, request.objects, 2 * weights.size())
            ctx.notes.append(quantized_layers.assign_dequantized(model, quantized))
            layers = (item._flatten_layers() for item in (quantized, model))
            for layer, other in list(zip(*layers, strict=True)):
                own_loading.copy_attributes(layer, other)
            return LoadedModel(file, model, tuple(ctx.notes), tuple(ctx.stateful), removed)
    original = original_keras.current()
    ctx.notes.extend(fused_epsilon.let_be_former(model._flatten_layers(), original))
    if not request.allow_free_time:
        preprocessing.require_removed(model, removed_layers.original_names(stored, ctx.removed))

        def as_saved_by(version: str) -> Any:
            other = replace(file, keras_version=version)
            with original_keras.restored():
                return load_stored(other, stored, replace(request, allow_free_time=True)).model

        if file.kind == "keras-hdf5":
            ctx.notes.extend(lora.notes(model))
        ctx.notes.extend(compare_with_stock_loader(file, stored, model, ctx, as_saved_by))
        if weights.is_listed:
            ctx.notes.extend(compare_with_signature(file, stored, model, request.time_steps))
    return LoadedModel(file, model, tuple(ctx.notes), tuple(ctx.stateful), removed)


def _assign(
    weights: WeightsFile,
    model: Any,
    stored: Config,
    ctx: Context,
    file: ModelFile,
    request: LoadRequest,
) -> None:
    own_loading.require_no_assets(model, keras_archive.assets(file.path, file.kind))

    def assign() -> None:
        weights.assign(model, stored, major=ctx.era, backend=file.backend)

    request.assign(assign, file, model, ctx.version)


def _explained(
    model: Any, error: UnsupportedModelError, request: LoadRequest
) -> UnsupportedModelError:
    """Return an error about weights with its cause, if that is known."""
    error = subclassed.explained(model, error)
    if error.hint != MISMATCH or request.time_steps is None:
        return error
    # Dense behind Flatten has a weight for every step.
    return type(error)(
        error.message,
        hint="Pass the number of steps with which the model was saved: --time-steps N. If it is "
        "the number that you passed, save the model again: weights and architecture do not match.",
    )


def _build(
    file: ModelFile, stored: Config, weights: WeightsFile, request: LoadRequest
) -> tuple[Context, dict[str, Any], Any]:
    """Return the facts about the file, the migrated config and the model, with zeros as weights."""
    objects = request.objects
    with as_damaged(file.path):
        ctx = _context(file, stored, objects, weights)
        of_program = request.undecided is not None
        original = original_keras.OriginalKeras(
            ctx.version,
            ctx.of_tensorflow,
            file.backend,
            file.config or (None if of_program else stored),
        )
        original_keras.use(original)
        positions = bilinear_positions.of_saved(original)
        ctx = replace(ctx, of_program=of_program, script=request.script, positions=positions)
        if not ctx.of_program:
            image_order.use_stored(stored, objects)
        ctx.notes.extend(built_layers.era_notes(file.path.name, stored, ctx, request.undecided))
        config = model_config.migrate_model(stored, ctx)
        config = pruned_layers.with_ending_masks(config, stored, ctx)
        if ctx.missing:
            raise missing_error(ctx.missing)
        removal = lookup_removal.remove_lookups(config, ctx.notes)
        config = removal.config
        if not request.allow_free_time:
            preprocessing.require_none_over_time(config)
        ctx.removed.update(removal.chains)
        config = mixed_precision.in_float32(config, ctx.notes)
        of_batch = None
        if not request.allow_free_time:
            fix = functools.partial(fixed_time_axis.fix_time_axis, config, request.time_steps)
            of_batch = fix(keep_batch=True) if fixed_time_axis.has_fixed_batch(config) else None
            config = fix()
        size = weights.size()
        if any(map(own_loading.loads_itself, objects.values())):
            size = max(size, weights.bits())  # such as eight weights in a byte
    try:
        # A program for weights without a version in the layout of Keras 2 ran with its masks, too.
        former = ctx.era < 3 or (ctx.of_program and not ctx.version and weights.is_layered)
        masks = implicit_masks.passed() if former else contextlib.nullcontext()
        products = batch_products.in_layers(ctx.notes)
        in_new_format = file.kind == "keras-zip" or (file.kind == "weights-hdf5" and ctx.major == 3)
        named = {} if in_new_format else registrations.functions(objects, request.registered)
        with own_layers.created_as_stored(objects, ctx, named), masks, products:
            build = functools.partial(build_model, file, config, objects, size)
            try:
                with values_of_build.recorded(ctx.created):
                    model = build()
            except Keras3ModelError as failure:
                if of_batch is None:
                    raise
                # Code of the user may need the number of samples.
                del ctx.created[:]
                reset_names()
                config, build = (
                    of_batch,
                    functools.partial(build_model, file, of_batch, objects, size),
                )
                try:
                    with values_of_build.recorded(ctx.created):
                        model = build()
                except UnsupportedModelError as other:
                    raise failure from other
            if weights.has_objects:
                hidden_layers.list_hidden_layers(model)
            ctx.notes.extend(unsaved_notes(model, build))
        own_layers.adapt(model, ctx)
        ctx.notes.extend(masked_steps.let_be_former(model._flatten_layers(), original))
        return ctx, config, model
    except MoreWeightsError as error:
        if not weights.separate:
            raise
        names = from_hdf5.group_names(weights.source) if weights.is_layered else ()
        shapes = {name: ctx.shapes(name) for name in names or config_inspection.all_names(stored)}
        raise other_architecture(error.declared, shapes, weights.size()) from error
    except UnsupportedModelError:
        # The error about a missing length is more helpful, if there is one.
        if request.allow_free_time:
            fixed_time_axis.fix_time_axis(config, None)
        raise


def _major(file: ModelFile, stored: Config) -> int:
    """The major version of the Keras that wrote a config.

    A whole file has one version; an architecture in a separate file has its own.
    """
    version = config_inspection.version_numbers(stored.get("keras_version"))
    if file.kind != "weights-hdf5":
        version = config_inspection.version_numbers(file.keras_version) or version
    return config_inspection.major_version(version, stored)


def _context(
    file: ModelFile, stored: Config, objects: Mapping[str, Any], weights: WeightsFile
) -> Context:
    of_config = config_inspection.version_numbers(stored.get("keras_version"))
    version = config_inspection.version_numbers(file.keras_version)
    if file.kind == "weights-hdf5":
        version = version or weights.version()
    numbers = version or of_config
    return Context(
        major=_major(file, stored),
        version=numbers,
        accepted=accepted_arguments,
        custom_objects=objects,
        shapes=weights.shapes(stored),
        masked=config_inspection.is_model(stored)
        and (config_inspection.has_masks(stored) or any(map(may_create_masks, objects.values()))),
        backend=file.backend,
        of_tensorflow=classes_of_keras_2.is_of_tensorflow(file.keras_version, numbers),
    )
