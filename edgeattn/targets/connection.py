"""Calls to functions on a device over an ssh connection, and files copied to it in pieces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.device import info
from edgeattn.device.advice import Advice
from edgeattn.device.runtime_check import NOT_CHECKED, RuntimeCheck
from edgeattn.errors import DeviceError
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.targets import ssh
from edgeattn.targets.on_device import session
from edgeattn.targets.on_device.file_store import PIECE_SIZE
from edgeattn.targets.replies import parse_checks, parse_device

# Seconds after which a device hangs. A lost connection ends sooner, because ssh detects it.
CALL_TIMEOUT = 900.0


@dataclass(frozen=True)
class Connection:
    """A worker process on ``host``."""

    worker: Worker
    host: ssh.SSHHost

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """The result of a module-level function, called on the device with ``arguments``.

        Raises :class:`DeviceError` if the connection ends, and the errors of the function.
        """
        return self.call_with_tensors(function, arguments)[0]

    def call_with_tensors(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        tensors: Mapping[str, Any] | None = None,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> tuple[Any, Any]:
        """As :meth:`call`, with arrays in both directions; ``timeout`` is in seconds."""
        name = f"{function.__module__}:{function.__name__}"
        try:
            return self.worker.call(name, arguments, tensors, timeout=timeout)
        except WorkerDiedError as error:
            raise self.host.error_from(error.output or f"the connection {error.message}") from error


def send_files(connection: Connection, folder: Path, files: Mapping[str, str]) -> int:
    """Copy those of ``files`` (path in ``folder``: SHA-256) that the device lacks.

    Returns the number of bytes sent. A file that an earlier attempt copied in part is resumed.
    """
    import numpy as np

    paths = {digest: folder / relative for relative, digest in files.items()}
    sizes = {digest: path.stat().st_size for digest, path in paths.items()}
    # SHA-256 of each missing file: the number of its bytes that the device has.
    missing: dict[str, int] = connection.call(session.missing_files, sizes=sizes)
    if type(missing) is not dict or not all(
        digest in sizes and type(offset) is int and 0 <= offset <= sizes[digest]
        for digest, offset in missing.items()
    ):
        raise DeviceError(
            "The device sent a malformed reply: its missing files.",
            hint="Install this edgeattn on the device again: edgeattn deploy BUNDLE "
            f"{connection.host.destination} --install",
        )
    total = sum(sizes[digest] - offset for digest, offset in missing.items())
    sent = 0
    for digest, offset in missing.items():
        size = sizes[digest]
        with paths[digest].open("rb") as file:
            file.seek(offset)
            complete = False
            # At least once: an empty file is one empty piece.
            while not complete:
                piece = file.read(PIECE_SIZE)
                if not piece and offset < size:
                    raise DeviceError(f"{paths[digest]} changed while it was copied.")
                complete, _ = connection.call_with_tensors(
                    session.add_piece,
                    {"sha256": digest, "offset": offset, "size": size},
                    {"piece": np.frombuffer(piece, np.uint8)},
                )
                offset += len(piece)
                sent += len(piece)
                progress.report(f"copying: {sent:,} of {total:,} bytes")
    return sent


def check_host(
    destination: str, python: str | None = None, config: Path | None = None
) -> tuple[info.Device, tuple[RuntimeCheck, ...], tuple[Advice, ...]]:
    """The machine, a check of each runtime, and advice if the runtimes cannot be checked.

    ``python`` is a path on the host, ``config`` replaces ``~/.ssh/config``. A host without edgeattn
    is described, too. Raises :class:`DeviceError` if it does not respond and :class:`UsageError` if
    ``destination`` is invalid.
    """
    progress.report(f"connecting to {destination}")
    with ssh.connect(destination, config) as host:
        device = parse_device(ssh.system_snapshot(host, python))
        try:
            with ssh.worker_on(host, python) as worker:
                checks, _ = worker.call(
                    "edgeattn.targets.on_device.environment:check_runtimes", timeout=600
                )
        except WorkerDiedError as error:
            reason = host.error_from(error.output or f"the connection {error.message}")
            unchecked = tuple(RuntimeCheck(name, NOT_CHECKED) for name in ("tflite", "onnx"))
            advice = Advice("error", reason.message, reason.hint or "Run the command again.")
            return device, unchecked, (advice,)
    return device, parse_checks(checks), ()
