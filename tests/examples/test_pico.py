"""The program for a Raspberry Pi Pico compiles, and quantizes its input and output."""

import shutil
import subprocess
from pathlib import Path

import artifacts
import pytest

from edgeattn.deployment.c_array import micro_artifact, write_c_array
from edgeattn.schemes import MICRO

PICO = Path(__file__).parent.parent.parent / "examples" / "pico"
STUB = Path(__file__).parent / "pico_stub"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    folder = tmp_path_factory.mktemp("pico")
    bundle = artifacts.write_dense_bundle(folder / "dense.edge", formats=("tflite",))

    def micro(data):
        data["artifacts"][0]["runtimes"] = {MICRO: ">=0"}
        data["artifacts"][0]["achieved"]["arena_bytes"] = 4096

    artifacts.edit_manifest(bundle.path, micro)
    opened = type(bundle).open(bundle.path)
    write_c_array(opened, micro_artifact(opened), folder / "model", force=False)
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{STUB}", f"-I{folder}/model"]
    sources = [PICO / "main.cc", folder / "model" / "model.cc"]
    subprocess.run([compiler, *flags, *sources, "-o", folder / "main"], check=True)
    return folder / "main"


def run(program, text):
    return subprocess.run([program], input=text, capture_output=True, text=True, check=False)


def test_outputs(program):
    """The interpreter of the stub returns its input, which has steps of a half."""
    process = run(program, "1 2.25 -3\n0.4 100000 -0.26\n")
    assert process.returncode == 0
    # 2.25 is between two steps; lround rounds away from zero. 16383.5 is the largest int16.
    assert process.stdout.splitlines() == ["0 1 2.5 -3", "0 0.5 16383.5 -0.5"]


def test_an_incomplete_sample(program):
    process = run(program, "1 2")
    assert (process.returncode, process.stdout) == (0, "")
