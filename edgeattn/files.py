"""Files and folders that are written completely or not at all.

All functions write beside the target and rename at the end. If an error ends the work early (a
full disk or Ctrl-C, for example), the target is unchanged and nothing else remains. A process that
is killed leaves hidden files named ``.NAME.*edgeattn``; the next write to the same target removes
them. Locks, which the system releases when a process ends, show whether they are in use.
"""

import contextlib
import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgeattn.errors import OutputError, OutputInUseError

_SUFFIX, _LOCK, _OLD = ".edgeattn", "lock", "old"
# From fcntl.h and stdio.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# More attempts than other processes can spoil by removing the folder, unless the system refuses it.
_ATTEMPTS = 100


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless it exists.

    Other processes may remove it, or its parents, at any time: ``Path.mkdir`` raises an error if
    that happens between two of its calls of the system. Raises :class:`OSError` if the folder
    cannot be created.
    """
    for _ in range(_ATTEMPTS):
        try:
            return folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            refusal: OSError = error
        except FileExistsError as error:
            if os.path.lexists(error.filename):
                raise
            refusal = error
    raise refusal


@contextlib.contextmanager
def atomic_write(
    target: Path, *, parents: bool = False, hint: str | None = None
) -> Iterator[IO[bytes]]:
    """Yield a binary file that replaces ``target`` when the block ends without an error.

    With ``parents``, missing folders are created. Raises :class:`OutputError`, with ``hint``, if
    the file cannot be written.
    """
    folder = target.absolute().parent
    try:
        if parents:
            make_folder(folder)
        _remove_abandoned(target)
        with _locked_temporary(target) as file:
            temporary = Path(file.name)
            try:
                yield file
                file.flush()
                temporary.chmod(0o666 & ~_umask())
                temporary.rename(target)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror or error}", hint=hint) from error


def _locked_temporary(target: Path) -> IO[bytes]:
    """A new file beside ``target`` that is locked until it is closed."""
    while True:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by the caller
            prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.absolute().parent, delete=False
        )
        try:
            # Another process may have taken it for an abandoned one before it was locked.
            if try_lock(file.fileno()) is not False and is_at(file.fileno(), Path(file.name)):
                return file
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            file.close()
            raise
        file.close()


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files of ``target`` whose processes have died."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.\w{{8}}{re.escape(_SUFFIX)}")
    with contextlib.suppress(OSError), os.scandir(target.absolute().parent) as entries:
        for entry in [e for e in entries if pattern.fullmatch(e.name)]:
            with contextlib.suppress(OSError):
                handle = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    if try_lock(handle) and is_at(handle, Path(entry.path)):
                        Path(entry.path).unlink()
                finally:
                    os.close(handle)


def remove(target: Path) -> None:
    """Remove a file, and what killed processes left of it, if possible."""
    _remove_abandoned(target)
    with contextlib.suppress(OSError):
        target.unlink(missing_ok=True)


def require_new(target: Path, *, force: bool) -> None:
    """Raise :class:`OutputError` if the file exists and is not to be replaced by ``force``."""
    if target.exists() and (not force or not target.is_file()):
        raise OutputError(
            f"The output file exists: {target}", hint="Replace it with --force, or use -o FILE."
        )


def check_suffix(target: Path | None, *suffixes: str) -> None:
    """Raise :class:`OutputError` if a file of one format would get the suffix of another."""
    if target is not None and target.suffix and target.suffix.lower() not in suffixes:
        raise OutputError(
            f"{target} would be a {suffixes[0]} file with another suffix.",
            hint=f"Choose a name that ends in {suffixes[0]}.",
        )


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file; see :func:`atomic_write`."""
    with atomic_write(target) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``target`` when the block ends without an error.

    Missing parents of ``target`` are created, and removed again after an error. Raises
    :class:`OSError` if the folder cannot be created or renamed, and :class:`OutputInUseError` if
    another process is writing to ``target``.
    """
    with reserved(target) as workspace, new_folder(workspace, target) as folder:
        yield folder


@contextlib.contextmanager
def reserved(target: Path, *, wait: bool = False) -> Iterator[Path]:
    """Yield a hidden folder beside ``target`` that no other process has at the same time.

    It is removed at the end. If a process was killed while it replaced ``target``, the old content
    of ``target`` is restored first. If another process has the folder, this waits for it with
    ``wait`` and otherwise raises :class:`OutputInUseError`.
    """
    target = target.absolute()
    parents = [folder for folder in target.parents if not folder.exists()]
    reservation: tuple[Path, int] | None = None
    try:
        reservation = _reserve(target, wait=wait)
        _clear(reservation[0], target)
        yield reservation[0]
    finally:
        if reservation is not None:
            workspace, lock = reservation
            _clear(workspace, target)
            # Only while it is locked: another process may create it again.
            (workspace / _LOCK).unlink(missing_ok=True)
            os.close(lock)
            parents.insert(0, workspace)
        # Folders that hold something stay.
        with contextlib.suppress(OSError):
            for folder in parents:
                folder.rmdir()


def hidden_folder(target: Path) -> Path:
    """The folder of :func:`reserved`: it is in use, or a killed process left it."""
    return target.with_name(f".{target.name}{_SUFFIX}")


def _reserve(target: Path, *, wait: bool) -> tuple[Path, int]:
    """The hidden folder and the descriptor of the locked file in it."""
    workspace = hidden_folder(target)
    while True:
        make_folder(workspace)
        path, flags = workspace / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        try:
            handle = os.open(path, flags, 0o600)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        locked = try_lock(handle, wait=wait)
        if locked and is_at(handle, path):
            return workspace, handle
        os.close(handle)
        if locked is None:
            # Without locks nothing shows what is in use, so processes share nothing.
            workspace = Path(tempfile.mkdtemp(prefix=f"{workspace.name}.", dir=target.parent))
            return workspace, os.open(workspace / _LOCK, flags, 0o600)
        if not locked:
            raise OutputInUseError(
                f"Another process is writing {target}.",
                hint="Wait until it has ended, or choose another output with -o.",
            )


def _clear(workspace: Path, target: Path) -> None:
    """Remove everything but the lock; restore ``target`` if it was lost between two renames."""
    for path in list(workspace.iterdir()):
        if path.name == _OLD and not os.path.lexists(target):
            path.rename(target)
        elif path.name != _LOCK:
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def new_folder(workspace: Path, target: Path) -> Iterator[Path]:
    """Yield a folder in a :func:`reserved` one that replaces ``target`` at the end."""
    # A new name each time: a worker of a killed process may not have ended yet.
    temporary = Path(tempfile.mkdtemp(prefix="new-", dir=workspace))
    yield temporary
    temporary.chmod(0o777 & ~_umask())
    if not target.exists():
        temporary.rename(target)
    elif not _exchange(temporary, target):
        # reserved() restores the old folder, also after Ctrl-C between the two renames.
        target.rename(workspace / _OLD)
        temporary.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step, if the system and the file system can."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    paths = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return int(rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)) == 0


def try_lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Lock an open file until it is closed; False if another process has locked it.

    None if the file system has no locks.
    """
    try:
        import fcntl

        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether ``path`` still is the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # FAT, among others, does not support this for folders.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
