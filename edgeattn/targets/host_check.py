"""What a device is and which of its runtimes work, asked from here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeattn.device.advice import Advice
from edgeattn.device.info import Device
from edgeattn.device.runtime_check import NOT_CHECKED, RuntimeCheck
from edgeattn.process.worker import WorkerDied


def check_host(
    host: str, python: str | None = None, config: Path | None = None
) -> tuple[Device, tuple[RuntimeCheck, ...], tuple[Advice, ...]]:
    """The machine ``host``, its runtimes, and what hinders asking these.

    A machine without edgeattn is described all the same. Raises :class:`DeviceError` where nothing
    answers, :class:`UsageError` for a host that is none.
    """
    from edgeattn.device.info import device_from_snapshot
    from edgeattn.targets import ssh

    with ssh.connected(host, config) as remote:
        found = device_from_snapshot(ssh.look(remote, python))
        try:
            with ssh.worker_on(remote, python) as child:
                told, _ = child.call("edgeattn.targets.host_check:runtimes", timeout=600)
        except WorkerDied as error:
            why = remote.failed(error.output or f"the connection {error.message}")
            checks = tuple(RuntimeCheck(name, NOT_CHECKED) for name in ("tflite", "onnx"))
            return found, checks, (Advice("error", why.message, why.hint or "Ask again."),)
    return found, tuple(RuntimeCheck(**item) for item in told), ()


def runtimes() -> list[dict[str, Any]]:
    """There: whether each runtime computes a tiny model right."""
    from edgeattn.device import runtime_check

    return [asdict(check) for check in runtime_check.check_runtimes()]
