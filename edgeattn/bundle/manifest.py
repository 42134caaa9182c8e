"""``manifest.json``: the artifacts, model and reference of a bundle, and the versions used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.manifest_values import (
    check_achieved,
    check_attended,
    check_count,
    check_created,
    check_types,
    check_unique,
)
from edgeattn.printable import counted, printable
from edgeattn.schemes import EXPERIMENTAL, FORMATS, MICRO, SCHEMES

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
    ``free_axes`` are the axes of inputs and outputs that accept other lengths than the specs have,
    by name.
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
    free_axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Artifact {printable(self.path)}: {self.label}, {self.bytes:,} bytes>"

    @property
    def label(self) -> str:
        return f"{self.format} {self.scheme}"

    @property
    def achieved_label(self) -> str:
        """The label with the scheme that the file achieved, if it is another."""
        achieved = str(self.achieved.get("scheme", self.scheme))
        return self.label if achieved == self.scheme else f"{self.label} -> {achieved}"

    @property
    def runtime(self) -> str | None:
        """The only runtime that the file is for; None if it is any of its format."""
        return MICRO if MICRO in self.runtimes else None

    @property
    def free_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs with ``None`` for the axes that accept any length."""
        return tuple(map(self._freed, self.inputs))

    @property
    def free_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs with ``None`` for the axes of any length."""
        return tuple(map(self._freed, self.outputs))

    def _freed(self, spec: TensorSpec) -> TensorSpec:
        free = self.free_axes.get(spec.name, ())
        axes = (None if k in free else axis for k, axis in enumerate(spec.shape))
        return replace(spec, shape=tuple(axes))

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("format", "scheme", "path", "sha256")},
            "bytes": self.bytes,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "attention": list(self.attention),
            "achieved": dict(self.achieved),
            "runtimes": dict(self.runtimes),
            **(
                {"free_axes": {name: list(axes) for name, axes in self.free_axes.items()}}
                if self.free_axes
                else {}
            ),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        """Inverse of :meth:`to_json`. Raises one of :data:`MALFORMED` if ``data`` is invalid."""
        from edgeattn.tensors import TensorSpec

        check_types("artifact", data, format=str, scheme=str, path=str, sha256=str)
        check_count("bytes", data["bytes"])
        artifact = cls(
            format=data["format"],
            scheme=data["scheme"],
            path=data["path"],
            sha256=data["sha256"],
            bytes=data["bytes"],
            inputs=tuple(TensorSpec.from_json(item) for item in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in data["outputs"]),
            attention=tuple(str(name) for name in data.get("attention", ())),
            achieved=dict(data.get("achieved", {})),
            runtimes=dict(data.get("runtimes", {})),
            free_axes={name: tuple(axes) for name, axes in data.get("free_axes", {}).items()},
        )
        if artifact.format not in FORMATS or artifact.scheme not in (*SCHEMES, *EXPERIMENTAL):
            raise ValueError(f"unknown format or scheme: {artifact.label!r}")
        if not artifact.inputs or not artifact.outputs:
            raise ValueError(f"{artifact.path} has no inputs or no outputs")
        _check_path(artifact.path)
        _check_names(artifact)
        _check_free_axes(artifact)
        check_achieved(artifact.achieved)
        return artifact


@dataclass(frozen=True)
class Manifest:
    """Contents and origin of a bundle.

    ``model`` always has ``file`` and ``parameters``; ``attention`` lists its attention maps, and
    ``attention_outputs`` is whether the artifacts have them as outputs. ``attended`` has the names
    of the inputs at the keys and queries of each map, ``recurrent`` those of the layers that
    ``--lowering`` concerns; earlier versions stored neither. ``reference`` always has
    ``path``, ``sha256``, ``source`` and the numbers of ``samples`` and ``edge_cases``. ``created``
    is when it was converted, in whole seconds since 1970 (UTC); earlier versions did not store it.
    ``frontend`` has ``path`` and ``sha256`` of the description of the front end, if there is one.
    ``config`` has the options that a config file gave, see
    :class:`edgeattn.bundle.config_record.ConfigRecord`.
    """

    model: Mapping[str, Any]
    artifacts: tuple[Artifact, ...]
    reference: Mapping[str, Any]
    made_with: Mapping[str, str]
    failures: tuple[Mapping[str, str], ...] = ()
    created: int | None = None
    frontend: Mapping[str, str] | None = None
    config: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        labels = ", ".join(artifact.label for artifact in self.artifacts) or "no artifact"
        return f"<Manifest of {printable(str(self.model['file']))}: {labels}>"

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each artifact, the reference and the front end, by the path in the bundle."""
        artifacts = {artifact.path: artifact.sha256 for artifact in self.artifacts}
        others = [self.reference, *([] if self.frontend is None else [self.frontend])]
        return {**artifacts, **{str(item["path"]): str(item["sha256"]) for item in others}}

    @property
    def attended(self) -> Mapping[str, Mapping[str, Sequence[str]]] | None:
        """Names of inputs by map: those at its ``keys``, and at its ``queries`` if they are known.

        A map whose keys are unknown is missing; None if an earlier version wrote the bundle.
        """
        inputs: Mapping[str, Mapping[str, Sequence[str]]] | None = self.model.get("attended")
        return inputs

    @property
    def stored_inputs(self) -> Mapping[str, str]:
        """By the name of an input that replaces preprocessing layers, the input ahead of these."""
        return dict(self.model.get("stored_inputs", {}))

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
            return f"{counted(count, 'synthetic sample')} (no real samples were given)"
        unused = ", not calibrated on" if self.reference_kind == CALIBRATION else ""
        return f"{counted(count, 'sample')} ({source}{unused})"

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "model": dict(self.model),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "failures": [dict(failure) for failure in self.failures],
            "reference": dict(self.reference),
            "made_with": dict(self.made_with),
            **({} if self.created is None else {"created": self.created}),
            **({} if self.frontend is None else {"frontend": dict(self.frontend)}),
            **({} if self.config is None else {"config": dict(self.config)}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Inverse of :meth:`to_json`. Raises one of :data:`MALFORMED` if ``data`` is invalid."""
        from edgeattn.tensors import TensorSpec

        model, reference = dict(data["model"]), dict(data["reference"])
        check_types("model", model, file=str)
        for item in model.get("attention", ()):
            TensorSpec.from_json(item)
        if "attended" in model:
            check_attended(model["attended"])
        if "stored_inputs" in model:
            names = dict(model["stored_inputs"])
            check_types("stored_inputs", names, **dict.fromkeys(names, str))
        if "recurrent" in model:
            check_types("model", model, recurrent=list)
        check_types("reference", reference, path=str, sha256=str, source=str)
        check_count("parameters", model["parameters"])
        for key in ("samples", "edge_cases"):
            check_count(key, reference[key])
        for key in ("ordinary_edge_cases", "float16_edge_cases"):
            check_count(key, reference.get(key, 0))
            if reference.get(key, 0) > reference["edge_cases"]:
                raise ValueError(f"reference: {key} is {reference[key]!r}")
        if reference.get("kind", SAMPLES) not in (SAMPLES, CALIBRATION, SYNTHETIC):
            raise ValueError(f"reference: unknown kind {reference['kind']!r}")
        _check_path(reference["path"])
        failures = tuple(dict(item) for item in data.get("failures", ()))
        for failure in failures:
            check_types("failure", failure, format=str, scheme=str, reason=str)
        artifacts = tuple(Artifact.from_json(item) for item in data["artifacts"])
        check_unique("artifact", [artifact.label for artifact in artifacts])
        frontend = None if data.get("frontend") is None else dict(data["frontend"])
        if frontend is not None:
            check_types("frontend", frontend, path=str, sha256=str)
            _check_path(frontend["path"])
        config = None if data.get("config") is None else dict(data["config"])
        if config is not None:
            check_types("config", config, file=str, options=dict)
        paths = [reference["path"], *(artifact.path for artifact in artifacts)]
        paths += [] if frontend is None else [frontend["path"]]
        check_unique("path", [str(PurePosixPath(path)) for path in paths])
        return cls(
            model=model,
            artifacts=artifacts,
            failures=failures,
            reference=reference,
            made_with=dict(data["made_with"]),
            created=check_created(data.get("created")),
            frontend=frontend,
            config=config,
        )


def _check_names(artifact: Artifact) -> None:
    outputs = [spec.name for spec in artifact.outputs]
    check_unique("input", [spec.name for spec in artifact.inputs])
    check_unique("output", outputs)
    check_unique("attention map", artifact.attention)
    for name in artifact.attention:
        if name not in outputs:
            raise ValueError(f"the attention map {name!r} is not an output of {artifact.path}")


def _check_free_axes(artifact: Artifact) -> None:
    shapes = {spec.name: spec.shape for spec in (*artifact.inputs, *artifact.outputs)}
    for name, axes in artifact.free_axes.items():
        for axis in axes:
            if type(axis) is not int or not 1 <= axis < len(shapes.get(name, ())):
                raise ValueError(f"{name!r} of {artifact.path} has no axis {axis!r}")


def _check_path(relative: str) -> None:
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise ValueError(f"path outside the bundle: {relative!r}")
    if str(pure) in (MANIFEST, SIGNATURE):
        raise ValueError(f"{relative!r} is the bundle's own file")
    if len(relative) > MAX_PATH or "\0" in relative:
        raise ValueError(f"invalid path: {relative[:50]!r}...")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", "utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
