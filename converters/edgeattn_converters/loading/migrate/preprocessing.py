"""Removal of preprocessing layers that no edge runtime supports.

They look up words in tables, ahead of the trained layers. Their output becomes the input of the
model, and a note describes what the device has to compute. Rescaling, Normalization and
spectrograms are arithmetic and stay.
"""

from collections.abc import Callable, Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.migrate.context import keras_layer

# In the note about a layer that was removed.
REMOVED_NOTE = "which no edge runtime supports; the device must"
_NewInput = tuple[list[Any], str, str]  # shape, dtype, what the device has to do


def remove_preprocessing(config: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return a migrated model config without preprocessing layers directly after its inputs.

    Args:
        config: config of the model, as Keras 3 stores it.
        notes: gets a sentence for every layer that is removed.
    """
    inner = config.get("config")
    if not isinstance(inner, dict) or "layers" not in inner:
        return config
    if "input_layers" in inner:
        return {**config, "config": _from_functional(inner, notes)}
    return {**config, "config": {**inner, "layers": _from_sequential(inner["layers"], notes)}}


def _from_sequential(layers: list[Any], notes: list[str]) -> list[Any]:
    while len(layers) > 1 and _is_input(layers[0]) and layers[1]["class_name"] in REMOVED:
        layers = [_as_input(layers[1], layers[0], notes), *layers[2:]]
    return layers


def _from_functional(inner: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    layers = {layer["name"]: layer for layer in inner["layers"]}
    replacements: dict[str, list[str]] = {}  # name of an input -> names of inputs in its place
    for name, layer in list(layers.items()):
        sources = source_names(layer)
        if layer["class_name"] not in REMOVED or len(sources) != 1:
            continue
        source = layers[sources[0]]
        if _is_input(source):
            new_input = _as_input(layer, source, notes)
            layers[name] = {**new_input, "name": name, "inbound_nodes": []}
            replacements.setdefault(sources[0], []).append(name)
    if not replacements:
        return dict(inner)
    used = {source for layer in layers.values() for source in source_names(layer)}
    unused = {name for name in replacements if name not in used}

    def inputs_of(name: str) -> list[str]:
        others = [item for new in replacements.get(name, ()) for item in inputs_of(new)]
        return others if name in unused else [name, *others]

    return {
        **inner,
        "layers": [layer for name, layer in layers.items() if name not in unused],
        "input_layers": _replaced(inner["input_layers"], inputs_of),
    }


def _replaced(endpoints: Any, inputs_of: Callable[[str], list[str]]) -> Any:
    """``input_layers`` with the inputs that are in the place of each one."""
    if isinstance(endpoints, Mapping):
        result: dict[str, Any] = {}
        for key, item in endpoints.items():
            names = inputs_of(item[0])
            result |= {key if len(names) == 1 else name: [name, *item[1:]] for name in names}
        return result
    if len(endpoints) == 3 and isinstance(endpoints[0], str):
        inputs = [[name, *endpoints[1:]] for name in inputs_of(endpoints[0])]
        return inputs[0] if len(inputs) == 1 else inputs
    parts: list[Any] = []
    for item in endpoints:
        new = _replaced(item, inputs_of)
        parts += new if isinstance(new, list) and isinstance(new[0], list) else [new]
    return parts


def _is_input(layer: Config) -> bool:
    return layer.get("class_name") == "InputLayer"


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


def _as_input(layer: Config, source: Config, notes: list[str]) -> dict[str, Any]:
    """Return the input layer that replaces a preprocessing layer."""
    class_name, config = str(layer["class_name"]), layer["config"]
    shape, dtype, task = REMOVED[class_name](config, source["config"]["batch_shape"])
    name = config["name"]
    notes.append(f"{name}: removed {class_name}, {REMOVED_NOTE} {task}.")
    return keras_layer("InputLayer", {"batch_shape": shape, "dtype": dtype, "name": name})


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


def _text_vectorization(config: Config, shape: Any) -> _NewInput:
    mode = config.get("output_mode", "int")
    if mode != "int":
        return _encoded(config, [shape[0], 1]), "float32", f"encode the text (mode {mode})"
    options = ", ".join(f"{key}={config.get(key)!r}" for key in ("standardize", "split", "ngrams"))
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


def require_removed(model: Any) -> None:
    """Raise :class:`UnsupportedModelError` if a layer that looks up values is left in a model."""
    for layer in model._flatten_layers():
        if type(layer).__name__ not in _NOT_IN_ARTIFACTS:
            continue
        raise UnsupportedModelError(
            f"Layer {layer.name!r} is a {type(layer).__name__}, which no edge runtime supports, "
            "and is not directly behind an input: in a nested model, called more than once, with "
            "several inputs or at an output.",
            hint="Call such layers on an Input each, or save the model without them: "
            "keras.Model(first_layer.output, model.output). The program on the device then looks "
            "up the values.",
        )
