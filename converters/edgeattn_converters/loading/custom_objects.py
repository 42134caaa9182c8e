"""The user's own classes and functions: found by name in a file the user gave, nowhere else.

A model file may name any module; nothing is ever imported because of that.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.migrate import attention_package
from edgeattn_converters.loading.migrate.context import Config, Context, safe_name, shown
from edgeattn_converters.loading.safety import allowed_classes as classes

PACKAGE = "edgeattn_user"
# Every layer has these, whoever wrote it.
_BASE = frozenset(
    {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "dynamic",
     "activity_regularizer", "input_dtype", "input_shape", "autocast"}
)  # fmt: skip


def load_module(path: Path, *, flag: str) -> Any:
    """Run the user's own file and return it as a module.

    Raises:
        UsageError: no such file, or it does not run.
    """
    if not path.is_file():
        raise UsageError(f"{flag}: no file {str(path)!r}", hint="Give the path of a Python file.")
    name = f"edgeattn_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{flag}: {path.name} is no Python file", hint="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"{flag}: {path.name} failed with {type(error).__name__}: {error}",
            hint=f"Try: python {path}",
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def load_objects(path: Path | None) -> Mapping[str, Any]:
    """The classes and functions defined in the file, by name."""
    if path is None:
        return {}
    module = load_module(path, flag="--custom-objects")
    found = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or callable(value))
        and not inspect.ismodule(value)
        and (
            getattr(value, "__module__", None) == module.__name__
            # A class imported from a neighbour of the file; not one of the libraries it uses.
            or not _of_library(getattr(value, "__module__", "") or "")
        )
    }
    extra = getattr(module, "custom_objects", None)
    if isinstance(extra, dict):
        found.update({str(key): value for key, value in extra.items()})
    return found


def _of_library(module: str) -> bool:
    return classes.is_library_module(module) or classes.is_keras_module(module)


def is_ours(class_name: str, registered: Any) -> str | None:
    """The registered name, when it is a layer of edgeattn's own."""
    if isinstance(registered, str) and registered in classes.OURS:
        return registered
    return class_name if class_name in classes.OURS else None


def bare(class_name: str) -> str:
    """``"Package>Name"`` -> ``"Name"``."""
    return class_name.rsplit(">", 1)[-1]


def from_keras(item: Config) -> bool:
    """Whether the file itself says that the layer is of Keras."""
    module = item.get("module")
    return isinstance(module, str) and classes.is_keras_module(module)


def is_missing(item: Config, ctx: Context) -> bool:
    """Whether the layer is of a class that neither Keras nor the user's file has."""
    class_name = str(item.get("class_name"))
    registered = item.get("registered_name")
    own = isinstance(registered, str) and ">" in registered
    foreign = item.get("module") is not None and not from_keras(item)
    return class_name not in classes.LAYERS or own or foreign


def wins(item: Config, ctx: Context) -> bool:
    """Whether the layer is of a class in the user's file.

    Where Keras has one of that name too, the arguments it was saved with decide: the user's, if
    its constructor takes them all.
    """
    class_name = str(item.get("class_name"))
    mine = ctx.custom.get(bare(class_name))
    if mine is None or not inspect.isclass(mine) or from_keras(item):
        return False
    if class_name not in classes.LAYERS or ">" in class_name or item.get("module") is not None:
        return True
    config = item.get("config") or {}
    return set(config) - _BASE <= _parameters(mine)


def _parameters(cls: type) -> set[str]:
    """What the constructors of the class and its own parents take by name."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if _of_library(parent.__module__):
            break
        if "__init__" in vars(parent):
            names |= set(inspect.signature(vars(parent)["__init__"]).parameters)
    return names


def key(class_name: str) -> str:
    """Under which name a class of the user's is handed to Keras: one that cannot clash."""
    return f"{PACKAGE}>{bare(class_name)}"


def handed(custom: Mapping[str, Any]) -> dict[str, Any]:
    """The user's objects as Keras takes them: classes under our key, all under their own name."""
    return {**custom, **{key(name): value for name, value in custom.items()}}


def layer(item: Config, ctx: Context) -> dict[str, Any]:
    """The layer, pointing at the user's class.

    Raises:
        UnsupportedModelError: the user's file has no such class.
    """
    class_name = str(item.get("class_name"))
    if bare(class_name) not in ctx.custom:
        raise missing(item)
    config = {
        name: value
        for name, value in (item.get("config") or {}).items()
        if name not in ("batch_input_shape", "dynamic", "input_dtype")
    }
    if ctx.era < 3 and isinstance(config.get("dtype"), dict):
        config["dtype"] = (config["dtype"].get("config") or {}).get("name", "float32")
    if isinstance(config.get("name"), str):
        config["name"] = safe_name(config["name"])
    extra = {"build_config": item["build_config"]} if item.get("build_config") else {}
    return {"module": None, "class_name": bare(class_name), "config": config,
            "registered_name": key(class_name), **extra}  # fmt: skip


def missing(item: Config) -> UnsupportedModelError:
    """The error that names a class nobody has, with the config it was saved with."""
    class_name = bare(str(item.get("class_name")))
    config = item.get("config") or {}
    name = item.get("name") or (config.get("name") if isinstance(config, dict) else None)
    hint = (
        f"Write class {class_name} (a keras.layers.Layer) into a file, and give that file: "
        "--custom-objects FILE.py"
    )
    if class_name == "Attention" and "units" not in config and "use_scale" not in config:
        hint += f"\nIt is neither Keras' own Attention nor {attention_package.REGISTERED}."
    return UnsupportedModelError(
        f"layer {name!r} needs the class {class_name!r}, which Keras does not have. "
        f"It was saved with {shown(config)}",
        hint=hint,
    )
