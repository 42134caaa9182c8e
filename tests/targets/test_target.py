"""Artifacts run in another interpreter, with the checks computed in this one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import artifacts
import numpy as np
import pytest
from long_parameters import only

import edgeattn
from edgeattn.benchmark.latency import measure_latency
from edgeattn.errors import BundleError, DeviceError
from edgeattn.targets.target import Target, identify, interpreter_target, local_target
from edgeattn.validation.on_target import validate_on_target

PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / ".out" / "other-python"
PIP_ERRORS = ("No matching distribution", "Could not find a version", "Connection", "Temporary")


def other_python():
    """A Python of another minor version on this machine, and its name."""
    for minor in (13, 12, 14):
        name = f"python3.{minor}"
        pyenv = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        path = next(iter(pyenv), None) or shutil.which(name)
        if path and minor != sys.version_info.minor and _is_usable(path):
            return Path(path), name
    pytest.skip("no Python 3.12, 3.13 or 3.14 besides this one")


def _is_usable(python):
    """False for a shim of a version manager without an interpreter behind it."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0


def environment(python, name):
    """The Python of an environment with this working tree and its dependencies, cached."""
    folder = CACHE / name
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        process = subprocess.run(
            [
                *(folder / "bin" / "python", "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--constraint", PROJECT / "constraints.txt"),
                *("numpy", "click", "packaging", "ai-edge-litert", "onnxruntime"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode and any(sign in process.stderr for sign in PIP_ERRORS):
            pytest.skip(f"pip cannot install: {process.stderr.strip().splitlines()[-1]}")
        assert process.returncode == 0, process.stderr
        site = next(folder.glob("lib/python3*/site-packages"))
        (site / "tree.pth").write_text(f"{PROJECT}\n")
        (folder / ".complete").touch()
    return folder / "bin" / "python"


@pytest.fixture(scope="session", params=only(["same version", "another version"], "same version"))
def python(request, tmp_path_factory):
    if request.param == "another version":
        return environment(*other_python())
    folder = tmp_path_factory.mktemp("python") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "tree.pth").write_text("\n".join([str(PROJECT), *packages]))
    return folder / "bin" / "python"


def test_identify(python, dense_bundle):
    target = interpreter_target(python, dense_bundle)
    with target.start() as worker:
        info = identify(target, dense_bundle, worker)
    assert info["edgeattn"] == edgeattn.__version__
    if CACHE in python.parents:
        assert info["python"].split(".")[:2] != [str(n) for n in sys.version_info[:2]]


def test_report_equals_that_of_this_interpreter(python, dense_bundle):
    selected = dense_bundle.select()
    report = validate_on_target(interpreter_target(python, dense_bundle), dense_bundle, selected)
    assert report.verdict == "pass"
    assert report == validate_on_target(local_target(dense_bundle), dense_bundle, selected)


def test_wrong_outputs_fail(python, tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    assert (
        validate_on_target(interpreter_target(python, wrong), wrong, wrong.select()).verdict
        == "fail"
    )


def test_latency(python, dense_bundle):
    target = interpreter_target(python, dense_bundle)
    report = measure_latency(dense_bundle, dense_bundle.select(), target, runs=3)
    assert report.exit_code == 0
    assert report.target == str(python)
    assert [len(item.timing.nanoseconds) for item in report.results] == [3, 3]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("no-such-python",), "could not be started"),
        (("false",), "ended with exit status 1"),
        ((sys.executable, "-c", "print('hello')"), "does not respond"),
        ((sys.executable, "-c", "raise SystemExit('no edgeattn')"), "no edgeattn"),
    ],
)
def test_target_that_does_not_respond(dense_bundle, command, message):
    target = Target("the device", str(dense_bundle.path), command)
    with pytest.raises(DeviceError, match=message) as error:
        validate_on_target(target, dense_bundle, dense_bundle.select())
    assert "the device does not respond" in error.value.message
    assert "pip install edgeattn" in error.value.hint


def test_other_bundle_on_the_target(dense_bundle, tmp_path):
    other = artifacts.write_dense_bundle(tmp_path / "other.edge", count=5)
    target = Target("the device", str(other.path))
    with pytest.raises(BundleError, match="manifests differ"):
        validate_on_target(target, dense_bundle, dense_bundle.select())


def test_changed_bundle_on_the_target(dense_bundle, tmp_path):
    copy = tmp_path / "copy.edge"
    shutil.copytree(dense_bundle.path, copy)
    file = copy / dense_bundle.manifest.artifacts[1].path
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(BundleError, match="differs from the manifest"):
        validate_on_target(Target("the device", str(copy)), dense_bundle, dense_bundle.select())


def test_no_bundle_on_the_target(dense_bundle, tmp_path):
    target = Target("the device", str(tmp_path / "none"))
    with pytest.raises(BundleError, match="No such bundle"):
        validate_on_target(target, dense_bundle, dense_bundle.select())
