"""Models that a program of the user builds, with the weights of a file."""

import contextlib
import functools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.printable import enumerated
from edgeattn_converters.loading import config_inspection, programs, quantized_layers
from edgeattn_converters.loading.architecture import built_in_config, load_weights
from edgeattn_converters.loading.audit import ModelFile, as_damaged
from edgeattn_converters.loading.build import build_sublayers
from edgeattn_converters.loading.eras import dim_ordering, fused_epsilon, image_order, masked_steps
from edgeattn_converters.loading.formats import keras_archive
from edgeattn_converters.loading.loaded_model import LoadedModel, LoadRequest
from edgeattn_converters.loading.migrate import (
    built_layers,
    channels_first,
    preprocessing,
    theano,
)
from edgeattn_converters.loading.migrate.context import era_of
from edgeattn_converters.loading.migrate.keras2 import STATE_RESET_NOTE
from edgeattn_converters.loading.own_code import hidden_layers
from edgeattn_converters.loading.own_code.unsaved_variables import unsaved_notes
from edgeattn_converters.loading.stored_model import load_stored
from edgeattn_converters.loading.weights import functional_order, own_loading
from edgeattn_converters.loading.weights.weights_file import open_weights

_CHANNELS_FIRST_NOTE = (
    "The model has the channels first (image_data_format='channels_first', in Keras 1 "
    "image_dim_ordering='th'), because the weights do not fit otherwise. {} does not set it."
)
_OF_IMAGES = re.compile(r"\b\w+[23]D\b")
_SETS_ORDER = re.compile(r"dim_ordering|data_format")
_WITHOUT_KERNEL = re.compile(
    r"(UpSampling|ZeroPadding|Cropping|(Global)?(Max|Average)Pool(ing)?)[23]D"
)
_WITH_KERNEL = re.compile(r"\w*(Conv|Connected)\w*[23]D")


def load_in_order(
    file: ModelFile, script: Path, run: Callable[[], programs.Built], request: LoadRequest
) -> LoadedModel:
    """Load weights of Keras 1 or 2 into the model of a program that ``run`` returns.

    The program may rely on the ``keras.json`` of its author for the order of the axes of images. If
    the weights do not fit, and fit with the channels first, it is that.
    """
    try:
        loaded = load_program(run(), request)
        return replace(loaded, notes=(*_unknown_order_notes(loaded, script), *loaded.notes))
    except (UnsupportedModelError, UsageError):
        if not _may_rely_on_channels_first(file, script):
            raise
        image_order.set_channels_first()
        with contextlib.suppress(EdgeattnError):
            loaded = load_program(run(), request)
            note = _CHANNELS_FIRST_NOTE.format(script.name)
            return replace(loaded, notes=(note, *loaded.notes))
        image_order.reset()
        raise


def _unknown_order_notes(loaded: LoadedModel, script: Path) -> list[str]:
    """Return a note if nothing shows the order of the axes of images in a program of Keras 1.

    Without a convolution, the weights fit in both orders, and the default of Keras 1.0 is another
    one than that of Keras 1.1.
    """
    version = config_inspection.version_numbers(loaded.file.keras_version)
    text = script.read_text("utf-8", errors="replace")
    if not () < version < (2,) or _SETS_ORDER.search(text) or not image_order.is_channels_last():
        return []
    parts = list(loaded.model._flatten_layers())
    names = [part.name for part in parts if _WITHOUT_KERNEL.fullmatch(type(part).__name__)]
    if not names or any(_WITH_KERNEL.match(type(part).__name__) for part in parts):
        return []
    if any(dim_ordering.order_of_image(x.shape[1:]) == "tf" for x in loaded.model.inputs):
        return []
    return [
        f"{enumerated(names)}: computed with the channels last. Neither the weights nor "
        f"{script.name} show the order. If image_dim_ordering was 'th' in the keras.json of its "
        "author, the default of Keras 1.0, the outputs are wrong: call "
        "keras.backend.set_image_dim_ordering('th') ahead of the layers."
    ]


def _may_rely_on_channels_first(file: ModelFile, script: Path) -> bool:
    with open_weights(file) as weights:
        if not weights.is_layered or str(file.keras_version)[:1] == "3":
            return False
    is_text = script.is_file() and image_order.is_channels_last()
    return is_text and bool(_OF_IMAGES.search(script.read_text("utf-8", errors="replace")))


def load_program(built: programs.Built, request: LoadRequest) -> LoadedModel:
    """Load weights into the model that a function or variable of the user's file defines."""
    request = replace(request, undecided=frozenset(built.program.undecided))
    try:
        loaded = _load_built(built.file, built.model, request)
    except UnsupportedModelError as error:
        # Weights do not fit a model whose call has stopped before it built all layers.
        if built.program.failure is None:
            raise
        raise built.program.failure from error
    if loaded.model is built.model:
        kept = built.with_trained_values()
        if kept is not built.model:
            loaded = _load_built(built.file, kept, request)
        for are_loaded in (False, True):
            built.program.notes.extend(
                unsaved_notes(built.model, built.build, are_loaded=are_loaded)
            )
    stateful = tuple(dict.fromkeys(built.program.stateful))
    notes = (*built.program.notes, *(f"{name}: {STATE_RESET_NOTE}" for name in stateful))
    return replace(
        loaded,
        notes=(*dict.fromkeys(notes), *loaded.notes),
        stateful=(*stateful, *loaded.stateful),
        may_be_of_tf_keras=built.program.may_be_older,
    )


def _load_built(file: ModelFile, model: Any, request: LoadRequest) -> LoadedModel:
    """Load weights into a built model.

    A model of Keras' own layers is migrated like a stored one. Layers of the user's classes cannot
    be rebuilt reliably from their configs, so such a model is changed in place.
    """
    build_sublayers(model)
    own_loading.require_no_assets(model, keras_archive.assets(file.path, file.kind))
    with open_weights(file) as weights:
        if weights.has_objects:
            hidden_layers.list_hidden_layers(model)
        version = config_inspection.version_numbers(file.keras_version) or weights.version()
        of_keras_2 = (version or ((1,) if weights.is_layered else (3,))) < (3,)
        stored = built_in_config(model)
        if stored is not None and of_keras_2:
            stored = functional_order.stored_in_order(model, stored)
        if stored is not None and (
            weights.is_layered
            or version
            or weights.is_quantized
            or quantized_layers.is_quantized(model)
            or channels_first.is_used(stored)
            or preprocessing.is_used(stored)
        ):
            return load_stored(file, stored, request)
        if quantized_layers.is_quantized(model):
            raise quantized_layers.weights_error(file.path.name)
        if not weights.is_layered:
            load = functools.partial(load_weights, file, model, version)
            try:
                request.assign(load, file, model, version)
            except UnsupportedModelError as error:
                if weights.is_quantized:
                    raise quantized_layers.weights_error(file.path.name) from error
                raise
        if file.backend == "theano":
            theano.check_built(model)
        notes = own_loading.notes_on_assets(model)
        original = programs.original_keras_of(file, version)
        if version and version < built_layers.SAME_AS_CURRENT:
            notes.extend(built_layers.adapt(model, original, request.undecided))
            notes.extend(masked_steps.let_be_former(model._flatten_layers(), original))
        if weights.is_layered:
            stored = built_layers.described(model)
            if of_keras_2:
                stored = functional_order.stored_in_order(model, stored)
            named = weights.by_order(model, stored)
            notes.extend((*named.order_notes(), *named.pruning_notes(stored)))
            assign = functools.partial(
                named.assign, model, stored, major=era_of(version) or 3, backend=file.backend
            )
            with as_damaged(file.path):
                request.assign(assign, file, model, version)
    notes.extend(fused_epsilon.let_be_former(model._flatten_layers(), original))
    return LoadedModel(file, model, tuple(notes))
