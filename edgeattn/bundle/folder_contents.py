"""The bundles and models in a folder that is none of these itself."""

from __future__ import annotations

import shlex
from pathlib import Path

from edgeattn.bundle.lengths import bundles_by_length
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import UsageError
from edgeattn.printable import counted, enumerated

_SAVED_MODEL = ("saved_model.pb", "keras_metadata.pb")
# A .keras file that was unpacked.
_KERAS_ZIP = ("config.json", "metadata.json")
_MODELS = (".keras", ".h5", ".hdf5", ".tflite", ".onnx")
_PACKED = ".edge.zip"
# Commands in the hint of an error.
_MAX_COMMANDS = 3


def check_no_container(folder: Path) -> None:
    """Raise :class:`UsageError` if there are bundles or models in ``folder``, which is none.

    The error names them, with the commands that describe them.
    """
    if any((folder / name).is_file() for name in (MANIFEST, *_SAVED_MODEL)):
        return
    if all((folder / name).is_file() for name in _KERAS_ZIP):
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    bundles = [path for path in inside if _is_bundle(path)]
    models = [path for path in inside if path not in bundles and _is_model(path)]
    if not bundles and not models:
        return
    kinds = [("bundle", bundles), ("model", models)]
    listed = [
        f"{counted(len(paths), kind)} ({', '.join(path.name for path in paths)})"
        for kind, paths in kinds
        if paths
    ]
    commands = [
        f"edgeattn inspect {shlex.quote(str(path))}" for path in [*bundles, *models][:_MAX_COMMANDS]
    ]
    lengths = bundles_by_length(folder)
    reason = " (a bundle for each sequence length)" if lengths else ""
    raise UsageError(
        f"The folder {folder} is no bundle{reason}. It contains {enumerated(listed)}.",
        hint=f"Describe {'it' if len(commands) == 1 else 'one'}: {enumerated(commands, 'or')}",
    )


def _is_bundle(path: Path) -> bool:
    return (
        (path / MANIFEST).is_file() or path.name.endswith(_PACKED) or bool(bundles_by_length(path))
    )


def _is_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in _SAVED_MODEL)
    return path.suffix.lower() in _MODELS
