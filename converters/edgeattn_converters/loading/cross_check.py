"""Compare a loaded model with the same file as a stock Keras loader opens it.

The stock loader is Keras 3 for files of Keras 3 and tf_keras for files of Keras 2. Only audited
files without code and custom classes are compared, because tf_keras would run a stored Lambda.
Calls of TensorFlow are compared if they are known to only compute.
"""

import copy
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError, first_line
from edgeattn.printable import counted, keras_name
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading import config_inspection, error_text, lora
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.comparison_samples import SAMPLES, padded_groups, stored_kind
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    is_sequential,
    stored_layers,
)
from edgeattn_converters.loading.fixed_time_axis import TimeSteps
from edgeattn_converters.loading.migrate.context import Context
from edgeattn_converters.loading.migrate.mixed_precision import in_float32
from edgeattn_converters.loading.migrate.preprocessing import is_lookup
from edgeattn_converters.loading.migrate.pruned_layers import wrapped_layers
from edgeattn_converters.loading.migrate.tensorflow_layers import (
    is_tensorflow_layer,
    only_computes,
)
from edgeattn_converters.loading.output_differences import (
    TOLERANCE,
    WRONG,
    difference,
    unknown_note,
    unknown_outputs,
)
from edgeattn_converters.loading.own_code import own_functions
from edgeattn_converters.loading.safety.allowed_classes import LAYERS, is_operation_module
from edgeattn_converters.loading.signatures.signature import load_signature
from edgeattn_converters.loading.weights.assignment import finalize_normalization
from edgeattn_converters.loading.with_tf_keras import configs_for_tf_keras

# Keras 2.12 to 2.15 store the weights of some layers in other groups of a .keras file.
_SAME_GROUPS = (2, 16)
_BY_ORDER = "The weights of some layers are stored by their order only"


def compare_with_stock_loader(
    file: ModelFile,
    stored: Config,
    model: Any,
    ctx: Context,
    as_saved_by: Callable[[str], Any],
) -> tuple[str, ...]:
    """A note if a stock loader opens the file and computes different outputs, else ``()``.

    ``stored`` is the configuration before the migration. ``as_saved_by`` loads the file as if
    another version of Keras had saved it, so without the changes that its own version needs.
    Raises :class:`UnsupportedModelError` if nothing explains the difference: the loader has the
    version that saved the file, or no change was made for that version.
    """
    major = ctx.major
    if file.kind not in ("keras-hdf5", "keras-zip") or major == 1:
        return ()
    loader = "Keras" if major == 3 else "tf_keras"
    try:
        # A stock loader would take Keras' function of that name.
        own = ctx.custom_objects
        if not _is_comparable(stored, own) or own_functions.are_used(stored, own):
            return ()
        samples, actual = _samples(model, stored, _predict)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stock_model, version = _load_stock(file, stored, major)
            if stock_model is None:
                return ()
            lost = _restored_axes(stock_model, stored) if major == 3 else ()
            expected = [_predict(stock_model, group) for group in samples]
    except Exception:  # stock loaders fail in many ways on the files that need a migration
        return ()
    counts = [len(outputs[0]) for outputs in (expected, actual)]
    if counts[0] != counts[1]:
        return (
            *lost,
            f"{loader} opens this file too, with {counted(counts[0], 'output')} instead of "
            f"{counts[1]}.",
        )
    found = difference(actual, expected)
    error = found.error
    if found.unknown:
        lost = (*lost, unknown_note(model, found.unknown, f"{loader} {version}"))
    if error <= TOLERANCE:
        return lost
    text = (
        f"{loader} {version} opens this file too and computes different outputs (max error "
        f"{error:.1e} of the largest value on seeded samples)"
    )
    if file.kind == "keras-zip" and major == 2 and ctx.version < _SAME_GROUPS:
        return (*lost, f"{text}. Whether it finds the right weights was not verified.")
    same = ctx.version[:2] == config_inspection.version_numbers(version)[:2]
    if same or not ctx.notes:
        if error <= WRONG:
            return (*lost, f"{text}.")
        why = ", and saved the file" if same else ", and no change of edgeattn explains that"
        raise UnsupportedModelError(
            f"{file.path.name} would be loaded wrongly: {text}{why}.",
            hint="Save the model in the current Keras 3 and convert that file.",
        )
    if _explained(as_saved_by, version, samples, expected):
        saved_by = keras_name(".".join(map(str, ctx.version or (ctx.major,))))
        return (
            *lost,
            f"{text}, only because it does not make the changes listed here, which are those "
            f"of {saved_by}.",
        )
    unverified = "Whether only the changes listed here cause this was not verified."
    return (*lost, f"{text}. {unverified}")


def _explained(
    as_saved_by: Callable[[str], Any],
    version: str,
    samples: Sequence[Sequence[Any]],
    expected: Sequence[Sequence[Any]],
) -> bool:
    """Return whether the model without the changes for its version computes what the loader does.

    The version that saved the file cannot be run here; each change is tested on files of its own.
    """
    try:
        model = as_saved_by(version)
        outputs = [_predict(model, group) for group in samples]
    except Exception:  # a file may not load as one of another version
        return False
    return difference(outputs, expected).error <= TOLERANCE


def compare_with_signature(
    file: ModelFile, stored: Config, model: Any, time_steps: TimeSteps | None
) -> tuple[str, ...]:
    """A note if a model cannot be compared with the graph in its SavedModel folder, else ``()``.

    Raises :class:`UnsupportedModelError` if their outputs differ.
    """
    try:
        graph, _ = load_signature(file.path, time_steps, allow_free_time=False)
        samples, actual = _samples(model, stored, _outputs)
        expected = [_of_graph(graph, model, group) for group in samples]
    except Exception as error:  # the graph, or its names, are those of any version
        return (
            f"{_BY_ORDER}, and the model could not be compared with the graph in the folder: "
            f"{error_text.beginning(first_line(error), 200)}",
        )
    found = difference(actual, expected)
    if found.error <= WRONG:
        notes = []
        if found.error > TOLERANCE:
            notes.append(
                f"{_BY_ORDER}. The graph in the folder computes different outputs (max error "
                f"{found.error:.1e} of the largest value on seeded samples)."
            )
        if found.unknown:
            unknown = unknown_note(model, found.unknown, "the graph in the folder")
            notes.append(f"{_BY_ORDER}. {unknown}")
        return tuple(notes)
    raise UnsupportedModelError(
        "The layers of the folder compute other outputs than its graph (max error "
        f"{found.error:.1e} of the largest value on seeded samples).",
        hint="Save the model in Keras as one file: model.save('model.keras')",
    )


def _of_graph(graph: Any, model: Any, samples: Sequence[Any]) -> list[Any]:
    """Return what the graph of a folder computes, in the order of the outputs of ``model``."""
    by_name = {tensor.name: sample for tensor, sample in zip(model.inputs, samples, strict=True)}
    given = {t.name: np.asarray(by_name[t.name], t.dtype) for t in graph.inputs}
    results = graph(given, training=False)
    names = _output_names([tensor._keras_history.operation.name for tensor in model.outputs])
    if len(results) == len(names) == 1:
        names = list(results)
    return [np.asarray(results[name], "float64") for name in names]


def _output_names(layers: Sequence[str]) -> list[str]:
    """Return the names that Keras 2 gives the outputs of ``layers``: lstm, lstm_1 and lstm_2.

    As in ``Functional._set_output_names`` of tf_keras.
    """
    names: list[str] = []
    numbers = dict.fromkeys(layers, 0)
    for layer in layers:
        name = layer
        while name in names:
            numbers[layer] += 1
            name = f"{layer}_{numbers[layer]}"
        names.append(name)
    return names


def _samples(
    model: Any, stored: Config, compute: Callable[[Any, list[Any]], list[Any]]
) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return groups of samples and what ``compute`` returns for each.

    There are also samples of numbers from 0 to 1 if outputs are NaN for all others.
    """
    kind = stored_kind(model, stored)
    groups = padded_groups(model.inputs, kind)
    outputs = [compute(model, group) for group in groups]
    if unknown_outputs(outputs):
        others = padded_groups(model.inputs, replace(kind, is_between_0_and_1=True))
        groups += others
        outputs += [compute(model, group) for group in others]
    return groups, outputs


def _is_comparable(stored: Config, custom_objects: Container[str]) -> bool:
    """Return whether all layers, at any depth, are Keras layers without code.

    A model from which layers were removed takes other inputs than the stored one, and one without
    the wrappers that prune its weights has others than the file. The stock loader would take Keras'
    class for one of the user, ``custom_objects``, of the same name.
    """
    if not is_model(stored) or any(True for _ in wrapped_layers(stored)):
        return False
    for item in stored_layers(stored):
        class_name = item.get("class_name")
        if is_model(item):
            if not _is_comparable(item, custom_objects):
                return False
        elif not _is_of_keras(item) or class_name == "Lambda" or is_lookup(item):
            return False
        if class_name in custom_objects and not is_operation_module(str(item.get("module"))):
            return False
        if is_tensorflow_layer(str(class_name)) and not only_computes(item):
            return False
        config = item.get("config")
        for value in config.values() if isinstance(config, Mapping) else ():
            inner = value.get("class_name") if isinstance(value, Mapping) else None
            if inner in ("__lambda__", "Lambda") or is_tensorflow_layer(str(inner)):
                return False
    return True


def _is_of_keras(item: Config) -> bool:
    """Return whether the item is a layer of Keras, or an operation such as ``x + y``."""
    return item.get("class_name") in LAYERS or is_operation_module(str(item.get("module")))


def _load_stock(file: ModelFile, stored: Config, major: int) -> tuple[Any, str]:
    """Return the model as the stock loader builds it in float32, and the version of the loader.

    The model is None if the loader's defaults may not apply.
    """
    config: Any = in_float32(copy.deepcopy(dict(stored)), [])
    if major == 3:
        import keras

        with lora.alpha_of_config():
            if config == stored:
                model = keras.saving.load_model(file.path, compile=False, safe_mode=True)
            else:
                model = keras.saving.deserialize_keras_object(config, safe_mode=True)
                model.load_weights(str(file.path))
        # Keras 3 leaves those in other models of an .h5 file with the moments of a new layer.
        finalize_normalization(model)
        return model, keras.__version__
    # The default of reset_after differs between Keras versions.
    ambiguous_gru = "'GRU" in repr(stored) and "'reset_after'" not in repr(stored)
    if ambiguous_gru:
        return None, ""
    import tf_keras

    config = configs_for_tf_keras.with_arguments(config)
    if file.kind == "keras-zip":
        if not configs_for_tf_keras.has_only_its_modules(config):
            return None, ""
        config = configs_for_tf_keras.with_its_modules(config)
        model = tf_keras.saving.deserialize_keras_object(config, safe_mode=True)
        model.load_weights(str(file.path))
        return model, tf_keras.__version__
    config = config["config"]
    if isinstance(config, list):
        config = {"name": "model", "layers": config}
    model_class = tf_keras.Sequential if is_sequential(stored) else tf_keras.Model
    model = model_class.from_config(config)
    model.load_weights(str(file.path))
    return model, tf_keras.__version__


def _restored_axes(stock_model: Any, stored: Config) -> tuple[str, ...]:
    """Give layers the axes of the file that Keras loses; return a note for each such layer.

    For .h5 files, Keras keeps ``axis`` only if it is a number or a list of one: see
    ``model_from_config`` of keras/src/legacy/saving/saving_utils.py.
    """
    notes = []
    axes = dict(_several_axes(stored))
    for layer in stock_model._flatten_layers():
        if layer.name not in axes or isinstance(layer.axis, list | tuple):
            continue
        notes.append(
            f"load_model of Keras loses the axes {axes[layer.name]} of layer {layer.name!r} in "
            f"this file and computes with axis {layer.axis}. The artifacts compute with the stored "
            "axes; to keep them in Keras, save the model as .keras."
        )
        layer.axis = axes[layer.name]
    return tuple(notes)


def _several_axes(stored: Any) -> Iterator[tuple[str, list[int]]]:
    """Yield name and axes of the stored layers, at any depth, that compute along several axes."""
    if isinstance(stored, list):
        for item in stored:
            yield from _several_axes(item)
    elif isinstance(stored, Mapping):
        axis = stored.get("axis")
        if isinstance(axis, list) and len(axis) > 1 and isinstance(stored.get("name"), str):
            yield stored["name"], axis
        for value in stored.values():
            yield from _several_axes(value)


def _predict(model: Any, samples: Sequence[Any]) -> list[Any]:
    if not any(derives_from(layer, "MelSpectrogram") for layer in model._flatten_layers()):
        return _outputs(model, samples)
    # Keras' results depend on the other samples of a batch.
    rows = [_outputs(model, [array[k : k + 1] for array in samples]) for k in range(SAMPLES)]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _outputs(model: Any, samples: Sequence[Any]) -> list[Any]:
    outputs = model(samples if len(samples) > 1 else samples[0], training=False)
    if isinstance(outputs, Mapping):
        outputs = [outputs[name] for name in sorted(outputs)]
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(output, "float64") for output in outputs]
