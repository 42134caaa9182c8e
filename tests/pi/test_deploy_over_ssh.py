"""Deployments through a real sshd to an emulated Pi, with the commands of docs/device.md."""

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
from emulated import (
    BOOKWORM_FRESH,
    CACHE,
    PI4,
    PROJECT,
    CannotEmulateError,
    as_board,
    build_root,
    precompile,
)
from sshd import running_sshd, shell_of

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def home():
    """The home folder of the Pi's user; its virtual environment is cached between test runs."""
    digest = hashlib.sha256((PROJECT / "constraints.txt").read_bytes())
    folder = CACHE / f"home-{BOOKWORM_FRESH.key}-{digest.hexdigest()[:12]}"
    for name in ("edgeattn", ".cache/edgeattn/judged"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def new_pi(home):
    """The sshd of a Pi with Python and without edgeattn."""
    try:
        root = build_root(BOOKWORM_FRESH)
        precompile(BOOKWORM_FRESH, root / "usr/lib" / f"python{BOOKWORM_FRESH.python}")
        pi = as_board(root, BOOKWORM_FRESH, PI4).mounted(home, "/home/pi")
        with running_sshd(shell_of(pi)) as server:
            yield server
    except CannotEmulateError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def server(home):
    with new_pi(home) as server:
        yield server


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    artifacts.write_dense_bundle(folder / "dense.edge")
    return folder


def command_line(server, work):
    def run(*arguments, code=0, ssh=True):
        process = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "edgeattn", *map(str, arguments)),
                *(("--ssh-config", str(server.config)) if ssh else ()),
            ],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PIP_CONSTRAINT": str(PROJECT / "constraints.txt")},
        )
        assert process.returncode == code, (process.stdout, process.stderr)
        return (
            json.loads(process.stdout) if "--json" in arguments else process.stdout + process.stderr
        )

    return run


@pytest.fixture(scope="session")
def edgeattn(server, work):
    return command_line(server, work)


@pytest.fixture(scope="session")
def installed(edgeattn, home):
    """The result of the first deployment, which installs edgeattn."""
    document = edgeattn(
        "deploy", "dense.edge", "raspberrypi", "--install", "--seconds", "0", "--json"
    )
    return document["hosts"][0]


def test_new_device(work, tmp_path):
    with new_pi(tmp_path) as server:
        edgeattn = command_line(server, work)
        document = edgeattn("doctor", "raspberrypi", "--json", code=5)
        assert document["device"]["board"] == PI4.model
        assert (document["device"]["machine"], document["device"]["cpu"]) == (
            "aarch64",
            "Cortex-A72",
        )
        assert [item["state"] for item in document["runtimes"]] == ["not checked", "not checked"]
        assert "--install" in document["findings"][0]["remedy"]
        text = edgeattn("deploy", "dense.edge", "raspberrypi", code=5)
        assert "edgeattn deploy BUNDLE raspberrypi --install" in text


def test_changed_host_key_is_refused(server, work, tmp_path):
    known = tmp_path / "known"
    keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    subprocess.run(keygen, check=True)
    address = server.config.with_name("known").read_text().split()[0]
    known.write_text(f"{address} {(tmp_path / 'other.pub').read_text()}")
    config = tmp_path / "config"
    config.write_text(
        server.config.read_text().replace(str(server.config.with_name("known")), str(known))
    )
    for command in (("doctor", "raspberrypi"), ("deploy", "dense.edge", "raspberrypi")):
        process = subprocess.run(
            [sys.executable, "-P", "-m", "edgeattn", *command, "--ssh-config", str(config)],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 5
        assert "Host key verification failed" in process.stdout + process.stderr


def test_install_and_deploy(installed, home, work):
    assert (installed["state"], installed["verdict"]) == ("serves now", "pass")
    assert (installed["device"]["machine"], installed["device"]["board"]) == ("aarch64", PI4.model)
    assert [item["runtime"].split()[0] for item in installed["artifacts"]] == [
        "ai-edge-litert",
        "onnxruntime",
    ]
    for item in installed["artifacts"]:
        (difference,) = [check for check in item["checks"] if check["stage"] == "device"]
        # The sums of this model involve no rounding, so the bits equal those of x86.
        assert (difference["value"], difference["passed"]) == (0.0, True)
    current = home / "edgeattn/dense/current"
    assert current.is_symlink()
    assert sha256(current / MANIFEST) == sha256(work / "dense.edge" / MANIFEST)
    assert json.loads((work / "dense.edge.raspberrypi.json").read_text("utf-8")) == installed
    assert (work / "dense.edge.raspberrypi.html").is_file()


def test_doctor(installed, edgeattn):
    document = edgeattn("doctor", "raspberrypi", "--json")
    tflite, onnx = document["runtimes"]
    # A Pi uses XNNPACK.
    assert (tflite["state"], tflite["xnnpack"], onnx["state"]) == ("pass", True, "pass")


def test_validate_on_the_device(installed, edgeattn):
    report = edgeattn("validate", "dense.edge", "--on", "raspberrypi", "--json")
    assert report["verdict"] == "pass"
    assert {item["stages"]["device"] for item in report["artifacts"]} == {"pass"}


def test_failed_validation_and_rollback(installed, edgeattn, home, work):
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


def test_program_on_the_device(installed, server):
    code = (
        "import edgeattn; model = edgeattn.load('edgeattn/dense/current'); "
        "print(model([1, 2, 3])['score'].tolist())"
    )
    process = subprocess.run(
        ["ssh", "-F", str(server.config), "raspberrypi", f'edge/bin/python -c "{code}"'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str(artifacts.dense(np.float32([[1, 2, 3]])).tolist())


def test_commands_of_the_device_page(installed, edgeattn, work, home):
    """From model.h5 to a verdict of the device, by the commands of docs/device.md."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("conversion needs TensorFlow")
    page = (PROJECT / "docs" / "device.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    edgeattn_commands = [words[1:] for words in commands if words[0] == "edgeattn"]
    assert [words[0] for words in edgeattn_commands] == ["convert", "doctor", "deploy", "validate"]
    # The fixtures do what pip and ssh-copy-id do.
    assert [words[0] for words in commands if words[0] != "edgeattn"] == ["pip", "ssh-copy-id"]
    for name in ("model.h5", "samples.npz"):
        shutil.copy(PROJECT / "sample_models" / "find_max" / name, work)
    documents = {}
    for words in edgeattn_commands:
        words = ["raspberrypi" if word == "pi@raspberrypi.local" else word for word in words]
        documents[words[0]] = edgeattn(*words, "--json", ssh=words[0] != "convert")
    assert documents["doctor"]["verdict"] == "pass"
    (host,) = documents["deploy"]["hosts"]
    assert (host["state"], host["verdict"]) == ("serves now", "pass")
    assert host["device"]["board"] == PI4.model
    schemes = {(item["format"], item["scheme"]) for item in host["artifacts"]}
    default = ("float32", "float16", "dynamic_int8")
    assert schemes == {(format, scheme) for format in ("tflite", "onnx") for scheme in default}
    for item in [*host["artifacts"], *documents["validate"]["artifacts"]]:
        stages = ("numbers", "attention", "device")
        assert {stage: item["stages"][stage] for stage in stages} == dict.fromkeys(stages, "pass")
    current = home / "edgeattn/model/current"
    assert sha256(current / MANIFEST) == sha256(work / "model.edge" / MANIFEST)


def test_tune_by_the_latency_of_the_device(installed, edgeattn, work):
    """The device answers which lowering of a recurrent model is the fastest."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("conversion needs TensorFlow")
    for name in ("model.h5", "samples.npz"):
        shutil.copy(PROJECT / "sample_models" / "find_max" / name, work / f"tuned-{name}")
    document = edgeattn(
        *("tune", "tuned-model.h5", "--data", "tuned-samples.npz", "--for", "latency"),
        *("--format", "tflite", "--scheme", "float32", "--scheme", "dynamic_int8"),
        *("--on", "raspberrypi", "-o", "tuned.edge", "--json"),
    )
    measured = [item for item in document["tried"] if item["p50_ms"] is not None]
    assert {item["lowering"] for item in measured} == {"auto", "fused", "chunked", "unrolled"}
    for item in measured:
        assert item["interval_ms"][0] <= item["p50_ms"] <= item["interval_ms"][1]
        assert item["compared_with_fastest"] in ("fastest", "no difference measured", "slower")
    assert document["chosen"]["compared_with_fastest"] != "slower"
    assert (document["latency"]["on"], document["latency"]["rounds"] > 0) == ("raspberrypi", True)
    assert PI4.model in document["latency"]["device"]
    (artifact,) = Bundle.open(work / "tuned.edge").manifest.artifacts
    assert artifact.achieved["tuned"]["latency"] == document["latency"]
    report = edgeattn("validate", "tuned.edge", "--on", "raspberrypi", "--json")
    assert report["verdict"] == "pass"
