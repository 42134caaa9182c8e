"""``manifest.json``: the artifacts, model and reference of a bundle, and the versions used."""

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
SIGNATURE = MANIFEST + ".sig"
REFERENCE = "reference.npz"
# Version of the manifest's layout. Newer layouts are refused.
FORMAT_VERSION = 1
MAX_MANIFEST = 16 * 2**20  # bytes
MAX_SIGNATURE = 2**16  # bytes
# Characters; all file systems allow names of this length.
MAX_PATH = 200
# Where the samples of a reference come from: the user's samples, calibration samples that were set
# aside, or made up from the model.
SAMPLES, CALIBRATION, SYNTHETIC = "samples", "calibration", "synthetic"
# Exceptions that parsing a malformed manifest can raise.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Artifact:
    """A model file of the bundle, with its inputs and outputs.

    ``outputs`` lists all outputs in the file's order; those named in ``attention`` are attention
    maps. ``achieved`` describes the file as it was made: numbers of operators and dtypes.
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
        """Inverse of :meth:`to_json`. Raises one of :data:`MALFORMED` if ``data`` is invalid."""
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
            raise ValueError(f"unknown format or scheme: {artifact.label!r}")
        if not artifact.inputs or not artifact.outputs:
            raise ValueError(f"{artifact.path} has no inputs or no outputs")
        _check_path(artifact.path)
        return artifact


@dataclass(frozen=True)
class Manifest:
    """Contents and origin of a bundle.

    ``model`` always has ``file`` and ``parameters``; ``reference`` always has ``path``, ``sha256``,
    ``source`` and the numbers of ``samples`` and ``edge_cases``.
    """

    model: Mapping[str, Any]
    artifacts: tuple[Artifact, ...]
    reference: Mapping[str, Any]
    made_with: Mapping[str, str]
    failures: tuple[Mapping[str, str], ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each artifact and the reference, by the path in the bundle."""
        reference = self.reference
        artifacts = {artifact.path: artifact.sha256 for artifact in self.artifacts}
        return {**artifacts, str(reference["path"]): str(reference["sha256"])}

    @property
    def reference_kind(self) -> str:
        """:data:`SAMPLES`, :data:`CALIBRATION` or :data:`SYNTHETIC`; derived for old bundles."""
        earlier = SYNTHETIC if self.reference["source"] == "seeded" else SAMPLES
        return str(self.reference.get("kind", earlier))

    @property
    def reference_samples(self) -> str:
        """The samples of the reference in words, such as ``64 samples (test.npz)``."""
        count, source = self.reference["samples"], self.reference["source"]
        if self.reference_kind == SYNTHETIC:
            return f"{count} synthetic samples (no real samples were given)"
        unused = ", not calibrated on" if self.reference_kind == CALIBRATION else ""
        return f"{count} samples ({source}{unused})"

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
        """Inverse of :meth:`to_json`. Raises one of :data:`MALFORMED` if ``data`` is invalid."""
        model, reference = dict(data["model"]), dict(data["reference"])
        _check_types("model", model, file=str, parameters=int)
        _check_types("reference", reference, path=str, sha256=str, source=str)
        _check_types("reference", reference, samples=int, edge_cases=int)
        for count in ("ordinary_edge_cases", "float16_edge_cases"):
            if not 0 <= int(reference.get(count, 0)) <= max(0, reference["edge_cases"]):
                raise ValueError(f"reference: {count} is {reference[count]!r}")
        if reference.get("kind", SAMPLES) not in (SAMPLES, CALIBRATION, SYNTHETIC):
            raise ValueError(f"reference: unknown kind {reference['kind']!r}")
        _check_path(reference["path"])
        return cls(
            model=model,
            artifacts=tuple(Artifact.from_json(item) for item in data["artifacts"]),
            failures=tuple(dict(item) for item in data.get("failures", ())),
            reference=reference,
            made_with=dict(data["made_with"]),
        )


def _check_types(section: str, data: Mapping[str, Any], **types: type) -> None:
    for key, expected in types.items():
        if type(data[key]) is not expected:
            raise ValueError(f"{section}: {key} is {data[key]!r}, not {expected.__name__}")


def _check_path(relative: str) -> None:
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise ValueError(f"path outside the bundle: {relative!r}")
    if len(relative) > MAX_PATH or "\0" in relative:
        raise ValueError(f"invalid path: {relative[:50]!r}...")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", "utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
