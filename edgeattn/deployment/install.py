"""Installation of edgeattn on a device, without the converters: ``edgeattn deploy --install``.

The device needs no internet access. Wheels for its Python and machine are collected on this
machine: edgeattn's own is built from the installed files, its dependencies are downloaded by pip.
Those that the device lacks are copied to it, and its own pip installs them into ``~/edge``. Nothing
is compiled on either machine.
"""

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

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from edgeattn import progress
from edgeattn.device.info import wheel_machine
from edgeattn.device.wheels import RUNTIME_WHEELS, wheel_incompatibility
from edgeattn.errors import DeviceError
from edgeattn.targets.replies import parsing
from edgeattn.targets.ssh import ENVIRONMENT, SSHHost, system_snapshot

SCRIPTS = "edgeattn.deployment.on_device"
# Seconds: pip on a device with a slow SD card takes minutes.
INSTALL_TIMEOUT = 1800.0
NAME = "edgeattn"


def install(host: SSHHost, wheels: Path | None = None) -> int:
    """Install edgeattn and its runtimes into ``~/edge`` on ``host``.

    ``wheels`` is a folder with all that is needed, for a machine without internet access. Returns
    the number of bytes sent. Raises :class:`DeviceError` if the device is not supported or pip
    fails on either machine.
    """
    # The system's own Python: the environment may be damaged.
    snapshot = system_snapshot(host, "python3")
    with parsing("a description of the machine"):
        check_supported(host, snapshot)
        required = requirements(snapshot)
        platform_tags(snapshot)
    with tempfile.TemporaryDirectory(prefix="edgeattn-wheels-") as name:
        folder = Path(name)
        own = build_wheel(folder)
        progress.report("collecting wheels")
        collect_wheels(folder, required, snapshot, wheels)
        files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.whl"))}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    device = _run_script(host, "list_wheels.py", ENVIRONMENT)
    with parsing("a list of its wheels"):
        if device["installed"] == digests:
            return 0
        missing = [name for name in digests if device["wheels"].get(name) != digests[name]]
    sizes = {name: len(files[name]) for name in missing}
    sent = sum(sizes.values())
    progress.report(f"sending {sent:,} bytes of wheels and installing them")
    request = {
        "environment": ENVIRONMENT,
        "digests": digests,
        "sizes": sizes,
        "requirements": required,
        "own": own.name,
    }
    _run_script(host, "install_wheels.py", request, b"".join(files[name] for name in missing))
    return sent


def _run_script(host: SSHHost, name: str, arguments: Any, data: bytes = b"") -> Any:
    return host.run_script(
        SCRIPTS,
        name,
        python="python3",
        data=json.dumps(arguments).encode() + b"\n" + data,
        timeout=INSTALL_TIMEOUT,
    )


def check_supported(host: SSHHost, snapshot: Mapping[str, Any]) -> None:
    """Raise :class:`DeviceError` if edgeattn cannot be installed on such a device."""
    device, required = host.destination, metadata.metadata(NAME)["Requires-Python"]
    major, minor = snapshot["version"]
    version = f"{major}.{minor}"
    if not SpecifierSet(required).contains(version):
        raise DeviceError(
            f"{device} has Python {snapshot['python']}, but edgeattn requires {required}.",
            hint="Upgrade it to Raspberry Pi OS Bookworm or newer.",
        )
    if snapshot["bits"] == 32:
        raise DeviceError(
            f"{device} has a 32-bit system, for which there is no NumPy wheel.",
            hint="Use a 64-bit Raspberry Pi OS, or install by hand as docs/device.md describes.",
        )
    if not snapshot["venv"]:
        raise DeviceError(
            f"The Python of {device} cannot create virtual environments.",
            hint="Install the module on the device: sudo apt install python3-venv",
        )


def requirements(snapshot: Mapping[str, Any]) -> list[str]:
    """Requirements for pip: edgeattn's dependencies, and a compatible runtime for each format.

    A runtime is pinned to the version that this machine has, so that both run the same code.
    """
    machine = wheel_machine(str(snapshot["machine"]), int(snapshot["bits"]))
    python, libc = str(snapshot["python"]), str(snapshot["libc"])
    required = [f"{name}{_specifier(name)}" for name in ("click", "numpy", "packaging")]
    for format in ("tflite", "onnx"):
        compatible = [
            wheel.distribution
            for wheel in RUNTIME_WHEELS
            if wheel.format == format
            and wheel_incompatibility(wheel, machine, python, libc) is None
        ]
        if compatible:
            name = compatible[0]
            try:
                required.append(f"{name}=={metadata.version(name)}")
            except metadata.PackageNotFoundError:
                required.append(f"{name}{_specifier(name)}")
    return required


def _specifier(name: str) -> SpecifierSet:
    """The versions of a dependency that edgeattn supports."""
    dependencies = (Requirement(text) for text in metadata.requires(NAME) or [])
    specifiers = (item.specifier for item in dependencies if item.name == name)
    return next(specifiers, SpecifierSet())


def collect_wheels(
    folder: Path, required: Sequence[str], snapshot: Mapping[str, Any], wheels: Path | None
) -> None:
    """Download the wheels of ``required`` and their dependencies, for a device, into ``folder``.

    They are taken from the folder ``wheels``, if given. Raises :class:`DeviceError` if pip fails.
    """
    major, minor = snapshot["version"]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--dest", str(folder), "--only-binary", ":all:", "--implementation", "cp"),
        *("--python-version", f"{major}.{minor}"),
        *(part for abi in (f"cp{major}{minor}", "abi3", "none") for part in ("--abi", abi)),
        *(part for tag in platform_tags(snapshot) for part in ("--platform", tag)),
        *(() if wheels is None else ("--no-index", "--find-links", str(wheels))),
        *required,
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = (process.stderr.strip() or process.stdout.strip() or "no output").splitlines()
        last = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
        raise DeviceError(
            f"pip cannot collect the wheels for the device: {last.removeprefix('ERROR: ')}",
            hint="Without internet access, pass a folder of wheels: --wheels DIR",
        )


def platform_tags(snapshot: Mapping[str, Any]) -> list[str]:
    """The wheel platform tags that a device supports (PEP 600), newest first.

    `packaging.tags` lists those of the running interpreter only, and pip does not derive older ones
    from the newest. Raises :class:`DeviceError` if the device's C library is not glibc.
    """
    machine = wheel_machine(str(snapshot["machine"]), int(snapshot["bits"]))
    glibc = re.search(r"glibc 2\.(\d+)", str(snapshot["libc"]))
    if glibc is None:
        raise DeviceError(
            f"The device has {snapshot['libc'] or 'an unknown C library'}, but wheels need glibc.",
            hint="Use a 64-bit Raspberry Pi OS.",
        )
    return [
        *(f"manylinux_2_{minor}_{machine}" for minor in range(int(glibc[1]), 16, -1)),
        f"manylinux2014_{machine}",
    ]


def build_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder``; the same files give the same bytes.

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
    text = metadata.distribution(NAME).read_text("METADATA")
    files[f"{info}/METADATA"] = (text or f"Name: {NAME}\nVersion: {version}\n").encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {NAME} {version}\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    ).encode()
    files[f"{info}/entry_points.txt"] = (
        f"[console_scripts]\n{NAME} = {NAME}.cli.main:main\n".encode()
    )
    record = "".join(
        f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # The default date, 1 January 1980, does not depend on when the wheel is built.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
