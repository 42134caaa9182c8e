"""Mender Artifacts with a bundle, and the script that starts the Update Module on a device.

The format is version 3 of Mender's (mender-artifact, Documentation/artifact-format-v3.md):

    version               the format
    manifest              SHA-256 of the version, the header and the payload
    header.tar.gz         header-info, and type-info and meta-data of the payload
    data/0000.tar.gz      the payload: the packed bundle

Equal bundles and options give equal bytes with the same zlib: no file has a time or an owner.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shlex
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgeattn.bundle.packing import pack
from edgeattn.deployment.names import PAYLOAD, UPDATE_TYPE, check_bundle_name
from edgeattn.errors import OutputError, UsageError
from edgeattn.files import atomic_write, require_new

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle

SUFFIX = ".mender"
VERSION = {"format": "mender", "version": 3}
# Where the module's Python is by default, see docs/fleets.md.
PYTHON = "/opt/edgeattn/bin/python"
_MODE = 0o644
_SCRIPT = """\
#!/bin/sh
# The Mender Update Module "edgeattn". Written by: edgeattn fleet mender-module
exec {command} -- "$@"
"""


@dataclass(frozen=True)
class ArtifactOptions:
    """What Mender and the Update Module are to know about a bundle.

    Attributes:
        artifact_name: The name of the release, unique for Mender.
        device_types: Types of devices that may install it.
        name: The name of the bundle's folder on the device.
        formats: Artifacts of these formats are validated on the device; default: all.
        schemes: Artifacts of these schemes are validated on the device; default: all.
    """

    artifact_name: str
    device_types: tuple[str, ...]
    name: str
    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_bundle_name(self.name)
        if not self.device_types:
            raise UsageError("No device type.", hint="Pass --device-type TYPE.")
        for option, value in (
            ("--artifact-name", self.artifact_name),
            *(("--device-type", item) for item in self.device_types),
        ):
            if not value.strip() or not value.isprintable():
                raise UsageError(
                    f"{option}: {value!r} is no name.",
                    hint="Pass one or more printable characters.",
                )


def write_mender_artifact(
    bundle: Bundle, target: Path, options: ArtifactOptions, *, force: bool = False
) -> None:
    """Write a Mender Artifact with ``bundle`` to ``target``.

    Raises :class:`OutputError` if ``target`` exists (without ``force``), is not named ``*.mender``
    or cannot be written, :class:`UsageError` if no artifact of the bundle is selected, and
    :class:`BundleError` if a file of the bundle has changed.
    """
    bundle.select(options.formats, options.schemes)
    require_new(target, force=force)
    if target.suffix != SUFFIX:
        raise OutputError(f"A Mender Artifact is a {SUFFIX} file, not {target.name}.")
    with tempfile.TemporaryDirectory(prefix="edgeattn-mender-") as folder:
        payload, data = Path(folder) / PAYLOAD, Path(folder) / "0000.tar.gz"
        pack(bundle, payload)
        with data.open("wb") as file, payload.open("rb") as content:
            _write_archive(file, {PAYLOAD: content})
        version, header = _json(VERSION), _header(options)
        sums = {
            f"data/0000/{PAYLOAD}": _sha256(payload),
            "header.tar.gz": hashlib.sha256(header).hexdigest(),
            "version": hashlib.sha256(version).hexdigest(),
        }
        manifest = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
        with (
            atomic_write(target, hint="Choose another file with -o FILE.") as output,
            data.open("rb") as content,
            tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            # This order is part of the format: what is known before the payload arrives.
            for name, item in (
                ("version", version),
                ("manifest", manifest),
                ("header.tar.gz", header),
            ):
                _add(archive, name, io.BytesIO(item))
            _add(archive, "data/0000.tar.gz", content)


def _header(options: ArtifactOptions) -> bytes:
    info = {
        "payloads": [{"type": UPDATE_TYPE}],
        "artifact_provides": {"artifact_name": options.artifact_name},
        "artifact_depends": {"device_type": list(options.device_types)},
    }
    # The version of one bundle. Updates of the system and of other bundles leave it.
    software = f"data-partition.{UPDATE_TYPE}.{options.name}"
    type_info = {
        "type": UPDATE_TYPE,
        "artifact_provides": {f"{software}.version": options.artifact_name},
        "clears_artifact_provides": [f"{software}.*"],
    }
    meta_data = {
        "name": options.name,
        "formats": list(options.formats),
        "schemes": list(options.schemes),
    }
    file = io.BytesIO()
    _write_archive(
        file,
        {
            "header-info": io.BytesIO(_json(info)),
            "headers/0000/type-info": io.BytesIO(_json(type_info)),
            "headers/0000/meta-data": io.BytesIO(_json(meta_data)),
        },
    )
    return file.getvalue()


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_archive(file: IO[bytes], contents: Mapping[str, IO[bytes]]) -> None:
    """Write a compressed archive of files, in this order, by their names in it."""
    with (
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in contents.items():
            _add(archive, name, content)


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = _MODE, content.seek(0, io.SEEK_END)
    content.seek(0)
    archive.addfile(entry, content)


def module_script(python: str, arguments: Sequence[str]) -> str:
    """The text of the Update Module: it starts the one of the edgeattn of ``python``."""
    if not python.startswith("/"):
        raise UsageError(
            f"--python {python}: Mender starts the module in any folder.",
            hint="Pass an absolute path of the device.",
        )
    module = ("-P", "-m", "edgeattn.deployment.on_device.update_module")
    return _SCRIPT.format(command=shlex.join([python, *module, *arguments]))
