"""Which classes are the user's, and which are those of libraries."""

import inspect
from types import ModuleType
from typing import Any

from edgeattn_converters.loading.legacy.training_names import Unused
from edgeattn_converters.loading.safety.allowed_classes import is_keras_module, is_library_module


def is_of_library(module: str) -> bool:
    """Return whether a module belongs to Keras, a common library or the standard library."""
    return is_library_module(module) or is_keras_module(module)


def is_own_class(cls: type) -> bool:
    """Return whether a class is the user's, neither of a library nor of edgeattn."""
    return not is_of_edgeattn_or_library(cls.__module__)


def is_of_edgeattn_or_library(module: str) -> bool:
    """Return whether a module is one of edgeattn or of a library, as in :func:`is_of_library`."""
    return is_of_library(module) or module.split(".")[0] in ("edgeattn", "edgeattn_converters")


def source_of(cls: type) -> str:
    """Return the text of the class; empty if there is no file with it."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return ""


def own_objects(module: Any) -> dict[str, Any]:
    """Return the classes and functions in a module of the user that are no part of a library.

    Modules of Keras 1 and 2, which can be called, and what stands for their other names are not.
    """
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and not isinstance(value, ModuleType | Unused)
        and (
            getattr(value, "__module__", None) == module.__name__
            # Imported from a neighbouring file of the user, not from a library.
            or not is_of_library(getattr(value, "__module__", "") or "")
        )
    }
