"""The light half onto a device that may have no internet: ``edgeattn deploy --install``.

The wheels are gathered here, for the device's Python and machine: edgeattn itself out of the files
of this very edgeattn, what it needs through this machine's pip. Those that the device lacks are
sent; there, its own pip installs them into ``~/edge`` without asking any index. Nothing is compiled
on either machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.pack import EARLIEST_DATE
from edgeattn.device.info import wheel_machine
from edgeattn.device.wheels import RUNTIME_WHEELS, wheel_incompatibility
from edgeattn.errors import DeviceError
from edgeattn.targets.ssh import ENVIRONMENT, SSHHost

NAME = "edgeattn"
OLDEST = (3, 11)
PATIENCE = 1800.0
# Reads the script that follows, so that no more than a line goes through the device's shell.
_LOADER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode())"
# What was installed is written down last, and believed where it can still be imported.
_HAVE = """
import hashlib, json, os, subprocess
folder = os.path.expanduser("~/.cache/edgeattn/wheels")
found = {}
for name in os.listdir(folder) if os.path.isdir(folder) else []:
    with open(os.path.join(folder, name), "rb") as file:
        found[name] = hashlib.sha256(file.read()).hexdigest()
home = os.path.expanduser("~/" + "ENVIRONMENT")
installed = None
try:
    with open(os.path.join(home, "edgeattn-installed.json")) as file:
        installed = json.load(file)
    python = os.path.join(home, "bin", "python")
    if subprocess.call([python, "-c", "import click, numpy, edgeattn"]):
        installed = None
except (IOError, OSError, ValueError):
    pass
print(json.dumps({"wheels": found, "installed": installed}))
""".replace("ENVIRONMENT", ENVIRONMENT)
_INSTALL = """
import hashlib, json, os, subprocess, sys
told = json.loads(sys.stdin.buffer.readline().decode())
folder = os.path.expanduser("~/.cache/edgeattn/wheels")
os.makedirs(folder, exist_ok=True)
for item in told["files"]:
    data = sys.stdin.buffer.read(item["bytes"])
    if hashlib.sha256(data).hexdigest() != item["sha256"]:
        sys.exit("a file arrived damaged: " + item["name"])
    aside = os.path.join(folder, ".part")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, os.path.join(folder, item["name"]))
for name in os.listdir(folder):
    if name not in told["names"]:
        os.remove(os.path.join(folder, name))
home = os.path.expanduser("~/" + told["environment"])
python = os.path.join(home, "bin", "python")
def ask(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(done.stdout.decode("utf-8", "replace"))
note = os.path.join(home, "edgeattn-installed.json")
if os.path.exists(note):
    os.remove(note)
if not os.path.exists(os.path.join(home, "bin", "pip")):
    ask(sys.executable, "-m", "venv", "--clear", home)
pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index",
       "--no-compile"]
ask(*(pip + ["--find-links", folder] + told["requirements"]))
ask(*(pip + ["--no-deps", "--force-reinstall", os.path.join(folder, told["own"])]))
with open(note, "w") as file:
    json.dump(told["digests"], file)
"""


def install(
    remote: SSHHost,
    look: Mapping[str, Any],
    wheels: Path | None = None,
) -> int:
    """Install edgeattn and its runtimes into ``~/edge`` of a machine that was looked at.

    ``wheels`` is a folder that has what is needed, for a host without internet. Gives the number of
    bytes that were sent. Raises :class:`DeviceError` where the device cannot have them, or pip
    says so, here or there.
    """
    _check_fits(remote, look)
    with tempfile.TemporaryDirectory(prefix="edgeattn-wheels-") as name:
        folder = Path(name)
        own = light_wheel(folder)
        asked = requirements(look)
        progress.report("gathering wheels")
        gather(folder, asked, look, wheels)
        files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.whl"))}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    there = json.loads(_ask(remote, _HAVE).decode().splitlines()[-1])
    if there["installed"] == digests:
        return 0
    missing = [name for name, digest in digests.items() if there["wheels"].get(name) != digest]
    order = {
        "files": [
            {"name": name, "sha256": digests[name], "bytes": len(files[name])} for name in missing
        ],
        "names": sorted(files),
        "digests": digests,
        "environment": ENVIRONMENT,
        "requirements": asked,
        "own": own.name,
    }
    sent = sum(len(files[name]) for name in missing)
    progress.report(f"sending {sent:,} bytes of wheels and installing them")
    payload = json.dumps(order).encode() + b"\n" + b"".join(files[name] for name in missing)
    _ask(remote, _INSTALL, payload)
    return sent


def _ask(remote: SSHHost, script: str, payload: bytes = b"") -> bytes:
    code = script.encode()
    data = str(len(code)).encode() + b"\n" + code + payload
    # The device's own Python: the environment may be the one that is broken.
    return remote.run(remote.python("python3", "-c", _LOADER), data=data, timeout=PATIENCE)


def _check_fits(remote: SSHHost, look: Mapping[str, Any]) -> None:
    who, version = remote.destination, tuple(look["version"])
    if version < OLDEST:
        raise DeviceError(
            f"{who} has Python {look['python']}, and edgeattn needs 3.{OLDEST[1]} or newer.",
            hint="Raspberry Pi OS has it from Bookworm on.",
        )
    if look["bits"] == 32:
        raise DeviceError(
            f"{who} has a 32-bit system, for which there are no wheels of NumPy to send.",
            hint="Install by hand, see docs/device.md, or use a 64-bit Raspberry Pi OS.",
        )
    if not look["venv"]:
        raise DeviceError(
            f"The Python of {who} cannot make environments.",
            hint="Install that there with: sudo apt install python3-venv",
        )


def requirements(look: Mapping[str, Any]) -> list[str]:
    """What pip is asked for: NumPy, click, and each format's first runtime that fits the device.

    Runtimes are of the versions that are here, where they are: the same code judges on both sides.
    """
    machine = wheel_machine(str(look["machine"]), int(look["bits"]))
    asked = [f"{name}{_specifier(name)}" for name in ("click", "numpy")]
    for format in ("tflite", "onnx"):
        fitting = [
            wheel.distribution
            for wheel in RUNTIME_WHEELS
            if wheel.format == format
            and wheel_incompatibility(wheel, machine, str(look["python"]), str(look["libc"]))
            is None
        ]
        if fitting:
            asked.append(f"{fitting[0]}{_specifier(fitting[0], pinned=True)}")
    return asked


def _specifier(name: str, *, pinned: bool = False) -> str:
    if pinned:
        try:
            return f"=={metadata.version(name)}"
        except metadata.PackageNotFoundError:
            pass
    for line in metadata.requires(NAME) or []:
        found = re.match(r"([\w.-]+)\s*([^;\[]*)", line)
        if found and found[1] == name:
            return found[2].strip()
    return ""


def gather(
    folder: Path, asked: Sequence[str], look: Mapping[str, Any], wheels: Path | None
) -> None:
    """Wheels of what is ``asked`` and of all that it needs, for the machine that was looked at."""
    major, minor = look["version"]
    tag = f"cp{major}{minor}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--dest", str(folder), "--only-binary", ":all:", "--implementation", "cp"),
        *("--python-version", f"{major}.{minor}"),
        *(word for abi in (tag, "abi3", "none") for word in ("--abi", abi)),
        *(word for name in platforms(look) for word in ("--platform", name)),
        *(() if wheels is None else ("--no-index", "--find-links", str(wheels))),
        *asked,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        telling = next((line for line in reversed(said) if "ERROR" in line), said[-1])
        raise DeviceError(
            f"pip cannot gather what the device needs: {telling.removeprefix('ERROR: ')}",
            hint="Without internet here, give a folder of wheels: --wheels DIR",
        )


def platforms(look: Mapping[str, Any]) -> list[str]:
    """The platform tags that the device takes, newest first: pip expands none of them (PEP 600)."""
    machine = wheel_machine(str(look["machine"]), int(look["bits"]))
    found = re.search(r"glibc 2\.(\d+)", str(look["libc"]))
    if found is None:
        raise DeviceError(f"The device has {look['libc'] or 'no glibc'}: no wheel is made for it.")
    newest = int(found[1])
    return [
        *(f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)),
        f"manylinux2014_{machine}",
    ]


def light_wheel(folder: Path) -> Path:
    """The light half of this very edgeattn as a wheel: the same bytes for the same files.

    https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    package = Path(__file__).parents[1]
    version = metadata.version(NAME)
    info = f"{NAME}-{version}.dist-info"
    files: dict[str, bytes] = {
        f"{NAME}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    described = metadata.distribution(NAME).read_text("METADATA")
    files[f"{info}/METADATA"] = (described or f"Name: {NAME}\nVersion: {version}\n").encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {NAME} {version}\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    ).encode()
    files[f"{info}/entry_points.txt"] = (
        f"[console_scripts]\n{NAME} = {NAME}.cli.main:main\n".encode()
    )
    record = "".join(f"{name},sha256={_hash(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    target = folder / f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EARLIEST_DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return target


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
