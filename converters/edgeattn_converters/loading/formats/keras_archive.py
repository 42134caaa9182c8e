"""The static look at a ``.keras`` file, which is a zip of two JSON files and an HDF5 file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.safety import size_limits as limits

MAGIC = b"PK\x03\x04"
_PICKLES = (".npz", ".npy", ".pkl", ".pickle", ".joblib")
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


@dataclass(frozen=True)
class Archive:
    """What the zip holds, before anything of it is believed."""

    config: Mapping[str, Any]
    keras_version: str | None
    has_weights: bool


def inspect(path: Path, *, hint: str, trusted: bool) -> Archive:
    """Check entries, sizes and names, and read the two JSON files.

    Raises:
        UnsupportedModelError: not a complete zip, or one without a Keras model.
        UnsafeModelError: names that leave the archive, links, bombs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = _check_entries(archive, path, hint=hint, trusted=trusted)
            if CONFIG not in names:
                raise UnsupportedModelError(
                    f"expected a .keras archive, but {path.name} has no {CONFIG} in it",
                    hint="Save the whole model, with model.save('model.keras').",
                )
            text = archive.read(names[CONFIG]).decode("utf-8", errors="replace")
            config = hdf5.parse_config(text, name=path.name, hint=hint, trusted=trusted)
            version = _version(archive, names)
            if WEIGHTS in names:
                _inspect_weights(archive, names[WEIGHTS], path, hint=hint, trusted=trusted)
    except zipfile.BadZipFile as error:
        if "CRC" in str(error):
            raise UnsafeModelError(
                f"refused {path.name}: an entry is not what the archive's directory says: {error}",
                hint="It is damaged, or made to mislead. Get the file again.",
            ) from error
        raise _damaged(path, error) from error
    except (EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, error) from error
    except ValueError as error:
        raise UnsupportedModelError(
            f"{path.name} is a damaged zip archive: {error}", hint="Get the file again."
        ) from error
    return Archive(config, version, WEIGHTS in names)


def _damaged(path: Path, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"expected a complete zip archive, but {path.name} cannot be read as one: {error}",
        hint="The file was probably cut short in a download or a copy; get it again.",
    )


def _check_entries(
    archive: zipfile.ZipFile, path: Path, *, hint: str, trusted: bool
) -> Mapping[str, zipfile.ZipInfo]:
    """Entries by their name with forward slashes, once every one of them is harmless."""
    infos = archive.infolist()
    if len(infos) > limits.MAX_ZIP_ENTRIES:
        raise UnsafeModelError(f"refused {path.name}: {len(infos)} entries", hint=hint)
    total, names = 0, {}
    for info in infos:
        name = info.filename.replace("\\", "/")
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or ":" in name.split("/")[0]:
            raise UnsafeModelError(
                f"refused {path.name}: the entry {info.filename!r} leaves the archive",
                hint=hdf5.NEVER,
            )
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            raise UnsafeModelError(
                f"refused {path.name}: the entry {info.filename!r} is a link", hint=hdf5.NEVER
            )
        if info.flag_bits & 1:
            raise UnsafeModelError(
                f"refused {path.name}: the entry {info.filename!r} is encrypted", hint=hdf5.NEVER
            )
        if name.endswith(_PICKLES):
            raise UnsafeModelError(
                f"refused {path.name}: the entry {info.filename!r} may hold Python pickles",
                hint="Save the model again in Keras' usual form, with model.save('model.keras').",
            )
        if name in names:
            raise UnsafeModelError(
                f"refused {path.name}: the entry {info.filename!r} is there twice", hint=hdf5.NEVER
            )
        names[name] = info
        total += info.file_size
        ratio = info.file_size / max(info.compress_size, 1)
        large = info.file_size > limits.SMALL_ENTRY_BYTES
        if large and ratio > limits.MAX_ZIP_RATIO and not trusted:
            raise UnsafeModelError(
                f"refused {path.name}: {info.filename!r} grows from {info.compress_size} to "
                f"{info.file_size} bytes",
                hint=hint,
            )
    if total > limits.MAX_DECLARED_BYTES and not trusted:
        raise UnsafeModelError(f"refused {path.name}: it unpacks to {total} bytes", hint=hint)
    for name in (CONFIG, METADATA):
        large = name in names and names[name].file_size > limits.MAX_CONFIG_BYTES
        if large and not trusted:
            raise UnsafeModelError(
                f"refused {path.name}: its {name} is larger than {limits.MAX_CONFIG_BYTES} bytes",
                hint=hint,
            )
    return names


def _version(archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo]) -> str | None:
    if METADATA not in names:
        return None
    try:
        metadata = json.loads(archive.read(names[METADATA]))
    except (ValueError, RecursionError):
        return None
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else None


def _inspect_weights(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, *, hint: str, trusted: bool
) -> None:
    content = io.BytesIO(archive.read(info))
    hdf5.inspect(content, name=f"{WEIGHTS} in {path.name}", hint=hint, trusted=trusted)


def read_weights(path: Path) -> io.BytesIO | None:
    """The bytes of the weights' HDF5 file, if there is one."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.replace("\\", "/") == WEIGHTS:
                return io.BytesIO(archive.read(info))
    return None
