"""The wheels collected for a device, edgeattn's own wheel, and the scripts run on the device."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest

import edgeattn
from edgeattn.deployment import install as installation
from edgeattn.deployment.install import (
    build_wheel,
    check_supported,
    collect_wheels,
    install,
    platform_tags,
    requirements,
)
from edgeattn.device.info import KERNEL_FILES
from edgeattn.errors import DeviceError
from edgeattn.targets.ssh import SSHHost

SNAPSHOT = {
    "machine": "aarch64",
    "bits": 64,
    "python": "3.11.2",
    "version": [3, 11],
    "libc": "glibc 2.36",
    "venv": True,
}


def test_platform_tags():
    """As `pip debug` lists them on such a system: newest first, down to 2.17."""
    tags = platform_tags(SNAPSHOT)
    assert tags[:2] == ["manylinux_2_36_aarch64", "manylinux_2_35_aarch64"]
    assert tags[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    with pytest.raises(DeviceError, match="musl"):
        platform_tags({**SNAPSHOT, "libc": "musl"})


@pytest.mark.parametrize(
    ("changes", "runtimes"),
    [
        ({}, ["ai-edge-litert", "onnxruntime"]),
        ({"python": "3.13.5", "libc": "glibc 2.41"}, ["ai-edge-litert", "onnxruntime"]),
        ({"libc": "glibc 2.27"}, ["ai-edge-litert"]),
        ({"python": "3.15.0", "libc": "glibc 2.41"}, []),
    ],
)
def test_requirements_pin_compatible_runtimes_to_local_versions(changes, runtimes):
    required = requirements({**SNAPSHOT, **changes})
    assert [item.partition("==")[0] for item in required[3:]] == runtimes
    for item in required[3:]:
        name, _, version = item.partition("==")
        assert version == metadata.version(name)
    assert [item.partition(">=")[0] for item in required[:3]] == ["click", "numpy", "packaging"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": [3, 9], "python": "3.9.2"}, "Python 3.9.2, but edgeattn requires >=3.11"),
        ({"bits": 32}, "32-bit"),
        ({"venv": False}, "cannot create virtual environments"),
    ],
)
def test_unsupported_devices(changes, message):
    host = SSHHost("pi@host", program="/nonexistent")
    with pytest.raises(DeviceError, match=message):
        check_supported(host, {**SNAPSHOT, **changes})
    check_supported(host, SNAPSHOT)


def test_wheel_contains_edgeattn_without_the_converters(tmp_path):
    wheel = build_wheel(tmp_path)
    (tmp_path / "again").mkdir()
    assert build_wheel(tmp_path / "again").read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = Path(edgeattn.__file__).parent
    files = {p.relative_to(package.parent).as_posix() for p in package.rglob("*.*") if p.is_file()}
    assert {name for name in files if "__pycache__" not in name} <= names
    assert not any("edgeattn_converters" in name or "__pycache__" in name for name in names)


def test_pip_installs_the_wheel(tmp_path):
    """pip checks the wheel's record and creates the command."""
    wheel = build_wheel(tmp_path)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)]
    subprocess.run([*pip, *options], check=True)
    code = "import edgeattn; print(edgeattn.__version__, edgeattn.__file__)"
    process = subprocess.run(
        [str(python), "-I", "-c", code], capture_output=True, text=True, check=True
    )
    version, file = process.stdout.split()
    assert version == edgeattn.__version__
    assert tmp_path in Path(file).parents
    assert (tmp_path / "venv/bin/edgeattn").is_file()
    pip = [*pip[:-2], "show", "--files", "edgeattn"]
    files = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    assert "edgeattn/cli/main.py" in files


def test_collecting_from_an_incomplete_folder_fails(tmp_path):
    (tmp_path / "wheels").mkdir()
    with pytest.raises(DeviceError, match="pip cannot collect") as error:
        collect_wheels(tmp_path, ["numpy"], SNAPSHOT, tmp_path / "wheels")
    assert "--wheels DIR" in error.value.hint


@pytest.mark.long
def test_install(tmp_path, monkeypatch):
    """The scripts run in a Python of this machine, started through a replacement of ssh.

    It starts in a folder that is not the home folder, as servers of ssh can.
    """
    home, start = tmp_path / "home", tmp_path / "start"
    home.mkdir()
    start.mkdir()
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\ncd {start}\nexport HOME={home}\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    ssh.chmod(0o755)

    def write_wheels(folder, required, snapshot, wheels):
        _write_small_wheel(folder, "numpy")
        _write_small_wheel(folder, "click")

    # One wheel for all calls: the working tree may change while this test runs.
    (tmp_path / "own").mkdir()
    own = build_wheel(tmp_path / "own")
    monkeypatch.setattr(
        installation, "build_wheel", lambda folder: Path(shutil.copy(own, folder / own.name))
    )
    monkeypatch.setattr(installation, "collect_wheels", write_wheels)
    monkeypatch.setattr(installation, "requirements", lambda snapshot: ["numpy", "click"])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    host = SSHHost("pi@host", program=str(ssh))
    sent = install(host)
    assert sent > 100_000
    python = home / "edge/bin/python"
    code = "import edgeattn, numpy; print(edgeattn.__version__, numpy.small)"
    process = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == [edgeattn.__version__, "True"]
    # Later commands on the host use this installation.
    prefix = host.run(host.python_command(None, "-c", "import sys; print(sys.prefix)"))
    assert prefix.decode().strip() == str(home / "edge")
    assert list(start.iterdir()) == []
    # A second installation sends and changes nothing.
    module = next((home / "edge").glob("lib/*/site-packages/numpy.py"))
    before = module.stat().st_mtime_ns
    (home / ".cache/edgeattn/wheels/old.whl").write_bytes(b"x")
    assert install(host) == 0
    assert module.stat().st_mtime_ns == before
    # A package that cannot be imported is installed again, and obsolete wheels are removed.
    shutil.rmtree(next((home / "edge").glob("lib/*/site-packages/edgeattn")))
    assert install(host) == 0
    assert not (home / ".cache/edgeattn/wheels/old.whl").exists()
    subprocess.run([python, "-I", "-c", code], check=True, capture_output=True)
    (home / "edge/edgeattn-installed.json").unlink()
    monkeypatch.setattr(installation, "requirements", lambda snapshot: ["no-such-package"])
    with pytest.raises(DeviceError, match="no-such-package"):
        install(host)
    assert python.exists()


def _write_small_wheel(folder, name):
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        files = {
            f"{name}.py": "small = True\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
        record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record)


def test_system_snapshot_has_the_keys_that_installation_reads():
    script = resources.files("edgeattn.targets.on_device") / "system_snapshot.py"
    process = subprocess.run(
        [sys.executable, "-I", str(script)],
        input=json.dumps(KERNEL_FILES),
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(SNAPSHOT) <= set(json.loads(process.stdout))


def test_system_snapshot_is_valid_in_python_3_5():
    script = resources.files("edgeattn.targets.on_device") / "system_snapshot.py"
    ast.parse(script.read_text("utf-8"), feature_version=(3, 5))
