"""A real sshd on this machine's loopback, whose users find themselves where they are put.

It has a key of its own, thrown away with its folder, listens on a free high port of 127.0.0.1, lets
in one throw-away key and nobody else, and hands every command on, to an emulated root say. Where
there is no sshd, Debian's is unpacked into the cache and run from there: nothing is installed, no
service starts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emulated import CACHE, CannotEmulate, Place, _ask

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
# What it needs beyond what every Debian has.
PACKAGES = ("openssh-server", "libwrap0", "libnsl2", "libtirpc3")
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/allowed
PidFile {folder}/sshd.pid
AuthenticationMethods publickey
PasswordAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
AllowTcpForwarding no
X11Forwarding no
ForceCommand {folder}/enter
"""
# As root it wants a folder and a user of the system's: given in a namespace that ends with it.
AS_ROOT = """
set -e
folder=$1; shift
mkdir -p "$folder/run/sshd"; chmod 755 "$folder/run/sshd"
cat /etc/passwd > "$folder/passwd"
user=sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin
grep -q ^sshd: "$folder/passwd" || echo "$user" >> "$folder/passwd"
mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/run" /run
exec "$@"
"""


@dataclass(frozen=True)
class Door:
    """How to get in: the host for ssh, and the file that stands in for ``~/.ssh/config``."""

    host: str
    config: Path
    log: Path


def shell_of(place: Place) -> list[str]:
    """What runs a command in ``place``.

    As on a Pi, modules are compiled once: emulated, importing NumPy costs seconds otherwise.
    """
    return place.command("env", "-u", "PYTHONDONTWRITEBYTECODE", "sh", "-c")


@contextlib.contextmanager
def open_door(shell: Sequence[str], name: str = "raspberrypi") -> Iterator[Door]:
    """An sshd that appends each command to ``shell``; :class:`CannotEmulate` where none runs.

    It ends with the block.
    """
    sshd, environment = _sshd()
    # Not under pytest's folder: sshd wants short paths, and every part of them its owner's.
    with tempfile.TemporaryDirectory(prefix="edgeattn-sshd-") as text:
        folder = Path(text)
        for key in ("host", "user"):
            _ask(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", f"{text}/{key}"])
        shutil.copy(folder / "user.pub", folder / "allowed")
        entering = f'exec {shlex.join(shell)} "$SSH_ORIGINAL_COMMAND"'
        (folder / "enter").write_text(f"#!/bin/sh\n{entering}\n")
        (folder / "enter").chmod(0o755)
        port = _free_port()
        (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
        user = _ask(["id", "-un"]).strip()
        (folder / "config").write_text(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile none\n"
        )
        key = (folder / "host.pub").read_text().split()[:2]
        (folder / "known").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
        before = ["unshare", "-m", "sh", "-c", AS_ROOT, "sshd", text] if os.geteuid() == 0 else []
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*before, sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        try:
            _wait_for(port, process, folder / "log")
            yield Door(name, folder / "config", folder / "log")
        finally:
            process.terminate()
            process.wait(timeout=30)


def _sshd() -> tuple[str, dict[str, str]]:
    """The path of an sshd, and what its environment needs."""
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            raise CannotEmulate(f"there is no {tool} here: install openssh-client")
    found = shutil.which("sshd", path=SYSTEM)
    if found is not None:
        return found, {}
    root = CACHE / "sshd"
    if not root.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".sshd-", dir=CACHE))
        try:
            _ask(["apt-get", "download", "-qq", *PACKAGES], cwd=aside)
            for package in aside.glob("*.deb"):
                _ask(["dpkg-deb", "-x", str(package), str(aside)])
            aside.rename(root)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    libraries = ":".join(
        str(p) for p in [*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")]
    )
    return str(root / "usr/sbin/sshd"), {"LD_LIBRARY_PATH": libraries}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text("utf-8", "replace").strip().splitlines()
            raise CannotEmulate(
                f"sshd does not run here: {said[-1] if said else 'it says nothing'}"
            )
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise CannotEmulate("sshd does not answer here")
