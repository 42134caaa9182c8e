"""Layers that prepare data in a way no edge runtime can: cut off, and said what the device owes.

They look words up in tables or transform sound, before anything trained. What they gave becomes
the model's input. Rescaling and Normalization are plain arithmetic and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeattn_converters.loading.migrate.context import Config


def cut(config: dict[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """A translated model's config without such layers right behind its inputs.

    Ensures that a model without them comes back unchanged.
    """
    inner = config.get("config")
    if not isinstance(inner, dict) or "layers" not in inner:
        return config
    if "input_layers" in inner:
        return {**config, "config": _cut_graph(inner, note)}
    return {**config, "config": {**inner, "layers": _cut_chain(inner["layers"], note)}}


def _cut_chain(layers: list[Any], note: Callable[[str], None]) -> list[Any]:
    while len(layers) > 1 and _is_input(layers[0]) and layers[1]["class_name"] in _KINDS:
        layers = [_as_input(layers[1], layers[0], note), *layers[2:]]
    return layers


def _cut_graph(inner: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    layers = {layer["name"]: layer for layer in inner["layers"]}
    replaced: dict[str, str] = {}  # an input, and what took its place
    for name, layer in list(layers.items()):
        sources = _sources(layer)
        if layer["class_name"] not in _KINDS or len(sources) != 1:
            continue
        source = layers[sources[0]]
        if _is_input(source):
            made = _as_input(layer, source, note)
            layers[name] = {**made, "name": name, "inbound_nodes": []}
            replaced[sources[0]] = name
    used = {source for layer in layers.values() for source in _sources(layer)}
    gone = {name for name in replaced if name not in used}
    if not gone:
        return dict(inner)

    def today(name: str) -> str:
        while name in gone:
            name = replaced[name]
        return name

    return {
        **inner,
        "layers": [layer for name, layer in layers.items() if name not in gone],
        "input_layers": _renamed(inner["input_layers"], today),
    }


def _renamed(ends: Any, today: Callable[[str], str]) -> Any:
    if isinstance(ends, Mapping):
        return {key: _renamed(end, today) for key, end in ends.items()}
    if len(ends) == 3 and isinstance(ends[0], str):
        return [today(ends[0]), *ends[1:]]
    return [_renamed(end, today) for end in ends]


def _is_input(layer: Config) -> bool:
    return layer.get("class_name") == "InputLayer"


def _sources(layer: Config) -> list[str]:
    """The layers whose outputs it is called with."""
    found: list[str] = []
    rest: list[Any] = list(layer.get("inbound_nodes") or [])
    while rest:
        value = rest.pop()
        if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
            found.append(value["config"]["keras_history"][0])
        elif isinstance(value, Mapping):
            rest.extend(value.values())
        elif isinstance(value, list | tuple):
            rest.extend(value)
    return found


def _as_input(layer: Config, source: Config, note: Callable[[str], None]) -> dict[str, Any]:
    """The input that stands for what the layer gave, and a word on what is now to be computed."""
    class_name, config = str(layer["class_name"]), layer["config"]
    shape, dtype, owed = _KINDS[class_name](config, source["config"]["batch_shape"])
    name = config["name"]
    note(f"{name}: {class_name} was cut off, no edge runtime has it; the device must {owed}.")
    return {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
            "config": {"batch_shape": shape, "dtype": dtype, "name": name}}  # fmt: skip


_Given = tuple[list[Any], str, str]


def _size(config: Config) -> int | None:
    """How many words a table has; None if only the file's assets say."""
    if config.get("pad_to_max_tokens") and config.get("max_tokens"):
        return int(config["max_tokens"])
    words = config.get("vocabulary")
    if not isinstance(words, list | tuple):
        return config.get("vocabulary_size") or config.get("max_tokens")
    return len(words)


def _text(config: Config, shape: Any) -> _Given:
    if config.get("output_mode", "int") != "int":
        return [shape[0], _size(config)], "float32", "count the words of the text as it was told to"
    how = ", ".join(f"{key}={config.get(key)!r}" for key in ("standardize", "split", "ngrams"))
    length = config.get("output_sequence_length")
    return [shape[0], length], "int64", f"turn text into word numbers ({how})"


def _lookup(config: Config, shape: Any) -> _Given:
    if config.get("output_mode", "int") != "int":
        return [shape[0], _size(config)], "float32", "look its values up and encode them"
    return list(shape), "int64", "look its values up in the vocabulary"


def _hashing(config: Config, shape: Any) -> _Given:
    return list(shape), "int64", f"hash its values into {config.get('num_bins')} bins"


def _spectrogram(config: Config, shape: Any) -> _Given:
    import keras

    made = keras.layers.MelSpectrogram.from_config(dict(config))
    given = list(made.compute_output_shape(tuple(shape)))
    return given, "float32", "compute the mel spectrogram of the sound"


_KINDS: Mapping[str, Callable[[Config, Any], _Given]] = {
    "TextVectorization": _text,
    "StringLookup": _lookup,
    "IntegerLookup": _lookup,
    "Hashing": _hashing,
    "MelSpectrogram": _spectrogram,
}
