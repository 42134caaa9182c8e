"""On the device: what a deployment calls, through :mod:`edgeattn.child`, one call after the other.

``begin`` takes the lock of a folder, and the process keeps it until it ends: with its connection,
in the midst of a call too, or ``LEASE`` seconds after the last call, should the network die without
a word.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from edgeattn.bundle import MANIFEST, Bundle
from edgeattn.deployment.store import Store, digest_of
from edgeattn.deployment.versions import REPORT, Versions, write
from edgeattn.errors import BundleError, DeviceError

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

LEASE = 300
# How long one waits for another that is just ending.
PATIENCE = 10.0
# Beside the files themselves: room for records, reports and what else the system needs.
MARGIN = 10 * 10**6
# Folders of bundles that were judged and not deployed, and how many of them are kept.
VISITORS, VISITS = "~/.cache/edgeattn/judged", 8

P = ParamSpec("P")
R = TypeVar("R")


def _leased(function: Callable[P, R]) -> Callable[P, R]:
    """Between calls a process waits ``LEASE`` seconds, then it ends and lets go of its lock."""

    @wraps(function)
    def called(*arguments: P.args, **keywords: P.kwargs) -> R:
        signal.alarm(0)
        try:
            return function(*arguments, **keywords)
        except OSError as error:
            where = f" with {error.filename}" if error.filename else ""
            raise DeviceError(
                f"The device failed{where}: {error.strerror or error}.",
                hint="Mend that there, and run the same command again: it goes on where it ended. "
                "What served before still serves.",
            ) from error
        finally:
            signal.alarm(LEASE)

    return called


# The folder that this process serves, and its lock.
_open: dict[str, Any] = {}


def _versions() -> Versions:
    if "versions" not in _open:
        raise DeviceError("No folder was begun with.")
    versions: Versions = _open["versions"]
    return versions


def _place(folder: str) -> Path:
    """A folder of this machine, from the home folder unless it is absolute."""
    path = Path(folder).expanduser()
    return path if path.is_absolute() else Path.home() / path


@_leased
def begin(folder: str) -> dict[str, Any]:
    """Take the folder's lock; what serves there, and how much room there is."""
    import platform

    from edgeattn import __version__, child

    child.end_with_connection()
    versions = Versions(_place(folder))
    previous: IO[bytes] | None = _open.pop("lock", None)
    if previous is not None:
        previous.close()
    _open["lock"] = versions.lock(PATIENCE)
    _open["versions"] = versions
    _open["store"] = versions.store
    return {
        "edgeattn": __version__,
        "folder": str(versions.root),
        "current": versions.current(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


@_leased
def visit(digest: str) -> dict[str, Any]:
    """Begin with a bundle that is judged and not deployed, by its manifest's hash."""
    from edgeattn import __version__

    visitors = _place(VISITORS)
    root = visitors / digest_of(digest.encode())[:16]
    root.mkdir(parents=True, exist_ok=True)
    os.utime(root)
    others = sorted(visitors.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in others[:-VISITS]:
        shutil.rmtree(old, ignore_errors=True)
    _open["store"] = Store(root)
    return {"edgeattn": __version__, "folder": str(root / "bundle")}


@_leased
def lacking(files: dict[str, int]) -> dict[str, int]:
    """Which of these files (hash: size) are not whole, and how much of each is there."""
    store: Store = _open["store"]
    found = store.lacking(files)
    needed = sum(files[digest] - came for digest, came in found.items())
    store.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.root).free
    if needed and free < needed + MARGIN:
        raise DeviceError(
            f"The disk is too full: {free:,} bytes are free, and {needed + MARGIN:,} are needed.",
            hint="Free some space there, or keep fewer versions with --keep.",
        )
    return found


@_leased
def put(sha256: str, offset: int, size: int, tensors: Tensors) -> bool:
    """A piece of a file, as bytes; whether the file is whole now."""
    store: Store = _open["store"]
    return store.add(sha256, offset, tensors["piece"].tobytes(), size)


@_leased
def settle(files: dict[str, str]) -> str:
    """The visiting bundle of ``files`` (path: hash), every one of them hashed; its folder."""
    store: Store = _open["store"]
    folder = store.root / "bundle"
    try:
        # Another process may be judging it: what is whole stays.
        bundle = Bundle.open(folder)
        bundle.verify()
        if files_of(bundle) == files:
            return str(folder)
    except BundleError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    store.assemble(folder, files)
    Bundle.open(folder).verify()
    return str(folder)


@_leased
def assemble(files: dict[str, str]) -> str:
    """The version that is made of ``files`` (path: hash), every one of them hashed."""
    return _versions().make(files)


@_leased
def runtimes() -> list[dict[str, Any]]:
    """Whether each runtime computes a tiny model right."""
    from edgeattn.deployment import doctor

    return doctor.runtimes()


@_leased
def judge(
    version: str, formats: list[str], schemes: list[str]
) -> tuple[list[dict[str, Any]], Tensors]:
    """Hold a version to what Keras computed: all that a report is made of, and the answers."""
    from edgeattn import child
    from edgeattn.validation import validate_isolated

    bundle = Bundle.open(_versions().bundle(version))
    chosen = bundle.select(tuple(formats), tuple(schemes))
    report = validate_isolated(bundle, chosen, on_progress=child.progress)
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
        answers.update({f"{number}/{name}": array for name, array in item.answers.items()})
    return told, answers


@_leased
def measure(
    version: str, formats: list[str], schemes: list[str], runs: int, seconds: float
) -> dict[str, Any]:
    """How long a version's artifacts take here, with one thread."""
    from edgeattn import child
    from edgeattn.benchmark import bench
    from edgeattn.runners.elsewhere import here

    bundle = Bundle.open(_versions().bundle(version))
    chosen = bundle.select(tuple(formats), tuple(schemes))
    return bench(
        bundle, chosen, here(bundle), runs=runs, seconds=seconds, on_progress=child.progress
    ).to_json()


@_leased
def note(version: str, report: dict[str, Any]) -> None:
    """Keep a version's report beside it."""
    write(_versions().folder(version) / REPORT, report)


@_leased
def switch(version: str) -> None:
    """Let a version serve."""
    _versions().switch(version)


@_leased
def prune(keep: int) -> list[str]:
    """Remove all but the last versions; which ones."""
    return list(_versions().prune(keep))


@_leased
def roll_back() -> dict[str, str]:
    """Let the version serve that served before; from which to which."""
    before, after = _versions().roll_back()
    return {"from": before, "to": after}


def files_of(bundle: Bundle) -> dict[str, str]:
    """On either side: a bundle's files and their hashes, manifest and signature among them."""
    from edgeattn.bundle import sha256
    from edgeattn.signing import SIGNATURE

    listed = {item.path: item.sha256 for item in bundle.manifest.artifacts}
    listed[str(bundle.manifest.reference["path"])] = str(bundle.manifest.reference["sha256"])
    for name in (MANIFEST, SIGNATURE):
        if (bundle.path / name).is_file():
            listed[name] = sha256(bundle.path / name)
    return listed
