"""The bare install: what a device gets runs without TensorFlow and Keras, for real."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import artifacts
import numpy as np
import pytest
from artifacts import dense, samples

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".out" / "light-environment"
HOST = ("tensorflow", "keras", "tf_keras", "h5py", "onnx", "tf2onnx", "sklearn", "pytest")
# Where importing ends before it starts, as in an environment without the extra.
BLOCKED = "raise ModuleNotFoundError('No module named onnxruntime')\n"
PIP_CANNOT = ("No matching distribution", "Could not find a version", "Connection", "Temporary")


def clean_environment():
    """Nothing of the environment that the tests run in may help."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONNOUSERSITE": "1"}


def key():
    """What the environment depends on; edgeattn itself is installed anew every time."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def install(folder):
    """``pip install edgeattn[onnx]`` with the tested versions, into a new environment."""
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", ROOT / "constraints.txt"]
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=1200)
        ask([*pip, *constraints, f"{ROOT}[onnx]"])
        (folder / ".complete").touch()
    # The code may have changed since: what is installed is a copy.
    ask([*pip, *constraints, "--force-reinstall", "--no-deps", ROOT])
    return python


def ask(command):
    done = subprocess.run(
        list(map(str, command)),
        env=clean_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode and any(word in done.stderr for word in PIP_CANNOT):
        pytest.skip(f"pip cannot install here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of the clean environment."""
    folder = CACHE / key()
    folder.parent.mkdir(parents=True, exist_ok=True)
    return install(folder)


@pytest.fixture
def bundle(tmp_path):
    np.save(tmp_path / "x.npy", samples(11))
    return artifacts.write_dense_bundle(tmp_path / "dense.edge").path


@pytest.fixture
def light(python, tmp_path):
    """Runs the installed command: its exit code, its document, what is on stderr."""

    def run(*arguments, **environment):
        done = subprocess.run(
            [str(python.parent / "edgeattn"), *map(str, arguments)],
            env={**clean_environment(), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        document = json.loads(done.stdout) if "--json" in arguments else done.stdout
        return done.returncode, document, done.stderr

    return run


@pytest.fixture
def without_onnxruntime(tmp_path):
    folder = tmp_path / "blocked" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(BLOCKED)
    return {"PYTHONPATH": str(folder.parent)}


def test_what_is_installed(python):
    code = (
        "import importlib.util, json, edgeattn; print(json.dumps([edgeattn.__file__, "
        f"[name for name in {HOST!r} if importlib.util.find_spec(name)]]))"
    )
    told = subprocess.run(
        [python, "-c", code], env=clean_environment(), cwd="/", capture_output=True, check=True
    )
    file, found = json.loads(told.stdout)
    assert found == []
    assert Path(file).is_relative_to(python.parent.parent)


def test_help(light):
    code, text, err = light("--help")
    assert (code, err) == (0, "")
    assert "validate" in text


def test_inspect(light, bundle):
    code, document, err = light("inspect", bundle, "--json")
    assert (code, err) == (0, "")
    assert document["kind"] == "bundle"


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_run(light, bundle, tmp_path, format):
    code, document, err = light("run", bundle, "--input", "x.npy", "--format", format, "--json")
    assert (code, err, document["format"]) == (0, "", format)
    with np.load(tmp_path / document["path"]) as got:
        np.testing.assert_array_equal(got["score"], dense(samples(11)))


def test_validate(light, bundle):
    code, document, err = light("validate", bundle, "--json")
    assert (code, err, document["verdict"]) == (0, "", "pass")
    runtimes = [item["runtime"].split()[0] for item in document["artifacts"]]
    assert runtimes == ["ai-edge-litert", "onnxruntime"]


def test_validate_can_fail(light, tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    made = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    code, document, _ = light("validate", made.path, "--json")
    assert (code, document["verdict"]) == (1, "fail")


def test_nothing_heavy_is_loaded_in_the_child_either(python, bundle):
    code = f"""
import json, sys
from pathlib import Path
import edgeattn
from edgeattn.runners import open_artifact
bundle = edgeattn.Bundle.open(Path({str(bundle)!r}))
report = edgeattn.validate(
    bundle, bundle.select(), lambda item: open_artifact(bundle.path, item)
)
print(json.dumps([report.verdict, sorted({{name.split(".")[0] for name in sys.modules}})]))
"""
    told = subprocess.run(
        [python, "-c", code],
        env=clean_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
    )
    verdict, loaded = json.loads(told.stdout.splitlines()[-1])
    assert verdict == "pass"
    assert {"numpy", "ai_edge_litert", "onnxruntime"} <= set(loaded)
    assert not set(HOST) & set(loaded)


def test_without_onnxruntime_its_artifact_is_not_run(light, bundle, without_onnxruntime):
    code, document, err = light("validate", bundle, "--json", **without_onnxruntime)
    assert (code, err, document["verdict"]) == (0, "", "pass")
    found = {item["format"]: item for item in document["artifacts"]}
    assert found["tflite"]["verdict"] == "pass"
    assert found["onnx"]["verdict"] == "not run"
    assert found["onnx"]["runtime"] is None
    assert "onnxruntime" in found["onnx"]["reason"]
    assert set(found["onnx"]["stages"].values()) == {"not run"}
    code, document, _ = light(
        "validate", bundle, "--format", "onnx", "--json", **without_onnxruntime
    )
    assert (code, document["verdict"]) == (5, "not run")
    code, document, _ = light(
        "run", bundle, "--input", "x.npy", "--format", "onnx", "--json", **without_onnxruntime
    )
    assert code == 5
    assert "edgeattn[onnx]" in document["error"]["hint"]


@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_what_a_host_does_says_what_to_install(light, tmp_path, command):
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code, document, _ = light(command, "model.h5", "--json")
    assert code == 2
    assert "tensorflow" in document["error"]["message"]
    assert "edgeattn[convert]" in document["error"]["hint"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.h5"]
