"""Targets: the interpreters and machines that artifacts run on.

A target is a command that starts ``python -m edgeattn.child`` and the folder of the bundle on that
machine: this interpreter, another one, an emulated root file system, or a host reached over ssh.
Calls carry function names, numbers and arrays, never code (see :mod:`edgeattn.process.worker`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import BundleError, DeviceError
from edgeattn.process.worker import Worker, WorkerDied
from edgeattn.runners.isolated import IsolatedRunner

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.targets.ssh import SSHHost

# Python and edgeattn start within seconds, under emulation too; a dead link never answers.
PATIENCE = 120.0
MODULE = ("-P", "-m", "edgeattn.child")


@dataclass(frozen=True)
class Target:
    """Where artifacts run: how to start a child there, and where the bundle lies there.

    ``command`` is empty for this interpreter. ``folder`` is a path of that place, not of this one.
    ``remote`` is the machine, where it is another.
    """

    name: str
    folder: str
    command: tuple[str, ...] = ()
    remote: SSHHost | None = None

    def start(self) -> Worker:
        """A child process of that place; it starts at its first call."""
        return Worker(command=self.command or None)

    def runner(
        self, child: Worker, artifact: Artifact, *, threads: int = 1, as_deployed: bool = False
    ) -> IsolatedRunner:
        """``artifact`` in a ``child`` of this place."""
        return IsolatedRunner(
            Path(self.folder), artifact, child, threads=threads, as_deployed=as_deployed
        )


@dataclass(frozen=True)
class TargetInfo:
    """What a place said about itself."""

    edgeattn: str
    machine: str
    python: str
    manifest: str  # the SHA-256 of the bundle's manifest there


def local_target(bundle: Bundle) -> Target:
    """This interpreter, and the bundle where it is."""
    return Target("here", str(bundle.path))


def interpreter_target(python: Path, bundle: Bundle) -> Target:
    """Another interpreter of this machine, which has edgeattn and sees the bundle where it is."""
    return Target(str(python), str(bundle.path.absolute()), (str(python), *MODULE))


def command_target(name: str, prefix: Sequence[str], folder: str) -> Target:
    """What ``prefix`` enters, ending in a Python of that place."""
    return Target(name, folder, (*prefix, *MODULE))


@contextlib.contextmanager
def open_target(
    bundle: Bundle,
    on: str | None = None,
    python: str | None = None,
    *,
    config: Path | None = None,
) -> Iterator[Target]:
    """The place that a user named: a host ``on`` which ssh reaches, a ``python``, both or none.

    The bundle is sent to a host, as far as it is not there; the last eight that were are kept
    there, in ``~/.cache/edgeattn``. Raises :class:`UsageError` for a host that is none,
    :class:`DeviceError` where nothing answers.
    """
    if on is None:
        yield interpreter_target(Path(python), bundle) if python else local_target(bundle)
        return
    from edgeattn.targets import ssh
    from edgeattn.targets.transfer import ask, send

    with ssh.connected(on, config) as remote:
        files = bundle.file_hashes()
        with ssh.worker_on(remote, python) as child:
            ask(child, remote, "edgeattn.targets.on_device.session:visit", digest=files[MANIFEST])
            send(child, remote, bundle.path, files)
            folder = ask(child, remote, "edgeattn.targets.on_device.session:settle", files=files)
        yield Target(on, folder, remote.python(python, *MODULE), remote)


def identify(place: Target, bundle: Bundle, child: Worker) -> TargetInfo:
    """Ask a place what it is, and whether the bundle there is ``bundle``, file by file.

    :class:`DeviceError` where nothing answers, :class:`BundleError` where what lies there is
    another bundle or was changed.
    """
    try:
        told, _ = child.call(
            "edgeattn.targets.target:introduce", {"folder": place.folder}, timeout=PATIENCE
        )
    except WorkerDied as error:
        raise _silent(place, error) from error
    info = TargetInfo(**{key: str(value) for key, value in told.items()})
    if info.manifest != _manifest(bundle.path):
        raise BundleError(
            f"The bundle in {place.folder} of {place.name} is not the one that is here: "
            "their manifests differ.",
            hint="Copy the bundle there again.",
        )
    return info


def _silent(place: Target, error: WorkerDied) -> DeviceError:
    if place.remote is not None:
        return place.remote.failed(error.output or f"the connection {error.message}")
    last = error.output.strip().splitlines()
    return DeviceError(
        f"{place.name} does not answer: its Python {error.message}"
        + (f": {last[-1]}" if last else "."),
        hint="It needs edgeattn itself: pip install edgeattn, there.",
    )


def cpu_count(place: Target) -> int:
    """How many processors that place has; :class:`DeviceError` where nothing answers."""
    import os

    if not place.command:
        return os.cpu_count() or 1
    with place.start() as child:
        try:
            told, _ = child.call("edgeattn.targets.target:count_cores", {}, timeout=PATIENCE)
        except WorkerDied as error:
            raise _silent(place, error) from error
    return int(told)


def count_cores() -> int:
    """There: how many processors this place has."""
    import os

    return os.cpu_count() or 1


def introduce(folder: str) -> dict[str, Any]:
    """There: what this place is, after hashing the whole bundle in ``folder``."""
    import platform

    from edgeattn import __version__

    bundle = Bundle.open(Path(folder))
    return {
        "edgeattn": __version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "manifest": _manifest(bundle.path),
    }


def _manifest(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
