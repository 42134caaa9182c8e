"""On the device: the steps of a deployment, called one after the other.

:func:`open_folder` takes the lock of a folder. The process holds it until it ends: when the
connection ends, even in the middle of a call, or after the idle timeout of
:mod:`edgeattn.targets.on_device.session`.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, SIGNATURE
from edgeattn.deployment.on_device.versions import REPORT, Versions, write_json
from edgeattn.errors import DeviceError
from edgeattn.process.limits import RunLimits, limited_to
from edgeattn.targets.on_device import environment
from edgeattn.targets.on_device.session import ends_when_idle, resolve, state

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner
    from edgeattn.tensors import Tensors

# Seconds to wait for the lock of a process that is just ending.
LOCK_TIMEOUT = 10.0


def _versions() -> Versions:
    if "versions" not in state:
        raise DeviceError("No folder was opened.")
    versions: Versions = state["versions"]
    return versions


def _select(
    version: str, formats: list[str], schemes: list[str]
) -> tuple[Bundle, tuple[Artifact, ...]]:
    bundle = Bundle.open(_versions().bundle(version))
    return bundle, bundle.select(tuple(formats), tuple(schemes))


@ends_when_idle
def open_folder(folder: str) -> dict[str, Any]:
    """Lock ``folder``; returns its absolute path, its current version and edgeattn's version.

    ``created`` is when the bundle that serves was converted.
    """
    from edgeattn.version import __version__

    versions = Versions(resolve(folder))
    previous: IO[bytes] | None = state.pop("lock", None)
    if previous is not None:
        previous.close()
    state["lock"] = versions.lock(LOCK_TIMEOUT)
    state["versions"] = versions
    state["store"] = versions.store
    return {
        "edgeattn": __version__,
        "folder": str(versions.root),
        "current": versions.current(),
        "created": versions.created(),
    }


@ends_when_idle
def check_runtimes() -> list[dict[str, Any]]:
    """:func:`edgeattn.targets.on_device.environment.check_runtimes`."""
    return environment.check_runtimes()


@ends_when_idle
def add_version(files: dict[str, str]) -> str:
    """The version of ``files`` (path: SHA-256), created if needed, every file of it hashed."""
    return _versions().add(files)


@ends_when_idle
def load_artifact(version: str, path: str, limits: dict[str, Any]) -> str:
    """Load an artifact of a version in a process of its own; returns the runtime and its version.

    The artifact that was loaded before is closed. ``limits`` are the fields of :class:`RunLimits`,
    also for the calls of :func:`run_artifact`.
    """
    from edgeattn.process.worker import Worker
    from edgeattn.runners.isolated import IsolatedRunner

    unload_artifact()
    if state.get("loaded_version") != version:
        bundle = Bundle.open(_versions().bundle(version))
        state.update(loaded_version=version, bundle=bundle, reference=bundle.reference())
    bundle = state["bundle"]
    artifact = next((item for item in bundle.manifest.artifacts if item.path == path), None)
    if artifact is None:
        raise DeviceError(f"{version} has no artifact {path!r}.")
    worker = state.setdefault("worker", Worker())
    state["limits"] = RunLimits(**limits)
    with limited_to(state["limits"]):
        runner = IsolatedRunner(bundle.path, artifact, worker, as_deployed=True)
    state["runner"] = runner
    return runner.runtime


@ends_when_idle
def run_artifact(rows: list[int], batch_sizes: list[int]) -> tuple[None, Tensors]:
    """The outputs of the loaded artifact for ``rows`` of its bundle's reference, in this order."""
    if "runner" not in state:
        raise DeviceError("No artifact is loaded.")
    runner: Runner = state["runner"]
    reference: Tensors = state["reference"]
    inputs = {spec.name: reference[f"input/{spec.name}"][rows] for spec in runner.inputs}
    with limited_to(state["limits"]):
        return None, runner.run(inputs, batch_sizes)


@ends_when_idle
def unload_artifact() -> None:
    """Close the loaded artifact, if any."""
    runner: Runner | None = state.pop("runner", None)
    if runner is not None:
        runner.close()


@ends_when_idle
def measure(
    version: str,
    formats: list[str],
    schemes: list[str],
    runs: int,
    seconds: float,
    limits: dict[str, Any],
) -> dict[str, Any]:
    """The latency of a version's artifacts with one thread, as JSON."""
    from edgeattn.benchmark.latency import measure_latency
    from edgeattn.targets.target import local_target

    bundle, artifacts = _select(version, formats, schemes)
    target = local_target(bundle)
    with limited_to(RunLimits(**limits)):
        return measure_latency(bundle, artifacts, target, runs=runs, seconds=seconds).to_json()


@ends_when_idle
def save_report(version: str, report: dict[str, Any]) -> None:
    """Write a version's report beside it."""
    write_json(_versions().folder(version) / REPORT, report)


@ends_when_idle
def switch(version: str) -> None:
    """Make ``version`` the current one."""
    _versions().switch(version)


@ends_when_idle
def prune(keep: int) -> list[str]:
    """Remove all but the last ``keep`` versions that served; returns the removed ones."""
    return list(_versions().prune(keep))


@ends_when_idle
def previous_version() -> tuple[str, Tensors]:
    """The version that served before; with the bytes of its manifest and its signature, if any."""
    import numpy as np

    version = _versions().previous()[1]
    folder = _versions().bundle(version)
    files = {name: folder / name for name in (MANIFEST, SIGNATURE)}
    return version, {
        name: np.frombuffer(path.read_bytes(), np.uint8)
        for name, path in files.items()
        if path.is_file()
    }


@ends_when_idle
def roll_back(manifest: str | None = None) -> dict[str, str]:
    """Make the previous version the current one; returns both under ``from`` and ``to``.

    If it is given, ``manifest`` must be the SHA-256 of the previous version's manifest.
    """
    before, after = _versions().roll_back(manifest)
    return {"from": before, "to": after}
