"""Hosts reached over ssh, through the system's own OpenSSH client.

Every connection checks the host key, never prompts for a password and forwards nothing, whatever
``~/.ssh/config`` sets; user, port, key and proxy are taken from it. A command that runs on a host
is made of fixed strings; the only user input in it is a path, which is quoted.

The system's client is used, not a Python library, because it supports every key, agent and jump
host that the user has configured. It must be OpenSSH 7.6 or newer; the device needs an sshd, ``sh``
and ``python3``.
"""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgeattn.errors import DeviceError, UsageError
from edgeattn.process.streams import OutputTooLongError, run_bounded
from edgeattn.process.worker import Worker

# USER@HOST as ssh accepts it, or ssh://USER@HOST:PORT. Neither part may begin with a hyphen: ssh
# would read it as an option.
_NAME = r"[A-Za-z0-9_][\w.%+-]*"
_HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.%\w]+\]|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+)"
_DESTINATION = re.compile(rf"(?:{_NAME}@)?{_HOST}|ssh://(?:{_NAME}@)?{_HOST}(?::\d+)?/?", re.ASCII)

# The virtual environment of `edgeattn deploy --install` and docs/device.md, in the home folder.
ENVIRONMENT = "edge"

OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    # A lost connection is detected within a minute.
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
}
# Seconds for which the first connection stays open for later ones.
PERSIST = 30
# Bytes of output of a command, and of the arrays in a reply, that a device may send.
MAX_OUTPUT = 16 * 2**20
MAX_ARRAYS = 2**30
INSTALL_SSH = "Install the OpenSSH client: sudo apt install openssh-client"

# A part of an error message of ssh or of the device's shell, and the hint to give for it.
_HINTS = (
    (
        "Host key verification failed",
        "Connect once with `ssh {destination}`, and compare the key it shows with the output of "
        "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the device: the key is unknown or "
        "has changed.",
    ),
    ("Permission denied", "Copy your public key to the device: ssh-copy-id {destination}"),
    (
        "Could not resolve hostname",
        "Check the host name and that the device is switched on, or use its IP address.",
    ),
    (
        "Connection refused",
        "Enable ssh on the device: sudo raspi-config, Interface Options, SSH.",
    ),
    ("Connection timed out", "Check that the device is switched on and in the same network."),
    ("No route to host", "Check that the device is switched on and in the same network."),
    ("No module named", "Install edgeattn on it: edgeattn deploy BUNDLE {destination} --install"),
    ("unknown option -P", "Install Python 3.11 or newer on the device."),
    ("Unknown option: -P", "Install Python 3.11 or newer on the device."),
    ("not found", "Install Python on the device: sudo apt install python3"),
)

# Reads a script of the announced length from standard input, and leaves the rest to the script:
# through the device's shell goes only this line.
_LOADER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode())"


@dataclass(frozen=True)
class SSHHost:
    """A machine reached over ssh. ``options`` are further ssh arguments, such as ``-F FILE``."""

    destination: str
    options: tuple[str, ...] = ()
    program: str = "ssh"

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The local command that runs ``arguments`` on the host."""
        return self._shell_command(shlex.join(arguments))

    def python_command(self, python: str | None, *arguments: str) -> tuple[str, ...]:
        """The local command that runs ``python`` on the host with ``arguments``.

        ``python`` is a path on the host, relative to the home folder or absolute, or the name of a
        command. By default, the Python of the virtual environment ``~/edge`` is used if it exists,
        otherwise ``python3``. The home folder is ``$HOME``: ssh may start in another folder.
        """
        joined = shlex.join(arguments)
        if python is not None:
            # In quotes, the shell expands no tilde.
            in_home = "/" in python and not python.startswith("/")
            path = ('"$HOME"/' if in_home else "") + shlex.quote(python.removeprefix("~/"))
            return self._shell_command(f"exec {path} {joined}")
        own = f'"$HOME"/{ENVIRONMENT}/bin/python'
        # One quoted argument of sh, so that it does not depend on the syntax of the login shell.
        script = f"if [ -x {own} ]; then exec {own} {joined}; else exec python3 {joined}; fi"
        return self.command("sh", "-c", script)

    def run(
        self, command: Sequence[str], *, data: bytes | None = None, timeout: float = 120
    ) -> bytes:
        """Run a command of :meth:`command` or :meth:`python_command`; returns its standard output.

        ``data`` is its standard input, ``timeout`` is in seconds. Raises :class:`DeviceError` if it
        fails or times out.
        """
        try:
            status, output, errors = run_bounded(command, data, timeout=timeout, limit=MAX_OUTPUT)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"{self.destination} did not respond within {timeout:g} s."
            ) from error
        except OutputTooLongError as error:
            raise DeviceError(
                f"{self.destination} sent more than {MAX_OUTPUT:,} bytes.",
                hint="Check that its login shell prints nothing in non-interactive sessions.",
            ) from error
        except OSError as error:
            raise DeviceError(f"ssh could not be started: {error}", hint=INSTALL_SSH) from error
        if status:
            raise self.error_from(errors, status)
        return output

    def run_script(
        self,
        package: str,
        name: str,
        *,
        python: str | None = None,
        data: bytes = b"",
        timeout: float = 120,
    ) -> Any:
        """Run the file ``name`` of ``package`` on the host; returns the JSON in its last line.

        The script needs no edgeattn on the host, and reads ``data`` from its standard input.
        Raises :class:`DeviceError` if it fails, times out or prints no JSON.
        """
        code = resources.files(package).joinpath(name).read_bytes()
        output = self.run(
            self.python_command(python, "-c", _LOADER),
            data=b"%d\n%s%s" % (len(code), code, data),
            timeout=timeout,
        )
        try:
            # A login script may have printed lines before it.
            return json.loads(output.decode().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise DeviceError(
                f"{self.destination}: unexpected output of {name}.",
                hint="Check that its login shell prints nothing in non-interactive sessions.",
            ) from error

    def error_from(self, output: str, status: int | None = None) -> DeviceError:
        """The error for what ssh or the host's shell printed before it ended with ``status``."""
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        for sign, hint in _HINTS:
            match = next((line for line in lines if sign in line), None)
            if match is not None:
                return DeviceError(
                    f"{self.destination}: {match}", hint=hint.format(destination=self.destination)
                )
        last = lines[-1] if lines else f"ssh ended with exit status {status}"
        return DeviceError(
            f"{self.destination}: {last}",
            hint=f"Check that this works: ssh {self.destination} true",
        )

    def _shell_command(self, script: str) -> tuple[str, ...]:
        fixed = [part for key, value in OPTIONS.items() for part in ("-o", f"{key}={value}")]
        return (self.program, "-T", *self.options, *fixed, "--", self.destination, script)


def parse_destination(destination: str) -> str:
    """``destination`` unchanged; raises :class:`UsageError` if ssh could misread it."""
    if not _DESTINATION.fullmatch(destination):
        raise UsageError(
            f"Not a host that ssh can reach: {destination!r}.",
            hint="Pass USER@HOST, ssh://USER@HOST:PORT or a host name of your ~/.ssh/config.",
        )
    return destination


@contextlib.contextmanager
def connect(destination: str, config: Path | None = None) -> Iterator[SSHHost]:
    """A host whose connections share one TCP connection within this context.

    ``config`` replaces ``~/.ssh/config``. Raises :class:`UsageError` if ``destination`` or
    ``config`` is invalid, and :class:`DeviceError` if this machine has no ssh.
    """
    parse_destination(destination)
    program = shutil.which("ssh")
    if program is None:
        raise DeviceError("This machine has no ssh.", hint=INSTALL_SSH)
    options: tuple[str, ...] = ()
    if config is not None:
        if not config.is_file():
            raise UsageError(f"No such file: {config}")
        options = ("-F", str(config.absolute()))
    # In /tmp, because the path of a socket is limited to about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="edgeattn-", dir="/tmp") as folder:
        shared = (
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C"),
            *("-o", f"ControlPersist={PERSIST}"),
        )
        try:
            yield SSHHost(destination, (*options, *shared), program)
        finally:
            disconnect = (program, *options, *shared, "-O", "exit", "--", destination)
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(disconnect, capture_output=True, check=False, timeout=10)


def worker_on(host: SSHHost, python: str | None = None) -> Worker:
    """A worker process on ``host``, which needs edgeattn; it starts with its first call."""
    command = host.python_command(python, "-P", "-m", "edgeattn.child")
    return Worker(command=command, max_arrays=MAX_ARRAYS)


def system_snapshot(host: SSHHost, python: str | None = None) -> dict[str, Any]:
    """The output of ``on_device/system_snapshot.py``, for which the host needs no edgeattn."""
    from edgeattn.device.info import KERNEL_FILES

    snapshot: dict[str, Any] = host.run_script(
        "edgeattn.targets.on_device",
        "system_snapshot.py",
        python=python,
        data=json.dumps(KERNEL_FILES).encode() + b"\n",
    )
    return snapshot
