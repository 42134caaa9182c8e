"""The package ``tensorflow_core``, in which TensorFlow 1.15 to 2.1 was, as ``tensorflow``.

Editors completed imports with it.
"""

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_FORMER, _PACKAGE = "tensorflow_core", "tensorflow"
_OF_KERAS = re.compile(rf"{_FORMER}(\.python)?\.keras(\.|$)")
# An import sets the attribute "keras" of these, which must not be those of TensorFlow.
_AROUND_KERAS = (_FORMER, f"{_FORMER}.python")


class Finder(MetaPathFinder, Loader):
    """Finds the modules of the former package, but not those of Keras; before all other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of ``tensorflow`` under its former name, None for others."""
        if not f"{fullname}.".startswith(f"{_FORMER}.") or _OF_KERAS.match(fullname):
            return None
        if not _exists(_present(fullname)):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Let the name stand for the module of ``tensorflow``: Python returns what it finds."""
        name = module.__name__
        present = importlib.import_module(_present(name))
        if name in _AROUND_KERAS:
            module.__dict__["__getattr__"] = functools.partial(getattr, present)
        else:
            sys.modules[name] = present


def _present(name: str) -> str:
    return _PACKAGE + name.removeprefix(_FORMER)


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
