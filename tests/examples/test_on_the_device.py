"""The programs for a device give what edgeattn's own runner gives."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from artifacts import write_dense_bundle

import edgeattn

DEVICE = Path(__file__).parent.parent.parent / "examples" / "device"
SAMPLES = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.25]], np.float32)


@pytest.fixture
def bundle(tmp_path):
    return write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def expected(bundle):
    model = edgeattn.load(bundle.path, format="tflite")
    return [{k: np.array(v).ravel() for k, v in model(sample).items()} for sample in SAMPLES]


def answers(text, names):
    """``{output: numbers}`` for each sample, of lines ``output number number ...``."""
    lines = [line.split() for line in text.splitlines()]
    told = [(name, np.array(numbers, np.float64)) for name, *numbers in lines]
    return [dict(told[k : k + len(names)]) for k in range(0, len(told), len(names))]


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def classify(tmp_path_factory):
    litert = pytest.importorskip("ai_edge_litert")
    library = Path(litert.__file__).parent
    compiler = shutil.which("g++")
    if compiler is None or not (library / "libLiteRt.so").is_file():
        pytest.skip("there is no C++ compiler, or no libLiteRt.so, here")
    program = tmp_path_factory.mktemp("classify") / "classify"
    link = [f"-L{library}", "-lLiteRt", f"-Wl,-rpath,{library}"]
    source = str(DEVICE / "classify.cc")
    subprocess.run(
        [
            compiler,
            "-std=c++17",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            source,
            "-o",
            program,
            *link,
        ],
        check=True,
    )
    return program


def test_the_program_in_cpp(bundle, expected, classify):
    file = bundle.artifact_path(bundle.manifest.artifacts[0])
    text = "\n".join(" ".join(map(str, sample.ravel())) for sample in SAMPLES)
    done = subprocess.run([classify, file], input=text, capture_output=True, text=True, check=True)
    same(answers(done.stdout, expected[0]), expected)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [("1 2", 2, "takes 3 numbers, 2 came"), ("1 2 three", 2, "takes 3 numbers"), ("", 0, "")],
)
def test_the_program_in_cpp_says_what_it_lacks(bundle, classify, text, code, told):
    file = bundle.artifact_path(bundle.manifest.artifacts[0])
    done = subprocess.run([classify, file], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr


def test_the_program_in_cpp_refuses_what_is_no_model(classify, tmp_path):
    (tmp_path / "no.tflite").write_bytes(b"no model")
    done = subprocess.run(
        [classify, tmp_path / "no.tflite"], input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert "failed: LiteRT says" in done.stderr


def test_litert_alone(bundle, expected, tmp_path):
    pytest.importorskip("ai_edge_litert")
    flatbuffers = pytest.importorskip("edgeattn_converters.graphs.tflite_file")
    np.save(tmp_path / "samples.npy", SAMPLES)
    artifact = bundle.manifest.artifacts[0]
    file = bundle.artifact_path(artifact)
    # The file of the tests is written by hand; those of `convert` have a signature.
    signed = flatbuffers.TFLiteFile(file.read_bytes())
    signed.set_signature(artifact.inputs, artifact.outputs)
    file.write_bytes(signed.pack())
    done = subprocess.run(
        [sys.executable, DEVICE / "plain_litert.py", file, tmp_path / "samples.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    same(answers(done.stdout, expected[0]), expected)


def test_the_loop_on_a_sensor(bundle, expected):
    text = "".join(json.dumps(sample.tolist()) + "\n" for sample in SAMPLES)
    done = subprocess.run(
        [sys.executable, DEVICE / "sensor.py", bundle.path],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    same([{k: np.ravel(v) for k, v in item.items()} for item in found], expected)


def test_the_unit_is_one_that_systemd_takes():
    """The sections and keys it has are those that systemd.unit and systemd.service know."""
    known = {
        "Unit": {"Description", "After", "StartLimitIntervalSec", "StartLimitBurst"},
        "Service": {
            *("User", "WorkingDirectory", "ExecStartPre", "ExecStart", "RuntimeDirectory"),
            *("Restart", "RestartSec", "NoNewPrivileges", "ProtectSystem", "ProtectHome"),
            *("PrivateTmp", "RestrictAddressFamilies", "MemoryMax"),
        },
        "Install": {"WantedBy"},
    }
    section, seen = "", set()
    for line in (DEVICE / "edgeattn-sensor.service").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key = line.split("=")[0]
            assert key in known[section], line
            seen.add(section)
    assert seen == set(known)
    if verify := shutil.which("systemd-analyze"):
        unit = str(DEVICE / "edgeattn-sensor.service")
        done = subprocess.run([verify, "verify", unit], capture_output=True, text=True, check=False)
        # The user and the programs are the device's; what it may not say is that it cannot read it.
        assert "Unknown" not in done.stderr
