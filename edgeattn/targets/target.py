"""Targets: the interpreters and machines that artifacts run on.

A target is a command that starts ``python -m edgeattn.child`` and the folder of the bundle on that
machine: this interpreter, another one, an emulated root file system, or a host reached over ssh.
Calls carry function names, numbers and arrays, never code (see :mod:`edgeattn.process.worker`).
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, Artifact
from edgeattn.errors import BundleError, DeviceError
from edgeattn.process.protocol import MAX_ARRAYS
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.targets import ssh
from edgeattn.targets.replies import parse_folder, parse_identity, parse_processors
from edgeattn.targets.ssh import SSHHost

# Seconds for Python and edgeattn to start: a few are needed, more under emulation.
START_TIMEOUT = 120.0
WORKER_MODULE = ("-P", "-m", "edgeattn.child")


@dataclass(frozen=True)
class Target:
    """A machine or interpreter, and the bundle on it.

    ``command`` starts a worker process and is empty for this interpreter. ``folder`` is the path of
    the bundle on the target. ``host`` is set if the target is reached over ssh.
    """

    name: str
    folder: str
    command: tuple[str, ...] = ()
    host: SSHHost | None = None

    def start(self) -> Worker:
        """A worker process on the target; it starts with its first call."""
        limit = MAX_ARRAYS if self.host is None else ssh.MAX_ARRAYS
        return Worker(command=self.command or None, max_arrays=limit)

    def runner(
        self, worker: Worker, artifact: Artifact, *, threads: int = 1, as_deployed: bool = False
    ) -> IsolatedRunner:
        """A runner of ``artifact`` in a worker process of this target."""
        return IsolatedRunner(
            Path(self.folder), artifact, worker, threads=threads, as_deployed=as_deployed
        )


def local_target(bundle: Bundle) -> Target:
    """This interpreter."""
    return Target("here", str(bundle.path))


def interpreter_target(python: Path, bundle: Bundle) -> Target:
    """Another interpreter of this machine, which must have edgeattn."""
    return Target(str(python), str(bundle.path.absolute()), (str(python), *WORKER_MODULE))


@contextlib.contextmanager
def open_target(
    bundle: Bundle, on: str | None = None, python: str | None = None, *, config: Path | None = None
) -> Iterator[Target]:
    """The target that a user selected with ``--on`` and ``--python``.

    Files of ``bundle`` that the host ``on`` lacks are copied to it; the host keeps the last eight
    bundles in ``~/.cache/edgeattn``. ``config`` replaces ``~/.ssh/config``. Raises
    :class:`UsageError` if ``on`` is not a valid host and :class:`DeviceError` if it does not
    respond.
    """
    if on is None:
        yield interpreter_target(Path(python), bundle) if python else local_target(bundle)
        return
    from edgeattn.targets.connection import Connection, send_files
    from edgeattn.targets.on_device import session

    with ssh.connect(on, config) as host:
        files = bundle.file_hashes()
        with ssh.worker_on(host, python) as worker:
            connection = Connection(worker, host)
            connection.call(session.open_cache, digest=files[MANIFEST])
            send_files(connection, bundle.path, files)
            folder = parse_folder(connection.call(session.assemble_bundle, files=files))
        yield Target(on, folder, host.python_command(python, *WORKER_MODULE), host)


def identify(target: Target, bundle: Bundle, worker: Worker) -> dict[str, str]:
    """The result of ``on_device.environment.describe``, once the target's bundle is verified.

    Raises :class:`DeviceError` if the target does not respond, and :class:`BundleError` if its
    bundle is a different one or was changed.
    """
    try:
        reply, _ = worker.call(
            "edgeattn.targets.on_device.environment:describe",
            {"folder": target.folder},
            timeout=START_TIMEOUT,
        )
    except WorkerDiedError as error:
        raise _no_response(target, error) from error
    versions = parse_identity(reply)
    if versions["manifest"] != bundle.file_hashes()[MANIFEST]:
        raise BundleError(
            f"The bundle in {target.folder} on {target.name} differs from {bundle.path}: "
            "their manifests differ.",
            hint="Copy the bundle to the target again.",
        )
    return versions


def cpu_count(target: Target) -> int:
    """The number of processors of ``target``; :class:`DeviceError` if it does not respond."""
    if not target.command:
        return os.cpu_count() or 1
    with target.start() as worker:
        try:
            count, _ = worker.call(
                "edgeattn.targets.on_device.environment:cpu_count", timeout=START_TIMEOUT
            )
        except WorkerDiedError as error:
            raise _no_response(target, error) from error
    return parse_processors(count)


def _no_response(target: Target, error: WorkerDiedError) -> DeviceError:
    if target.host is not None:
        return target.host.error_from(error.output or f"the connection {error.message}")
    lines = error.output.strip().splitlines()
    return DeviceError(
        f"{target.name} does not respond: its Python {error.message}"
        + (f": {lines[-1]}" if lines else "."),
        hint="Install edgeattn for this Python: pip install edgeattn",
    )
