"""Other machines over ssh: the system's own OpenSSH, told to check and to ask nobody.

A host's key must be known, no password is asked for and nothing of the agent's is passed on,
whatever ``~/.ssh/config`` says; user, port, key and proxy come from there. What is run on a host is
built of fixed words: a path is the only thing of the user's among them, and it is quoted.

The host's machine needs ``ssh`` 7.6 or newer; the device an sshd, ``sh`` and a ``python3``.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.errors import DeviceError, UsageError
from edgeattn.process.worker import TAIL, Worker

# USER@HOST as ssh takes it, or ssh://USER@HOST:PORT. Neither part may begin with a hyphen: ssh
# would read it as an option.
_NAME = r"[A-Za-z0-9_][\w.%+-]*"
_HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.%\w]+\]|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+)"
_DESTINATION = re.compile(rf"(?:{_NAME}@)?{_HOST}|ssh://(?:{_NAME}@)?{_HOST}(?::\d+)?/?", re.ASCII)

# Where `edgeattn deploy --install` puts what a device needs, and where it is looked for: the
# environment of docs/device.md, beside whatever python3 the device has.
ENVIRONMENT = "edge"

OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    # A dead link is noticed within a minute.
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
# The first connection stays open for the next ones this many seconds.
PERSIST = 30

# What ssh says, and what to do about it.
_ADVICE = (
    (
        "Host key verification failed",
        "Its key is unknown here, or another one than before. Connect once by hand with "
        "`ssh {destination}` and compare the key with what `ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub` says there.",
    ),
    (
        "Permission denied",
        "Nobody is asked for a password. Give it your key with: ssh-copy-id {destination}",
    ),
    (
        "Could not resolve hostname",
        "Is the name right, and the device on? Its address works as well.",
    ),
    ("Connection refused", "Is ssh switched on there? sudo raspi-config, Interface Options, SSH."),
    ("Connection timed out", "Is the device on, and in this network?"),
    ("No route to host", "Is the device on, and in this network?"),
    ("No module named", "Install it there with: edgeattn deploy BUNDLE {destination} --install"),
    ("unknown option -P", "edgeattn needs Python 3.11 or newer there."),
    ("Unknown option: -P", "edgeattn needs Python 3.11 or newer there."),
    ("not found", "The device needs a python3: sudo apt install python3"),
)


@dataclass(frozen=True)
class SSHHost:
    """A machine that ssh reaches. ``options`` are further arguments of ssh, such as ``-F FILE``."""

    destination: str
    options: tuple[str, ...] = ()
    program: str = "ssh"

    def command(self, *words: str) -> tuple[str, ...]:
        """What to start here to run ``words`` there, each as one word, from the home folder."""
        return self._shell(shlex.join(words))

    def python(self, python: str | None, *arguments: str) -> tuple[str, ...]:
        """The command that runs ``python`` there with ``arguments``.

        Without one: that of the environment ``~/edge``, or else python3. A path is one of that
        machine, from its user's home folder unless it is absolute.
        """
        words = shlex.join(arguments)
        if python is not None:
            return self._shell(f"exec {shlex.quote(_from_home(python))} {words}")
        own = f"{ENVIRONMENT}/bin/python"
        # Quoted whole, so that it reads the same in shells that are no POSIX ones.
        script = f"if [ -x {own} ]; then exec {own} {words}; else exec python3 {words}; fi"
        return self.command("sh", "-c", script)

    def run(
        self, command: Sequence[str], *, data: bytes | None = None, timeout: float = 120
    ) -> bytes:
        """Standard output of a ``command`` made above; :class:`DeviceError` where it fails."""
        try:
            done = subprocess.run(
                command, input=data, capture_output=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"{self.destination} did not answer within {timeout:g} s.") from error
        except OSError as error:
            raise DeviceError(f"ssh cannot be started: {error}", hint=NEEDS_SSH) from error
        if done.returncode:
            raise self.failed(done.stderr.decode("utf-8", "replace")[-TAIL:], done.returncode)
        return done.stdout

    def failed(self, said: str, status: int | None = None) -> DeviceError:
        """What went wrong with this machine, by what ssh or its shell said."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        for sign, advice in _ADVICE:
            telling = next((line for line in lines if sign in line), None)
            if telling is not None:
                return DeviceError(
                    f"{self.destination}: {telling}",
                    hint=advice.format(destination=self.destination),
                )
        last = lines[-1] if lines else f"ssh ended with exit status {status}"
        return DeviceError(
            f"{self.destination}: {last}", hint=f"Does this work: ssh {self.destination} true"
        )

    def _shell(self, script: str) -> tuple[str, ...]:
        fixed = [word for key, value in OPTIONS.items() for word in ("-o", f"{key}={value}")]
        return (self.program, "-T", *self.options, *fixed, "--", self.destination, script)


NEEDS_SSH = "Install OpenSSH's client: sudo apt install openssh-client"


def parse(destination: str) -> str:
    """``destination`` where it is USER@HOST or ssh://USER@HOST:PORT; else :class:`UsageError`."""
    if not _DESTINATION.fullmatch(destination):
        raise UsageError(
            f"Not a host that ssh can reach: {destination!r}.",
            hint="Give USER@HOST, ssh://USER@HOST:PORT, or a name of your ~/.ssh/config.",
        )
    return destination


@contextlib.contextmanager
def connected(destination: str, config: Path | None = None) -> Iterator[SSHHost]:
    """``destination``, its connections sharing one where this system's ssh can.

    ``config`` stands in for ``~/.ssh/config``. :class:`UsageError` for a destination that is none,
    :class:`DeviceError` where there is no ssh here.
    """
    parse(destination)
    program = shutil.which("ssh")
    if program is None:
        raise DeviceError("There is no ssh here.", hint=NEEDS_SSH)
    options: tuple[str, ...] = ()
    if config is not None:
        if not config.is_file():
            raise UsageError(f"No such file: {config}")
        options = ("-F", str(config.absolute()))
    # A socket's path is short, or it is none: /tmp, not a TMPDIR of many folders.
    with tempfile.TemporaryDirectory(prefix="edgeattn-", dir="/tmp") as folder:
        shared = (
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C"),
            *("-o", f"ControlPersist={PERSIST}"),
        )
        try:
            yield SSHHost(destination, (*options, *shared), program)
        finally:
            end = (program, *options, *shared, "-O", "exit", "--", destination)
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(end, capture_output=True, check=False, timeout=10)


def worker_on(remote: SSHHost, python: str | None = None) -> Worker:
    """A child process there; it starts at its first call."""
    return Worker(command=remote.python(python, "-P", "-m", "edgeattn.child"))


# What a device is asked before anything is known of it: a Python of any age answers.
LOOK = """
import glob, json, os, platform, shutil, subprocess, sys
def text(name):
    try:
        with open(name, "rb") as file:
            return file.read(1 << 16).decode("utf-8", "replace")
    except (IOError, OSError):
        return None
names = FILES
found = {}
for name in sum((sorted(glob.glob("/" + pattern)) for pattern in names), []):
    said = text(name)
    if said is not None:
        found[name[1:]] = said
firmware = None
try:
    firmware = subprocess.check_output(["vcgencmd", "get_throttled"], timeout=5).decode()
except Exception:
    pass
def there(module):
    try:
        __import__(module)
        return True
    except Exception:
        return False
print(json.dumps({
    "files": found,
    "firmware": firmware,
    "machine": platform.machine(),
    "bits": 64 if sys.maxsize > 2 ** 32 else 32,
    "version": list(sys.version_info[:2]),
    "python": platform.python_version(),
    "libc": " ".join(platform.libc_ver()),
    "cores": os.cpu_count(),
    "free_bytes": shutil.disk_usage(".").free,
    "venv": there("venv") and there("ensurepip"),
}))
"""


def look(remote: SSHHost, python: str | None = None) -> dict[str, Any]:
    """What a machine says of itself without edgeattn: the kernel's files and its Python."""
    from edgeattn.device.info import KERNEL_FILES

    script = LOOK.replace("FILES", repr(KERNEL_FILES))
    # On standard input: a shell's words and a screenful of code do not go together.
    said = remote.run(remote.python(python, "-"), data=script.encode())
    try:
        # A login script may have printed something first.
        told: dict[str, Any] = json.loads(said.decode().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise DeviceError(
            f"{remote.destination} answered with something that is no answer.",
            hint="Does its shell print something at login that it should not?",
        ) from error
    return told


def _from_home(path: str) -> str:
    """``path`` as seen from the home folder, where ssh starts: quoted, a tilde means nothing."""
    return path.removeprefix("~/")
