"""The light half in ARM user space under emulation. Says nothing about speed."""

from __future__ import annotations

import json
from pathlib import Path

import artifacts
import numpy as np
import pytest
from emulated import Place

MEGABYTE = 10**6


@pytest.fixture
def home(tmp_path):
    """A folder of this machine that is the Pi user's home there."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def at_home(pi, home):
    return pi.showing(home, "/home/pi")


def edgeattn(place: Place, *arguments: str):
    """The exit code, the document and stderr of a command there."""
    done = place.run("python3", "-P", "-m", "edgeattn", *arguments)
    document = json.loads(done.stdout) if "--json" in arguments and done.stdout else done.stdout
    return done.returncode, document, done.stderr


def bytes_under(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_root_is_what_it_says(pi):
    code = (
        "import platform, sys, os; print(platform.machine(), sys.version_info[:2], os.cpu_count())"
    )
    told = pi.run("python3", "-c", code)
    assert (told.returncode, told.stdout) == (0, "aarch64 (3, 11) 4\n")


def test_help(pi):
    code, text, err = edgeattn(pi, "--help")
    assert (code, err) == (0, "")
    assert "validate" in text


def test_installed_size(pi):
    shown = {there: here for here, there in pi.shown}
    whole = bytes_under(shown["/opt/light"]) + bytes_under(shown["/opt/edgeattn"])
    numpy = sum(bytes_under(folder) for folder in shown["/opt/light"].glob("numpy*"))
    # Over half of it is numpy's, and half of that its BLAS: a Pi has it for other reasons too.
    assert whole - numpy < 80 * MEGABYTE
    assert whole < 110 * MEGABYTE


def test_validate(at_home, home):
    artifacts.write_dense_bundle(home / "dense.edge")
    code, document, err = edgeattn(at_home, "validate", "dense.edge", "--json")
    assert (code, err, document["verdict"]) == (0, "", "pass")
    assert [item["runtime"].split()[0] for item in document["artifacts"]] == [
        "ai-edge-litert",
        "onnxruntime",
    ]


def test_validate_can_fail(at_home, home):
    artifacts.write_dense_bundle(home / "wrong.edge", bias=artifacts.BIAS + np.float32(1e-2))
    code, document, _ = edgeattn(at_home, "validate", "wrong.edge", "--json")
    assert (code, document["verdict"]) == (1, "fail")


def test_a_file_that_crashes_its_runtime_ends_as_a_line(at_home, home):
    made = artifacts.write_dense_bundle(home / "broken.edge", formats=("tflite",))
    file = made.path / made.manifest.artifacts[0].path
    file.write_bytes(file.read_bytes()[:64])
    artifacts.rehash(made.path)
    code, document, _ = edgeattn(at_home, "validate", "broken.edge", "--json")
    assert (code, document["verdict"]) == (1, "fail")
