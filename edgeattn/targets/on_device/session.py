"""On the device: receives the files of a bundle in pieces and puts the bundle together."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import BundleError, DeviceError
from edgeattn.targets.on_device.file_store import Store, digest_of

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

LEASE = 300


# Beside the files themselves: room for records, reports and what else the system needs.
MARGIN = 10 * 10**6


# Folders of bundles that were judged and not deployed, and how many of them are kept.
VISITORS, VISITS = "~/.cache/edgeattn/judged", 8


P = ParamSpec("P")


R = TypeVar("R")


def leased(function: Callable[P, R]) -> Callable[P, R]:
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
connection: dict[str, Any] = {}


def place(folder: str) -> Path:
    """A folder of this machine, from the home folder unless it is absolute."""
    path = Path(folder).expanduser()
    return path if path.is_absolute() else Path.home() / path


@leased
def visit(digest: str) -> dict[str, Any]:
    """Begin with a bundle that is judged and not deployed, by its manifest's hash."""
    from edgeattn import __version__

    visitors = place(VISITORS)
    root = visitors / digest_of(digest.encode())[:16]
    root.mkdir(parents=True, exist_ok=True)
    os.utime(root)
    others = sorted(visitors.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in others[:-VISITS]:
        shutil.rmtree(old, ignore_errors=True)
    connection["store"] = Store(root)
    return {"edgeattn": __version__, "folder": str(root / "bundle")}


@leased
def lacking(files: dict[str, int]) -> dict[str, int]:
    """Which of these files (hash: size) are not whole, and how much of each is there."""
    store: Store = connection["store"]
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


@leased
def put(sha256: str, offset: int, size: int, tensors: Tensors) -> bool:
    """A piece of a file, as bytes; whether the file is whole now."""
    store: Store = connection["store"]
    return store.add(sha256, offset, tensors["piece"].tobytes(), size)


@leased
def settle(files: dict[str, str]) -> str:
    """The visiting bundle of ``files`` (path: hash), every one of them hashed; its folder."""
    store: Store = connection["store"]
    folder = store.root / "bundle"
    try:
        # Another process may be judging it: what is whole stays.
        bundle = Bundle.open(folder)
        if bundle.file_hashes() == files:
            return str(folder)
    except BundleError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    store.assemble(folder, files)
    Bundle.open(folder)
    return str(folder)
