"""The static look at a config: would loading it run, import, read or fetch anything?

Nothing here imports Keras. What is refused is named by layer, with what the user can do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.loading.lambdas import recognition as lambdas
from edgeattn_converters.loading.lambdas.expressions import NotRecognisedError
from edgeattn_converters.loading.migrate import graph_operations as graph_ops
from edgeattn_converters.loading.safety import allowed_classes as classes
from edgeattn_converters.loading.safety import size_limits as limits

_URL = re.compile(r"^\s*(https?|ftp|file|gs|s3|hdfs|data|kaggle|hf)://", re.IGNORECASE)
_ELSEWHERE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)|(^|[\\/])\.\.([\\/]|$)")
# Arguments that Keras opens as files when they are strings.
_FILE_KEYS = frozenset(
    {"vocabulary", "idf_weights", "filepath", "file_path", "filename", "path", "url", "origin",
     "weights_path", "checkpoint", "saved_model", "model_path", "cache_dir", "vocabulary_file"}
)  # fmt: skip
_NAME_KEYS = frozenset({"name", "node_def", "equation", "split", "standardize", "mask_token"})
_SIZE_KEYS = frozenset(
    {"units", "filters", "output_dim", "input_dim", "nb_filter", "num_heads", "key_dim",
     "value_dim", "head_dim", "num_query_heads", "num_key_value_heads", "max_tokens",
     "num_bins", "n"}
)  # fmt: skip
# Functions of TensorFlow that touch files, processes or Python, by their place.
_UNSAFE_FUNCTION = re.compile(
    r"(^|\.)(io|py_function|numpy_function|py_func|load_op_library|load_library|"
    r"saved_model|train|data|debugging|print|summary|raw_ops|gfile|eval)($|\.)"
)


@dataclass(frozen=True)
class Finding:
    """A class of the user's own that the config needs, and the config it was saved with."""

    layer: str
    class_name: str
    config: Mapping[str, Any]


_NEVER = (
    "Nothing in a model needs this, and it is never run, trusted or not. "
    "Ask its maker for a file without it."
)
_RAW = "It is never run, trusted or not. Rebuild the model with Keras layers in its place."


def screen(config: Mapping[str, Any], *, hint: str, trusted: bool) -> None:
    """Refuse a config that could run, import, read or fetch something, or is a bomb.

    ``hint`` is for the size caps, which ``trusted`` lifts.

    Raises:
        UnsafeModelError: naming the layer and why.
    """
    layers = 0
    for item in walk(config, hint=hint):
        if isinstance(item.value, dict) and "class_name" in item.value:
            layers += 1
            if layers > limits.MAX_LAYERS and not trusted:
                raise _refuse(item, f"the model has more than {limits.MAX_LAYERS} parts", hint)
            _check_object(item, trusted=trusted)
        elif isinstance(item.value, str) and not item.compiled:
            _check_string(item)
        elif isinstance(item.value, int) and item.key in _SIZE_KEYS and not trusted:
            _check_size(item, hint)


def screen_training(text: str | None) -> None:
    """Look through how the model was compiled. It is never loaded, so anything may be custom."""
    try:
        config = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return
    if not isinstance(config, dict):
        return
    for item in walk({"compile_config": config}):
        if isinstance(item.value, dict) and "class_name" in item.value:
            _check_object(item, trusted=False)


@dataclass(frozen=True)
class Item:
    """One value in a config: the key it stands under and the layer it belongs to."""

    layer: str
    key: str
    value: Any
    listed: bool = False
    compiled: bool = False  # how the model was trained: never loaded, so anything may be custom


def walk(config: Mapping[str, Any], *, hint: str = "") -> Iterator[Item]:
    """Every value of a nested config, without recursion, within the limits.

    Raises:
        UnsafeModelError: nested too deeply or too large.
    """
    stack: list[tuple[Item, int]] = [(Item("the model", "", config), 0)]
    seen = 0
    while stack:
        item, depth = stack.pop()
        seen += 1
        if depth > limits.MAX_CONFIG_DEPTH or seen > limits.MAX_CONFIG_NODES:
            raise _refuse(item, "its configuration is nested too deeply or too large", hint)
        yield item
        if isinstance(item.value, dict):
            layer = _name_of(item.value) or item.layer
            stack.extend(
                (
                    Item(layer, key, value, False, item.compiled or key == "compile_config"),
                    depth + 1,
                )
                for key, value in item.value.items()
            )
        elif isinstance(item.value, list | tuple):
            if item.key in ("value", "inbound_nodes") and _is_plain(item.value):
                continue  # the numbers of a constant: nothing to find there
            stack.extend(
                (Item(item.layer, item.key, v, True, item.compiled), depth + 1) for v in item.value
            )


def _is_plain(values: Sequence[Any]) -> bool:
    """Whether these are numbers, to any depth that a tensor has."""
    while values and isinstance(values[0], list | tuple):
        if not all(isinstance(v, list | tuple) for v in values):
            return False
        values = values[0]
    return all(isinstance(v, int | float | bool) for v in values[:8])


def _name_of(value: Mapping[str, Any]) -> str | None:
    """The layer's name, when this is a layer."""
    if "class_name" not in value:
        return None
    config = value.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    name = name or value.get("name")
    return name if isinstance(name, str) else None


def _check_object(item: Item, *, trusted: bool) -> None:
    """A dict that Keras would turn into an object: is it one of those that only compute?"""
    value = item.value
    class_name, module = value.get("class_name"), value.get("module")
    if not isinstance(class_name, str) or not isinstance(module, str | None):
        return  # a user's own config may use these words for something else
    inside = Item(_name_of(value) or item.layer, item.key, value)
    if class_name == "__lambda__" and not lambdas.seems_harmless(value.get("config")):
        raise _refuse(inside, f"{item.key!r} is Python code in the file", _NEVER)
    if item.compiled:
        if module and module != "builtins" and classes.is_library_module(module):
            raise _refuse(inside, f"it would import {module}.{class_name}", _NEVER)
        return
    if class_name in classes.CODE_CARRYING:
        raise _refuse(inside, f"{class_name} {classes.CODE_CARRYING[class_name]}", _NEVER)
    if class_name == "Lambda":
        lambdas.check(inside.layer, value.get("config") or {}, trusted=trusted)
        return
    if class_name == "__lambda__" and item.key not in ("function", "mask", "output_shape"):
        raise _refuse(inside, f"{item.key!r} is a Python lambda stored as bytecode", _NEVER)
    if class_name in ("TFOpLambda", "SlicingOpLambda"):
        function = str((value.get("config") or {}).get("function"))
        if _UNSAFE_FUNCTION.search(function):
            raise _refuse(inside, f"it calls TensorFlow's {function!r}", _NEVER)
    if class_name == "TensorFlowOpLayer":
        _check_graph_op(inside)
    if class_name == "function":
        _check_function(inside, module)
    elif module and not _may_come_from(module, class_name):
        raise _refuse(inside, f"it would import {module}.{class_name}", _NEVER)


def _may_come_from(module: str, class_name: str) -> bool:
    """Whether a class of that module is Keras' own model part or the user's own class."""
    if classes.is_keras_module(module):
        known = class_name in classes.LAYERS or class_name in classes.PARTS
        operation = classes.is_operation_module(module) and class_name.isidentifier()
        return classes.is_keras_model_module(module) and (known or operation)
    if module == "builtins":
        return class_name in ("slice", "__tuple__", "type")
    return not classes.is_library_module(module)


def _check_function(item: Item, module: str | None) -> None:
    """A function by name: one of Keras' activations, or one that the user must give."""
    name = item.value.get("config")
    if module and classes.is_keras_module(module) and name not in classes.FUNCTIONS:
        raise _refuse(item, f"it would call {module}.{name}", _NEVER)
    if module and module != "builtins" and classes.is_library_module(module):
        raise _refuse(item, f"it would call {module}.{name}", _NEVER)


def _check_graph_op(item: Item) -> None:
    """A raw graph operation: its kind must be on the list of those that only compute."""
    config = item.value.get("config")
    if not isinstance(config, dict) or not graph_ops.is_known(config):
        what = f"it is a raw TensorFlow operation of a kind not known here{_kind_of(config)}"
        raise _refuse(item, what, _RAW)


def _kind_of(config: Any) -> str:
    try:
        return f": {graph_ops.kind(config):.60}"
    except (NotRecognisedError, AttributeError):
        return ""


def _check_string(item: Item) -> None:
    """A string that Keras could open or fetch."""
    value = item.value
    if item.key in _NAME_KEYS or item.listed:
        return  # names of layers, and the words of a vocabulary
    if _URL.match(value):
        raise _refuse(item, f"{item.key!r} is an address ({value[:80]!r})", _NEVER)
    elsewhere = len(value) > 1 and _ELSEWHERE.search(value)
    if elsewhere or (item.key in _FILE_KEYS and value):
        raise _refuse(item, f"{item.key!r} points at a file ({value[:80]!r})", _NEVER)


def _check_size(item: Item, hint: str) -> None:
    if isinstance(item.value, bool) or item.value <= limits.MAX_DIMENSION:
        return
    raise _refuse(
        item, f"{item.key}={item.value} is more than the {limits.MAX_DIMENSION} allowed", hint
    )


def _refuse(item: Item, why: str, hint: str) -> UnsafeModelError:
    return UnsafeModelError(f"refused at {item.layer!r}: {why}", hint=hint)
