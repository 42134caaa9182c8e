"""Commands to this machine through a real ssh and sshd, some of them interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import artifacts
import pytest
from sshd import local_sshd

from edgeattn.bundle.manifest import MANIFEST, sha256


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def server(home):
    with local_sshd(home) as server:
        yield server


@pytest.fixture
def command(server):
    """Builds a command line that connects to the server."""

    def build(*arguments):
        options = ("--ssh-config", str(server.config), "--python", sys.executable)
        return [sys.executable, "-P", "-m", "edgeattn", *map(str, arguments), *options]

    return build


def deploy(command, tmp_path):
    process = subprocess.run(
        command("deploy", "dense.edge", "raspberrypi", "--no-bench", "--json"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, (process.stdout, process.stderr)
    return json.loads(process.stdout)["hosts"][0]


@pytest.mark.long
@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)],
    ids=["kill", "terminate"],
)
def test_host_process_is_killed(command, tmp_path, home, number):
    """The old version serves, and the device accepts the next deployment at once."""
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=5)
    assert deploy(command, tmp_path)["state"] == "serves now"
    current = home / "edgeattn/dense/current"
    first = current.resolve()
    bundle = artifacts.write_dense_bundle(tmp_path / "dense.edge", count=6)
    process = subprocess.Popen(
        command("deploy", "dense.edge", "raspberrypi", "--seconds", "3600"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Once the new version exists it is validated, then measured for an hour.
    try:
        while len(list(current.parent.glob("versions/*"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, number)
        process.wait()
    assert current.resolve() == first
    assert deploy(command, tmp_path)["state"] == "serves now"
    assert sha256(current / MANIFEST) == sha256(bundle.path / MANIFEST)


def test_doctor_uses_one_connection(command, server):
    process = subprocess.run(
        command("doctor", "raspberrypi", "--json"), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["verdict"] == "pass"
    assert server.log.read_text("utf-8").count("Accepted publickey") == 1
