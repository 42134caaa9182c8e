"""edgeattn without the converters, in ARM user space under emulation."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import artifacts
import numpy as np
import pytest
from emulated import BOOKWORM, BOOKWORM_32, CLAIM, PI4, PI5, PROJECT, TRIXIE, EmulatedPi

import edgeattn as package
from edgeattn.benchmark.latency import measure_latency
from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import RuntimeUnavailableError
from edgeattn.targets.target import WORKER_MODULE, Target, identify, local_target
from edgeattn.validation.on_target import validate_on_target

MEGABYTE = 10**6


@pytest.fixture
def home(tmp_path):
    """A folder of this machine that becomes the home folder of the Pi's user."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def pi_at_home(pi, home):
    return pi.mounted(home, "/home/pi")


def edgeattn(pi: EmulatedPi, *arguments: str):
    """The exit code, the output and the error output of a command; JSON output is parsed."""
    process = pi.run("python3", "-P", "-m", "edgeattn", *arguments)
    output = process.stdout
    if "--json" in arguments and output:
        output = json.loads(output)
    return process.returncode, output, process.stderr


def bytes_under(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.long
def test_root(pi):
    code = (
        "import platform, sys, os; print(platform.machine(), sys.version_info[:2], os.cpu_count())"
    )
    process = pi.run("python3", "-c", code)
    assert (process.returncode, process.stdout) == (0, "aarch64 (3, 11) 4\n")


def test_help(pi):
    code, text, err = edgeattn(pi, "--help")
    assert (code, err) == (0, "")
    assert "validate" in text


def test_installed_size(pi):
    folders = {target: source for source, target in pi.mounts}
    packages, own = (bytes_under(folders[f"/opt/{name}"]) for name in ("light", "edgeattn"))
    numpy = sum(bytes_under(folder) for folder in folders["/opt/light"].glob("numpy*"))
    # NumPy is over half of the total, and many Pis have it already.
    assert packages + own - numpy < 80 * MEGABYTE
    # A sixth of the packages is bytecode, and more than half of edgeattn, half of which converts.
    assert packages < 125 * MEGABYTE
    assert own < 13 * MEGABYTE


def test_validate(pi_at_home, home):
    artifacts.write_dense_bundle(home / "dense.edge")
    code, document, err = edgeattn(pi_at_home, "validate", "dense.edge", "--json")
    assert (code, err, document["verdict"]) == (0, "", "pass")
    assert [item["runtime"].split()[0] for item in document["artifacts"]] == [
        "ai-edge-litert",
        "onnxruntime",
    ]


@pytest.mark.long
def test_failed_validation(pi_at_home, home):
    artifacts.write_dense_bundle(home / "wrong.edge", bias=artifacts.BIAS + np.float32(1e-2))
    code, document, _ = edgeattn(pi_at_home, "validate", "wrong.edge", "--json")
    assert (code, document["verdict"]) == (1, "fail")


@pytest.mark.long
def test_artifact_that_crashes_its_runtime(pi_at_home, home):
    bundle = artifacts.write_dense_bundle(home / "broken.edge", formats=("tflite",))
    file = bundle.path / bundle.manifest.artifacts[0].path
    file.write_bytes(file.read_bytes()[:64])
    artifacts.rehash(bundle.path)
    code, document, _ = edgeattn(pi_at_home, "validate", "broken.edge", "--json")
    assert (code, document["verdict"]) == (1, "fail")


@pytest.mark.long
def test_doctor(either_pi):
    code, document, err = edgeattn(either_pi, "doctor", "--json")
    assert (code, err) == (0, "")
    device = document["device"]
    assert (device["board"], device["machine"]) == (either_pi.board.model, "aarch64")
    assert device["cpu"] == {"pi4": "Cortex-A72", "pi5": "Cortex-A76"}[either_pi.board.name]
    assert ("asimddp" in device["features"]) == (either_pi.board.name == "pi5")
    assert [item["fits"] for item in document["wheels"]] == [True, True, True]
    tflite, onnx = document["runtimes"]
    # A Pi uses XNNPACK.
    assert (tflite["state"], tflite["xnnpack"]) == ("pass", True)
    assert (onnx["state"], onnx["reason"]) == ("pass", None)


@pytest.mark.long
def test_selftest(pi_at_home, home):
    artifacts.write_dense_bundle(home / "dense.edge")
    process = pi_at_home.run("python3", "-P", "-m", "edgeattn.selftest", "dense.edge")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("verdict: pass\n")


@pytest.mark.long
def test_load(pi_at_home, home):
    artifacts.write_dense_bundle(home / "dense.edge")
    code = """
import edgeattn
for format in ("tflite", "onnx"):
    model = edgeattn.load("dense.edge", format=format)
    print(model([1, 2, 3])["score"].tolist())
"""
    process = pi_at_home.run("python3", "-P", "-c", code)
    assert process.returncode == 0, process.stderr
    expected = str(artifacts.dense(np.float32([[1, 2, 3]])).tolist())
    assert process.stdout.splitlines() == [expected, expected]


@pytest.mark.long
def test_latency(pi_at_home, home):
    """The values are those of the emulator; only their number is checked."""
    bundle = artifacts.write_dense_bundle(home / "dense.edge")
    target = Target(CLAIM, "/home/pi/dense.edge", (*pi_at_home.command("python3"), *WORKER_MODULE))
    report = measure_latency(bundle, bundle.select(), target, runs=2)
    assert (report.exit_code, report.target) == (0, CLAIM)
    assert [len(item.timing.nanoseconds) for item in report.results] == [2, 2]


@pytest.mark.long
def test_validate_on_the_target(pi_at_home, home):
    bundle = artifacts.write_dense_bundle(home / "dense.edge")
    target = Target(CLAIM, "/home/pi/dense.edge", (*pi_at_home.command("python3"), *WORKER_MODULE))
    report = validate_on_target(target, bundle, bundle.select())
    assert report.verdict == "pass"
    # The sums of this model involve no rounding, so the bits equal those of x86.
    assert report == validate_on_target(local_target(bundle), bundle, bundle.select())


# A trained model in every scheme


def convert(folder: Path, *options: str) -> Bundle:
    """find_max in all schemes; artifacts that fail their limits are accepted."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("conversion needs TensorFlow")
    model = PROJECT / "sample_models" / "find_max"
    with np.load(model / "samples.npz") as samples:
        halves = {"samples": slice(None, 100), "calibration": slice(100, None)}
        for name, rows in halves.items():
            np.savez(folder / f"{name}.npz", **{key: samples[key][rows] for key in samples})
    target = folder / "find_max.edge"
    process = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "edgeattn", "convert", str(model / "model.h5")),
            *("--samples", str(folder / "samples.npz")),
            *("--calibration", str(folder / "calibration.npz")),
            *("-o", str(target), "--json", *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in (0, 1), process.stderr
    return Bundle.open(target)


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="session")
def converted_for_tflite_runtime(tmp_path_factory):
    """For the runtime of 32-bit systems, which lacks newer operators."""
    return convert(tmp_path_factory.mktemp("older"), "--target", "tflite-runtime")


@pytest.fixture(
    scope="session",
    params=[
        "bookworm-pi4",
        pytest.param("bookworm-pi5", marks=pytest.mark.long),
        pytest.param("trixie-pi5", marks=pytest.mark.long),
    ],
)
def any_64_bit(request, emulate):
    suite, _, board = request.param.partition("-")
    return emulate({"bookworm": BOOKWORM, "trixie": TRIXIE}[suite], {"pi4": PI4, "pi5": PI5}[board])


def tolerance(scheme: str, expected: np.ndarray) -> float:
    """The largest accepted difference between ARM and x86; of integers, two steps of 256."""
    if scheme in ("int8", "int16x8"):
        return 2 * float(np.ptp(expected)) / 255
    return {"float32": 1e-5, "float16": 1e-4, "dynamic_int8": 1e-3}[scheme]


# The 32-bit ARM kernels of tflite-runtime 2.14 are less exact (docs/device.md): the attention map
# of find_max differed by 2.85e-5.
MAP_TOLERANCE_32_BIT = 4e-5


def assert_equal_outputs(
    pi: EmulatedPi, converted: Bundle, *, map_tolerance: float = 0.0
) -> set[tuple[str, str]]:
    """Compare the outputs of ``pi`` with those of this machine; returns the artifacts that ran.

    Attention maps may differ by ``map_tolerance`` if it is larger than the scheme's tolerance.
    """
    pi = pi.mounted(converted.path, "/home/pi/find_max.edge")
    target = Target(CLAIM, "/home/pi/find_max.edge", (*pi.command("python3"), *WORKER_MODULE))
    local = local_target(converted)
    reference = converted.reference()
    schemes = set()
    with target.start() as target_worker, local.start() as local_worker:
        identify(target, converted, target_worker)
        for artifact in converted.select():
            inputs = {spec.name: reference[f"input/{spec.name}"][:20] for spec in artifact.inputs}
            expected = local.runner(local_worker, artifact, as_deployed=True).run(inputs)
            try:
                outputs = target.runner(target_worker, artifact, as_deployed=True).run(inputs)
            except RuntimeUnavailableError:
                continue
            for name, array in expected.items():
                limit = tolerance(artifact.scheme, array)
                if name in artifact.attention:
                    limit = max(limit, map_tolerance)
                error = float(np.abs(outputs[name] - array).max())
                assert error <= limit, (artifact.label, name, error)
                if name in artifact.attention:
                    same_peak = outputs[name].argmax(-1) == array.argmax(-1)
                    assert same_peak.all(), (artifact.label, name)
            schemes.add((artifact.format, artifact.scheme))
    return schemes


@pytest.mark.long
def test_every_scheme_equals_x86(any_64_bit, converted):
    schemes = assert_equal_outputs(any_64_bit, converted)
    assert schemes == {(item.format, item.scheme) for item in converted.select()}
    required = ("float32", "float16", "dynamic_int8", "int8")
    assert {("tflite", scheme) for scheme in required} <= schemes
    assert {("onnx", scheme) for scheme in ("float32", "dynamic_int8")} <= schemes


@pytest.mark.long
def test_every_scheme_on_32_bit_systems(emulate, converted_for_tflite_runtime):
    schemes = assert_equal_outputs(
        emulate(BOOKWORM_32, PI4), converted_for_tflite_runtime, map_tolerance=MAP_TOLERANCE_32_BIT
    )
    assert {("tflite", scheme) for scheme in ("float32", "dynamic_int8", "int8")} <= schemes


@pytest.mark.long
def test_validate_on_the_device(either_pi, converted):
    """Float and dynamic artifacts pass on the device as well."""
    pi = either_pi.mounted(converted.path, "/home/pi/find_max.edge")
    schemes = ("--scheme", "float32", "--scheme", "float16", "--scheme", "dynamic_int8")
    code, document, err = edgeattn(pi, "validate", "find_max.edge", *schemes, "--json")
    assert (code, err, document["verdict"]) == (0, "", "pass")
    for item in document["artifacts"]:
        assert item["stages"]["attention"] == "pass", item


# Other systems that a Pi may have


@pytest.mark.long
def test_trixie(emulate, home):
    artifacts.write_dense_bundle(home / "dense.edge")
    pi = emulate(TRIXIE, PI4).mounted(home, "/home/pi")
    code, document, err = edgeattn(pi, "doctor", "--json")
    assert (code, err, document["device"]["python"][:4]) == (0, "", "3.13")
    fits = {item["distribution"]: item["fits"] for item in document["wheels"]}
    assert fits == {"ai-edge-litert": True, "tflite-runtime": False, "onnxruntime": True}
    tflite, onnx = document["runtimes"]
    assert (tflite["state"], tflite["xnnpack"], onnx["state"]) == ("pass", True, "pass")
    code, document, err = edgeattn(pi, "validate", "dense.edge", "--json")
    assert (code, err, document["verdict"]) == (0, "", "pass")


@pytest.mark.long
def test_32_bit_bookworm_has_tflite_runtime(emulate, home):
    artifacts.write_dense_bundle(home / "dense.edge")
    pi = emulate(BOOKWORM_32, PI4).mounted(home, "/home/pi")
    code, document, err = edgeattn(pi, "doctor", "--json")
    assert (code, err, document["device"]["machine"]) == (0, "", "armv7l")
    tflite, onnx = document["runtimes"]
    assert (tflite["state"], tflite["runtime"].split()[0]) == ("pass", "tflite-runtime")
    assert onnx["state"] == "not installed"
    code, document, err = edgeattn(pi, "validate", "dense.edge", "--json")
    assert (code, err, document["verdict"]) == (0, "", "pass")
    assert [item["verdict"] for item in document["artifacts"]] == ["pass", "not run"]


# From raw input to named answers


# Files of the recordings: for the reference, the dataset, and what the device receives.
RECORDED = {
    "commands": ("samples.txt", "data.jsonl", "stream.txt"),
    "activity": ("samples.csv", "data.npz", "stream.csv"),
    "spoken_digits": ("samples.npz", "data.npz", "stream.wav"),
}


@pytest.fixture(scope="session", params=list(RECORDED))
def raw_model(request, tmp_path_factory):
    """The name of a sample model, and a folder with its bundle and recordings."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("conversion needs TensorFlow")
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    model = PROJECT / "sample_models" / name
    recordings = (str(PROJECT / "examples" / "recordings.py"), name, "recorded")
    convert = ("-P", "-m", "edgeattn", "convert", str(model / "model.h5"))
    files = ("--preprocess", str(model / "preprocess.toml"), "--scheme", "float32")
    files += (
        "--raw-samples",
        f"recorded/{RECORDED[name][0]}",
        "--samples",
        "recorded/prepared.npz",
    )
    for arguments in (recordings, (*convert, *files, "-o", "model.edge")):
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True)
    return name, folder


def assert_same_answers(answers, expected):
    for answer, other in zip(answers, expected, strict=True):
        assert answer["label"] == other["label"]
        assert answer["score"] == pytest.approx(other["score"], abs=1e-4)
        assert answer["attention"] == pytest.approx(other["attention"], abs=1e-4)


@pytest.mark.long
def test_from_raw_input_to_labels(pi, raw_model):
    """The device prepares inputs as training did, and its answers are those of x86."""
    name, folder = raw_model
    _, data, stream = RECORDED[name]
    pi = pi.mounted(folder, "/home/pi")
    validate = ("validate", "model.edge", "--raw-data", f"recorded/{data}", "--json")
    code, document, err = edgeattn(pi, *validate)
    assert (code, err, document["verdict"]) == (0, "", "pass")
    for item in document["artifacts"]:
        (check,) = (check for check in item["checks"] if check["metric"] == "preprocess")
        assert check["passed"]
    assert document["artifacts"][1]["stages"]["task"] == "pass"

    command = ("run", "model.edge", "--input", f"recorded/{stream}", "--stream")
    code, output, _ = edgeattn(pi, *command)
    assert code == 0
    local = subprocess.run(
        [sys.executable, "-P", "-m", "edgeattn", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    answers, expected = ([json.loads(x) for x in s.splitlines()] for s in (output, local.stdout))
    assert len(expected) >= 7
    assert_same_answers(answers, expected)


@pytest.mark.long
def test_the_service_on_the_device(pi, raw_model):
    """``edgeattn serve`` on the device answers a client of this machine on the shared loopback."""
    name, folder = raw_model
    dataset = folder / "recorded" / RECORDED[name][1]
    if dataset.suffix == ".npz":
        with np.load(dataset) as arrays:
            samples = arrays["x"][:3].tolist()
    else:
        samples = [json.loads(line)["x"] for line in dataset.read_text("utf-8").splitlines()[:3]]
    model = package.load(folder / "model.edge")
    expected = [model.answer(sample) for sample in samples]
    serve = ("python3", "-P", "-m", "edgeattn", "serve", "model.edge", "--port", "0")
    pi = pi.mounted(folder, "/home/pi")
    with subprocess.Popen(
        pi.command(*serve, "--timeout", "600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = process.stdout.readline().split()[-1]
            request = urllib.request.Request(
                f"{url}/answer",
                json.dumps({"samples": samples}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=600) as response:
                assert_same_answers(json.load(response)["answers"], expected)
        finally:
            process.terminate()
        # Requests in progress are finished, and the service ends.
        assert process.wait(600) == 0
