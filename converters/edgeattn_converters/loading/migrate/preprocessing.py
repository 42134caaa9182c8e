"""Preprocessing layers that no edge runtime supports, and the inputs in their place.

They look up words in tables, ahead of the trained layers. Their output becomes the input of the
model, and a note describes what the device has to compute. Rescaling, Normalization and
spectrograms are arithmetic and stay.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import enumerated
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading.config_inspection import Config, is_model, stored_layers
from edgeattn_converters.loading.own_code.own_classes import is_own_class

# In the note about a layer that was removed.
REMOVED_NOTE = "which no edge runtime supports; the device must"
_NewInput = tuple[list[Any], str, str]  # shape, dtype, what the device has to do


def is_used(stored: Config) -> bool:
    """Return whether a stored model has a layer that looks up values, at any depth."""
    return _first_lookup(stored) is not None


def _first_lookup(stored: Config) -> Config | None:
    """The first layer that looks up values in a stored model, without TimeDistributed around it."""
    for item in stored_layers(stored):
        inner = _without_steps(item)
        found = _first_lookup(inner) if is_model(inner) else None
        if found is not None or inner.get("class_name") in REMOVED:
            return found or inner
    return None


def _without_steps(item: Config) -> Config:
    """The layer or model inside of one or more ``TimeDistributed``."""
    while item.get("class_name") == "TimeDistributed":
        item = item["config"]["layer"]
    return item


def is_lookup(item: Config) -> bool:
    """Return whether a stored layer looks up values, also in a ``TimeDistributed``."""
    config = item.get("config")
    inner = config.get("layer") if isinstance(config, Mapping) else None
    if item.get("class_name") == "TimeDistributed" and isinstance(inner, Mapping):
        return inner.get("class_name") in REMOVED
    return item.get("class_name") in REMOVED


def source_names(layer: Config) -> list[str]:
    """Return the names of the layers whose outputs a layer is called with."""
    sources: list[str] = []
    pending: list[Any] = list(layer.get("inbound_nodes") or [])
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
            sources.append(value["config"]["keras_history"][0])
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
    return sources


def _encoded(config: Config, shape: Any) -> list[Any]:
    """Return the shape of values that are encoded as vectors, one number for every word.

    Unknown words have numbers too. A size that only the assets of the file contain is None.
    """
    words: int | None
    vocabulary, size = config.get("vocabulary"), config.get("vocabulary_size")
    if config.get("pad_to_max_tokens") and config.get("max_tokens"):
        words = int(config["max_tokens"])
    elif isinstance(size, int):
        words = size
    elif isinstance(vocabulary, list | tuple):
        words = len(vocabulary) + int(config.get("num_oov_indices", 1))
    else:
        words = config.get("max_tokens")
    if config.get("output_mode") == "one_hot" and len(shape) > 1 and shape[-1] != 1:
        return [*shape, words]
    return [*shape[:-1], words] if len(shape) > 1 else [shape[0], words]


def _value(value: Any) -> str:
    """The value of an argument, the name of a function."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        return str(value.get("config")).rpartition(">")[2]
    return repr(value)


def _text_vectorization(config: Config, shape: Any) -> _NewInput:
    mode = config.get("output_mode", "int")
    if mode != "int":
        return _encoded(config, [shape[0], 1]), "float32", f"encode the text (mode {mode})"
    values = {key: config.get(key) for key in ("standardize", "split", "ngrams")}
    options = ", ".join(f"{key}={_value(value)}" for key, value in values.items())
    length = config.get("output_sequence_length")
    return [shape[0], length], "int64", f"turn text into word indices ({options})"


def _lookup(config: Config, shape: Any) -> _NewInput:
    mode = config.get("output_mode", "int")
    if mode != "int":
        task = f"look up the values and encode them (mode {mode})"
        return _encoded(config, shape), "float32", task
    return list(shape), "int64", "look up the values in the vocabulary"


def _hashing(config: Config, shape: Any) -> _NewInput:
    task = f"hash the values into {config.get('num_bins')} bins"
    if config.get("output_mode", "int") != "int":
        return _encoded({**config, "vocabulary_size": config["num_bins"]}, shape), "float32", task
    return list(shape), "int64", task


REMOVED: Mapping[str, Callable[[Config, Any], _NewInput]] = {
    "TextVectorization": _text_vectorization,
    "StringLookup": _lookup,
    "IntegerLookup": _lookup,
    "Hashing": _hashing,
}
# Layers of these classes cannot be computed in an artifact.
_NOT_IN_ARTIFACTS = frozenset({*REMOVED, "HashedCrossing"})


def require_none_over_time(config: Config) -> None:
    """Raise :class:`UnsupportedModelError` if a layer that looks up values is left in a
    ``TimeDistributed`` of a migrated model config, with which Keras 3 cannot build some models."""
    for layer in stored_layers(config):
        if is_model(layer):
            require_none_over_time(layer)
        elif layer.get("class_name") == "TimeDistributed":
            _require_none_inside(layer)


def _require_none_inside(over_time: Config) -> None:
    inner = _without_steps(over_time)
    name = over_time["config"]["name"]
    if inner.get("class_name") in REMOVED:
        raise UnsupportedModelError(
            f"Layer {name!r} is a TimeDistributed around {inner['class_name']}, which no edge "
            "runtime supports.",
            hint="Save the model without it: keras.Model(model.get_layer("
            f"{name!r}).output, model.output), and all other inputs it needs. The program on the "
            "device then looks up the values of every step.",
        )
    if is_model(inner) and (lookup := _first_lookup(inner)) is not None:
        title = repr((lookup.get("config") or {}).get("name"))
        raise UnsupportedModelError(
            f"Layer {name!r} is a TimeDistributed around a model with the "
            f"{lookup['class_name']} {title}, which no edge runtime supports.",
            hint=f"Call {title} outside of the model, in a TimeDistributed of its own, and save "
            f"the model from its output on: keras.Model(indices, model.output). {name!r} then "
            "takes the indices instead of the values.",
        )


def require_removed(model: Any, original_names: Mapping[str, str] | None = None) -> None:
    """Raise :class:`UnsupportedModelError` if a layer that looks up values is left in a model.

    ``original_names`` has the names of layers in the user's model by those in ``model``, also of
    the inputs ahead of removed layers.
    """
    names = original_names or {}
    left = [x for x in model._flatten_layers() if derives_from(x, *_NOT_IN_ARTIFACTS)]
    if not left:
        return
    layer = left[0]
    behind, computed = _remainder(model, layer, left, names)
    without = f"save the model without it: {behind}. The program on the device then"
    hint = f"Call it on an Input of its own, or {without} looks up the values."
    if derives_from(layer, "HashedCrossing"):
        hint = f"{without[0].upper()}{without[1:]} computes {computed}."
    owner = _class_around(model, layer)
    if owner is not None:
        hint = (
            f"Look up the values outside of the model: call() of your class {type(owner).__name__} "
            "must take their indices, which the program on the device then passes."
        )
    if getattr(layer, "invert", False):
        hint = (
            "Save the model without it, and pass its words in the order of the outputs: "
            "--labels FILE"
        )
    title = repr(names.get(layer.name, layer.name))
    raise UnsupportedModelError(
        f"Layer {title} is a {type(layer).__name__}, which no edge runtime supports, and is not "
        "directly behind an input: after other layers, inside a class of yours, with several "
        "inputs or at an output.",
        hint=hint,
    )


def _class_around(model: Any, layer: Any) -> Any:
    """The innermost layer or model of a class of the user's that contains ``layer``, or None."""
    own = [
        item
        for item in model._flatten_layers()
        if item is not layer
        and is_own_class(type(item))
        and any(inner is layer for inner in item._flatten_layers())
    ]
    return own[-1] if own else None


def _remainder(
    model: Any, layer: Any, left: Sequence[Any], names: Mapping[str, str]
) -> tuple[str, str]:
    """The model behind the layers that are ``left``, as an expression, and what these compute."""
    title = repr(names.get(layer.name, layer.name))
    calls = len(layer._inbound_nodes)
    if layer not in model.layers or not calls:
        return "keras.Model(layer.output, model.output), and all other inputs it needs", title
    if calls > 1:
        outputs = f"the outputs of its {calls} calls, and all other inputs it needs"
        return f"keras.Model(outputs, model.output) with {outputs}", title
    removed = [
        item.name
        for item in left
        if item in model.layers
        and len(item._inbound_nodes) == 1
        and not getattr(item, "invert", False)
    ]
    if layer.name not in removed:
        removed.append(layer.name)
    sources = [names.get(name, name) for name in _sources(model, removed)]
    inputs = ", ".join(f"model.get_layer({name!r}).output" for name in dict.fromkeys(sources))
    titles = [repr(names.get(name, name)) for name in removed]
    expression = (
        f"keras.Model([{inputs}], model.output)"
        if "," in inputs
        else (f"keras.Model({inputs}, model.output)")
    )
    return expression, enumerated(titles)


def _sources(model: Any, removed: Sequence[str]) -> list[str]:
    """Names of ``removed`` layers and inputs, of which the outputs of a model are computed."""
    sources: set[str] = set()
    inputs = {id(tensor): tensor.name for tensor in model.inputs}
    tensors, seen = list(model.outputs), set()
    while tensors:
        tensor = tensors.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, call, _ = tensor._keras_history
        if operation.name in removed:
            sources.add(operation.name)
        elif id(tensor) in inputs:
            sources.add(inputs[id(tensor)])
        else:
            tensors.extend(operation._inbound_nodes[call].input_tensors)
    return [name for name in (*removed, *inputs.values()) if name in sources]
