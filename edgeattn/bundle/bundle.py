"""A bundle on disk, opened and verified.

    model.edge/
      manifest.json            artifacts, model, versions, and the hash of every file
      model.float32.tflite     artifacts, one per format and scheme
      model.float32.onnx
      reference.npz            inputs, with the outputs and attention maps of Keras for them

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
    MALFORMED,
    MANIFEST,
    MAX_MANIFEST,
    SIGNATURE,
    Artifact,
    Manifest,
    sha256,
)
from edgeattn.errors import BundleError, SampleError

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

_COPY_AGAIN = "Copy the bundle again, or convert the model again."


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files match its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle's manifest and hash every file.

        A packed bundle is unpacked into a cache first, see :mod:`edgeattn.bundle.packing`. Raises
        :class:`BundleError` if there is no bundle at ``path``, its manifest cannot be read, or a
        file is missing or changed; :class:`UnsafeModelError` if a packed bundle is refused.
        """
        folder = bundle_folder(path)
        bundle = cls(folder, read_manifest(folder))
        bundle.verify()
        return bundle

    def artifact_path(self, artifact: Artifact) -> Path:
        return self.path / artifact.path

    def verify(self) -> None:
        """Hash every file; raise :class:`BundleError` if one is missing or changed.

        :meth:`open` calls this. Call it again only if the files may have changed since.
        """
        for relative, expected in self.manifest.hashes.items():
            if not _is_own_file(self.path, relative):
                raise BundleError(
                    f"The bundle {self.path} is incomplete: {relative} is missing.",
                    hint=_COPY_AGAIN,
                )
            try:
                actual = sha256(self.path / relative)
            except OSError as error:
                raise BundleError(f"{relative} cannot be read: {error.strerror}") from error
            if actual != expected:
                raise BundleError(
                    f"{relative} has changed: its SHA-256 differs from the manifest's.",
                    hint=_COPY_AGAIN,
                )

    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of every file by its path, including the manifest and the signature."""
        own = [self.path / name for name in (MANIFEST, SIGNATURE)]
        return {
            **self.manifest.hashes,
            **{file.name: sha256(file) for file in own if file.is_file()},
        }

    def select(
        self, formats: tuple[str, ...] = (), schemes: tuple[str, ...] = ()
    ) -> tuple[Artifact, ...]:
        """The artifacts of these formats and schemes; an empty tuple stands for all.

        Raises :class:`BundleError` if there is no such artifact.
        """
        selected = tuple(
            artifact
            for artifact in self.manifest.artifacts
            if (not formats or artifact.format in formats)
            and (not schemes or artifact.scheme in schemes)
        )
        if not selected:
            labels = ", ".join(item.label for item in self.manifest.artifacts) or "none"
            requested = " ".join([*formats, *schemes]) or "any format and scheme"
            raise BundleError(
                f"{self.path} has no artifact for {requested}. Its artifacts: {labels}."
            )
        return selected

    def reference(self) -> Tensors:
        """The arrays of ``reference.npz``: ``input/…``, ``output/…`` and ``attention/…``."""
        from edgeattn.samples.npz import read_npz

        try:
            return read_npz(self.path / str(self.manifest.reference["path"]))
        except SampleError as error:
            raise BundleError(error.message, hint="Convert the model again.") from error


def bundle_folder(path: Path) -> Path:
    """The folder of a bundle. A packed bundle is unpacked into the cache."""
    path = Path(path)
    if path.is_file() and _begins_as_zip(path):
        from edgeattn.bundle.packing import unpack

        return unpack(path)
    return path


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in ``folder``; the other files are not read.

    Raises :class:`BundleError` if there is no bundle or its manifest cannot be read.
    """
    file = folder / MANIFEST
    hint = "Create one with: edgeattn convert model.h5"
    if not folder.exists():
        raise BundleError(f"No such bundle: {folder}", hint=hint)
    if not file.is_file():
        raise BundleError(f"Not a bundle: {folder} has no {MANIFEST}.", hint=hint)
    try:
        if file.stat().st_size > MAX_MANIFEST:
            raise ValueError(f"over {MAX_MANIFEST} bytes")
        data: Any = json.loads(file.read_text("utf-8"))
        version = data["format_version"]
        if type(version) is int and version > FORMAT_VERSION:
            raise BundleError(
                f"{folder} was made by a newer edgeattn: its layout version is {version}, and "
                f"this edgeattn reads up to {FORMAT_VERSION}.",
                hint="Update edgeattn with: pip install --upgrade edgeattn",
            )
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"layout version {version!r} instead of {FORMAT_VERSION}")
        return Manifest.from_json(data)
    except (*MALFORMED, OSError) as error:
        raise BundleError(
            f"The manifest of {folder} cannot be read: {type(error).__name__}: {error}",
            hint="Convert the model again, with --force to replace this bundle.",
        ) from error


def _begins_as_zip(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
    return False


def _is_own_file(folder: Path, relative: str) -> bool:
    """Whether ``relative`` is a regular file in ``folder`` and no link is on the way to it."""
    file = folder / relative
    steps = [file, *file.parents][: len(PurePosixPath(relative).parts)]
    return not any(step.is_symlink() for step in steps) and file.is_file()
