"""Sample models from raw input to named answers: the pages on them, programs, and the service.

The commands of a page run in a folder with the models and examples, as a reader runs them.
"""

import json
import os
import re
import subprocess
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from service_client import serving

import edgeattn as package

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PAGES = {"commands": "text-input", "activity": "sensor-input", "spoken_digits": "sound-input"}
# A stream of words has the halves of two in every second window.
HOPS = {"commands": 1, "activity": 1, "spoken_digits": 2}


@dataclass(frozen=True)
class Followed:
    """A folder in which the commands of a page ran, and their output by program or command."""

    name: str
    folder: Path
    outputs: dict[str, str]

    @property
    def bundle(self) -> Path:
        return next(self.folder.glob("*.edge"))

    @property
    def labels(self) -> list[str]:
        return self.outputs["examples/recordings.py"].split(": ")[1].split()


def run(command: str, folder: Path, **options) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, check=False, timeout=1200,
        env={**os.environ, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}, **options,
    )  # fmt: skip


@pytest.fixture(scope="module", params=list(PAGES))
def followed(request, tmp_path_factory):
    pytest.importorskip("edgeattn_converters")
    folder = tmp_path_factory.mktemp(request.param)
    for name in ("sample_models", "examples"):
        (folder / name).symlink_to(ROOT / name)
    page = (ROOT / "docs" / f"{PAGES[request.param]}.md").read_text("utf-8")
    outputs = {}
    for command in re.findall(r"^ *```sh\n *(.*)\n *```$", page, re.MULTILINE):
        process = run(command, folder, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
        outputs[command.split()[1]] = process.stdout
    return Followed(request.param, folder, outputs)


def majority(labels: list[str]) -> list[str]:
    """The most frequent of the last three; of several, the latest."""
    recent = [labels[max(0, end - 3) : end] for end in range(1, len(labels) + 1)]
    return [max(reversed(part), key=part.count) for part in recent]


def expected(followed: Followed) -> list[str]:
    return majority(followed.labels) if followed.name == "activity" else followed.labels


def labels_of(text: str) -> list[str]:
    return [json.loads(line)["label"] for line in text.splitlines()]


def test_the_verdict_is_made_from_raw_input(followed, edgeattn):
    model = ROOT / "sample_models" / followed.name / "model.h5"
    (data,) = (followed.folder / "recorded").glob("data.*")
    command = ("validate", followed.bundle, "--raw-data", data, "--model", model, "--json")
    result = edgeattn(*command)
    assert result.code == 0
    artifacts = result.document["artifacts"]
    assert len(artifacts) == 2
    for item in artifacts:
        assert item["verdict"] == item["stages"]["task"] == item["stages"]["attention"] == "pass"
        (check,) = (check for check in item["checks"] if check["metric"] == "preprocess")
        assert check["passed"]
    assert "not compared with the original preprocessing" not in result.out


def test_the_stream_has_the_labels_of_the_recording(followed):
    assert labels_of(followed.outputs["run"])[:: HOPS[followed.name]] == expected(followed)
    for line in followed.outputs["run"].splitlines():
        assert sum(json.loads(line)["attention"]) == pytest.approx(1, abs=1e-4)


def run_program(followed: Followed, **options) -> subprocess.CompletedProcess:
    name = {"commands": "sentences", "activity": "sensor_answers", "spoken_digits": "microphone"}
    command = f"python examples/device/{name[followed.name]}.py {followed.bundle.name}"
    process = run(command, followed.folder, **options)
    assert process.returncode == 0, process.stderr
    return process


def check_sentences(followed: Followed) -> None:
    lines = followed.outputs["examples/device/sentences.py"].splitlines()
    assert [line.split()[0] for line in lines] == followed.labels
    process = run_program(followed, input="turn it on\n\nlamp off\n", text=True)
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["on", "off"]
    assert "no answer: the line is empty\n" in process.stderr


def check_sensor(followed: Followed) -> None:
    output = followed.outputs["examples/device/sensor_answers.py"]
    assert labels_of(output) == expected(followed)
    # Windows start again after a line that is no reading.
    lines = (followed.folder / "recorded" / "stream.csv").read_text().splitlines(keepends=True)
    text = "".join([*lines[:100], "broken\n", *lines[100:]])
    process = run_program(followed, input=text, text=True)
    assert "no answer: Value 101 of the stream" in process.stderr
    assert len(labels_of(process.stdout)) == (len(lines) - 100) // 64 - 1


def check_microphone(followed: Followed) -> None:
    with wave.open(str(followed.folder / "recorded" / "stream.wav")) as file:
        sound = file.readframes(file.getnframes())
    # What arecord writes to its pipe. Windows with halves of two words may be left out.
    remaining = iter(labels_of(run_program(followed, input=sound).stdout.decode()))
    assert all(label in remaining for label in followed.labels)


CHECKS = {"commands": check_sentences, "activity": check_sensor, "spoken_digits": check_microphone}


def test_the_program_for_a_device(followed):
    CHECKS[followed.name](followed)


def test_the_service(followed):
    recorded = followed.folder / "recorded"
    if followed.name == "commands":
        samples = (recorded / "stream.txt").read_text().splitlines()
        labels = followed.labels
    else:
        with np.load(recorded / "data.npz") as arrays:
            samples = arrays["x"][:3].tolist()
        model = package.load(followed.bundle)
        labels = [model.answer(sample)["label"] for sample in samples]
        # Smoothing is for streams only.
        assert labels == followed.labels[:3]
    with serving(followed.bundle) as service:
        reply = service.post({"samples": samples}).document
    assert [answer["label"] for answer in reply["answers"]] == labels
