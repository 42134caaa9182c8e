"""``manifest.json``: artifacts, the model, the reference and the versions that made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgeattn.schemes import EXPERIMENTAL, FORMATS, SCHEMES

if TYPE_CHECKING:
    from edgeattn.tensors import TensorSpec

MANIFEST = "manifest.json"


REFERENCE = "reference.npz"


# The layout of the manifest; a reader refuses a newer one.
FORMAT_VERSION = 1


MAX_MANIFEST = 16 * 2**20


# Within what every file system allows a name.
MAX_PATH = 200


@dataclass(frozen=True)
class Artifact:
    """A model file of the bundle: where it is, what goes in and out, what became of what was asked.

    ``outputs`` holds all outputs in the file's order; those named in ``attention`` are maps.
    ``achieved`` is the audit of the file: operators and dtypes counted.
    """

    format: str
    scheme: str
    path: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attention: tuple[str, ...] = ()
    achieved: Mapping[str, Any] = field(default_factory=dict)
    runtimes: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.format} {self.scheme}"

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("format", "scheme", "path", "sha256")},
            "bytes": self.bytes,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "attention": list(self.attention),
            "achieved": dict(self.achieved),
            "runtimes": dict(self.runtimes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        """What :meth:`to_json` gave; ``ValueError`` for an artifact that nothing here can run."""
        from edgeattn.tensors import TensorSpec

        artifact = cls(
            format=str(data["format"]),
            scheme=str(data["scheme"]),
            path=str(data["path"]),
            sha256=str(data["sha256"]),
            bytes=int(data["bytes"]),
            inputs=tuple(TensorSpec.from_json(item) for item in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in data["outputs"]),
            attention=tuple(str(name) for name in data.get("attention", ())),
            achieved=dict(data.get("achieved", {})),
            runtimes=dict(data.get("runtimes", {})),
        )
        if artifact.format not in FORMATS or artifact.scheme not in (*SCHEMES, *EXPERIMENTAL):
            raise ValueError(f"an artifact of the unknown kind {artifact.label!r}")
        if not artifact.inputs or not artifact.outputs:
            raise ValueError(f"{artifact.path} has no inputs or no outputs")
        _check_inside(artifact.path)
        return artifact


@dataclass(frozen=True)
class Manifest:
    """What the host knew when it made the bundle.

    ``model`` has a ``file`` and its ``parameters``, ``reference`` a ``path``, its ``sha256``, its
    ``source`` and how many ``samples`` and ``edge_cases`` it holds; readers rely on these.
    """

    model: Mapping[str, Any]
    artifacts: tuple[Artifact, ...]
    reference: Mapping[str, Any]
    made_with: Mapping[str, str]
    failures: tuple[Mapping[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "model": dict(self.model),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "failures": [dict(failure) for failure in self.failures],
            "reference": dict(self.reference),
            "made_with": dict(self.made_with),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """What :meth:`to_json` gave; ``ValueError`` or ``KeyError`` where readers would stumble."""
        model, reference = dict(data["model"]), dict(data["reference"])
        _check_types("model", model, file=str, parameters=int)
        _check_types("reference", reference, path=str, sha256=str, source=str)
        _check_types("reference", reference, samples=int, edge_cases=int)
        _check_inside(reference["path"])
        return cls(
            model=model,
            artifacts=tuple(Artifact.from_json(item) for item in data["artifacts"]),
            failures=tuple(dict(item) for item in data.get("failures", ())),
            reference=reference,
            made_with=dict(data["made_with"]),
        )


def _check_types(what: str, data: Mapping[str, Any], **types: type) -> None:
    for key, kind in types.items():
        if type(data[key]) is not kind:
            raise ValueError(f"{what}: {key} is {data[key]!r}, not {kind.__name__}")


def _check_inside(relative: str) -> None:
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise ValueError(f"a path that leaves the bundle: {relative!r}")
    if len(relative) > MAX_PATH or "\0" in relative:
        raise ValueError(f"a path that no system has: {relative[:50]!r}...")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", "utf-8")


def named(manifest: Manifest) -> set[str]:
    return {item.path for item in manifest.artifacts} | {str(manifest.reference["path"])}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
