"""Preprocessing layers that were removed from a model, as steps of a front end."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.frontend.description import Step, parse_step
from edgeattn.samples.stored_inputs import replaced_inputs
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    layer_name,
    stored_layers,
)
from edgeattn_converters.loading.migrate.context import safe_input_name, safe_name
from edgeattn_converters.loading.migrate.lookup_removal import Chain, LookupLayer
from edgeattn_converters.loading.weights.from_archive import layer_groups
from edgeattn_converters.loading.weights.weights_file import WeightsFile

Table = dict[str, Any]
# The start of a note on removed layers that the front end of the bundle does not compute.
NOT_PREPARED = "The front end of the bundle does not"
# Names of the nested models around a layer, and of the layer.
Path = tuple[str, ...]
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

    ``tables`` are the steps that compute the same as ``layers``; None if a layer has no step, for
    the ``reason``.
    """

    input_layer: Config
    layers: tuple[LookupLayer, ...]
    tables: tuple[Table, ...] | None
    reason: str | None = None

    @property
    def stored_name(self) -> str:
        """The name of the input of the stored model."""
        return str(self.input_layer["config"]["name"])

    def steps(self) -> tuple[Step, ...]:
        """The steps; none if a layer has none."""
        return tuple(
            parse_step(table, f"layer {layer.path[-1]}")
            for table, layer in zip(self.tables or (), self.layers, strict=False)
        )


def with_tables(
    chains: Mapping[str, Chain], file: ModelFile, stored: Config, weights: WeightsFile
) -> dict[str, RemovedLayers]:
    """The removed layers, with the vocabularies and weights that the file stores besides."""
    if not chains:
        return {}
    vocabularies, idf_weights = _stored_tables(file, stored, weights)
    result = {}
    for name, chain in chains.items():
        reason, tables = None, []
        for layer in chain.layers:
            key = layer.path
            try:
                table = _table(layer.config, vocabularies.get(key), idf_weights.get(key, ()))
                parse_step(table, f"layer {key[-1]}")
                tables.append(table)
            except UsageError as error:
                reason = error.message
                break
        kept = None if reason else tuple(tables)
        result[name] = RemovedLayers(chain.input_layer, chain.layers, kept, reason)
    return result


def original_names(stored: Config, chains: Mapping[str, Chain]) -> dict[str, str]:
    """Names of layers in the stored model by those in the model after the removal.

    An input in place of removed layers has the name of the input ahead of these.
    """
    names = {}
    for item in stored_layers(stored):
        safe = safe_input_name if item.get("class_name") == "InputLayer" else safe_name
        names[safe(layer_name(item))] = layer_name(item)
    replaced = {new: str(chain.input_layer["config"]["name"]) for new, chain in chains.items()}
    return names | {new: names.get(name, name) for new, name in replaced.items()}


def explained(notes: Sequence[str], removed: Mapping[str, RemovedLayers]) -> list[str]:
    """``notes``, with what becomes of each removed layer, and which inputs replace which.

    A single input in place of another one is clear without it.
    """
    outcomes = {
        f"{layer.path[-1]}: removed ": (
            "The front end of the bundle does that."
            if item.reason is None
            else f"{NOT_PREPARED}: {item.reason}"
        )
        for item in removed.values()
        for layer in item.layers
    }
    with_outcomes = [
        next((f"{note} {text}" for start, text in outcomes.items() if note.startswith(start)), note)
        for note in notes
    ]
    stored = {name: item.stored_name for name, item in removed.items()}
    names = replaced_inputs(stored) if len(stored) > 1 else ""
    return [*with_outcomes, *([names] if names else ())]


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
) -> tuple[dict[Path, list[str]], dict[Path, list[float]]]:
    """The vocabularies and IDF weights in a ``.keras`` file, by the path of the layer."""
    vocabularies: dict[Path, list[str]] = {}
    idf_weights: dict[Path, list[float]] = {}
    if file.kind != "keras-zip":
        return vocabularies, idf_weights
    with zipfile.ZipFile(file.path) as archive:
        entries = set(archive.namelist())
        for path, group in _groups(weights.source, stored):
            # A TimeDistributed has its lookup as a layer in it.
            names = (f"assets{group.name}{part}/vocabulary.txt" for part in ("", "/layer"))
            entry = next((name for name in names if name in entries), None)
            if entry is not None:
                lines = archive.read(entry).decode("utf-8").splitlines()
                while lines and not lines[-1]:
                    lines.pop()
                vocabularies[path] = lines
            if "vars" in group and "idf_weights" in group["vars"]:
                idf_weights[path] = group["vars"]["idf_weights"][()].tolist()
    return vocabularies, idf_weights


def _groups(group: Any, stored: Config) -> Iterator[tuple[Path, Any]]:
    """The path and the group of each layer of a model and of the models in it."""
    for item, inner in layer_groups(group, stored, by_name=True):
        name = safe_name(layer_name(item))
        yield (name,), inner
        if is_model(item):
            yield from (((name, *path), layer) for path, layer in _groups(inner, item))
