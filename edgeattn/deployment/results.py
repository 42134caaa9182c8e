"""What is asked of a deployment, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.errors import EdgeattnError

if TYPE_CHECKING:
    from edgeattn.device.info import Device
    from edgeattn.targets.ssh import SSHHost
    from edgeattn.validation.report import Report

SWITCHED, UNCHANGED, REFUSED = "serves now", "served already", "refused"
ROLLED_BACK, FAILED = "rolled back", "failed"


@dataclass(frozen=True)
class DeploymentOptions:
    """What to do on each device.

    ``folder`` is one of the device, from its user's home folder unless it is absolute. Artifacts
    of ``formats`` and ``schemes`` are judged and measured, all of them where none is named.
    ``python`` is the device's, ``config`` stands in for ``~/.ssh/config``. ``install`` prepares
    the device first; it is given the connection.
    """

    folder: str
    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    runs: int = 700
    seconds: float = 10.0
    measure: bool = True
    keep: int = 3
    python: str | None = None
    config: Path | None = None
    install: Callable[[SSHHost], object] | None = None


@dataclass(frozen=True)
class DeploymentResult:
    """What became of a device; ``error`` says why it did not come to an end."""

    host: str
    state: str
    folder: str | None = None
    version: str | None = None
    previous: str | None = None
    sent: int = 0
    device: Device | None = None
    report: Report | None = None
    bench: dict[str, Any] | None = None
    removed: tuple[str, ...] = ()
    error: EdgeattnError | None = field(default=None, compare=False)

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.report is None else self.report.exit_code

    def to_json(self) -> dict[str, Any]:
        told = None
        if self.error is not None:
            told = {"message": self.error.message, "hint": self.error.hint}
        return {
            "host": self.host,
            "state": self.state,
            "verdict": "not run" if self.report is None else self.report.verdict,
            "exit_code": self.exit_code,
            "folder": self.folder,
            "version": self.version,
            "previous": self.previous,
            "bytes_sent": self.sent,
            "removed": list(self.removed),
            "device": None if self.device is None else self.device.to_json(),
            "artifacts": [] if self.report is None else self.report.to_json()["artifacts"],
            "bench": self.bench,
            "error": told,
        }
