"""Replies of a device, parsed: their types and values are checked before anything uses them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.manifest import MANIFEST, MAX_MANIFEST, MAX_SIGNATURE, SIGNATURE
from edgeattn.bundle.manifest_values import check_created
from edgeattn.deployment.on_device.versions import VERSION
from edgeattn.errors import DeviceError
from edgeattn.targets.replies import line, parsing, text
from edgeattn.version import __version__

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.tensors import Tensors


@dataclass(frozen=True)
class OpenedFolder:
    """The folder of a bundle on a device.

    ``current`` is the version that serves, ``created`` when its bundle was converted.
    """

    folder: str
    current: str | None
    created: int | None

    @classmethod
    def parse(cls, reply: Mapping[str, Any], destination: str) -> OpenedFolder:
        """Raises :class:`DeviceError` if the device has another version of edgeattn."""
        with parsing("its folder"):
            # First, because other versions may reply differently.
            installed = text(reply["edgeattn"])
            if installed != __version__:
                raise DeviceError(
                    f"{destination} has edgeattn {installed}, this machine has {__version__}: both "
                    "must apply the same checks.",
                    hint="Install this version on the device with --install.",
                )
            current = reply["current"]
            return cls(
                _folder(reply["folder"]),
                None if current is None else _version(current),
                check_created(reply["created"]),
            )


@dataclass(frozen=True)
class FormatCheck:
    """Whether the runtime of ``format`` works on a device; ``reason`` says why it does not."""

    format: str
    works: bool
    reason: str

    @classmethod
    def parse_all(cls, reply: Sequence[Mapping[str, Any]]) -> tuple[FormatCheck, ...]:
        with parsing("checks of its runtimes"):
            return tuple(
                cls(
                    text(check["format"]),
                    check["state"] == "pass",
                    line(check["reason"] or check["state"]),
                )
                for check in reply
            )


def parse_runtime(reply: Any) -> str:
    with parsing("the name of a runtime"):
        return text(reply)


def parse_version(reply: Any, manifest: str) -> str:
    """The version of a bundle whose manifest has this SHA-256."""
    with parsing("a version"):
        if not _version(reply).endswith(manifest[:12]):
            raise ValueError
        return str(reply)


def parse_versions(reply: Any) -> tuple[str, ...]:
    with parsing("versions"):
        if type(reply) is not list:
            raise TypeError
        return tuple(map(_version, reply))


def parse_previous_version(reply: Any, arrays: Tensors) -> tuple[str, dict[str, bytes]]:
    """The version to restore, and the bytes of its manifest and its signature, by file name."""
    largest = {MANIFEST: MAX_MANIFEST, SIGNATURE: MAX_SIGNATURE}
    with parsing("its previous version"):
        if not {MANIFEST} <= arrays.keys() <= largest.keys():
            raise ValueError
        if any(array.nbytes > largest[name] for name, array in arrays.items()):
            raise ValueError
        files = {name: array.tobytes() for name, array in arrays.items()}
        return parse_version(reply, hashlib.sha256(files[MANIFEST]).hexdigest()), files


def parse_rollback(reply: Any) -> tuple[str, str]:
    """The version that served, and the one that serves now."""
    with parsing("a rollback"):
        return _version(reply["from"]), _version(reply["to"])


def parse_measurement(reply: Any, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """The latency of ``artifacts`` as JSON."""
    labels = {(artifact.format, artifact.scheme) for artifact in artifacts}
    with parsing("a measurement"):
        for entry in reply["artifacts"]:
            median = entry["p50_ms"]
            if (entry["format"], entry["scheme"]) not in labels:
                raise ValueError
            if median is not None and (
                type(median) not in (int, float) or not 0 <= median < math.inf
            ):
                raise ValueError
            threads = entry.get("threads")
            if threads is not None and (type(threads) is not int or threads < 1):
                raise ValueError
        return dict(reply)


def _folder(value: Any) -> str:
    """A path, which may have bytes that are not UTF-8: Python decodes them to surrogates."""
    text(re.sub("[\udc80-\udcff]", "?", value))
    return str(value)


def _version(value: Any) -> str:
    if not VERSION.fullmatch(value):
        raise ValueError
    return str(value)
