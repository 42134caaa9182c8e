"""On the host: a bundle's files to a device that lacks them, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgeattn import progress
from edgeattn.errors import DeviceError
from edgeattn.process.worker import WorkerDied
from edgeattn.targets.on_device.file_store import PIECE
from edgeattn.targets.ssh import SSHHost

# A dead link ends a call by itself, ssh sees to it; this ends one to a device that hangs.
PATIENCE = 900.0
SESSION = "edgeattn.targets.on_device.session"


class Caller(Protocol):
    """Calls functions on the device: :class:`edgeattn.process.worker.Worker` or a fake."""

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[Any, Any]: ...


def ask(child: Caller, remote: SSHHost, function: str, **arguments: Any) -> Any:
    """Call ``"module:function"`` on the device; :class:`DeviceError` if the connection ends."""
    return ask_both(child, remote, function, **arguments)[0]


def ask_both(
    child: Caller,
    remote: SSHHost,
    function: str,
    tensors: Mapping[str, Any] | None = None,
    patience: float | None = None,
    **arguments: Any,
) -> tuple[Any, Any]:
    timeout = PATIENCE if patience is None else patience
    try:
        return child.call(function, arguments, tensors, timeout=timeout)
    except WorkerDied as error:
        raise remote.failed(error.output or f"the connection {error.message}") from error


def send(
    child: Caller,
    remote: SSHHost,
    folder: Path,
    files: Mapping[str, str],
) -> int:
    """Copy those of ``files`` (path in ``folder``: hash) that are lacking; how many bytes went."""
    import numpy as np

    paths = {digest: folder / relative for relative, digest in files.items()}
    sizes = {digest: path.stat().st_size for digest, path in paths.items()}
    missing: dict[str, int] = ask(
        child, remote, "edgeattn.targets.on_device.session:lacking", files=sizes
    )
    total = sum(sizes[digest] - came for digest, came in missing.items())
    sent = 0
    for digest, came in missing.items():
        with paths[digest].open("rb") as file:
            file.seek(came)
            offset, whole = came, False
            # Once, too, for what is empty.
            while not whole:
                piece = file.read(PIECE)
                if not piece and offset < sizes[digest]:
                    raise DeviceError(f"{paths[digest]} changed while it was copied.")
                told: dict[str, Any] = {"sha256": digest, "offset": offset, "size": sizes[digest]}
                array = {"piece": np.frombuffer(piece, np.uint8)}
                whole, _ = ask_both(child, remote, f"{SESSION}:put", array, **told)
                offset += len(piece)
                sent += len(piece)
                progress.report(f"copying: {sent:,} of {total:,} bytes")
    return sent
