"""What a path is that was passed instead of a bundle."""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Iterable
from pathlib import Path

from edgeattn import first_bytes
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import BundleError

_KERAS_ZIP = frozenset({"config.json", "metadata.json"})
_SAVED_MODEL = ("saved_model.pb", "keras_metadata.pb")
_MODELS = (".keras", ".h5", ".hdf5")
_SAMPLES = (".npz", ".npy", ".csv", ".jsonl")
_NUMPY = b"\x93NUMPY"
# A pickle that starts with the number that torch.save wrote before PyTorch 1.6.
_TORCH = re.compile(rb"\x80.{1,16}\nl\xfc\x9cF\xf9 j\xa8P\x19", re.DOTALL)
_PASS_SAMPLES = (
    "Pass the bundle, and the samples with an option: edgeattn run BUNDLE --input {0}, or "
    "edgeattn validate BUNDLE --data {0}"
)
_CONVERT = "Create one with: edgeattn convert model.h5"


def not_a_bundle(path: Path) -> BundleError:
    """The error for ``path``, with the command that is probably meant.

    Files are recognized by their first bytes, or by the names in a zip file or folder; nothing is
    loaded.
    """
    quoted = shlex.quote(str(path))
    names = zip_names(path)
    head = _head(path)
    if _is_keras_model(path, names, head):
        return BundleError(
            f"{path} is a Keras model, not a bundle.",
            hint=f"Convert it first: edgeattn convert {quoted}",
        )
    if path.is_dir():
        return _of_folder(path)
    if (path.parent / MANIFEST).is_file():
        return BundleError(
            f"{path} is one file of a bundle.",
            hint=f"Pass the bundle: {shlex.quote(str(path.parent))}",
        )
    if _is_samples(path, names, head):
        return BundleError(
            f"{path} is a file of samples, not a bundle.", hint=_PASS_SAMPLES.format(quoted)
        )
    if _TORCH.match(head) or any(name.endswith("/data.pkl") for name in names or ()):
        return BundleError(
            f"{path} is a PyTorch file, not a bundle.",
            hint="Convert it with torch.onnx.export; edgeattn converts models of Keras.",
        )
    if names is not None:
        return _of_zip(path, names)
    if head.startswith(first_bytes.ZIP):
        return BundleError(
            f"{path} is not a packed bundle: it is not a complete zip file.",
            hint="Copy or download the file again: it was probably cut short.",
        )
    if path.suffix == ".onnx" or _is_artifact(head):
        return BundleError(
            f"{path} is a model without the outputs of Keras, not a bundle.",
            hint=f"List its contents: edgeattn inspect {quoted}",
        )
    return BundleError(f"Not a bundle: {path} is a file without a {MANIFEST}.", hint=_CONVERT)


def zip_names(path: Path) -> list[str] | None:
    """The names of the entries of a zip file; None if ``path`` is none, or is cut short.

    The end of a file that is cut short may be that of a zip file in it.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            is_whole = not entries or min(entry.header_offset for entry in entries) == 0
            return archive.namelist() if is_whole else None
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return None


def _of_zip(path: Path, names: list[str]) -> BundleError:
    """The error for a zip file of something else than a Keras model, arrays or tensors."""
    bundle = next((name for name in names if name.endswith(f"/{MANIFEST}")), None)
    if bundle is not None:
        folder = bundle.removesuffix(f"/{MANIFEST}")
        return BundleError(
            f"{path} contains a bundle in the folder {folder}, and is not a packed bundle itself.",
            hint="Unpack it and pass that folder. edgeattn pack writes packed bundles.",
        )
    model = next((name for name in names if name.endswith((*_MODELS, *_SAVED_MODEL))), None)
    if model is not None:
        return BundleError(
            f"{path} is an archive that contains a model, not a bundle: {model}.",
            hint="Unpack it, and convert the model: edgeattn convert FILE",
        )
    if names and all(name.endswith(_SAMPLES) for name in names):
        return BundleError(
            f"{path} is an archive of samples, not a bundle: {names[0]}.",
            hint="Unpack it. " + _PASS_SAMPLES.format(shlex.quote(names[0])),
        )
    return BundleError(
        f"{path} is a zip file, but not a packed bundle: it has no {MANIFEST}.",
        hint="Pack the bundle again with: edgeattn pack BUNDLE -o model.edge.zip",
    )


def _of_folder(path: Path) -> BundleError:
    """The error for a folder that is no model, with the bundle or the model in it."""
    try:
        inside = sorted(path.iterdir())
    except OSError:
        inside = []
    bundle = next((item for item in inside if (item / MANIFEST).is_file()), None)
    model = next((item for item in inside if _has_model_name(item)), None)
    hint = _CONVERT
    if bundle is not None:
        hint = f"Pass the bundle in it: {shlex.quote(str(bundle))}"
    elif all((path / name).is_file() for name in _KERAS_ZIP):
        hint = f"It has the files of a .keras file. Describe it: edgeattn inspect {path}"
    elif model is not None:
        hint = f"Convert the model in it: edgeattn convert {shlex.quote(str(model))}"
    return BundleError(f"Not a bundle: the folder {path} has no {MANIFEST}.", hint=hint)


def is_keras_zip(names: Iterable[str]) -> bool:
    """Whether a zip file with the entries ``names`` is a ``.keras`` file."""
    return set(names) >= _KERAS_ZIP


def _is_keras_model(path: Path, names: list[str] | None, head: bytes) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in _SAVED_MODEL)
    return head.startswith(first_bytes.HDF5) or (names is not None and is_keras_zip(names))


def _has_model_name(path: Path) -> bool:
    return path.suffix.lower() in _MODELS or (path / _SAVED_MODEL[0]).is_file()


def _is_samples(path: Path, names: list[str] | None, head: bytes) -> bool:
    if names is not None:  # .npz
        return bool(names) and all(name.endswith(".npy") for name in names)
    return head.startswith(_NUMPY) or path.suffix.lower() in _SAMPLES


def _is_artifact(head: bytes) -> bool:
    return first_bytes.is_tflite(head) or first_bytes.may_be_onnx(head)


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
