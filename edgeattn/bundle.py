"""A bundle: artifacts, what Keras said, and a manifest that holds them together.

    model.edge/
      manifest.json            what was made, out of what, with what, and the hash of every file
      model.float32.tflite     artifacts, one per format and scheme
      model.float32.onnx
      reference.npz            inputs, Keras' outputs and attention maps for them

``reference.npz`` names its arrays ``input/NAME``, ``output/NAME`` and ``attention/LAYER``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgeattn.errors import BundleError, OutputError, SampleError
from edgeattn.schemes import EXPERIMENTAL, FORMATS, SCHEMES

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors, TensorSpec

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


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. :meth:`open` reads the manifest, :meth:`verify` hashes every file."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle's manifest; :class:`BundleError` where there is none that can be read.

        A packed bundle is unpacked into a cache: :mod:`edgeattn.packing` says what is refused.
        """
        path = Path(path)
        if path.is_file() and _begins_as_zip(path):
            from edgeattn.packing import unpacked

            path = unpacked(path)
        try:
            data = _read_manifest(path)
            version = data["format_version"]
            if type(version) is int and version > FORMAT_VERSION:
                raise BundleError(
                    f"{path} was made by a newer edgeattn: its layout is {version}, and this "
                    f"edgeattn reads {FORMAT_VERSION}.",
                    hint="Update this one with: pip install --upgrade edgeattn",
                )
            if type(version) is not int or version != FORMAT_VERSION:
                raise ValueError(f"layout {version!r}, this edgeattn reads {FORMAT_VERSION}")
            return cls(path, Manifest.from_json(data))
        except (*_MALFORMED, OSError) as error:
            raise BundleError(
                f"The manifest of {path} cannot be read: {type(error).__name__}: {error}",
                hint="Convert the model again, with --force to replace this bundle.",
            ) from error

    def artifact_path(self, artifact: Artifact) -> Path:
        return self.path / artifact.path

    def verify(self) -> None:
        """Hash every file against the manifest; :class:`BundleError` names one that differs."""
        listed = [(item.path, item.sha256) for item in self.manifest.artifacts]
        listed.append(
            (str(self.manifest.reference["path"]), str(self.manifest.reference["sha256"]))
        )
        for relative, expected in listed:
            if not _is_own_file(self.path, relative):
                raise BundleError(
                    f"The bundle {self.path} is incomplete: {relative} is missing.",
                    hint="Copy the bundle again, or convert the model again.",
                )
            try:
                found = sha256(self.path / relative)
            except OSError as error:
                raise BundleError(f"{relative} cannot be read: {error.strerror}") from error
            if found != expected:
                raise BundleError(
                    f"{relative} is not the file that this bundle was made with: "
                    "its SHA-256 differs from the manifest's.",
                    hint="Copy the bundle again, or convert the model again.",
                )

    def select(
        self, formats: tuple[str, ...] = (), schemes: tuple[str, ...] = ()
    ) -> tuple[Artifact, ...]:
        """The artifacts of these formats and schemes (all where none is named), at least one."""
        chosen = tuple(
            artifact
            for artifact in self.manifest.artifacts
            if (not formats or artifact.format in formats)
            and (not schemes or artifact.scheme in schemes)
        )
        if not chosen:
            there = ", ".join(item.label for item in self.manifest.artifacts) or "nothing"
            asked = " ".join([*formats, *schemes]) or "anything"
            raise BundleError(f"{self.path} has no artifact for {asked}: it holds {there}.")
        return chosen

    def reference(self) -> Tensors:
        """The arrays of ``reference.npz``, named ``input/…``, ``output/…`` and ``attention/…``."""
        from edgeattn.samples import read_npz

        try:
            return read_npz(self.path / str(self.manifest.reference["path"]))
        except SampleError as error:
            raise BundleError(error.message, hint="Convert the model again.") from error


# What reading a manifest that somebody else wrote may end in.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def _read_manifest(path: Path) -> Any:
    file = path / MANIFEST
    hint = "Make one with: edgeattn convert model.h5"
    if not path.exists():
        raise BundleError(f"No such bundle: {path}", hint=hint)
    if not file.is_file():
        raise BundleError(f"Not a bundle: {path} has no {MANIFEST}.", hint=hint)
    if file.stat().st_size > MAX_MANIFEST:
        raise ValueError(f"over {MAX_MANIFEST} bytes")
    return json.loads(file.read_text("utf-8"))


def _begins_as_zip(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
    return False


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


def _is_own_file(folder: Path, relative: str) -> bool:
    """Whether ``relative`` is a regular file of ``folder``, reached through no link."""
    file = folder / relative
    steps = [file, *file.parents][: len(PurePosixPath(relative).parts)]
    return not any(step.is_symlink() for step in steps) and file.is_file()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", "utf-8")


def check_target(target: Path, *, force: bool) -> None:
    """Whether a bundle may be written to ``target``, asked before any work is done."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(
            f"{target} is there and is not a folder.", hint="Choose another with -o DIR."
        )
    if not target.exists():
        return
    if not force:
        raise OutputError(
            f"The output folder exists: {target}", hint="Replace it with --force, or use -o DIR."
        )
    if any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise OutputError(
            f"{target} is not a bundle: --force replaces bundles and nothing else.",
            hint="Choose another with -o DIR.",
        )


@contextlib.contextmanager
def writing(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder beside ``target`` to write in, renamed to it at the end.

    Whatever ends the work early, a full disk and Ctrl-C among it, leaves ``target`` as it was and
    nothing beside it.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow links
    check_target(target, force=force)
    parents = [folder for folder in target.parents if not folder.exists()]
    aside: Path | None = None
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise OutputError(f"Cannot write to {target.parent}: {error.strerror}") from error
        try:
            yield aside
            aside.chmod(0o777 & ~umask())
            _replace(aside, target)
        except OSError as error:
            raise OutputError(
                f"Cannot write the bundle {target}: {error.strerror or error}",
                hint="Nothing was written. Free some space, or choose another place with -o DIR.",
            ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        # The parents that were made for it go with it; those that hold something stay.
        with contextlib.suppress(OSError):
            for folder in parents:
                folder.rmdir()


def _replace(aside: Path, target: Path) -> None:
    if not target.exists():
        aside.rename(target)
        return
    # Two folders cannot be swapped in one step everywhere: the old one is kept until the new
    # one stands.
    keep = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = keep / "old"
    try:
        target.rename(old)
        aside.rename(target)
    finally:
        # Not for errors only: Ctrl-C between the two must not cost the old bundle.
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(keep, ignore_errors=True)


def umask() -> int:
    """The permissions that this process takes off what it makes."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
