"""The converters (:mod:`edgeattn_converters`), if the packages that they need are installed."""

import importlib.util
from pathlib import Path
from typing import Any

from edgeattn.errors import UsageError

# Imported by the converters, in a worker process.
PACKAGES = ("tensorflow", "keras", "h5py", "onnx")
_INSTALL = "Install the converters with: pip install 'edgeattn[convert]'"


def import_converters(module: str = "edgeattn_converters") -> Any:
    """Import a module of the converters.

    Raises :class:`UsageError` if the converters or the packages that they need are not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Keras files require packages that are not installed: {', '.join(missing)}.",
            hint=_INSTALL,
        )
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"The converters cannot be imported: {error}", hint=_INSTALL) from error


def source_folders() -> list[Path]:
    """The folders of the packages ``edgeattn`` and, if installed, ``edgeattn_converters``."""
    specs = [importlib.util.find_spec(name) for name in ("edgeattn", "edgeattn_converters")]
    places = [spec.submodule_search_locations for spec in specs if spec is not None]
    return [Path(folders[0]) for folders in places if folders]
