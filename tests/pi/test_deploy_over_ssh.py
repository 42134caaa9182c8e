"""From a bundle to a verdict over a real sshd, to a device in ARM user space under emulation.

The commands are those of docs/device.md. Nothing here says anything about speed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import artifacts
import numpy as np
import pytest
from emulated import BOOKWORM_FRESH, CACHE, PI4, PROJECT, CannotEmulate, as_board, built, compiled
from sshd import open_door, shell_of

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256


@pytest.fixture(scope="session")
def home():
    """The Pi user's home folder, here; its environment of an earlier run stays in the cache.

    What is installed into it then is edgeattn itself, and what else has changed.
    """
    digest = hashlib.sha256((PROJECT / "constraints.txt").read_bytes())
    folder = CACHE / f"home-{BOOKWORM_FRESH.key}-{digest.hexdigest()[:12]}"
    for lasting in ("edgeattn", ".cache/edgeattn/judged"):
        shutil.rmtree(folder / lasting, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def pi_at(home):
    """A Pi as it comes, with a Python and nothing of edgeattn, behind a real sshd."""
    try:
        root = built(BOOKWORM_FRESH)
        compiled(BOOKWORM_FRESH, root / "usr/lib" / f"python{BOOKWORM_FRESH.python}")
        place = as_board(root, BOOKWORM_FRESH, PI4).showing(home, "/home/pi")
        with open_door(shell_of(place)) as opened:
            yield opened
    except CannotEmulate as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def door(home):
    with pi_at(home) as opened:
        yield opened


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    artifacts.write_dense_bundle(folder / "dense.edge")
    return folder


def asking(door, work):
    def run(*arguments, code=0, ssh=True):
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "edgeattn", *map(str, arguments)),
                *(("--ssh-config", str(door.config)) if ssh else ()),
            ],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={**os.environ, "PIP_CONSTRAINT": str(PROJECT / "constraints.txt")},
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def edgeattn(door, work):
    return asking(door, work)


@pytest.fixture(scope="session")
def installed(edgeattn, home):
    """The first deployment, which installs; wheels come from this machine's pip."""
    told = edgeattn("deploy", "dense.edge", "raspberrypi", "--install", "--seconds", "0", "--json")
    return told["hosts"][0]


def test_a_fresh_device_is_looked_at(work, tmp_path):
    with pi_at(tmp_path) as door:
        edgeattn = asking(door, work)
        told = edgeattn("doctor", "raspberrypi", "--json", code=5)
        assert told["device"]["board"] == PI4.model
        assert (told["device"]["machine"], told["device"]["cpu"]) == ("aarch64", "Cortex-A72")
        assert [item["state"] for item in told["runtimes"]] == ["not checked", "not checked"]
        assert "--install" in told["findings"][0]["remedy"]
        text = edgeattn("deploy", "dense.edge", "raspberrypi", code=5)
        assert "edgeattn deploy BUNDLE raspberrypi --install" in text


def test_a_key_that_changed_is_refused(door, work, tmp_path):
    """Another machine answers in its place: nothing is sent to it."""
    known = tmp_path / "known"
    make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    subprocess.run(make, check=True)
    place = door.config.with_name("known").read_text().split()[0]
    known.write_text(f"{place} {(tmp_path / 'other.pub').read_text()}")
    config = tmp_path / "config"
    config.write_text(
        door.config.read_text().replace(str(door.config.with_name("known")), str(known))
    )
    for command in (("doctor", "raspberrypi"), ("deploy", "dense.edge", "raspberrypi")):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "edgeattn", *command, "--ssh-config", str(config)],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 5
        assert "Host key verification failed" in done.stdout + done.stderr


def test_installed_deployed_and_judged(installed, home, work):
    assert (installed["state"], installed["verdict"]) == ("serves now", "pass")
    assert (installed["device"]["machine"], installed["device"]["board"]) == ("aarch64", PI4.model)
    assert [item["runtime"].split()[0] for item in installed["artifacts"]] == [
        "ai-edge-litert",
        "onnxruntime",
    ]
    for item in installed["artifacts"]:
        (found,) = [check for check in item["checks"] if check["stage"] == "device"]
        # Sums without rounding: bit for bit what x86 computes.
        assert (found["value"], found["passed"]) == (0.0, True)
    current = home / "edgeattn/dense/current"
    assert current.is_symlink()
    assert sha256(current / MANIFEST) == sha256(work / "dense.edge" / MANIFEST)
    assert json.loads((work / "dense.edge.raspberrypi.json").read_text("utf-8")) == installed
    assert (work / "dense.edge.raspberrypi.html").is_file()


def test_doctor(installed, edgeattn):
    told = edgeattn("doctor", "raspberrypi", "--json")
    tflite, onnx = told["runtimes"]
    # Without XNNPACK nothing here would say anything about what a Pi computes.
    assert (tflite["state"], tflite["xnnpack"], onnx["state"]) == ("pass", True, "pass")


def test_validate_on(installed, edgeattn):
    told = edgeattn("validate", "dense.edge", "--on", "raspberrypi", "--json")
    assert told["verdict"] == "pass"
    assert {item["stages"]["device"] for item in told["artifacts"]} == {"pass"}


def test_a_verdict_of_fail_switches_nothing_and_roll_back(installed, edgeattn, home, work):
    artifacts.write_dense_bundle(work / "second" / "dense.edge", count=5)
    (host,) = edgeattn("deploy", "second/dense.edge", "raspberrypi", "--no-bench", "--json")[
        "hosts"
    ]
    assert (host["state"], host["previous"]) == ("serves now", installed["version"])
    bias = artifacts.BIAS + np.float32(1e-2)
    artifacts.write_dense_bundle(work / "wrong" / "dense.edge", bias=bias)
    (host,) = edgeattn("deploy", "wrong/dense.edge", "raspberrypi", "--no-bench", "--json", code=1)[
        "hosts"
    ]
    assert (host["state"], host["verdict"]) == ("refused", "fail")
    second = Bundle.open(work / "second/dense.edge").path / MANIFEST
    assert sha256(home / "edgeattn/dense/current" / MANIFEST) == sha256(second)
    edgeattn("deploy", "dense.edge", "raspberrypi", "--rollback")
    first = work / "dense.edge" / MANIFEST
    assert sha256(home / "edgeattn/dense/current" / MANIFEST) == sha256(first)


def test_a_program_on_the_device(installed, door):
    code = (
        "import edgeattn; model = edgeattn.load('edgeattn/dense/current'); "
        "print(model([1, 2, 3])['score'].tolist())"
    )
    done = subprocess.run(
        ["ssh", "-F", str(door.config), "raspberrypi", f'edge/bin/python -c "{code}"'],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(artifacts.dense(np.float32([[1, 2, 3]])).tolist())


def test_the_page_from_a_model_to_a_verdict(installed, edgeattn, work, home):
    """docs/device.md, command by command: from model.h5 to a verdict that the device made."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("converting needs the host's half")
    page = (PROJECT / "docs" / "device.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    ours = [words[1:] for words in commands if words[0] == "edgeattn"]
    assert [words[0] for words in ours] == ["convert", "doctor", "deploy", "validate"]
    # pip and ssh-copy-id are what this test's fixtures did.
    assert [words[0] for words in commands if words[0] != "edgeattn"] == ["pip", "ssh-copy-id"]
    for name in ("model.h5", "samples.npz"):
        shutil.copy(PROJECT / "sample_models" / "find_max" / name, work)
    told = {}
    for words in ours:
        words = ["raspberrypi" if word == "pi@raspberrypi.local" else word for word in words]
        told[words[0]] = edgeattn(*words, "--json", ssh=words[0] != "convert")
    assert told["doctor"]["verdict"] == "pass"
    (host,) = told["deploy"]["hosts"]
    assert (host["state"], host["verdict"]) == ("serves now", "pass")
    assert host["device"]["board"] == PI4.model
    schemes = {(item["format"], item["scheme"]) for item in host["artifacts"]}
    wanted = ("float32", "float16", "dynamic_int8")
    assert schemes == {(format, scheme) for format in ("tflite", "onnx") for scheme in wanted}
    for item in [*host["artifacts"], *told["validate"]["artifacts"]]:
        judged = ("numbers", "attention", "device")
        assert {stage: item["stages"][stage] for stage in judged} == dict.fromkeys(judged, "pass")
    current = home / "edgeattn/model/current"
    assert sha256(current / MANIFEST) == sha256(work / "model.edge" / MANIFEST)
