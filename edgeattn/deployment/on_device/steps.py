"""On the device: the functions that a deployment calls, one after the other.

``begin`` takes the lock of a folder, and the process keeps it until it ends: with its connection,
in the midst of a call too, or ``LEASE`` seconds after the last call, should the network die without
a word.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.deployment.on_device.versions import REPORT, Versions, write
from edgeattn.errors import DeviceError
from edgeattn.targets.on_device.session import connection, leased, place

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

# How long one waits for another that is just ending.
PATIENCE = 10.0


def _versions() -> Versions:
    if "versions" not in connection:
        raise DeviceError("No folder was begun with.")
    versions: Versions = connection["versions"]
    return versions


@leased
def begin(folder: str) -> dict[str, Any]:
    """Take the folder's lock; what serves there, and how much room there is."""
    import platform

    from edgeattn import __version__
    from edgeattn.process import server

    server.end_with_connection()
    versions = Versions(place(folder))
    previous: IO[bytes] | None = connection.pop("lock", None)
    if previous is not None:
        previous.close()
    connection["lock"] = versions.lock(PATIENCE)
    connection["versions"] = versions
    connection["store"] = versions.store
    return {
        "edgeattn": __version__,
        "folder": str(versions.root),
        "current": versions.current(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


@leased
def assemble(files: dict[str, str]) -> str:
    """The version that is made of ``files`` (path: hash), every one of them hashed."""
    return _versions().make(files)


@leased
def runtimes() -> list[dict[str, Any]]:
    """Whether each runtime computes a tiny model right."""
    from edgeattn.targets import host_check

    return host_check.runtimes()


@leased
def judge(
    version: str, formats: list[str], schemes: list[str]
) -> tuple[list[dict[str, Any]], Tensors]:
    """Hold a version to what Keras computed: all that a report is made of, and the answers."""
    from edgeattn.validation.validate import validate_isolated

    bundle = Bundle.open(_versions().bundle(version))
    chosen = bundle.select(tuple(formats), tuple(schemes))
    report = validate_isolated(bundle, chosen)
    told, answers = [], {}
    for number, item in enumerate(report.artifacts):
        told.append(
            {
                "path": item.artifact.path,
                "runtime": item.runtime,
                "reason": item.reason,
                "broken": item.broken,
                "verdict": item.verdict,
                "checks": [asdict(check) for check in item.checks],
            }
        )
        answers.update({f"{number}/{name}": array for name, array in item.outputs.items()})
    return told, answers


@leased
def measure(
    version: str, formats: list[str], schemes: list[str], runs: int, seconds: float
) -> dict[str, Any]:
    """How long a version's artifacts take here, with one thread."""
    from edgeattn.benchmark.latency import measure_latency
    from edgeattn.targets.target import local_target

    bundle = Bundle.open(_versions().bundle(version))
    chosen = bundle.select(tuple(formats), tuple(schemes))
    return measure_latency(
        bundle, chosen, local_target(bundle), runs=runs, seconds=seconds
    ).to_json()


@leased
def note(version: str, report: dict[str, Any]) -> None:
    """Keep a version's report beside it."""
    write(_versions().folder(version) / REPORT, report)


@leased
def switch(version: str) -> None:
    """Let a version serve."""
    _versions().switch(version)


@leased
def prune(keep: int) -> list[str]:
    """Remove all but the last versions; which ones."""
    return list(_versions().prune(keep))


@leased
def roll_back() -> dict[str, str]:
    """Let the version serve that served before; from which to which."""
    before, after = _versions().roll_back()
    return {"from": before, "to": after}
