"""On the device: the state of one worker process that receives files, and its functions.

A process ends ``IDLE_TIMEOUT`` seconds after its last call, which releases its lock even if the
network fails without notice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import BundleError, DeviceError, UnsafeModelError
from edgeattn.targets.on_device.file_store import FileStore, check_digest

if TYPE_CHECKING:
    from edgeattn.tensors import Tensors

IDLE_TIMEOUT = 300
# Bytes of disk to leave free for records, reports and the rest of the system.
DISK_MARGIN = 10 * 10**6
# Bundles that were validated or measured without being deployed, and how many of them to keep.
CACHE, CACHE_SIZE = "~/.cache/edgeattn/judged", 8

P = ParamSpec("P")
R = TypeVar("R")

# The file store, versions and lock of the folder that this process works on.
state: dict[str, Any] = {}


def ends_when_idle(function: Callable[P, R]) -> Callable[P, R]:
    """Restart the idle timeout after each call, and raise :class:`DeviceError` for OS errors."""

    @wraps(function)
    def wrapper(*arguments: P.args, **keywords: P.kwargs) -> R:
        signal.alarm(0)
        try:
            return function(*arguments, **keywords)
        except OSError as error:
            file = f" with {error.filename}" if error.filename else ""
            raise DeviceError(
                f"The device failed{file}: {error.strerror or error}.",
                hint="Fix the cause on the device and run the same command again to resume. "
                "The current version still serves.",
            ) from error
        finally:
            signal.alarm(IDLE_TIMEOUT)

    return wrapper


def resolve(folder: str) -> Path:
    """A folder of this machine, relative to the home folder or absolute."""
    path = Path(folder).expanduser()
    return path if path.is_absolute() else Path.home() / path


def digest_of(files: Mapping[str, str]) -> str:
    """The SHA-256 of a list of files, by which the cache has them if they are no bundle."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


@ends_when_idle
def open_cache(digest: str) -> None:
    """Receive files that are not deployed, by a SHA-256 that identifies them; remove old ones."""
    cache = resolve(CACHE)
    root = cache / check_digest(digest)[:16]
    root.mkdir(parents=True, exist_ok=True)
    os.utime(root)
    by_age = sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime)
    for folder in by_age[:-CACHE_SIZE]:
        shutil.rmtree(folder, ignore_errors=True)
    state["store"] = FileStore(root)


@ends_when_idle
def missing_files(sizes: dict[str, int]) -> dict[str, int]:
    """:meth:`FileStore.missing`; raises :class:`DeviceError` if the disk has no room for them."""
    store: FileStore = state["store"]
    offsets = store.missing(sizes)
    required = sum(sizes[digest] - offset for digest, offset in offsets.items())
    store.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.root).free
    if required and free < required + DISK_MARGIN:
        raise DeviceError(
            f"The disk is too full: {free:,} bytes are free, {required + DISK_MARGIN:,} are "
            "required.",
            hint="Free disk space on the device. To remove its old versions, deploy the bundle "
            "that serves once more, with --keep 1.",
        )
    return offsets


@ends_when_idle
def add_piece(sha256: str, offset: int, size: int, tensors: Tensors) -> bool:
    """:meth:`FileStore.add_piece`, with the bytes in the array ``piece``."""
    store: FileStore = state["store"]
    return store.add_piece(sha256, offset, tensors["piece"].tobytes(), size)


@ends_when_idle
def assemble_bundle(files: dict[str, str]) -> str:
    """The folder of the cached bundle of ``files`` (path: SHA-256), verified."""
    store: FileStore = state["store"]
    folder = store.root / "bundle"
    try:
        # Another process may be using an intact bundle.
        bundle = Bundle.open(folder)
        if bundle.file_hashes() == files:
            return str(folder)
    except (BundleError, UnsafeModelError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    store.assemble(folder, files)
    Bundle.open(folder)
    return str(folder)


@ends_when_idle
def assemble_files(files: dict[str, str]) -> str:
    """The folder with ``files`` (path: SHA-256), which need not be those of a bundle."""
    store: FileStore = state["store"]
    folder = store.root / "files"
    shutil.rmtree(folder, ignore_errors=True)
    store.assemble(folder, files)
    return str(folder)
