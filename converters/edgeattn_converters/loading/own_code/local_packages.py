"""Imports of the package that a Python file of the user lies in, by its name or relative.

Such as ``from transformer.attention import Attention``, or ``from .attention import Attention``, in
transformer/encoder.py. Only this package can be imported, and what is beside the file, but nothing
else in the folder above.
"""

import ast
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from unittest import mock

from edgeattn_converters.loading.config_inspection import PACKAGE
from edgeattn_converters.loading.own_code.own_classes import is_of_library

_INIT = "__init__.py"
_OF_EDGEATTN = ("edgeattn", "edgeattn_converters")
# The folders from which packages were imported, by name.
_imported: dict[str, Path] = {}


def folders(path: Path) -> list[Path]:
    """Return the folder of a file, and those around it that are a package with it.

    A folder around that of the file is one if it and those inside it contain ``__init__.py``.
    """
    found, *others = path.absolute().parents
    chain = [found]
    for folder in others:
        if not ((chain[-1] / _INIT).is_file() and (folder / _INIT).is_file()):
            break
        chain.append(folder)
    return chain


def module_name(path: Path) -> str:
    """Return the name of a file as a module: in its package if it has relative imports."""
    name = f"{PACKAGE}_{path.stem}"
    chain = _of_relative_imports(path)
    if not chain:
        return name
    *inner, top = (folder.name for folder in chain)
    return ".".join((_top_name(top), *reversed(inner), name))


@contextlib.contextmanager
def importable(path: Path) -> Iterator[None]:
    """Let code import the files beside ``path``, and the package that it lies in."""
    packages = {f.name: f for f in reversed(folders(path)) if not _is_taken(f.name)}
    if chain := _of_relative_imports(path):
        packages[_top_name(chain[-1].name)] = chain[-1]
    for name, folder in packages.items():
        if _imported.get(name, folder) != folder:
            for module in [m for m in sys.modules if f"{m}.".startswith(f"{name}.")]:
                del sys.modules[module]
            del _imported[name]
    # As on the path of Python, where an installed package is before a folder without __init__.py.
    regular = {name: folder for name, folder in packages.items() if (folder / _INIT).is_file()}
    finders = _Finder(regular), _Finder(packages)
    place = str(path.parent)
    sys.meta_path[:] = [finders[0], *sys.meta_path, finders[1]]
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]


@contextlib.contextmanager
def run_again(path: Path) -> Iterator[None]:
    """Let the files of the user beside ``path``, and of its package, run again if imported."""
    folder = folders(path.resolve())[-1]
    with mock.patch.dict(sys.modules):
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and _is_beside(Path(file), folder) and _is_of_user(name):
                del sys.modules[name]
        yield


def _is_beside(file: Path, folder: Path) -> bool:
    return file.is_relative_to(folder) and "site-packages" not in file.parts


def _is_of_user(name: str) -> bool:
    return not is_of_library(name) and name.split(".")[0] not in ("__main__", *_OF_EDGEATTN)


def is_found(package: str, path: Path | None) -> bool:
    """Return whether code can import a package, or the user's file ``path`` can. Nothing is run."""
    with contextlib.nullcontext() if path is None else importable(path):
        try:
            return package in sys.modules or find_spec(package) is not None
        except (ImportError, ValueError):
            return False


def hint(name: str, path: Path) -> str | None:
    """Return what to do if a module is not found that may be in a folder around ``path``."""
    first, _, rest = name.partition(".")
    if _is_taken(first):
        return None
    if first in _imported:
        return f"The package {first} is the folder {_imported[first].name}: it has no {rest}."
    around = path.absolute().parents
    for index, folder in enumerate(around):
        if index and folder.name == first:
            missing = [f.name for f in around[: index + 1] if not (f / _INIT).is_file()]
            return (
                f"If {first} is the folder around {path.name}, make it a package: create an empty "
                f"{_INIT} in {' and in '.join(missing)}."
            )
    return None


class _Finder(MetaPathFinder):
    def __init__(self, packages: Mapping[str, Path]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder = self._packages.get(fullname)
        if folder is None:
            return None
        _imported[fullname] = folder
        places = [str(folder)]
        if (folder / _INIT).is_file():
            return spec_from_file_location(
                fullname, folder / _INIT, submodule_search_locations=places
            )
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = places
        return spec


def _of_relative_imports(path: Path) -> list[Path]:
    """The folders of the package, from the innermost, in which a file has relative imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []  # which running the file reports
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    level = max(levels, default=0)
    if not level:
        return []
    around = list(path.absolute().parents)
    return around[: max(level, len(folders(path)))]


def _top_name(name: str) -> str:
    return f"{PACKAGE}_{name.replace('.', '_')}" if _is_taken(name) or "." in name else name


def _is_taken(name: str) -> bool:
    return not name or is_of_library(name) or name in _OF_EDGEATTN
