"""Static checks of a model file, without Keras, TensorFlow, or running any of its content.

In this order: size, SHA-256, kind by content, structure, configuration.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn import first_bytes
from edgeattn.bundle.model_digest import digest, model_files
from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn_converters.loading.formats import hdf5, keras_archive, saved_model
from edgeattn_converters.loading.safety import config_screening, size_limits
from edgeattn_converters.loading.safety.size_limits import FileLimits

_SAVE_AGAIN = "Save the whole trained model in Keras: model.save('model.keras')"
_BLOCK = 1 << 20
_PICKLE_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The first object in a file of torch.save before PyTorch 1.6, a number.
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_CHECKPOINT = re.compile(r"\.index$|\.data-\d{5}-of-\d{5}$")
# File in a folder: what the folder is.
_FOLDERS = {"saved_model.pb": "saved-model", "manifest.json": "bundle"}
_Inspected = tuple[str | None, str | None, Mapping[str, Any]]  # Keras version, backend, config


@dataclass(frozen=True)
class ModelFile:
    """An audited file or folder, and what it stores: Keras version, backend and configuration.

    ``sha256`` of a folder covers the names and contents of its files. ``kind`` is ``keras-hdf5``,
    ``keras-zip``, ``weights-hdf5``, ``saved-model``, ``tflite``, ``onnx`` or ``bundle``.
    ``trusted`` says whether ``--trust`` named this SHA-256, which lifts the size limits.
    """

    path: Path
    sha256: str
    size: int
    kind: str
    keras_version: str | None
    backend: str | None
    config: Mapping[str, Any]
    trusted: bool


def audit_file(path: Path, *, trust: str | None = None) -> ModelFile:
    """Check a model file or SavedModel folder before anything of it is loaded.

    ``trust`` is the SHA-256 of the file if the user trusts it. Raises :class:`UsageError` if the
    file does not exist, :class:`UnsupportedModelError` if it contains no model or is damaged, and
    :class:`UnsafeModelError` if loading it could run, import, read or fetch something, or exhaust
    memory.
    """
    if not path.exists():
        raise UsageError(f"No such file: {path}.", hint="Pass the path of a .h5 or .keras file.")
    _check_type(path)
    size = sum(_size(file) for file in model_files(path))
    if path.is_file() and size == 0:
        raise UnsupportedModelError(f"{path.name} is empty.", hint=_SAVE_AGAIN)
    if size > size_limits.MAX_FILE_BYTES and trust is None:
        raise UnsafeModelError(
            f"Refused {path.name}: it has {size} bytes, more than {size_limits.MAX_FILE_BYTES}.",
            hint=f"If you trust the file, pass its SHA-256 (sha256sum {path.name}): --trust SHA256",
        )
    sha256 = digest(path)
    trusted = _check_trust(path, sha256, trust)
    limits = FileLimits(
        path.name, f"If you know this file and trust it, pass --trust {sha256}", trusted
    )
    kind = _kind(path)
    version, backend, config = _inspect(path, kind, limits)
    kind = "weights-hdf5" if kind == "keras-hdf5" and not config else kind
    with as_damaged(path):
        config_screening.screen(config, hint=limits.hint, trusted=trusted)
    return ModelFile(path, sha256, size, kind, version, backend, config, trusted)


@contextmanager
def as_damaged(path: Path) -> Iterator[None]:
    """Report errors of code that reads a config as damage of the file.

    Keras writes configs in one form. Checking the type of every value wherever it is used would
    obscure the code that uses them.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, OSError,
            RuntimeError, MemoryError) as error:  # fmt: skip
        raise UnsupportedModelError(
            f"The configuration in {path.name} is damaged or of an unknown form "
            f"({type(error).__name__}: {str(error)[:200]}).",
            hint="Save the model again in Keras: model.save('model.keras')",
        ) from error


def _size(file: Path) -> int:
    return file.stat().st_size


def _check_trust(path: Path, sha256: str, trust: str | None) -> bool:
    if trust is None:
        return False
    if trust.strip().lower().removeprefix("sha256:") != sha256:
        raise UnsafeModelError(
            f"{path.name} is not the trusted file: its SHA-256 is {sha256}, not {trust}.",
            hint="Get the file that you trust, or examine this one before you trust it.",
        )
    return True


def _check_type(path: Path) -> None:
    """Refuse devices and pipes, which may never end, and folders that are no model."""
    if path.is_file() or any((path / name).is_file() for name in _FOLDERS):
        return
    if not path.is_dir():
        raise UsageError(f"{path} is not a regular file.", hint="Pass a .h5 or .keras file.")
    prefix = next((file.stem for file in sorted(path.glob("*.index"))), None)
    if prefix is not None:
        raise _checkpoint(path, f"{path.name}/{prefix}")
    raise UnsupportedModelError(
        f"The folder {path} contains no model: it has neither saved_model.pb nor manifest.json.",
        hint=_SAVE_AGAIN,
    )


def _kind(path: Path) -> str:
    """Return the kind of a file by its first bytes, never by its name."""
    if path.is_dir():
        return next(kind for name, kind in _FOLDERS.items() if (path / name).is_file())
    with path.open("rb") as stream:
        head = stream.read(_BLOCK)
    if head.startswith(first_bytes.HDF5):
        return "keras-hdf5"
    if head.startswith(first_bytes.ZIP):
        return "keras-zip"
    if first_bytes.is_tflite(head):
        return "tflite"
    if path.name == "saved_model.pb":
        raise UnsupportedModelError(
            f"{path.name} is one file of a SavedModel.", hint=f"Pass its folder: {path.parent}"
        )
    if head.startswith(_TORCH_MAGIC):
        raise keras_archive.pytorch_file(path)
    if _looks_like_onnx(head):
        return "onnx"
    if head.startswith(_PICKLE_MAGIC):
        raise UnsafeModelError(
            f"Refused {path.name}: it is a Python pickle, which runs code when it is opened.",
            hint=_SAVE_AGAIN,
        )
    if _CHECKPOINT.search(path.name):
        raise _checkpoint(path, path.name.partition(".index")[0].partition(".data-")[0])
    content, hint = _identify(head)
    raise UnsupportedModelError(
        f"{path.name} is not a Keras model (HDF5 or zip): it is {content}.", hint=hint
    )


def _checkpoint(path: Path, prefix: str) -> UnsupportedModelError:
    """Return the error for a file or folder of a checkpoint, which contains weights only."""
    return UnsupportedModelError(
        f"{path.name} is a TensorFlow checkpoint, which contains weights only.",
        hint="In the program that builds the model, load it and save the model: "
        f"model.load_weights({prefix!r}); model.save('model.keras')",
    )


def _identify(head: bytes) -> tuple[str, str]:
    """Return what a file that is not a model contains, and the hint for it."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "Download the file that it points to: git lfs pull"
    if head.lstrip()[:1] == b"<":
        return "a web page", "Download the model again, from the link to the file itself."
    if head.lstrip()[:1] == b"{" and b"class_name" in head:
        return "an architecture without weights", _SAVE_AGAIN
    return "text" if _is_text(head) else "a file of an unknown format", _SAVE_AGAIN


def _is_text(head: bytes) -> bool:
    try:
        return head[:4096].decode("utf-8").isprintable() or b"\0" not in head[:4096]
    except UnicodeDecodeError:
        return False


def _looks_like_onnx(head: bytes) -> bool:
    """Return whether the bytes start with ir_version, the first protobuf field of ONNX models."""
    return len(head) > 16 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x3A, 0x42)


def _inspect(path: Path, kind: str, limits: FileLimits) -> _Inspected:
    """Check the structure of a file; return its Keras version, backend and configuration."""
    if kind == "keras-zip":
        archive = keras_archive.inspect(path, limits)
        if not archive.has_weights:
            raise UnsupportedModelError(
                f"{path.name} contains no weights: {keras_archive.WEIGHTS} is missing.",
                hint=_SAVE_AGAIN,
            )
        return archive.keras_version, None, archive.config
    if kind == "keras-hdf5":
        return _inspect_hdf5(path, limits)
    if kind == "saved-model":
        return saved_model.inspect(path)
    return None, None, {}


def _inspect_hdf5(path: Path, limits: FileLimits) -> _Inspected:
    contents = hdf5.inspect(path, limits, _size(path))
    config: Mapping[str, Any] = {}
    if contents.model_config is not None:
        config = hdf5.parse_config(contents.model_config, limits)
    config_screening.screen_training(contents.training_config)
    keras_groups = {"layers", "_layer_checkpoint_dependencies"} & set(contents.top_level)
    if not (config or contents.layer_names or keras_groups):
        raise UnsupportedModelError(
            f"{path.name} is an HDF5 file but not a Keras model: it contains "
            f"{', '.join(contents.top_level[:5]) or 'nothing'}.",
            hint=_SAVE_AGAIN,
        )
    if not (contents.arrays or config):
        raise UnsupportedModelError(f"{path.name} contains no weights.", hint=_SAVE_AGAIN)
    return contents.keras_version, contents.backend, config
