"""Static screening of a stored configuration: would loading it run, import, read or fetch anything?

Keras is not imported. An error names the layer that is refused and what the user can do.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.error_text import beginning
from edgeattn_converters.loading.lambdas import graph_nodes, recognition
from edgeattn_converters.loading.lambdas.expressions import NotRecognizedError
from edgeattn_converters.loading.safety import allowed_classes, size_limits

_URL = re.compile(r"^\s*(https?|ftp|file|gs|s3|hdfs|data|kaggle|hf)://", re.IGNORECASE)
_OUTSIDE_PATH = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)|(^|[\\/])\.\.([\\/]|$)")
# Arguments that Keras opens as files if they are strings.
_FILE_KEYS = frozenset(
    {"vocabulary", "idf_weights", "filepath", "file_path", "filename", "path", "url", "origin",
     "weights_path", "checkpoint", "saved_model", "model_path", "cache_dir", "vocabulary_file"}
)  # fmt: skip
_NAME_KEYS = frozenset({"name", "node_def", "equation", "split", "standardize", "mask_token"})
_SIZE_KEYS = frozenset(
    {"units", "filters", "output_dim", "input_dim", "nb_filter", "num_heads", "key_dim",
     "value_dim", "head_dim", "num_query_heads", "num_key_value_heads", "max_tokens",
     "num_bins", "n", "size", "padding", "cropping", "kernel_size", "pool_size", "strides",
     "dilation_rate", "depth_multiplier", "groups", "output_padding", "output_size", "target_shape",
     "dims", "shape", "batch_shape", "batch_input_shape", "input_shape", "input_length", "height",
     "width", "num_tokens", "output_sequence_length", "fft_length", "sequence_length",
     "sequence_stride", "num_mel_bins", "nb_feature", "nb_row", "nb_col", "filter_length", "length",
     "subsample", "subsample_length", "pool_length", "stride", "repeats", "reps"}
)  # fmt: skip
# TensorFlow functions that access files, processes or Python, by their module path.
_UNSAFE_FUNCTION = re.compile(
    r"(^|\.)(io|py_function|numpy_function|py_func|load_op_library|load_library|"
    r"saved_model|train|data|debugging|print|summary|raw_ops|gfile|eval)($|\.)"
)
# A call of it is loaded as its argument, and never made.
_WITHOUT_EFFECT = frozenset({"debugging.check_numerics", "compat.v1.debugging.check_numerics"})
_NO_USE_IN_MODELS = (
    "Ask the author of the file for one without it: no model needs this, and edgeattn never runs "
    "it, not even with --trust."
)
_REBUILD = (
    "Rebuild the model with Keras layers in its place: edgeattn never runs such an operation, "
    "not even with --trust."
)


def screen(
    config: Mapping[str, Any],
    *,
    hint: str,
    trusted: bool,
    code: recognition.CodeTrust = recognition.CodeTrust(),  # noqa: B008 - frozen
) -> None:
    """Refuse a config that could run, import, read or fetch something, or exhaust memory.

    ``hint`` is that of errors about sizes, ``trusted`` lifts the size limits, and ``code`` says
    whether the user may replace unknown code. Raises :class:`UnsafeModelError`, which names the
    layer and the reason; if the code of several Lambda layers is unknown, all of them.
    """
    objects = 0
    unknown: list[recognition.UnknownCode] = []
    for item in walk(config, hint=hint):
        if isinstance(item.value, dict) and "class_name" in item.value:
            objects += 1
            if objects > size_limits.MAX_LAYERS and not trusted:
                problem = f"the model has more than {size_limits.MAX_LAYERS} layers and objects"
                raise _refusal(item, problem, hint)
            if _is_replaceable(item) and (code.trusted or _is_listed(item, unknown)):
                continue
            _check_object(item)
            if (reason := _unknown_code(item, code)) is not None:
                layer = item.value.get("config")
                arguments = recognition.argument_names(layer) if isinstance(layer, dict) else ()
                name = _name_of(item.value) or item.layer
                unknown.append(recognition.UnknownCode(name, reason, arguments))
        elif isinstance(item.value, str) and not item.compiled:
            _check_string(item)
        elif isinstance(item.value, int) and item.key in _SIZE_KEYS and not trusted:
            _check_size(item, hint)
    if unknown:
        raise recognition.refusal(unknown[::-1], code)  # the last layer is visited first


def screen_training(text: str | None) -> None:
    """Screen the training configuration. It is never loaded, so it may name custom objects.

    Raises :class:`UnsafeModelError` if it contains code or names a library to import.
    """
    try:
        config = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return
    if not isinstance(config, dict):
        return
    for item in walk({"compile_config": config}):
        if isinstance(item.value, dict) and "class_name" in item.value:
            _check_object(item)


@dataclass(frozen=True)
class Item:
    """One value of a config, with the name of the layer that it belongs to.

    ``key`` is the key of the value, or of the list that contains it if it is ``listed``.
    ``compiled`` marks the training configuration, which is never loaded.
    """

    layer: str
    key: str
    value: Any
    listed: bool = False
    compiled: bool = False


def walk(config: Mapping[str, Any], *, hint: str = "") -> Iterator[Item]:
    """Yield every value of a nested config, without recursion; :class:`UnsafeModelError` if it is
    too deep or too large."""
    stack: list[tuple[Item, int]] = [(Item("the model", "", config), 0)]
    count = 0
    while stack:
        item, depth = stack.pop()
        count += 1
        if depth > size_limits.MAX_CONFIG_DEPTH or count > size_limits.MAX_CONFIG_NODES:
            raise _refusal(item, "its configuration is nested too deeply or too large", hint)
        yield item
        if isinstance(item.value, dict):
            layer = _name_of(item.value) or item.layer
            children = [
                Item(layer, key, value, False, item.compiled or key == "compile_config")
                for key, value in item.value.items()
            ]
        elif isinstance(item.value, list | tuple):
            if item.key in ("value", "inbound_nodes") and _is_numeric(item.value):
                continue  # the numbers of a constant need no check
            children = [Item(item.layer, item.key, v, True, item.compiled) for v in item.value]
        else:
            continue
        stack.extend((child, depth + 1) for child in children)


def _is_numeric(values: Sequence[Any]) -> bool:
    """Return whether nested lists contain numbers, judged by the first ones."""
    while values and isinstance(values[0], list | tuple):
        if not all(isinstance(v, list | tuple) for v in values):
            return False
        values = values[0]
    return all(isinstance(v, int | float | bool) for v in values[:8])


def _name_of(value: Mapping[str, Any]) -> str | None:
    """Return the name of a layer config, None for other dicts."""
    if "class_name" not in value:
        return None
    config = value.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    name = name or value.get("name")
    return name if isinstance(name, str) else None


def _is_replaceable(item: Item) -> bool:
    """Return whether an object is the function of a Lambda layer, which the user may replace."""
    return item.key == "function" and item.value.get("class_name") == "__lambda__"


def _is_listed(item: Item, unknown: Sequence[recognition.UnknownCode]) -> bool:
    return any(item.layer == other.layer for other in unknown)


def _unknown_code(item: Item, trust: recognition.CodeTrust) -> Exception | None:
    """Return why the code of a Lambda layer is not known to be harmless, None if it is."""
    if item.value.get("class_name") != "Lambda" or item.compiled:
        return None
    config = item.value.get("config")
    return recognition.unknown_code(config if isinstance(config, dict) else {}, trust)


def _check_object(item: Item) -> None:
    """Refuse a dict that Keras would turn into an object that does more than compute."""
    value = item.value
    class_name, module = value.get("class_name"), value.get("module")
    if not isinstance(class_name, str) or not isinstance(module, str | None):
        return  # the config of a custom class may use these keys for something else
    inside = Item(_name_of(value) or item.layer, item.key, value)
    if class_name == "__lambda__" and not recognition.seems_harmless(value.get("config")):
        raise _refusal(inside, f"{item.key!r} is Python code in the file", _NO_USE_IN_MODELS)
    if item.compiled:
        if module and module != "builtins" and allowed_classes.is_library_module(module):
            raise _refusal(inside, f"it would import {module}.{class_name}", _NO_USE_IN_MODELS)
        return
    if class_name == "FeatureSpace" and module and allowed_classes.is_keras_module(module):
        raise UnsupportedModelError(
            "The file contains a keras.utils.FeatureSpace. It prepares features and is no model.",
            hint="Load it with keras.models.load_model, and save the model that it feeds with its "
            "layers: keras.Model(space.get_inputs(), model(space.get_encoded_features())).",
        )
    if class_name in allowed_classes.CODE_CARRYING:
        problem = f"{class_name} {allowed_classes.CODE_CARRYING[class_name]}"
        raise _refusal(inside, problem, _NO_USE_IN_MODELS)
    if class_name == "Lambda":
        return  # see _unknown_code
    if class_name == "__lambda__" and item.key not in ("function", "mask", "output_shape"):
        problem = f"{item.key!r} is a Python lambda stored as bytecode"
        raise _refusal(inside, problem, _NO_USE_IN_MODELS)
    if class_name in ("TFOpLambda", "SlicingOpLambda"):
        function = str((value.get("config") or {}).get("function"))
        if function not in _WITHOUT_EFFECT and _UNSAFE_FUNCTION.search(function):
            problem = f"it calls the TensorFlow function {function!r}"
            raise _refusal(inside, problem, _NO_USE_IN_MODELS)
    if class_name == "TensorFlowOpLayer":
        _check_graph_node(inside)
    if class_name == "function":
        _check_function(inside, module)
    elif module and not _is_allowed(module, class_name):
        raise _refusal(inside, f"it would import {module}.{class_name}", _NO_USE_IN_MODELS)


def _is_allowed(module: str, class_name: str) -> bool:
    """Return whether the class is a model part of Keras, or not of a library at all."""
    if allowed_classes.is_keras_module(module):
        known = class_name in allowed_classes.LAYERS or class_name in allowed_classes.PARTS
        operation = allowed_classes.is_operation_module(module) and class_name.isidentifier()
        return allowed_classes.is_keras_model_module(module) and (known or operation)
    if module == "builtins":
        return class_name in ("slice", "__tuple__", "type")
    return not allowed_classes.is_library_module(module)


def _check_function(item: Item, module: str | None) -> None:
    """Refuse a function of a library, except the activations of Keras."""
    name = item.value.get("config")
    if not module or module == "builtins":
        return
    of_keras = allowed_classes.is_keras_module(module)
    unknown_to_keras = of_keras and name not in allowed_classes.FUNCTIONS
    if unknown_to_keras or allowed_classes.is_library_module(module):
        raise _refusal(item, f"it would call {module}.{name}", _NO_USE_IN_MODELS)


def _check_graph_node(item: Item) -> None:
    """Refuse a raw graph operation that is not on the list of those that only compute."""
    config = item.value.get("config")
    if not isinstance(config, dict) or not graph_nodes.is_known(config):
        problem = f"it is an unknown raw TensorFlow operation{_operation_of(config)}"
        raise _refusal(item, problem, _REBUILD)


def _operation_of(config: Any) -> str:
    try:
        return f": {graph_nodes.operation_name(config):.60}"
    except (NotRecognizedError, AttributeError):
        return ""


def _check_string(item: Item) -> None:
    """Refuse a string that Keras could open or fetch."""
    value = item.value
    if item.key in _NAME_KEYS or item.listed:
        return  # names of layers, words of a vocabulary
    if _URL.match(value):
        raise _refusal(
            item, f"{item.key!r} is an address ({beginning(value, 80)!r})", _NO_USE_IN_MODELS
        )
    outside = len(value) > 1 and _OUTSIDE_PATH.search(value)
    if outside or (item.key in _FILE_KEYS and value):
        raise _refusal(
            item, f"{item.key!r} points at a file ({beginning(value, 80)!r})", _NO_USE_IN_MODELS
        )


def _check_size(item: Item, hint: str) -> None:
    if isinstance(item.value, bool) or abs(item.value) <= size_limits.MAX_DIMENSION:
        return
    problem = f"{item.key}={item.value} exceeds the limit of {size_limits.MAX_DIMENSION}"
    raise _refusal(item, problem, hint)


def _refusal(item: Item, problem: str, hint: str) -> UnsafeModelError:
    return UnsafeModelError(f"Refused at {item.layer!r}: {problem}.", hint=hint)
