"""A SavedModel folder of Keras 2, read for its layers: its graph is never loaded or run.

Keras keeps the config of every layer beside the graph, in ``keras_metadata.pb`` or, before
TensorFlow 2.5, within ``saved_model.pb``. The field numbers are those of TensorFlow's
``saved_metadata.proto``, ``saved_model.proto`` and ``saved_object_graph.proto``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.migrate import attention_package
from edgeattn_converters.loading.migrate import config_summary as outline
from edgeattn_converters.loading.migrate.context import Config, safe_name
from edgeattn_converters.loading.safety import size_limits as limits

VARIABLES = "variables/variables"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_HINT = "Save it from Keras as one file, with model.save('model.keras')."


def inspect(path: Path) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """Keras version, backend and architecture.

    Raises:
        UnsupportedModelError: a graph without Keras layers, or no variables.
        UnsafeModelError: too large.
    """
    if not (path / f"{VARIABLES}.index").is_file():
        raise UnsupportedModelError(
            f"expected trained weights, but {path.name} has no {VARIABLES}.index", hint=_HINT
        )
    for text in _metadata(path):
        if '"class_name"' not in text:
            continue
        config = hdf5.parse_config(text, name=path.name)
        if not outline.is_model(config):
            break
        version = config.get("keras_version")
        backend = config.get("backend")
        return (
            version if isinstance(version, str) else None,
            backend if isinstance(backend, str) else None,
            {"class_name": config["class_name"], "config": config["config"],
             "keras_version": version},
        )  # fmt: skip
    raise UnsupportedModelError(
        f"{path.name} is a SavedModel without the layers of a Keras model: a graph alone, or a "
        "model written as a class",
        hint=_HINT,
    )


def _metadata(path: Path) -> Iterator[str]:
    """The JSON kept for the objects in the folder, the model's own first."""
    beside = path / "keras_metadata.pb"
    try:
        if beside.is_file():
            for node in _fields(_read(beside), 1):
                yield from _texts(node, 5)
            return
        for meta_graph in _fields(_read(path / "saved_model.pb"), 2):
            for objects in _fields(meta_graph, 7):
                for node in _fields(objects, 1):
                    for user_object in _fields(node, 4):
                        yield from _texts(user_object, 3)
    except ValueError as error:
        raise UnsupportedModelError(
            f"the SavedModel {path.name} is damaged: {error}", hint="Get the folder again."
        ) from error


def _read(file: Path) -> bytes:
    if file.stat().st_size > limits.MAX_CONFIG_BYTES * 4:
        raise UnsafeModelError(f"refused {file.name}: {file.stat().st_size} bytes", hint=_HINT)
    return file.read_bytes()


def _texts(message: bytes, number: int) -> Iterator[str]:
    for value in _fields(message, number):
        yield value.decode("utf-8", errors="replace")


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """The values of one length-delimited field of a protobuf message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            _, position = _varint(message, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("a field is cut short")
            if key >> 3 == number:
                yield message[position : position + length]
            position += length
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("a number is cut short")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def read_variables(path: Path) -> Mapping[str, Any]:
    """The arrays of the checkpoint in the folder, by their path among the objects.

    Raises:
        UnsupportedModelError: damaged.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(path / VARIABLES))
        names = [
            name for name in reader.get_variable_to_shape_map()
            if name.endswith(_SUFFIX) and "/.OPTIMIZER_SLOT/" not in name
        ]  # fmt: skip
        return {name.removesuffix(_SUFFIX): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"the variables of {path.name} cannot be read: {str(error)[:200]}",
            hint="Get the folder again.",
        ) from error


def assign(variables: Mapping[str, Any], model: Any, stored: Config) -> None:
    """Fill a model with them. Requires the model built from the folder's config.

    Raises:
        UnsupportedModelError: arrays that fit no layer, or weights without one.
    """
    from edgeattn_converters.loading.migrate.weights import check_filled

    filled: set[int] = set()
    _assign_model(variables, "", model, stored, filled)
    check_filled(model, filled)


def _assign_model(
    variables: Mapping[str, Any], prefix: str, model: Any, stored: Config, filled: set[int]
) -> None:
    """Layers with weights are counted in the order of the config."""
    counted = {
        int(found.group(1))
        for name in variables
        if (found := re.match(re.escape(prefix) + r"layer_with_weights-(\d+)/", name))
    }
    layers = {layer.name: layer for layer in model.layers}
    weighted = [
        (item, layer)
        for item in outline.stored_layers(stored)
        if (layer := layers.get(safe_name(outline.layer_name(item)))) is not None and layer.weights
    ]
    if len(counted) != len(weighted):
        raise UnsupportedModelError(
            f"expected {len(weighted)} layers with weights, the folder has {len(counted)}",
            hint=_HINT,
        )
    for index, (item, layer) in zip(sorted(counted), weighted, strict=True):
        inner = f"{prefix}layer_with_weights-{index}/"
        if outline.is_model(item):
            _assign_model(variables, inner, layer, item, filled)
            continue
        for name, value in variables.items():
            if name.startswith(inner):
                _assign_one(name[len(inner) :], value, layer, filled)


def _assign_one(path: str, value: Any, layer: Any, filled: set[int]) -> None:
    from edgeattn_converters.loading.migrate.weights import set_variable

    target = layer
    for step in path.split("/"):
        if isinstance(target, list | tuple) and step.isdigit():
            target = target[int(step)]
            continue
        names = (step, step.lstrip("_"), attention_package.PARTS.get(step, ""))
        target = next((getattr(target, n) for n in names if n and hasattr(target, n)), None)
    if target is None or not hasattr(target, "assign"):
        if path.startswith("keras_api"):
            return
        raise UnsupportedModelError(
            f"the folder has weights {path!r} for layer {layer.name!r}, which has no such part",
            hint=_HINT,
        )
    set_variable(target, value, layer.name, filled)
