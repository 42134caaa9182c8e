"""A bundle on disk, opened and verified.

    model.edge/
      manifest.json            artifacts, model, versions, and the hash of every file
      model.float32.tflite     artifacts, one per format and scheme
      model.float32.onnx
      reference.npz            inputs, with the outputs and attention maps of Keras for them
      frontend.json            from raw input to the model's input, if it was described

``reference.npz`` names its arrays ``input/NAME``, ``output/NAME`` and ``attention/LAYER``.

The manifest is read once: what was checked against a signature is what is parsed. Every other file
is hashed again when it is used, as the bytes that are used, so a file or folder that is replaced
after it was opened is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgeattn import first_bytes
from edgeattn.bundle.lengths import bundles_by_length
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
from edgeattn.bundle.not_a_bundle import not_a_bundle
from edgeattn.bundle.unlisted_files import refuse_unlisted_files
from edgeattn.bundle.verified_file import COPY_AGAIN, changed_file, read_file, read_signature
from edgeattn.errors import BundleError, SampleError, UsageError
from edgeattn.printable import printable

if TYPE_CHECKING:
    from edgeattn.frontend.description import FrontEnd
    from edgeattn.tensors import Tensors

# Raises an error unless the manifest's bytes are signed by ``signature``, the bytes of a signature
# or None; ``path`` names the bundle in the message.
SignatureCheck = Callable[[Path, bytes, bytes | None], object]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files match its manifest."""

    path: Path
    manifest: Manifest
    # The bytes of the manifest, if the bundle was opened.
    content: bytes | None = None

    def __repr__(self) -> str:
        labels = ", ".join(artifact.label for artifact in self.manifest.artifacts)
        return f"<Bundle {printable(str(self.path))}: {labels or 'no artifact'}>"

    @classmethod
    def open(cls, path: Path, check: SignatureCheck | None = None) -> Bundle:
        """Read a bundle's manifest and hash every file.

        ``path`` may be a link, which is followed once. ``check`` is called with the manifest's
        bytes before they are parsed. A packed bundle is unpacked into a cache first, see
        :mod:`edgeattn.bundle.packing`. Raises :class:`BundleError` if there is no bundle at
        ``path``, its manifest cannot be read, or a file is missing or changed;
        :class:`UnsafeModelError` if a packed bundle is refused or a folder has unlisted files.
        """
        folder = bundle_folder(path, check)
        content = read_manifest_bytes(folder)
        if check is not None:
            check(folder, content, read_signature(folder))
        bundle = cls(folder, parse_manifest(folder, content), content)
        bundle.verify()
        return bundle

    def artifact_path(self, artifact: Artifact) -> Path:
        return self.path / artifact.path

    def verify(self) -> None:
        """Hash every file; raise :class:`BundleError` if one is missing or changed.

        Raises :class:`UnsafeModelError` if the folder has files that the manifest does not list,
        except documents, see :mod:`edgeattn.bundle.unlisted_files`. :meth:`open` calls this. Call
        it again only if the files may have changed since.
        """
        for relative, expected in self.manifest.hashes.items():
            if not _is_own_file(self.path, relative):
                raise BundleError(
                    f"The bundle {self.path} is incomplete: {relative} is missing.",
                    hint=COPY_AGAIN,
                )
            try:
                actual = sha256(self.path / relative)
            except OSError as error:
                raise BundleError(f"{relative} cannot be read: {error.strerror}") from error
            if actual != expected:
                raise changed_file(relative)
        refuse_unlisted_files(self.path, self.manifest.hashes)

    def manifest_bytes(self) -> bytes:
        """The bytes of the manifest as they were parsed."""
        return read_manifest_bytes(self.path) if self.content is None else self.content

    def read(self, relative: str) -> bytes:
        """The bytes of a file that the manifest lists, hashed as they are returned.

        Raises :class:`BundleError` if it is missing or changed.
        """
        return read_file(self.path / relative, self.manifest.hashes[relative])

    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of every file by its path, including the manifest and the signature."""
        own = {MANIFEST: self.manifest_bytes()}
        signature = read_signature(self.path)
        if signature is not None:
            own[SIGNATURE] = signature
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in own.items()}
        return {**self.manifest.hashes, **hashes}

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
                f"{self.path} has no artifact for {requested}. Its artifacts: {labels}.",
                hint="Select one of them, or convert the model again with that scheme.",
            )
        return selected

    def reference(self) -> Tensors:
        """The arrays of ``reference.npz``: ``input/…``, ``output/…`` and ``attention/…``."""
        from edgeattn.samples.npz import read_npz

        relative = str(self.manifest.reference["path"])
        try:
            return read_npz(self.path / relative, self.read(relative))
        except SampleError as error:
            raise BundleError(error.message, hint="Convert the model again.") from error

    def front_end(self) -> FrontEnd | None:
        """The front end of the bundle, if it has one; :class:`BundleError` if it is malformed."""
        from edgeattn.frontend.description import from_bytes

        if self.manifest.frontend is None:
            return None
        try:
            front_end = from_bytes(self.read(self.manifest.frontend["path"]))
            return replace(front_end, stored_inputs=self.manifest.stored_inputs)
        except BundleError:
            raise
        except UsageError as error:
            raise BundleError(error.message, hint=error.hint) from error


def bundle_folder(path: Path, check: SignatureCheck | None = None) -> Path:
    """The folder of a bundle, without links. A packed bundle is unpacked into the cache."""
    path = _without_links(Path(path))
    if path.is_file() and _begins_as_zip(path):
        from edgeattn.bundle.packing import unpack

        return unpack(path, check)
    return path


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in ``folder``; the other files are not read.

    Raises :class:`BundleError` if there is no bundle or its manifest cannot be read.
    """
    return parse_manifest(folder, read_manifest_bytes(folder))


def read_manifest_bytes(folder: Path) -> bytes:
    """The bytes of the manifest in ``folder``; :class:`BundleError` if it cannot be read."""
    file = folder / MANIFEST
    if not folder.exists():
        raise BundleError(
            f"No such bundle: {folder}", hint="Create one with: edgeattn convert model.h5"
        )
    if lengths := bundles_by_length(folder):
        raise BundleError(
            f"{folder} has a bundle for each of the sequence lengths "
            f"{', '.join(map(str, lengths))}.",
            hint=f"Pass one of them: {next(iter(lengths.values()))}. edgeattn run, and edgeattn "
            "validate with --data, select the one for the length of the samples.",
        )
    if not file.is_file():
        raise not_a_bundle(folder)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_MANIFEST + 1)
    except OSError as error:
        raise _unreadable(folder, str(error.strerror or error)) from error
    if len(content) > MAX_MANIFEST:
        raise _unreadable(folder, f"it has over {MAX_MANIFEST:,} bytes")
    return content


def parse_manifest(path: Path, content: bytes) -> Manifest:
    """The manifest with these bytes; :class:`BundleError`, which names ``path``, if malformed."""
    try:
        data: Any = json.loads(content.decode("utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it is not a JSON object")
        if "format_version" not in data:
            raise ValueError("it has no 'format_version'")
        version = data["format_version"]
        if type(version) is int and version > FORMAT_VERSION:
            raise BundleError(
                f"{path} was made by a newer edgeattn: its layout version is {version}, and "
                f"this edgeattn reads up to {FORMAT_VERSION}.",
                hint="Update edgeattn with: pip install --upgrade edgeattn",
            )
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"layout version {version!r} instead of {FORMAT_VERSION}")
        return Manifest.from_json(data)
    except MALFORMED as error:
        raise _unreadable(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    """Why a manifest is malformed, without the names of Python's exceptions."""
    if isinstance(error, KeyError):
        return f"the entry {error} is missing"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if type(error) is ValueError:
        return str(error)
    return f"an entry has the wrong type ({error})"


def _unreadable(path: Path, reason: str) -> BundleError:
    return BundleError(
        f"The manifest of {path} cannot be read: {reason}",
        hint="Convert the model again, with --force to replace this bundle.",
    )


def _without_links(path: Path) -> Path:
    """``path``, or where it leads if a link is on the way: links may be replaced at any time."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return path  # reported when it is opened
    return path if real == Path(os.path.normpath(path.absolute())) else real


def _begins_as_zip(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(first_bytes.ZIP)) == first_bytes.ZIP
    return False


def _is_own_file(folder: Path, relative: str) -> bool:
    """Whether ``relative`` is a regular file in ``folder`` and no link is on the way to it."""
    file = folder / relative
    steps = [file, *file.parents][: len(PurePosixPath(relative).parts)]
    return not any(step.is_symlink() for step in steps) and file.is_file()
