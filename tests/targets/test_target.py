"""Artifacts in another interpreter, judged here by the same code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import artifacts
import numpy as np
import pytest

import edgeattn
from edgeattn.benchmark.latency import measure_latency
from edgeattn.errors import BundleError, DeviceError
from edgeattn.targets.target import Target, identify, interpreter_target, local_target
from edgeattn.validation.on_target import validate_on_target

PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / ".out" / "other-python"
PIP_CANNOT = ("No matching distribution", "Could not find a version", "Connection", "Temporary")


def newer_python():
    """A Python of another minor version on this machine, its venv kept between runs."""
    for minor in (13, 12, 14):
        name = f"python3.{minor}"
        managed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        found = next(iter(managed), None) or shutil.which(name)
        if found and minor != sys.version_info.minor and _runs(found):
            return Path(found), name
    pytest.skip("no Python 3.12, 3.13 or 3.14 beside this one")


def _runs(python):
    """Whether it is there in earnest: a shim of a version manager may be all there is."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0


def installed(python, name):
    folder = CACHE / name
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True, timeout=120)
        done = subprocess.run(
            [
                *(folder / "bin" / "python", "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--constraint", PROJECT / "constraints.txt"),
                *("numpy", "click", "ai-edge-litert", "onnxruntime"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode and any(word in done.stderr for word in PIP_CANNOT):
            pytest.skip(f"pip cannot install here: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        # This tree itself, as it is now.
        site = next(folder.glob("lib/python3*/site-packages"))
        (site / "edgeattn.pth").write_text(f"{PROJECT}\n")
        (folder / ".complete").touch()
    return folder / "bin" / "python"


@pytest.fixture(scope="session", params=["same version", "another version"])
def python(request, tmp_path_factory):
    if request.param == "another version":
        return installed(*newer_python())
    folder = tmp_path_factory.mktemp("python") / "venv"
    command = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(command, check=True, timeout=120)
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / "here.pth").write_text(f"{PROJECT}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


def test_it_is_another_one(python, dense_bundle):
    place = interpreter_target(python, dense_bundle)
    with place.start() as child:
        told = identify(place, dense_bundle, child)
    assert told.edgeattn == edgeattn.__version__
    if CACHE in python.parents:
        assert told.python.split(".")[:2] != [str(n) for n in sys.version_info[:2]]


def test_the_report_is_that_of_here(python, dense_bundle):
    chosen = dense_bundle.select()
    there = validate_on_target(interpreter_target(python, dense_bundle), dense_bundle, chosen)
    assert there.verdict == "pass"
    assert there == validate_on_target(local_target(dense_bundle), dense_bundle, chosen)


def test_it_can_fail(python, tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    assert (
        validate_on_target(interpreter_target(python, wrong), wrong, wrong.select()).verdict
        == "fail"
    )


def test_bench_measures_there(python, dense_bundle):
    found = measure_latency(
        dense_bundle, dense_bundle.select(), interpreter_target(python, dense_bundle), runs=3
    )
    assert found.exit_code == 0
    assert found.target == str(python)
    assert [len(item.timing.nanoseconds) for item in found.results] == [3, 3]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("no-such-python",), "could not be started"),
        (("false",), "ended with exit status 1"),
        ((sys.executable, "-c", "print('hello')"), "does not answer"),
        ((sys.executable, "-c", "raise SystemExit('no edgeattn')"), "no edgeattn"),
    ],
)
def test_a_place_that_does_not_answer(dense_bundle, command, told):
    place = Target("over there", str(dense_bundle.path), command)
    with pytest.raises(DeviceError, match=told) as failed:
        validate_on_target(place, dense_bundle, dense_bundle.select())
    assert "over there does not answer" in failed.value.message
    assert "pip install edgeattn" in failed.value.hint


def test_another_bundle_lies_there(dense_bundle, tmp_path):
    other = artifacts.write_dense_bundle(tmp_path / "other.edge", count=5)
    place = Target("over there", str(other.path))
    with pytest.raises(BundleError, match="manifests differ"):
        validate_on_target(place, dense_bundle, dense_bundle.select())


def test_the_bundle_there_was_changed(dense_bundle, tmp_path):
    copy = tmp_path / "copy.edge"
    shutil.copytree(dense_bundle.path, copy)
    file = copy / dense_bundle.manifest.artifacts[1].path
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(BundleError, match="differs from the manifest"):
        validate_on_target(Target("over there", str(copy)), dense_bundle, dense_bundle.select())


def test_no_bundle_lies_there(dense_bundle, tmp_path):
    with pytest.raises(BundleError, match="No such bundle"):
        validate_on_target(
            Target("over there", str(tmp_path / "none")), dense_bundle, dense_bundle.select()
        )
