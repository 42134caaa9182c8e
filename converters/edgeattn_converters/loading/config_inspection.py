"""Read facts from a model configuration as it is stored, of any Keras version."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeattn_converters.loading import error_text

Config = Mapping[str, Any]
# Of the names under which Keras gets the classes of the user.
PACKAGE = "edgeattn_user"


def is_sequential(stored: Config) -> bool:
    """Return whether the config describes a Sequential model."""
    config = stored.get("config")
    if stored.get("class_name") == "Sequential":
        return True
    return isinstance(config, dict) and "layers" in config and "input_layers" not in config and (
        unqualified(str(stored.get("class_name"))) == "Sequential"
    )  # fmt: skip


def is_functional(stored: Config) -> bool:
    """Return whether the config describes a functional model, whatever its class is called."""
    config = stored.get("config")
    return isinstance(config, dict) and "layers" in config and "input_layers" in config


def is_model(stored: Config) -> bool:
    """Return whether the config of a layer is that of a model."""
    return is_sequential(stored) or is_functional(stored)


def stored_layers(stored: Config) -> Sequence[Config]:
    """Return the layer configs of a model; Keras 1 stores a Sequential as a plain list."""
    config = stored["config"]
    return list(config if isinstance(config, list) else config.get("layers", ()))


def wrapped_model(item: Config) -> Config | None:
    """Return the config of the model that a TimeDistributed applies to every step, if any."""
    config = item.get("config")
    inner = config.get("layer") if isinstance(config, Mapping) else None
    if item.get("class_name") != "TimeDistributed" or not isinstance(inner, Mapping):
        return None
    return inner if is_model(inner) else None


def layer_name(stored: Config) -> str:
    """Return the name of a stored layer or model."""
    config = stored.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    name = stored.get("name") or inner
    if not name and isinstance(config, list) and config:
        return f"{layer_name(config[0])}_sequential"
    return str(name or stored.get("class_name"))


def all_names(stored: Config) -> Iterator[str]:
    """Yield the names of the layers of a model and of its nested models."""
    for item in stored_layers(stored):
        yield layer_name(item)
        if is_model(item):
            yield from all_names(item)


def objects_inside(stored: Any) -> Iterator[Config]:
    """Yield the configs of all objects in a stored value, at any depth: layers, initializers."""
    if isinstance(stored, list | tuple):
        for item in stored:
            yield from objects_inside(item)
    if isinstance(stored, Mapping):
        if "class_name" in stored and isinstance(stored.get("config"), Mapping):
            yield stored
        for value in stored.values():
            yield from objects_inside(value)


def unqualified(class_name: str) -> str:
    """Return a class name without its package: ``"Package>Name"`` -> ``"Name"``."""
    return class_name.rsplit(">", 1)[-1]


def of_package(class_name: str, package: str) -> str:
    """Return the name of one of several classes of that name, ``"Name@package"``."""
    return f"{class_name}@{package.replace('>', '.')}"


def python_name(class_name: str) -> str:
    """Return the name of a class in its Python file: ``"Package>Name@package"`` -> ``"Name"``."""
    return unqualified(class_name).partition("@")[0]


def registered_name(class_name: str) -> str:
    """Return the name under which Keras gets a class of the user; it cannot clash with others."""
    return f"{PACKAGE}>{unqualified(class_name)}"


def has_masks(stored: Config) -> bool:
    """Return whether a built-in layer creates a mask, at any depth of nested models."""
    return any(map(_creates_mask, stored_layers(stored)))


def _creates_mask(item: Config) -> bool:
    if is_model(item):
        return has_masks(item)
    config = item.get("config")
    config = config if isinstance(config, Mapping) else {}
    inner = config.get("layer")
    if isinstance(inner, Mapping) and _creates_mask(inner):
        return True
    return item.get("class_name") == "Masking" or bool(config.get("mask_zero"))


def version_numbers(version: Any) -> tuple[int, ...]:
    """Parse a stored version: ``"2.2.4-tf"`` -> ``(2, 2, 4)``; ``()`` if there is none."""
    match = re.match(r"\d+(\.\d+)*", version if isinstance(version, str) else "")
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def major_version(version: tuple[int, ...], config: Config) -> int:
    """Return 1, 2 or 3: the major version of the Keras that wrote the config.

    Files without a version are classified by arguments that only one major version wrote.
    """
    if version:
        return min(max(version[0], 1), 3)
    text = repr(config)
    if "'batch_shape'" in text or "__keras_tensor__" in text or "'DTypePolicy'" in text:
        return 3
    if "'output_dim'" in text and "'units'" not in text and "'W_regularizer'" in text:
        return 1
    if "'dim_ordering'" in text and "'data_format'" not in text:
        return 1
    return 1 if "'nb_filter'" in text or "'inner_activation'" in text else 2


def stored_number(value: Any) -> Any:
    """Return a number that Keras 2 may have stored as an array."""
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    if isinstance(value, dict) and isinstance(value.get("config"), Mapping):
        value = value["config"].get("value", value)
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def abbreviated(config: Any) -> str:
    """Return a config as JSON for a message, its beginning if it has more than 600 characters."""
    return error_text.beginning(json.dumps(config, default=str), 600)
