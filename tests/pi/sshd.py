"""A real sshd on the loopback interface, which passes commands on, for example to an emulated root.

It listens on a free port of 127.0.0.1 and accepts one key; host key and user key are temporary. If
no sshd is installed, Debian's is unpacked into the cache and run from there, so nothing is
installed and no service is started.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulated import PROJECT, CannotEmulateError, EmulatedPi, debian_packages, run_command

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
# sshd, and libraries that not every Debian has.
PACKAGES = ("openssh-server", "openssh-sftp-server", "libwrap0", "libnsl2", "libtirpc3")
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
Subsystem sftp {sftp}
ForceCommand {folder}/enter
"""
# A module sitecustomize of a board whose process ends when it measures.
DIES_WHILE_IT_MEASURES = """
import os
def compare_on_this_device(**arguments):
    os._exit(9)
import edgeattn.benchmark.comparison
edgeattn.benchmark.comparison.compare_on_this_device = compare_on_this_device
"""
# Run by root, sshd requires a folder and a user of the system; this namespace provides them.
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
class SSHServer:
    """The host name, the file that replaces ``~/.ssh/config``, and the log of sshd."""

    host: str
    config: Path
    log: Path

    @property
    def known_hosts(self) -> Path:
        return self.config.with_name("known")


def shell_of(pi: EmulatedPi) -> list[str]:
    """The command that runs a shell command in ``pi``.

    As on a real Pi, compiled modules are written to disk: importing NumPy takes seconds without.
    """
    return pi.command("env", "-u", "PYTHONDONTWRITEBYTECODE", "sh", "-c")


@contextlib.contextmanager
def local_sshd(home: Path, name: str = "raspberrypi") -> Iterator[SSHServer]:
    """An sshd whose commands run on this machine with the home folder ``home``.

    Skips the test if sshd cannot be started.
    """
    try:
        with running_sshd(["env", "-C", str(home), f"HOME={home}", "sh", "-c"], name) as server:
            yield server
    except CannotEmulateError as reason:
        pytest.skip(str(reason))


def python_on_board(home: Path, name: str = "python", *variables: str) -> str:
    """A program in ``home`` that runs Python with this working tree and environment variables."""
    path = home / name
    search_path = f"PYTHONPATH={PROJECT}:{':'.join(sys.path)}"
    words = ["env", search_path, *variables, sys.executable]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    return str(path)


@contextlib.contextmanager
def running_sshd(shell: Sequence[str], name: str = "raspberrypi") -> Iterator[SSHServer]:
    """An sshd that runs ``shell`` with each command as its last argument, within this context.

    Raises :class:`CannotEmulateError` if sshd cannot be started.
    """
    sshd, environment = _sshd()
    # Not in pytest's folder: sshd requires short paths whose folders all belong to its user.
    with tempfile.TemporaryDirectory(prefix="edgeattn-sshd-") as text:
        folder = Path(text)
        for key in ("host", "user"):
            run_command(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", f"{text}/{key}"]
            )
        shutil.copy(folder / "user.pub", folder / "allowed")
        command = f'exec {shlex.join(shell)} "$SSH_ORIGINAL_COMMAND"'
        (folder / "enter").write_text(f"#!/bin/sh\n{command}\n")
        (folder / "enter").chmod(0o755)
        port = _free_port()
        (folder / "sshd_config").write_text(
            CONFIG.format(port=port, folder=folder, sftp=_sftp_server(sshd))
        )
        user = run_command(["id", "-un"]).strip()
        (folder / "config").write_text(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile none\n"
        )
        key = (folder / "host.pub").read_text().split()[:2]
        (folder / "known").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
        prefix = ["unshare", "-m", "sh", "-c", AS_ROOT, "sshd", text] if os.geteuid() == 0 else []
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        try:
            _wait_for(port, process, folder / "log")
            yield SSHServer(name, folder / "config", folder / "log")
        finally:
            process.terminate()
            process.wait()


def _sshd() -> tuple[str, dict[str, str]]:
    """The path of an sshd, and environment variables for it."""
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            raise CannotEmulateError(f"{tool} is not installed; install openssh-client")
    path = shutil.which("sshd", path=SYSTEM)
    if path is not None:
        return path, {}
    root = debian_packages("openssh", *PACKAGES)
    libraries = ":".join(
        str(p) for p in [*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")]
    )
    return str(root / "usr/sbin/sshd"), {"LD_LIBRARY_PATH": libraries}


def _sftp_server(sshd: str) -> Path:
    """The program that serves files, which Debian has in the same package tree."""
    return Path(sshd).parents[1] / "lib" / "openssh" / "sftp-server"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    raise CannotEmulateError(f"sshd does not start: {lines[-1] if lines else 'no output'}")
