"""Description of a host over ssh, and a check of its runtimes."""

from pathlib import Path

from edgeattn.device import info
from edgeattn.device.advice import Advice
from edgeattn.device.runtime_check import NOT_CHECKED, RuntimeCheck
from edgeattn.process.worker import WorkerDied
from edgeattn.targets import ssh


def check_host(
    destination: str, python: str | None = None, config: Path | None = None
) -> tuple[info.Device, tuple[RuntimeCheck, ...], tuple[Advice, ...]]:
    """The machine, a check of each runtime, and advice if the runtimes cannot be checked.

    ``python`` is a path on the host, ``config`` replaces ``~/.ssh/config``. A host without edgeattn
    is described, too. Raises :class:`DeviceError` if it does not respond and :class:`UsageError` if
    ``destination`` is invalid.
    """
    with ssh.connect(destination, config) as host:
        device = info.device_from_snapshot(ssh.system_snapshot(host, python))
        try:
            with ssh.worker_on(host, python) as worker:
                checks, _ = worker.call(
                    "edgeattn.targets.on_device.environment:check_runtimes", timeout=600
                )
        except WorkerDied as error:
            reason = host.error_from(error.output or f"the connection {error.message}")
            unchecked = tuple(RuntimeCheck(name, NOT_CHECKED) for name in ("tflite", "onnx"))
            advice = Advice("error", reason.message, reason.hint or "Run the command again.")
            return device, unchecked, (advice,)
    return device, tuple(RuntimeCheck(**check) for check in checks), ()
