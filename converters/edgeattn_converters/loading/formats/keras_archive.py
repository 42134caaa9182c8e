"""Static checks of a ``.keras`` file: a zip archive of two JSON files and an HDF5 file."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.formats import hdf5, other_files
from edgeattn_converters.loading.formats.json_config import parse_config
from edgeattn_converters.loading.safety import size_limits
from edgeattn_converters.loading.safety.size_limits import FileLimits

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ASSETS = "assets/"
_PICKLES = (".npz", ".npy", ".pkl", ".pickle", ".joblib")


@dataclass(frozen=True)
class Archive:
    """Contents of an archive that passed the checks; the config is not screened yet."""

    config: Mapping[str, Any]
    keras_version: str | None
    has_weights: bool


def inspect(path: Path, limits: FileLimits) -> Archive:
    """Check the entries of an archive and read its two JSON files.

    Raises :class:`UnsupportedModelError` if the file is not a complete zip or contains no Keras
    model, and :class:`UnsafeModelError` if an entry has an unsafe name, is a link, or unpacks to
    too many bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if error := other_files.error_of_zip(path, archive.namelist()):
                raise error
            entries = _check_entries(archive, limits)
            if CONFIG not in entries:
                raise UnsupportedModelError(
                    f"{path.name} is a zip archive but not a Keras model: it has no {CONFIG}.",
                    hint="Save the whole model: model.save('model.keras')",
                )
            text = archive.read(entries[CONFIG]).decode("utf-8", errors="replace")
            config = parse_config(text, limits)
            version = _keras_version(archive, entries)
            if WEIGHTS in entries:
                weights = io.BytesIO(archive.read(entries[WEIGHTS]))
                name = f"{WEIGHTS} in {path.name}"
                weight_limits = FileLimits(name, limits.hint, limits.trusted)
                hdf5.inspect(weights, weight_limits, entries[WEIGHTS].compress_size)
    except zipfile.BadZipFile as error:
        if "CRC" in str(error):
            raise limits.refusal(
                f"the content of an entry does not match the archive's directory: {error}",
                "Download or copy the file again: it is damaged or was manipulated.",
            ) from error
        raise _damaged(path, error) from error
    except (
        *(zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError),
        struct.error,
    ) as error:
        raise _damaged(path, error) from error
    return Archive(config, version, WEIGHTS in entries)


def assets(path: Path, kind: str) -> list[str]:
    """Return the names of the files that layers have written beside the weights, if it is one."""
    if kind != "keras-zip":
        return []
    with zipfile.ZipFile(path) as archive:
        names = (name.replace("\\", "/") for name in archive.namelist())
        return [name for name in names if name.startswith(_ASSETS) and not name.endswith("/")]


def _damaged(path: Path, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path.name} is not a complete zip archive: {error}",
        hint="Download or copy the file again: it was probably cut short.",
    )


def _check_entries(archive: zipfile.ZipFile, limits: FileLimits) -> Mapping[str, zipfile.ZipInfo]:
    """Return the entries by name, with forward slashes, if all of them are harmless."""
    infos = archive.infolist()
    if len(infos) > size_limits.MAX_ZIP_ENTRIES:
        raise limits.refusal(f"it has {len(infos)} entries", limits.hint)
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.replace("\\", "/")
        problem = _entry_problem(info, name)
        if problem is None and name in entries:
            problem = "occurs twice"
        if problem is not None:
            raise limits.refusal(f"the entry {info.filename!r} {problem}")
        if name.endswith(_PICKLES):
            raise limits.refusal(
                f"the entry {info.filename!r} may contain Python pickles",
                "Save the model again in the standard form: model.save('model.keras')"
                if not name.startswith(_ASSETS)
                else "Let save_own_variables of the class store the values, not save_assets.",
            )
        large = info.file_size > size_limits.SMALL_ENTRY_BYTES
        ratio = info.file_size / max(info.compress_size, 1)
        limits.require(
            not large or ratio <= size_limits.MAX_ZIP_RATIO,
            f"{info.filename!r} unpacks from {info.compress_size} to {info.file_size} bytes",
        )
        entries[name] = info
    total = sum(info.file_size for info in infos)
    limits.require(total <= size_limits.MAX_DECLARED_BYTES, f"it unpacks to {total} bytes")
    for name in (CONFIG, METADATA):
        limits.require(
            name not in entries or entries[name].file_size <= size_limits.MAX_CONFIG_BYTES,
            f"its {name} is larger than {size_limits.MAX_CONFIG_BYTES} bytes",
        )
    return entries


def _entry_problem(info: zipfile.ZipInfo, name: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0]:
        return "leaves the archive"
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return "is a link"
    # zipfile unpacks other compressions without a limit on the size of the output.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "has a compression that Keras does not use"
    return "is encrypted" if info.flag_bits & 1 else None


def _keras_version(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> str | None:
    if METADATA not in entries:
        return None
    try:
        metadata = json.loads(archive.read(entries[METADATA]))
    except (ValueError, RecursionError):
        return None
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else None


def read_weights(path: Path) -> io.BytesIO | None:
    """Return the content of the HDF5 file with the weights, None if there is none."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.replace("\\", "/") == WEIGHTS:
                return io.BytesIO(archive.read(info))
    return None
