"""What is gathered for a device, and the wheel of edgeattn itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import edgeattn
from edgeattn.deployment import install as installing
from edgeattn.deployment.install import gather, install, light_wheel, platforms, requirements
from edgeattn.errors import DeviceError
from edgeattn.targets.ssh import SSHHost

PI = {
    "machine": "aarch64",
    "bits": 64,
    "python": "3.11.2",
    "version": [3, 11],
    "libc": "glibc 2.36",
    "venv": True,
}


def test_platforms():
    """As pip's own `pip debug` lists them on such a system: newest first, down to 2.17."""
    told = platforms(PI)
    assert told[:2] == ["manylinux_2_36_aarch64", "manylinux_2_35_aarch64"]
    assert told[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    with pytest.raises(DeviceError, match="musl"):
        platforms({**PI, "libc": "musl"})


@pytest.mark.parametrize(
    ("changes", "runtimes"),
    [
        ({}, ["ai-edge-litert", "onnxruntime"]),
        ({"python": "3.13.5", "libc": "glibc 2.41"}, ["ai-edge-litert", "onnxruntime"]),
        ({"libc": "glibc 2.27"}, ["ai-edge-litert"]),
        ({"python": "3.15.0", "libc": "glibc 2.41"}, []),
    ],
)
def test_the_runtimes_that_fit_of_the_versions_that_are_here(changes, runtimes):
    asked = requirements({**PI, **changes})
    assert [item.partition("==")[0] for item in asked[2:]] == runtimes
    for item in asked[2:]:
        name, _, version = item.partition("==")
        assert version == metadata.version(name)
    assert [item.partition(">=")[0] for item in asked[:2]] == ["click", "numpy"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": [3, 9], "python": "3.9.2"}, "Python 3.9.2, and edgeattn needs 3.11"),
        ({"bits": 32}, "32-bit"),
        ({"venv": False}, "cannot make environments"),
    ],
)
def test_devices_that_cannot_have_it(changes, said):
    with pytest.raises(DeviceError, match=said):
        install(SSHHost("pi@host", program="/nonexistent"), {**PI, **changes})


def test_the_oldest_python_is_that_of_the_package():
    told = metadata.metadata("edgeattn")["Requires-Python"]
    assert told == f">={installing.OLDEST[0]}.{installing.OLDEST[1]}"


def test_the_wheel_is_the_light_half(tmp_path):
    wheel = light_wheel(tmp_path)
    (tmp_path / "again").mkdir()
    assert light_wheel(tmp_path / "again").read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = Path(edgeattn.__file__).parent
    templates = {f"edgeattn/report/templates/{name}" for name in ("page.html", "page.css")}
    assert {"edgeattn/__init__.py", "edgeattn/py.typed", *templates} <= names
    there = {p.relative_to(package.parent).as_posix() for p in package.rglob("*.py")}
    assert there <= names
    assert not any("converters" in name or "__pycache__" in name for name in names)


def test_pip_installs_the_wheel(tmp_path):
    """pip checks the record and makes the command; what it needs is left out here."""
    wheel = light_wheel(tmp_path)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)]
    subprocess.run([*pip, *options], check=True, timeout=120)
    code = "import edgeattn; print(edgeattn.__version__, edgeattn.__file__)"
    done = subprocess.run(
        [str(python), "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    version, file = done.stdout.split()
    assert version == edgeattn.__version__
    assert tmp_path in Path(file).parents
    assert (tmp_path / "venv/bin/edgeattn").is_file()
    pip = [*pip[:-2], "show", "--files", "edgeattn"]
    told = subprocess.run(pip, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "edgeattn/cli/main.py" in told


def test_pip_that_cannot_gather(tmp_path):
    """A folder of wheels that does not hold what is needed."""
    (tmp_path / "wheels").mkdir()
    with pytest.raises(DeviceError, match="pip cannot gather") as failed:
        gather(tmp_path, ["numpy"], PI, tmp_path / "wheels")
    assert "--wheels DIR" in failed.value.hint


def test_install(tmp_path, monkeypatch):
    """The device's scripts, with a Python of this machine: sent once, installed, asked."""
    home = tmp_path / "home"
    home.mkdir()
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\ncd {home}\nexport HOME={home}\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    ssh.chmod(0o755)
    asked = []

    def gathered(folder, names, look, wheels):
        asked.append(names)
        _little_wheel(folder, "numpy")
        _little_wheel(folder, "click")

    # One wheel for all: the tree may change while this runs.
    (tmp_path / "own").mkdir()
    own = light_wheel(tmp_path / "own")
    monkeypatch.setattr(
        installing, "light_wheel", lambda folder: Path(shutil.copy(own, folder / own.name))
    )
    monkeypatch.setattr(installing, "gather", gathered)
    monkeypatch.setattr(installing, "requirements", lambda look: ["numpy", "click"])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    remote = SSHHost("pi@host", program=str(ssh))
    sent = install(remote, PI)
    assert sent > 100_000
    python = home / "edge/bin/python"
    code = "import edgeattn, numpy; print(edgeattn.__version__, numpy.little)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [edgeattn.__version__, "True"]
    # Again: nothing is sent, and nothing done.
    module = next((home / "edge").glob("lib/*/site-packages/numpy.py"))
    before = module.stat().st_mtime_ns
    (home / ".cache/edgeattn/wheels/old.whl").write_bytes(b"x")
    assert install(remote, PI) == 0
    assert module.stat().st_mtime_ns == before
    # What does not import any more is installed again, the wheels of another time are removed.
    shutil.rmtree(next((home / "edge").glob("lib/*/site-packages/edgeattn")))
    assert install(remote, PI) == 0
    assert not (home / ".cache/edgeattn/wheels/old.whl").exists()
    subprocess.run([python, "-I", "-c", code], check=True, capture_output=True)
    (home / "edge/edgeattn-installed.json").unlink()
    monkeypatch.setattr(installing, "requirements", lambda look: ["no-such-package"])
    with pytest.raises(DeviceError, match="no-such-package"):
        install(remote, PI)
    assert python.exists()


def _little_wheel(folder, name):
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        files = {
            f"{name}.py": "little = True\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, installing.EARLIEST_DATE), text)
        record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", installing.EARLIEST_DATE), record)


def test_what_the_look_says_is_what_installing_reads():
    """The script that a device runs, run here."""
    from edgeattn.device.info import KERNEL_FILES
    from edgeattn.targets.ssh import LOOK

    done = subprocess.run(
        [sys.executable, "-I", "-"],
        input=LOOK.replace("FILES", repr(KERNEL_FILES)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(PI) <= set(json.loads(done.stdout))
