"""Preprocessing layers that were removed from a model, as steps of a front end."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.frontend.description import Step, parse_step
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.config_inspection import Config, layer_name
from edgeattn_converters.loading.migrate.context import safe_name
from edgeattn_converters.loading.migrate.preprocessing import REMOVED, source_names
from edgeattn_converters.loading.weights.from_archive import layer_groups
from edgeattn_converters.loading.weights.weights_file import WeightsFile

Table = dict[str, Any]
_MODES = {"binary": "multi_hot", "tf-idf": "tf_idf"}
# Settings with the same names and meaning in a layer and in its step.
_LOOKUP = (
    *("vocabulary", "mask_token", "oov_token", "num_oov_indices", "output_mode"),
    *("max_tokens", "pad_to_max_tokens", "salt"),
)
_KEYS = {
    "StringLookup": _LOOKUP,
    "IntegerLookup": (*_LOOKUP, "oov_method"),
    "Hashing": ("num_bins", "mask_value", "salt", "output_mode"),
    "TextVectorization": (
        *("vocabulary", "standardize", "split", "ngrams", "output_mode"),
        *("output_sequence_length", "max_tokens", "pad_to_max_tokens"),
    ),
}
_NAMES = {
    "StringLookup": "string_lookup",
    "IntegerLookup": "integer_lookup",
    "Hashing": "hashing",
    "TextVectorization": "text_vectorization",
}


@dataclass(frozen=True)
class RemovedLayers:
    """The layers between an input of the stored model and an input of the loaded one.

    ``input_layer`` and ``layers`` are their configs, ``tables`` the steps that compute the same.
    ``tables`` is None if a layer has no step, for the ``reason``.
    """

    input_layer: Config
    layers: tuple[Config, ...]
    tables: tuple[Table, ...] | None
    reason: str | None = None

    def steps(self) -> tuple[Step, ...]:
        """The steps; none if a layer has none."""
        return tuple(
            parse_step(table, f"layer {layer_name(layer)}")
            for table, layer in zip(self.tables or (), self.layers, strict=False)
        )


def between(complete: Config, without: Config) -> dict[str, tuple[Config, ...]]:
    """By the name of an input of ``without``: the input of ``complete`` and the layers after it."""
    before, after = _layers(complete), _layers(without)
    chains: dict[str, tuple[Config, ...]] = {}
    sequential = "input_layers" not in complete.get("config", {})
    for name, layer in after.items():
        if layer["class_name"] != "InputLayer" or before[name]["class_name"] == "InputLayer":
            continue
        if sequential:
            names = list(before)
            chain = [before[item] for item in names[: names.index(name) + 1]]
        else:
            chain = [before[name]]
            while chain[0]["class_name"] in REMOVED:
                chain.insert(0, before[source_names(chain[0])[0]])
        chains[name] = tuple(chain)
    return chains


def _layers(config: Config) -> dict[str, Config]:
    inner = config.get("config")
    layers = inner.get("layers", ()) if isinstance(inner, Mapping) else ()
    return {_name(layer): layer for layer in layers}


def _name(layer: Config) -> str:
    """The name of a layer or of an operation, whose own configuration has none in some files."""
    return str(layer["config"].get("name") or layer.get("name"))


def with_tables(
    chains: Mapping[str, Sequence[Config]], file: ModelFile, stored: Config, weights: WeightsFile
) -> dict[str, RemovedLayers]:
    """The removed layers, with the vocabularies and weights that the file stores besides."""
    if not chains:
        return {}
    vocabularies, idf_weights = _stored_tables(file, stored, weights)
    result = {}
    for name, (input_layer, *layers) in chains.items():
        reason, tables = None, []
        for layer in layers:
            key = layer["config"]["name"]
            try:
                table = _table(layer, vocabularies.get(key), idf_weights.get(key, ()))
                parse_step(table, f"layer {key}")
                tables.append(table)
            except UsageError as error:
                reason = error.message
                break
        kept = None if reason else tuple(tables)
        result[name] = RemovedLayers(input_layer, tuple(layers), kept, reason)
    return result


def explained(notes: Sequence[str], removed: Mapping[str, RemovedLayers]) -> list[str]:
    """``notes``, with what becomes of each removed layer."""
    outcomes = {
        f"{layer_name(layer)}: removed ": (
            "The front end of the bundle does that."
            if item.reason is None
            else f"The front end of the bundle does not: {item.reason}"
        )
        for item in removed.values()
        for layer in item.layers
    }
    return [
        next((f"{note} {text}" for start, text in outcomes.items() if note.startswith(start)), note)
        for note in notes
    ]


def _table(layer: Config, vocabulary: list[str] | None, idf_weights: Sequence[float]) -> Table:
    """The step that computes what ``layer`` does. Raises :class:`UsageError` if none does."""
    class_name, config = str(layer["class_name"]), dict(layer["config"])
    name = config["name"]
    if class_name not in _KEYS:
        raise UsageError(f"{name} is a {class_name}, which no step computes.")
    for key in ("invert", "ragged"):
        if config.get(key):
            raise UsageError(f"{name} has {key}=True, which no step does.")
    if config.get("encoding", "utf-8").lower().replace("_", "-") not in ("utf-8", "utf8"):
        raise UsageError(f"{name} reads text as {config['encoding']}, which no step does.")
    if config.get("vocabulary") is None and vocabulary is not None:
        is_integer = class_name == "IntegerLookup"
        config["vocabulary"] = [int(word) for word in vocabulary] if is_integer else vocabulary
    elif "vocabulary" in _KEYS[class_name] and config.get("vocabulary") is None:
        raise UsageError(f"The file does not contain the vocabulary of {name}.")
    for key in ("standardize", "split"):
        if key in config and not isinstance(config[key], str):
            if config[key] is not None:
                raise UsageError(f"{name} has a function as {key}, which no step does.")
            config[key] = "none"
    if isinstance(config.get("salt"), int):
        config["salt"] = [config["salt"]]
    if isinstance(config.get("ngrams"), int):
        config["ngrams"] = list(range(1, config["ngrams"] + 1))
    config["output_mode"] = _MODES.get(config.get("output_mode", ""), config.get("output_mode"))
    table = {key: config[key] for key in _KEYS[class_name] if config.get(key) is not None}
    if config["output_mode"] == "tf_idf":
        weights = config.get("idf_weights") or idf_weights
        # Those in the file are followed by zeros up to max_tokens.
        table["idf_weights"] = [float(value) for value in weights][: len(table["vocabulary"])]
    return {"step": _NAMES[class_name], **table}


def _stored_tables(
    file: ModelFile, stored: Config, weights: WeightsFile
) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    """The vocabularies and IDF weights in a ``.keras`` file, by the name of the layer."""
    vocabularies: dict[str, list[str]] = {}
    idf_weights: dict[str, list[float]] = {}
    if file.kind != "keras-zip":
        return vocabularies, idf_weights
    with zipfile.ZipFile(file.path) as archive:
        entries = set(archive.namelist())
        for item, group in layer_groups(weights.source, stored, by_name=True):
            entry = f"assets{group.name}/vocabulary.txt"
            if entry in entries:
                lines = archive.read(entry).decode("utf-8").splitlines()
                while lines and not lines[-1]:
                    lines.pop()
                vocabularies[safe_name(layer_name(item))] = lines
            if "vars" in group and "idf_weights" in group["vars"]:
                idf_weights[safe_name(layer_name(item))] = group["vars"]["idf_weights"][()].tolist()
    return vocabularies, idf_weights
