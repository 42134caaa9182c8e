"""What is in this file? Found out without running any of it, without Keras and TensorFlow.

In this order: size, kind by content, structure, configuration, hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn_converters.loading.formats import hdf5, saved_model
from edgeattn_converters.loading.formats import keras_archive as archive
from edgeattn_converters.loading.safety import config_screening as screening
from edgeattn_converters.loading.safety import size_limits as limits

_SAVE = "Save the whole trained model in Keras, with model.save('model.keras')."
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A file that was looked through and may be loaded.

    Attributes:
        path: where it is.
        sha256: its digest; of a folder, that of its files' names and contents.
        size: in bytes.
        kind: ``keras-hdf5``, ``keras-zip``, ``weights-hdf5``, ``saved-model``, ``tflite``,
            ``onnx`` or ``bundle``.
        keras_version: as the file says it.
        backend: as the file says it.
        config: the architecture as stored; empty where there is none.
        trusted: whether ``--trust`` gave this very digest, which lifts the size caps.
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
    """Look through a model file.

    Raises:
        UsageError: no such file.
        UnsupportedModelError: no model, or a damaged one.
        UnsafeModelError: it would run, import, read or fetch something, or is a bomb.
    """
    if not path.exists():
        raise UsageError(f"no such file: {path}", hint="Give the path of a .h5 or .keras file.")
    size = sum(_size(file) for file in _files(path))
    if path.is_file() and size == 0:
        raise UnsupportedModelError(f"expected a Keras model, but {path.name} is empty", hint=_SAVE)
    if size > limits.MAX_FILE_BYTES and trust is None:
        raise UnsafeModelError(
            f"{path.name} has {size} bytes, more than the {limits.MAX_FILE_BYTES} allowed",
            hint=f"If you trust it: --trust with its SHA-256 (sha256sum {path.name})",
        )
    sha256 = digest(path)
    trusted = _check_trust(path, sha256, trust)
    kind = _kind(path)
    hint = f"If you know this file and trust it, pin it: --trust {sha256}"
    version, backend, config = _look(path, kind, hint=hint, trusted=trusted)
    kind = "weights-hdf5" if kind == "keras-hdf5" and not config else kind
    with as_damaged(path):
        screening.screen(config, hint=hint, trusted=trusted)
    return ModelFile(path, sha256, size, kind, version, backend, config, trusted)


@contextmanager
def as_damaged(path: Path) -> Iterator[None]:
    """Within it, a config in which a word stands for a number, or the like, is a damaged file.

    What Keras writes has one form; checking every value of it at every use would bury the rest.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, OSError,
            RuntimeError, MemoryError) as error:  # fmt: skip
        raise UnsupportedModelError(
            f"{path.name} is not as Keras writes it ({type(error).__name__}: {str(error)[:200]})",
            hint="The file is damaged, or of a kind not known here. Save the model again.",
        ) from error


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files with their names, in order of names."""
    total = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            total.update(f"{file.relative_to(path).as_posix()}\0{_size(file)}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                total.update(block)
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """The file, or a folder's files; a link inside a folder is refused."""
    if not path.is_dir():
        yield path
        return
    for count, file in enumerate(sorted(path.rglob("*"))):
        if file.is_symlink() or count > limits.MAX_ZIP_ENTRIES:
            raise UnsafeModelError(
                f"refused {path.name}: {file.name!r} is a link, or the folder has too many files",
                hint="Give a folder that holds the model and nothing else.",
            )
        if file.is_file():
            yield file


def _size(file: Path) -> int:
    return file.stat().st_size


def _check_trust(path: Path, sha256: str, trust: str | None) -> bool:
    if trust is None:
        return False
    if trust.strip().lower().removeprefix("sha256:") != sha256:
        raise UnsafeModelError(
            f"{path.name} is not the file that was trusted: expected SHA-256 {trust}, "
            f"it is {sha256}",
            hint="Get the file you trusted, or look at this one again before you trust it.",
        )
    return True


def _kind(path: Path) -> str:
    """The kind of file, by what it starts with and never by its name."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved-model"
        if (path / "manifest.json").is_file():
            return "bundle"
        raise UnsupportedModelError(
            f"expected a model, but the folder {path.name} has neither saved_model.pb nor "
            "manifest.json in it",
            hint=_SAVE,
        )
    if not path.is_file():
        raise UsageError(f"{path} is no regular file", hint="Give a .h5 or .keras file.")
    with path.open("rb") as stream:
        head = stream.read(_BLOCK)
    if head.startswith(hdf5.MAGIC):
        return "keras-hdf5"
    if head.startswith(archive.MAGIC):
        return "keras-zip"
    if head[4:8] == b"TFL3":
        return "tflite"
    if _looks_like_onnx(head):
        return "onnx"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise UnsafeModelError(
            f"refused {path.name}: it is a Python pickle, which runs code when it is opened",
            hint=_SAVE,
        )
    raise UnsupportedModelError(_not_a_model(path, head), hint=_SAVE)


def _not_a_model(path: Path, head: bytes) -> str:
    """What it is instead, as far as its first bytes say."""
    what = "something else"
    if head.startswith(b"version https://git-lfs"):
        what = "a pointer of Git LFS to it (git lfs pull gets the file)"
    elif head.lstrip()[:1] == b"<":
        what = "a web page"
    elif head.lstrip()[:1] == b"{" and b"class_name" in head:
        what = "an architecture without weights"
    elif _is_text(head):
        what = "text"
    return f"expected a Keras model (HDF5 or zip), but {path.name} is {what}"


def _is_text(head: bytes) -> bool:
    try:
        return head[:4096].decode("utf-8").isprintable() or b"\0" not in head[:4096]
    except UnicodeDecodeError:
        return False


def _looks_like_onnx(head: bytes) -> bool:
    """An ONNX model is a protobuf whose first field is ir_version, a small number."""
    return len(head) > 16 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x3A, 0x42)


def _look(
    path: Path, kind: str, *, hint: str, trusted: bool
) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """Keras version, backend and architecture, after the structure was checked."""
    if kind == "keras-zip":
        found = archive.inspect(path, hint=hint, trusted=trusted)
        if not found.has_weights:
            raise UnsupportedModelError(
                f"expected trained weights, but {path.name} has no {archive.WEIGHTS} in it",
                hint=_SAVE,
            )
        return found.keras_version, None, found.config
    if kind == "keras-hdf5":
        return _look_hdf5(path, hint=hint, trusted=trusted)
    if kind == "saved-model":
        return saved_model.inspect(path)
    return None, None, {}


def _look_hdf5(
    path: Path, *, hint: str, trusted: bool
) -> tuple[str | None, str | None, Mapping[str, Any]]:
    found = hdf5.inspect(path, name=path.name, hint=hint, trusted=trusted)
    text = found["model_config"]
    config: Mapping[str, Any] = {}
    if text is not None:
        config = hdf5.parse_config(text, name=path.name, hint=hint, trusted=trusted)
    screening.screen_training(found["training_config"])
    known = found["layer_names"] or {"layers", "_layer_checkpoint_dependencies"} & set(
        found["objects"]
    )
    if not config and not known:
        raise UnsupportedModelError(
            f"expected a Keras model, but {path.name} is an HDF5 file of something else "
            f"(it holds {', '.join(found['objects'][:5]) or 'nothing'})",
            hint=_SAVE,
        )
    if not found["stored"]:
        raise UnsupportedModelError(
            f"expected trained weights, but {path.name} has none in it", hint=_SAVE
        )
    return found["keras_version"], found["backend"], config


def read_architecture(path: Path) -> Mapping[str, Any]:
    """An architecture kept apart from its weights, as ``model.to_json()`` writes it.

    Raises:
        UsageError: no such file.
        UnsupportedModelError: not such a JSON.
        UnsafeModelError: it would run, import, read or fetch something.
    """
    if not path.is_file():
        raise UsageError(
            f"--architecture: no such file: {path}",
            hint="Give FILE.json (model.to_json()) or FILE.py:function.",
        )
    try:
        text = path.read_text("utf-8")
        if isinstance(inner := json.loads(text), str):
            text = inner  # a JSON text dumped as JSON once more, as many people do
    except (ValueError, RecursionError) as error:
        raise UnsupportedModelError(
            f"expected {path.name} to be JSON: {error}", hint="Write it with model.to_json()."
        ) from error
    config = hdf5.parse_config(text, name=path.name)
    screening.screen(config, hint="", trusted=False)
    return config
