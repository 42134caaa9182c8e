"""Functions called on a target that describe it; they change nothing on it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any


def describe(folder: str) -> dict[str, str]:
    """Versions on the target, and the SHA-256 of the manifest of the bundle in ``folder``.

    Every file of the bundle is hashed. Raises :class:`BundleError` if one has changed.
    """
    import platform

    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import MANIFEST
    from edgeattn.version import __version__

    bundle = Bundle.open(Path(folder))
    return {
        "edgeattn": __version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "manifest": bundle.file_hashes()[MANIFEST],
    }


def cpu_count() -> int:
    """The number of processors."""
    return os.cpu_count() or 1


def installed_version() -> str:
    """The version of edgeattn."""
    from edgeattn.version import __version__

    return __version__


def check_runtimes() -> list[dict[str, Any]]:
    """A :class:`edgeattn.device.runtime_check.RuntimeCheck` for each runtime, as JSON."""
    from edgeattn.device import runtime_check

    return [asdict(check) for check in runtime_check.check_runtimes()]
