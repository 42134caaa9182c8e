"""The programs for a device compute the same outputs as :func:`edgeattn.load`."""

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


def parse_outputs(text, names):
    """``{output: numbers}`` for each sample, from lines ``output number number ...``."""
    lines = [line.split() for line in text.splitlines()]
    outputs = [(name, np.array(numbers, np.float64)) for name, *numbers in lines]
    return [dict(outputs[k : k + len(names)]) for k in range(0, len(outputs), len(names))]


def assert_close(outputs, expected):
    assert len(outputs) == len(expected)
    for sample, expected_sample in zip(outputs, expected, strict=True):
        assert sample.keys() == expected_sample.keys()
        for name, value in expected_sample.items():
            np.testing.assert_allclose(sample[name], value, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def classify(tmp_path_factory):
    litert = pytest.importorskip("ai_edge_litert")
    library = Path(litert.__file__).parent
    compiler = shutil.which("g++")
    if compiler is None or not (library / "libLiteRt.so").is_file():
        pytest.skip("g++ or libLiteRt.so is not installed")
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


def test_cpp_program(bundle, expected, classify):
    file = bundle.artifact_path(bundle.manifest.artifacts[0])
    text = "\n".join(" ".join(map(str, sample.ravel())) for sample in SAMPLES)
    process = subprocess.run(
        [classify, file], input=text, capture_output=True, text=True, check=True
    )
    assert_close(parse_outputs(process.stdout, expected[0]), expected)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [("1 2", 2, "has 3 numbers, but 2 were read"), ("1 2 three", 2, "has 3 numbers"), ("", 0, "")],
)
def test_incomplete_input_of_the_cpp_program(bundle, classify, text, code, message):
    file = bundle.artifact_path(bundle.manifest.artifacts[0])
    process = subprocess.run(
        [classify, file], input=text, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (code, "")
    assert message in process.stderr


def test_cpp_program_refuses_an_invalid_model(classify, tmp_path):
    (tmp_path / "no.tflite").write_bytes(b"no model")
    process = subprocess.run(
        [classify, tmp_path / "no.tflite"], input="", capture_output=True, text=True, check=False
    )
    assert process.returncode == 5
    assert "failed: LiteRT status" in process.stderr


def test_plain_litert(bundle, expected, tmp_path):
    pytest.importorskip("ai_edge_litert")
    flatbuffers = pytest.importorskip("edgeattn_converters.graphs.tflite_file")
    np.save(tmp_path / "samples.npy", SAMPLES)
    artifact = bundle.manifest.artifacts[0]
    file = bundle.artifact_path(artifact)
    # Files of `convert` have a signature; the one of this test does not.
    signed = flatbuffers.TFLiteFile(file.read_bytes())
    signed.set_signature(artifact.inputs, artifact.outputs)
    file.write_bytes(signed.pack())
    process = subprocess.run(
        [sys.executable, DEVICE / "plain_litert.py", file, tmp_path / "samples.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert_close(parse_outputs(process.stdout, expected[0]), expected)


def test_sensor_loop(bundle, expected):
    text = "".join(json.dumps(sample.tolist()) + "\n" for sample in SAMPLES)
    process = subprocess.run(
        [sys.executable, DEVICE / "sensor.py", bundle.path],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    outputs = [json.loads(line) for line in process.stdout.splitlines()]
    assert_close([{k: np.ravel(v) for k, v in item.items()} for item in outputs], expected)


def test_a_bad_reading_does_not_end_the_sensor_loop(bundle):
    process = subprocess.run(
        [sys.executable, DEVICE / "sensor.py", bundle.path],
        input="[1, NaN, 3]\n[1, 2, 3]\n",
        capture_output=True,
        text=True,
        check=True,
    )
    bad, good = (json.loads(line) for line in process.stdout.splitlines())
    assert "NaN" in bad["error"]
    assert good.keys() == {"score"}


@pytest.mark.parametrize("unit", ["edgeattn-sensor.service", "edgeattn-serve.service"])
def test_systemd_unit(unit):
    """Its sections and keys are among those of systemd.unit and systemd.service."""
    known = {
        "Unit": {"Description", "After", "StartLimitIntervalSec", "StartLimitBurst"},
        "Service": {
            *("User", "WorkingDirectory", "ExecStartPre", "ExecStart", "RuntimeDirectory"),
            *("Restart", "RestartSec", "NoNewPrivileges", "ProtectSystem", "ProtectHome"),
            *("PrivateTmp", "RestrictAddressFamilies", "MemoryMax", "TimeoutStopSec"),
            *("IPAddressDeny", "IPAddressAllow"),
        },
        "Install": {"WantedBy"},
    }
    section, sections = "", set()
    for line in (DEVICE / unit).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key = line.split("=")[0]
            assert key in known[section], line
            sections.add(section)
    assert sections == set(known)
    if verify := shutil.which("systemd-analyze"):
        process = subprocess.run(
            [verify, "verify", str(DEVICE / unit)], capture_output=True, text=True, check=False
        )
        # It reports that user and programs do not exist on this machine, but must know all keys.
        assert "Unknown" not in process.stderr
