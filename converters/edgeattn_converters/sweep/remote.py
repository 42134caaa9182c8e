"""Files at fsspec URLs: local paths, http, s3, sftp and others.

A store that fails for a while is tried again, with growing pauses; a missing file and a refused
access are errors at once.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs

from edgeattn.errors import EdgeattnError, UsageError

Result = TypeVar("Result")
# Seconds between attempts, in all a minute and a half.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
_BLOCK = 1 << 20
# Status codes of HTTP servers that refuse a request.
_DENIED = (401, 403, 405, 501)
# Errors that a second attempt would repeat.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class StoreError(EdgeattnError):
    """A store that did not respond to any attempt."""

    exit_code = 5


@dataclass(frozen=True)
class RemoteFile:
    """A file or folder at a URL, and the SHA-256 of its content."""

    url: str
    name: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @property
    def identity(self) -> list[str]:
        """What results depend on: the name, which reports contain, and the content."""
        return [self.name, self.sha256]


def attempt(url: str, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """``function(...)``, repeated while the store at ``url`` fails.

    Raises :class:`StoreError` at the end. A missing file raises :class:`FileNotFoundError`, and a
    refused access :class:`UsageError`.
    """
    for pause in (*PAUSES_S, None):
        try:
            return function(*arguments, **options)
        except Exception as error:
            refused = isinstance(error, PermissionError) or _is_authentication(error)
            if refused or getattr(error, "status", 0) in _DENIED:
                raise UsageError(
                    f"Access to {url} is denied: {error}", hint="Check the rights and credentials."
                ) from error
            # Clients of HTTP and object stores have classes of their own for lost connections.
            foreign = type(error).__module__.split(".")[0] in ("aiohttp", "botocore", "paramiko")
            passing = foreign or (isinstance(error, OSError) and not is_local(url))
            if isinstance(error, _FINAL) or not passing:
                raise
            if pause is None:
                raise StoreError(
                    f"{url} does not respond: {type(error).__name__}: {error}",
                    hint="Rerun the command when the store responds, to resume.",
                ) from error
            time.sleep(pause)
    raise AssertionError


def _is_authentication(error: Exception) -> bool:
    """Whether a client of SFTP, which may not be installed, was refused."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"AuthenticationException", "BadHostKeyException"})


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Raises :class:`UsageError` if unknown."""
    try:
        options: dict[str, Any] = {}
        if "sftp://" in url or "ssh://" in url:
            from edgeattn_converters.sweep.host_keys import options_of

            options = options_of(url)
        # Clients of some stores connect here.
        filesystem, path = attempt(url, url_to_fs, url, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"{url} cannot be opened: {error}",
            hint="Pass a path, or a URL whose fsspec package is installed.",
        ) from error
    return filesystem, path


def is_url(text: str) -> bool:
    return "://" in text


def is_local(url: str) -> bool:
    """Whether only machines with the same disk can open ``url``."""
    return not is_url(url) or url.startswith(("file://", "local://"))


def local_path(url: str) -> Path:
    """The path of a local URL."""
    return Path(url.partition("://")[2] if is_url(url) else url)


def resolve(url: str, base: str) -> str:
    """``url``, relative to the folder ``base`` if it is no absolute one."""
    if is_url(url):
        return url
    if is_local(base):
        return os.path.normpath(local_path(base).absolute() / url)
    return url if url.startswith("/") else f"{base.rstrip('/')}/{url}"


def folder_of(url: str) -> str:
    return url.rstrip("/").rpartition("/")[0]


def name_of(url: str) -> str:
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


def read(url: str) -> bytes:
    """The content of a file. Raises :class:`FileNotFoundError` if it is missing."""
    filesystem, path = open_url(url)
    content: bytes = attempt(url, filesystem.cat_file, path)
    return content


def expand(url: str) -> list[str]:
    """The URLs that match a pattern with ``*``, ``?`` or ``[]``, sorted; or ``url`` itself."""
    if not any(character in url for character in "*?[") or url.startswith(("http://", "https://")):
        return [url]
    filesystem, path = open_url(url)
    matches = sorted(attempt(url, filesystem.glob, path))
    # The host and the user are no part of a path.
    return matches if is_local(url) else [url.removesuffix(path) + item for item in matches]


def describe(url: str) -> RemoteFile:
    """The name and the SHA-256 of a file or folder. Raises :class:`FileNotFoundError`."""
    filesystem, path = open_url(url)
    digest = hashlib.sha256()
    for relative, file in _files(url, filesystem, path):
        if relative:
            digest.update(f"{relative}\0{attempt(url, filesystem.size, file)}\0".encode())
        digest = attempt(url, _hash_into, digest.copy(), filesystem, file)
    return RemoteFile(url, name_of(url), digest.hexdigest())


def _hash_into(digest: Any, filesystem: Any, path: str) -> Any:
    with filesystem.open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest


def _files(url: str, filesystem: Any, path: str) -> Iterator[tuple[str, str]]:
    """The files of a folder and their names in it, sorted; or one file, without a name."""
    if is_url(url) and url.startswith("http"):
        yield "", path
        return
    if not attempt(url, filesystem.exists, path):
        raise FileNotFoundError(url)
    if not attempt(url, filesystem.isdir, path):
        yield "", path
        return
    for file in sorted(attempt(url, filesystem.find, path)):
        yield file[len(path) :].lstrip("/"), file


def download(file: RemoteFile, folder: Path) -> Path:
    """Copy a file or folder to ``folder``. Raises :class:`UsageError` if its content changed."""
    filesystem, path = open_url(file.url)
    target = folder / file.name
    try:
        for relative, remote in _files(file.url, filesystem, path):
            local = target / relative if relative else target
            local.parent.mkdir(parents=True, exist_ok=True)
            attempt(file.url, filesystem.get_file, remote, str(local))
    except FileNotFoundError as error:
        raise UsageError(f"{file.url} was removed during the sweep.") from error
    if describe(str(target)).sha256 != file.sha256:
        raise UsageError(
            f"{file.url} changed during the sweep.", hint="Rerun the command to use the new file."
        )
    return target
