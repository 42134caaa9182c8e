"""What a device is and which of its runtimes work, asked from here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeattn.device.advice import Finding
from edgeattn.device.info import Device
from edgeattn.device.runtime_check import UNASKED, RuntimeCheck
from edgeattn.process.worker import WorkerDied


def check_host(
    host: str, python: str | None = None, config: Path | None = None
) -> tuple[Device, tuple[RuntimeCheck, ...], tuple[Finding, ...]]:
    """The machine ``host``, its runtimes, and what hinders asking these.

    A machine without edgeattn is described all the same. Raises :class:`DeviceError` where nothing
    answers, :class:`UsageError` for a host that is none.
    """
    from edgeattn.device import info as device
    from edgeattn.targets import ssh

    with ssh.connected(host, config) as remote:
        found = device.from_look(ssh.look(remote, python))
        try:
            with ssh.worker_on(remote, python) as child:
                told, _ = child.call("edgeattn.targets.host_check:runtimes", timeout=600)
        except WorkerDied as error:
            why = remote.failed(error.output or f"the connection {error.message}")
            checks = tuple(RuntimeCheck(name, UNASKED) for name in ("tflite", "onnx"))
            return found, checks, (Finding("error", why.message, why.hint or "Ask again."),)
    return found, tuple(RuntimeCheck(**item) for item in told), ()


def runtimes() -> list[dict[str, Any]]:
    """There: whether each runtime computes a tiny model right."""
    from edgeattn.device import runtime_check as probing

    return [asdict(check) for check in probing.check_runtimes()]
