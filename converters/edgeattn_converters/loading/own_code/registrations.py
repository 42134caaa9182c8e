"""Classes and functions that the user's Python file, or what it imports, registers with Keras.

As in Keras, a stored object is the one that is registered under its name, ``"package>Name"``, or
under a name without a package, as in ``keras.utils.get_custom_objects()["Name"] = cls``. A model
file may contain any name; only what the user's file has run is found by it.
"""

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    of_package,
    unqualified,
)
from edgeattn_converters.loading.own_code import local_packages, own_functions
from edgeattn_converters.loading.own_code.own_classes import is_of_edgeattn_or_library
from edgeattn_converters.loading.safety.allowed_classes import LAYERS, is_keras_module

_OF_EDGEATTN = ("edgeattn", "edgeattn_converters")
# What running a file of the user registered in this process. Packages run only once.
_by_file: dict[Path, dict[str, Any]] = {}


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Record what is registered with Keras while the user's file ``path`` runs."""
    import keras

    registry = keras.saving.get_custom_objects()
    before = dict(registry)
    module = local_packages.module_name(path)
    former = _by_file.get(path.resolve(), {}).items()
    kept = {name: item for name, item in former if _module(item) != module}
    try:
        yield
    finally:
        for name, item in before.items():
            if _root(_module(item)) in _OF_EDGEATTN:  # the file may have cleared the registry
                registry.setdefault(name, item)
        new = {name: item for name, item in registry.items() if before.get(name) is not item}
        _by_file[path.resolve()] = kept | new


def of_file(path: Path, module: ModuleType) -> dict[str, Any]:
    """Return what ``path``, run as ``module``, has registered, by registered name.

    This includes what a package registers that the file imports, also if the package was imported
    before. What Keras, edgeattn or another file of the user registers is not part of it.
    """
    import keras

    recorded = _by_file.get(path.resolve(), {})
    found, others = {}, {}
    for name, item in keras.saving.get_custom_objects().items():
        if recorded.get(name) is item:
            if _root(_module(item)) not in _OF_EDGEATTN:
                found[name] = item
        elif not is_of_edgeattn_or_library(_module(item)):
            others[name] = item
    packages = _imported_packages(module) if others else set()
    return found | {k: item for k, item in others.items() if _root(_module(item)) in packages}


def _imported_packages(module: ModuleType) -> set[str]:
    """Return the packages of which a module of the user contains something, at any depth."""
    packages = {_root(module.__name__)}
    modules = [module]
    while modules:
        for value in list(vars(modules.pop()).values()):
            name = value.__name__ if isinstance(value, ModuleType) else _module(value)
            if not name or is_of_edgeattn_or_library(name) or _root(name) in packages:
                continue
            packages.add(_root(name))
            modules += [
                item
                for other, item in list(sys.modules.items())
                if _root(other) == _root(name) and isinstance(item, ModuleType)
            ]
    return packages


def _module(value: Any) -> str:
    """Return the module of a class or function, or of the class of another object."""
    with contextlib.suppress(Exception):  # objects of any package
        name = getattr(value, "__module__", None)
        return name if isinstance(name, str) else ""
    return ""


def _root(module: str) -> str:
    return module.partition(".")[0]


def with_registered(
    stored: Config, objects: Mapping[str, Any], registered: Mapping[str, Any]
) -> tuple[Config, Mapping[str, Any]]:
    """Return a stored model and the user's objects with those that it names as ``registered``.

    An object gets another name, ``"Name@package"``, in both if its name without the package is that
    of another object or of one of Keras. The objects also have the names with a package that the
    model contains, under which classes of the user may look them up.
    """
    if not registered and not objects:
        return stored, objects
    names = _Names(objects, registered)
    found = _renamed(stored, "", names)
    return (found, names.objects) if names.objects != objects else (stored, objects)


def functions(objects: Mapping[str, Any], registered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the registered functions by the names that a stored model has for them.

    ``objects`` and ``registered`` are those of :func:`with_registered`.
    """
    named = {name: item for name, item in objects.items() if ">" in name}
    return {
        name: item for name, item in {**registered, **named}.items() if inspect.isfunction(item)
    }


class _Names:
    """The names of registered objects that a stored model contains; ``objects`` by these."""

    def __init__(self, objects: Mapping[str, Any], registered: Mapping[str, Any]) -> None:
        self.objects = dict(objects)
        self._registered = registered
        self._of_file = objects

    def of_class(self, item: Config) -> str:
        """Return the name of the class of an item; the stored one if it is not registered."""
        class_name = str(item["class_name"])
        if is_model(item):  # the config lists its layers
            return class_name
        key = item.get("registered_name") if "registered_name" in item else class_name
        return self._added(class_name, key)

    def of_function(self, stored: str) -> str:
        """Return the name of a function."""
        if stored in self._registered:
            return self._added(stored, stored)
        if ">" in stored or stored in self.objects or stored in own_functions.activations():
            return stored
        # Keras 3.6 and former versions stored the name without the package.
        keys = [key for key in self._registered if key.endswith(f">{stored}")]
        return self._added(stored, keys[0]) if len(keys) == 1 else stored

    def _added(self, name: str, key: Any) -> str:
        """Add the object that is registered as ``key``, with the stored ``name``, if there is."""
        if not isinstance(key, str) or key not in self._registered:
            return name
        value, short = self._registered[key], unqualified(name)
        known = self.objects.get(short)
        if isinstance(known, own_functions.UnclearFunction) and ">" not in key:
            known = None  # registered in the place of the one of Keras
        is_taken = known is not None and known is not value
        is_of_keras = short in LAYERS or short in own_functions.activations()
        if is_taken or (known is None and ">" in key and is_of_keras):
            short = of_package(short, key.rpartition(">")[0])
            name = f"{name.rpartition('>')[0]}>{short}" if ">" in name else short
        self.objects[short] = value
        if ">" in name:
            self.objects[name] = value
        return name

    def add_stored(self, value: Any) -> None:
        """Add what is stored anywhere in the config of a class, which may look it up by its name.

        The user's file need not register what has a package in a stored model.
        """
        if isinstance(value, Mapping):
            self.add_stored(list(value.values()))
        elif isinstance(value, list):
            for item in value:
                self.add_stored(item)
        elif isinstance(value, str) and value not in self.objects:
            found = self._registered.get(value)
            if found is None and ">" in value:
                found = self._of_file.get(unqualified(value))
            elif found is None and value not in own_functions.activations():
                # Stored by Keras 3.6 or a former version.
                keys = [key for key in self._registered if key.endswith(f">{value}")]
                found = self._registered[keys[0]] if len(keys) == 1 else None
            if isinstance(found, own_functions.UnclearFunction):
                found = found.function
            if found is not None:
                self.objects[value] = found

    def is_own_class(self, item: Config) -> bool:
        """Return whether an item, whose class has its final name, is of a class of the user."""
        module, class_name = item.get("module"), str(item["class_name"])
        if is_model(item) or (isinstance(module, str) and is_keras_module(module)):
            return False
        is_of_keras = class_name in LAYERS and module is None
        return not is_of_keras and isinstance(self.objects.get(unqualified(class_name)), type)


def _renamed(value: Any, key: str, names: _Names) -> Any:
    if isinstance(value, list):
        return [_renamed(item, key, names) for item in value]
    if isinstance(value, str) and key.endswith(("activation", "function")):
        return names.of_function(value)
    if not isinstance(value, Mapping):
        return value
    class_name, config = value.get("class_name"), value.get("config")
    if class_name == "function" and isinstance(config, str):
        return {**value, "config": names.of_function(config)}
    named = dict(value)
    if isinstance(class_name, str) and isinstance(config, Mapping):
        named["class_name"] = names.of_class(value)
        if names.is_own_class(named):
            names.add_stored(config)
            # Keras passes the config on as it is, that of a former version has been migrated.
            if "module" in value:
                return named
    return {
        k: item if k == "class_name" else _renamed(item, str(k), names) for k, item in named.items()
    }
