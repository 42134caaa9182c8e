"""Files that are verified as they are read: what is hashed is what is used."""

import hashlib
import os
import stat
from pathlib import Path

from edgeattn.bundle.manifest import MAX_SIGNATURE, SIGNATURE
from edgeattn.errors import ArtifactError, BundleError

COPY_AGAIN = "Copy the bundle again, or convert the model again."


def read_file(path: Path, expected: str | None = None) -> bytes:
    """The bytes of a file, whose SHA-256 must be ``expected`` if that is given.

    What is hashed is what is returned, so it does not matter whether the file has been replaced
    since it was verified. Raises :class:`BundleError` if the file is missing or changed, or
    :class:`ArtifactError` if it cannot be read and has no expected hash.
    """
    error_class = ArtifactError if expected is None else BundleError
    try:
        # Opening a named pipe in the usual way would wait for a writer.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error_class(f"{path.name} is not a regular file.", hint=COPY_AGAIN)
            content = file.read()
    except OSError as error:
        raise error_class(
            f"{path.name} cannot be read: {error.strerror}.", hint=COPY_AGAIN
        ) from error
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise changed_file(path.name)
    return content


def changed_file(name: str) -> BundleError:
    return BundleError(
        f"{name} has changed: its SHA-256 differs from the manifest's.", hint=COPY_AGAIN
    )


def read_signature(folder: Path) -> bytes | None:
    """The bytes of the signature in ``folder``, at most one over the limit; None if unsigned."""
    file = folder / SIGNATURE
    try:
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return stream.read(MAX_SIGNATURE + 1)
    except OSError as error:
        raise BundleError(f"{SIGNATURE} cannot be read: {error.strerror}.") from error
