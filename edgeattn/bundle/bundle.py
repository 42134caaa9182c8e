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
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MAX_MANIFEST,
    Artifact,
    Manifest,
    sha256,
)
from edgeattn.errors import BundleError, SampleError

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. :meth:`open` reads the manifest, :meth:`verify` hashes every file."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle's manifest; :class:`BundleError` where there is none that can be read.

        A packed bundle is unpacked into a cache: :mod:`edgeattn.bundle.pack` says what is refused.
        """
        path = Path(path)
        if path.is_file() and _begins_as_zip(path):
            from edgeattn.bundle.unpack import unpacked

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
        from edgeattn.samples.files import read_npz

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


def _is_own_file(folder: Path, relative: str) -> bool:
    """Whether ``relative`` is a regular file of ``folder``, reached through no link."""
    file = folder / relative
    steps = [file, *file.parents][: len(PurePosixPath(relative).parts)]
    return not any(step.is_symlink() for step in steps) and file.is_file()


def files_of(bundle: Bundle) -> dict[str, str]:
    """On either side: a bundle's files and their hashes, manifest and signature among them."""
    from edgeattn.bundle.manifest import sha256
    from edgeattn.bundle.signing import SIGNATURE

    listed = {item.path: item.sha256 for item in bundle.manifest.artifacts}
    listed[str(bundle.manifest.reference["path"])] = str(bundle.manifest.reference["sha256"])
    for name in (MANIFEST, SIGNATURE):
        if (bundle.path / name).is_file():
            listed[name] = sha256(bundle.path / name)
    return listed
