"""Keys of SFTP servers, which must be among the known hosts of ssh.

The client of fsspec knows no hosts by itself, and accepts any key by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import paramiko
from fsspec.implementations.sftp import SFTPFileSystem
from packaging.version import Version
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from edgeattn.errors import UsageError

# The defaults of OpenSSH; the first one is what ssh writes to.
FILES = (
    *("~/.ssh/known_hosts", "~/.ssh/known_hosts2"),
    *("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"),
)
# The first one whose client takes a policy for host keys.
REQUIRED = "2026.9.0"
_PROTOCOL = re.compile(r"(?:^|::)(sftp|ssh)://")


class KnownHosts(paramiko.MissingHostKeyPolicy):
    """Accepts a key that is in a file of known hosts, and no other.

    Lines with patterns or ``@cert-authority`` match no host; a key in a line with ``@revoked`` is
    accepted for no host.
    """

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        """Raise :class:`UsageError` unless ``key`` is known for ``hostname``.

        ``hostname`` is HOST, or [HOST]:PORT for another port than 22.
        """
        try:
            _check(hostname, key)
        except UsageError:
            # Otherwise the thread of the connection would remain.
            client.close()
            raise


def _check(hostname: str, key: paramiko.PKey) -> None:
    files = [path for path in (Path(name).expanduser() for name in FILES) if path.is_file()]
    if any(key.get_base64() in _revoked(path) for path in files):
        raise UsageError(
            f"The key of {hostname} was revoked: {key.fingerprint}.",
            hint="Ask the administrator of the server for its new key.",
        )
    known = [(path, other) for path in files for other in _keys(path, hostname)]
    if any(key.asbytes() == other.asbytes() for _, other in known):
        return
    accept = f"Compare it with that of the server, then accept it: {_ssh(hostname)}"
    for path, other in known:
        if other.get_name() == key.get_name():
            raise UsageError(
                f"The key of {hostname} has changed: it is {key.fingerprint}, and {path} has "
                f"{other.fingerprint}. Someone may be intercepting the connection.",
                hint="If the server has a new key, remove the old one: "
                f"ssh-keygen -f {path} -R '{hostname}'. {accept}",
            )
    raise UsageError(
        f"The key of {hostname} is not among the known hosts of ssh: {key.get_name()} "
        f"{key.fingerprint}.",
        hint=accept,
    )


def options_of(url: str) -> dict[str, Any]:
    """Arguments of ``url_to_fs`` with which SFTP servers in ``url`` are checked, also in a chain.

    The policy that a user has configured in fsspec takes precedence.
    Raises :class:`UsageError` if the installed fsspec cannot check them.
    """
    options: dict[str, Any] = {}
    configured = [fsspec.config.conf.get(protocol, {}) for protocol in SFTPFileSystem.protocol]
    if any("host_key_policy" in item for item in configured):
        return options
    for protocol in _PROTOCOL.findall(url):
        # Another client of ssh:// has policies of its own.
        if fsspec.get_filesystem_class(protocol) is SFTPFileSystem:
            if Version(fsspec.__version__) < Version(REQUIRED):
                raise UsageError(
                    f"{url}: fsspec {fsspec.__version__} accepts the key of any host.",
                    hint=f"Install another one: pip install 'fsspec>={REQUIRED}'",
                )
            options[protocol] = {"host_key_policy": KnownHosts}
    return options


def _keys(path: Path, hostname: str) -> Iterator[paramiko.PKey]:
    """The keys of a host in one file. Lines that cannot be read have none, as in ssh."""
    for line in _lines(path):
        try:
            entry = HostKeyEntry.from_line(line)
        except (InvalidHostKey, paramiko.SSHException):
            continue
        if entry is not None and not line.startswith(("#", "@")):
            # One line at a time: a host may have several keys of one type.
            keys = paramiko.HostKeys()
            for name in entry.hostnames:
                keys.add(name, entry.key.get_name(), entry.key)
            if keys.check(hostname, entry.key):
                yield entry.key


def _revoked(path: Path) -> Iterator[str]:
    for line in _lines(path):
        words = line.split()
        if words[:1] == ["@revoked"] and len(words) > 3:
            yield words[3]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]


def _ssh(hostname: str) -> str:
    """The command that shows the key of a host and asks whether to accept it."""
    match = re.fullmatch(r"\[(.*)\]:(\d+)", hostname)
    return f"ssh {hostname}" if match is None else f"ssh -p {match[2]} {match[1]}"
