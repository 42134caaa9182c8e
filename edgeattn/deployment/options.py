"""Options of a deployment."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DeploymentOptions:
    """What to do on each device.

    ``folder`` is a path on the device, relative to its home folder or absolute. Artifacts of
    ``formats`` and ``schemes`` are validated and measured, by default all of them. ``runs`` and
    ``seconds`` limit the measurement, ``keep`` the versions that stay on the device. ``python`` is
    a path on the device, ``config`` replaces ``~/.ssh/config``. ``install`` installs edgeattn
    first, from the folder ``wheels`` or, by default, from pip's index.
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
    install: bool = False
    wheels: Path | None = None
