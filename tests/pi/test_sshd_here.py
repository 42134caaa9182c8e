"""A real ssh and sshd, and this machine behind them: connections that end in the midst of work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import artifacts
import pytest
from emulated import CannotEmulate
from sshd import open_door

from edgeattn.bundle.manifest import MANIFEST, sha256


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def door(home):
    try:
        with open_door(["env", "-C", str(home), f"HOME={home}", "sh", "-c"]) as opened:
            yield opened
    except CannotEmulate as why:
        pytest.skip(str(why))


@pytest.fixture
def command(door, tmp_path):
    """The words of a command line, and what it needs to find the device."""

    def words(*arguments):
        there = ("--ssh-config", str(door.config), "--python", sys.executable)
        return [sys.executable, "-P", "-m", "edgeattn", *map(str, arguments), *there]

    return words


def deploy(command, tmp_path, *options):
    words = command("deploy", "dense.edge", "raspberrypi", "--no-bench", "--json", *options)
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)["hosts"][0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "terminate"])
def test_the_host_dies_in_the_midst_of_it(command, tmp_path, home, number):
    """The old version serves, and the device is free for the next attempt at once."""
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=5)
    assert deploy(command, tmp_path)["state"] == "serves now"
    current = home / "edgeattn/dense/current"
    first = current.resolve()
    made = artifacts.write_dense_bundle(tmp_path / "dense.edge", count=6)
    # It would measure for minutes, when the new version lies there already.
    process = subprocess.Popen(
        command("deploy", "dense.edge", "raspberrypi", "--seconds", "600"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(current.parent.glob("versions/*"))) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, number)
        process.wait(timeout=60)
    assert current.resolve() == first
    assert deploy(command, tmp_path)["state"] == "serves now"
    assert sha256(current / MANIFEST) == sha256(made.path / MANIFEST)


def test_doctor_over_one_connection(command, door):
    """The connection that the first question opens carries the next ones, and ends with them."""
    done = subprocess.run(
        command("doctor", "raspberrypi", "--json"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"
    assert door.log.read_text("utf-8").count("Accepted publickey") == 1
