"""Static checks of a model file, without Keras, TensorFlow, or running any of its content.

In this order: size, SHA-256, kind by content, structure, configuration.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn import first_bytes
from edgeattn.bundle.model_digest import digest, model_files
from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.formats import hdf5, keras_archive, other_files, saved_model
from edgeattn_converters.loading.formats.json_config import parse_config
from edgeattn_converters.loading.lambdas.recognition import CodeTrust
from edgeattn_converters.loading.safety import config_screening, size_limits
from edgeattn_converters.loading.safety.size_limits import FileLimits

_BLOCK = 1 << 20
# File in a folder: what the folder is.
_FOLDERS = {"saved_model.pb": "saved-model", "manifest.json": "bundle"}
_Inspected = tuple[str | None, str | None, Mapping[str, Any]]  # Keras version, backend, config


@dataclass(frozen=True)
class ModelFile:
    """An audited file or folder, and what it stores: Keras version, backend and configuration.

    ``sha256`` of a folder covers the names and contents of its files. ``kind`` is ``keras-hdf5``,
    ``keras-zip``, ``weights-hdf5``, ``saved-model``, ``tflite``, ``onnx`` or ``bundle``.
    ``trusted`` says whether ``--trust`` named this SHA-256, which lifts the size limits.
    ``signature`` is the chosen one of a SavedModel folder, which is then the model instead of the
    layers in its configuration.
    """

    path: Path
    sha256: str
    size: int
    kind: str
    keras_version: str | None
    backend: str | None
    config: Mapping[str, Any]
    trusted: bool
    signature: str | None = None


def audit_file(path: Path, *, trust: str | None = None, signature: str | None = None) -> ModelFile:
    """Check a model file or SavedModel folder before anything of it is loaded.

    ``trust`` is the SHA-256 of the file if the user trusts it, and ``signature`` the name of a
    signature. Raises :class:`UsageError` if the
    file does not exist, :class:`UnsupportedModelError` if it contains no model or is damaged, and
    :class:`UnsafeModelError` if loading it could run, import, read or fetch something, or exhaust
    memory.
    """
    if not path.exists():
        raise other_files.error_of_missing_file(path) or UsageError(
            f"No such file: {path}.", hint="Pass the path of a .h5 or .keras file."
        )
    _check_type(path)
    size = sum(_size(file) for file in model_files(path))
    if path.is_file() and size == 0:
        raise UnsupportedModelError(f"{path.name} is empty.", hint=other_files.SAVE_AGAIN)
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
        config_screening.screen(
            config, hint=limits.hint, trusted=trusted, code=CodeTrust(sha256, trusted)
        )
    if signature is not None:
        if kind != "saved-model":
            raise UsageError(
                f"--signature is for SavedModel folders; {path.name} is a file.",
                hint="Leave --signature out.",
            )
        config = {}
    return ModelFile(path, sha256, size, kind, version, backend, config, trusted, signature)


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
            f"({type(error).__name__}: {error_text.beginning(error, 200)}).",
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
    raise other_files.error_of_folder(path)


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
    if not other_files.is_of_saved_model(path) and first_bytes.may_be_onnx(head):
        return "onnx"
    raise other_files.error_of_file(path, head)


def _inspect(path: Path, kind: str, limits: FileLimits) -> _Inspected:
    """Check the structure of a file; return its Keras version, backend and configuration."""
    if kind == "keras-zip":
        archive = keras_archive.inspect(path, limits)
        if not archive.has_weights:
            raise UnsupportedModelError(
                f"{path.name} contains no weights: {keras_archive.WEIGHTS} is missing.",
                hint=other_files.SAVE_AGAIN,
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
        config = parse_config(contents.model_config, limits)
    config_screening.screen_training(contents.training_config)
    keras_groups = {"layers", "_layer_checkpoint_dependencies"} & set(contents.top_level)
    if not (config or contents.layer_names or keras_groups or contents.by_object):
        if contents.of_keras_0:
            raise other_files.weights_of_keras_0(path, contents.top_level)
        raise UnsupportedModelError(
            f"{path.name} is an HDF5 file but not a Keras model: it contains "
            f"{', '.join(contents.top_level[:5]) or 'nothing'}.",
            hint=other_files.SAVE_AGAIN,
        )
    if not (contents.arrays or config):
        raise UnsupportedModelError(
            f"{path.name} contains no weights.", hint=other_files.SAVE_AGAIN
        )
    return contents.keras_version, contents.backend, config
