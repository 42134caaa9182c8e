"""Artifacts run in another place, and judged here by the same code.

A place is a command that starts ``python -m edgeattn.child`` there and the folder in which the
bundle lies there. What goes through the pipe are the calls of :mod:`edgeattn.child`: names,
numbers and arrays, never a file and never code. Another interpreter of this machine is such a
place, an emulated root, or what a remote shell starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle import MANIFEST, Bundle
from edgeattn.child import Child, ChildDied
from edgeattn.errors import BundleError, DeviceError
from edgeattn.runners.isolated import IsolatedRunner

if TYPE_CHECKING:
    from edgeattn.bundle import Artifact
    from edgeattn.validation import Report

# Python and edgeattn start within seconds, under emulation too; a dead link never answers.
PATIENCE = 120.0
MODULE = ("-P", "-m", "edgeattn.child")


@dataclass(frozen=True)
class Place:
    """Where artifacts run: how to start a child there, and where the bundle lies there.

    ``command`` is empty for this interpreter. ``folder`` is a path of that place, not of this one.
    """

    name: str
    folder: str
    command: tuple[str, ...] = ()

    def start(self) -> Child:
        """A child process of that place; it starts at its first call."""
        return Child(command=self.command or None)

    def runner(
        self, child: Child, artifact: Artifact, *, threads: int = 1, judged: bool = False
    ) -> IsolatedRunner:
        """``artifact`` in a ``child`` of this place."""
        return IsolatedRunner(Path(self.folder), artifact, child, threads=threads, judged=judged)


@dataclass(frozen=True)
class There:
    """What a place said about itself."""

    edgeattn: str
    machine: str
    python: str
    manifest: str  # the SHA-256 of the bundle's manifest there


def here(bundle: Bundle) -> Place:
    """This interpreter, and the bundle where it is."""
    return Place("here", str(bundle.path))


def interpreter(python: Path, bundle: Bundle) -> Place:
    """Another interpreter of this machine, which has edgeattn and sees the bundle where it is."""
    return Place(str(python), str(bundle.path.absolute()), (str(python), *MODULE))


def entered(name: str, prefix: Sequence[str], folder: str) -> Place:
    """What ``prefix`` enters, ending in a Python of that place."""
    return Place(name, folder, (*prefix, *MODULE))


def meet(place: Place, bundle: Bundle, child: Child) -> There:
    """Ask a place what it is, and whether the bundle there is ``bundle``, file by file.

    :class:`DeviceError` where nothing answers, :class:`BundleError` where what lies there is
    another bundle or was changed.
    """
    try:
        told, _ = child.call(
            "edgeattn.runners.elsewhere:introduce", {"folder": place.folder}, timeout=PATIENCE
        )
    except ChildDied as error:
        last = error.output.strip().splitlines()
        raise DeviceError(
            f"{place.name} does not answer: its Python {error.message}"
            + (f": {last[-1]}" if last else "."),
            hint="It needs edgeattn itself: pip install edgeattn, there.",
        ) from error
    there = There(**{key: str(told[key]) for key in ("edgeattn", "machine", "python", "manifest")})
    if there.manifest != _manifest(bundle.path):
        raise BundleError(
            f"The bundle in {place.folder} of {place.name} is not the one that is here: "
            "their manifests differ.",
            hint="Copy the bundle there again.",
        )
    return there


def validate_in(place: Place, bundle: Bundle, artifacts: tuple[Artifact, ...]) -> Report:
    """As :func:`edgeattn.validate`, the artifacts run in ``place`` and the judging done here."""
    from edgeattn.validation import validate

    with place.start() as child:
        meet(place, bundle, child)
        return validate(bundle, artifacts, lambda item: place.runner(child, item, judged=True))


def introduce(folder: str) -> dict[str, Any]:
    """There: what this place is, after hashing the whole bundle in ``folder``."""
    import platform

    from edgeattn import __version__

    bundle = Bundle.open(Path(folder))
    bundle.verify()
    return {
        "edgeattn": __version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "manifest": _manifest(bundle.path),
    }


def _manifest(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
