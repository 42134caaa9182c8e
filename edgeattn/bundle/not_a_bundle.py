"""What a path is that was passed instead of a bundle."""

import shlex
import zipfile
from collections.abc import Iterable
from pathlib import Path

from edgeattn import first_bytes
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import BundleError

_KERAS_ZIP = frozenset({"config.json", "metadata.json"})


def not_a_bundle(path: Path) -> BundleError:
    """The error for ``path``, with the command that is probably meant.

    Models are recognized by their first bytes, or by the names in a zip file; nothing is loaded.
    """
    if _is_keras_model(path):
        return BundleError(
            f"{path} is a Keras model, not a bundle.",
            hint=f"Convert it first: edgeattn convert {shlex.quote(str(path))}",
        )
    if path.is_file() and (path.parent / MANIFEST).is_file():
        return BundleError(
            f"{path} is one file of a bundle.",
            hint=f"Pass the bundle: {shlex.quote(str(path.parent))}",
        )
    if path.is_file() and (path.suffix == ".onnx" or _is_artifact(_head(path))):
        return BundleError(
            f"{path} is a model without the outputs of Keras, not a bundle.",
            hint=f"List its contents: edgeattn inspect {shlex.quote(str(path))}",
        )
    return BundleError(
        f"Not a bundle: {path} has no {MANIFEST}.",
        hint="Create one with: edgeattn convert model.h5",
    )


def is_keras_zip(names: Iterable[str]) -> bool:
    """Whether a zip file with the entries ``names`` is a ``.keras`` file."""
    return set(names) >= _KERAS_ZIP


def _is_keras_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in ("saved_model.pb", "keras_metadata.pb"))
    if not path.is_file():
        return False
    if _head(path).startswith(first_bytes.HDF5):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return is_keras_zip(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return False


def _is_artifact(head: bytes) -> bool:
    return first_bytes.is_tflite(head) or first_bytes.may_be_onnx(head)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
