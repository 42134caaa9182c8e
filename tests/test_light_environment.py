"""edgeattn in an environment without TensorFlow and Keras, as on a device."""

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
CONVERTER_PACKAGES = (
    "tensorflow",
    "keras",
    "tf_keras",
    "h5py",
    "onnx",
    "tf2onnx",
    "sklearn",
    "pytest",
)
# Has the effect of an environment without the extra.
BLOCKED = "raise ModuleNotFoundError('No module named onnxruntime')\n"
PIP_UNAVAILABLE = (
    "No matching distribution",
    "Could not find a version",
    "Connection",
    "Temporary",
)


def clean_environment():
    """The environment variables, without those that add packages of the tests."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**others, "PYTHONNOUSERSITE": "1"}


def cache_key():
    """A hash of what the environment depends on; edgeattn itself is installed every time."""
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
        run_pip([*pip, *constraints, f"{ROOT}[onnx]"])
        (folder / ".complete").touch()
    # The installed code is a copy, which may be older.
    run_pip([*pip, *constraints, "--force-reinstall", "--no-deps", ROOT])
    return python


def run_pip(command):
    process = subprocess.run(
        list(map(str, command)),
        env=clean_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if process.returncode and any(word in process.stderr for word in PIP_UNAVAILABLE):
        pytest.skip(f"pip cannot install packages: {process.stderr.strip().splitlines()[-1]}")
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of the clean environment."""
    folder = CACHE / cache_key()
    folder.parent.mkdir(parents=True, exist_ok=True)
    return install(folder)


@pytest.fixture
def bundle(tmp_path):
    np.save(tmp_path / "x.npy", samples(11))
    return artifacts.write_dense_bundle(tmp_path / "dense.edge").path


@pytest.fixture
def light(python, tmp_path):
    """Runs the installed command; returns its exit code, JSON or text, and standard error."""

    def run(*arguments, **environment):
        process = subprocess.run(
            [str(python.parent / "edgeattn"), *map(str, arguments)],
            env={**clean_environment(), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        document = json.loads(process.stdout) if "--json" in arguments else process.stdout
        return process.returncode, document, process.stderr

    return run


@pytest.fixture
def without_onnxruntime(tmp_path):
    folder = tmp_path / "blocked" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(BLOCKED)
    return {"PYTHONPATH": str(folder.parent)}


@pytest.mark.long
def test_converter_packages_are_not_installed(python):
    code = (
        "import importlib.util, json, edgeattn; print(json.dumps([edgeattn.__file__, "
        f"[name for name in {CONVERTER_PACKAGES!r} if importlib.util.find_spec(name)]]))"
    )
    process = subprocess.run(
        [python, "-c", code], env=clean_environment(), cwd="/", capture_output=True, check=True
    )
    file, installed = json.loads(process.stdout)
    assert installed == []
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
    bundle = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    code, document, _ = light("validate", bundle.path, "--json")
    assert (code, document["verdict"]) == (1, "fail")


def test_validation_loads_no_converter_package(python, bundle):
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
    process = subprocess.run(
        [python, "-c", code],
        env=clean_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
    )
    verdict, loaded = json.loads(process.stdout.splitlines()[-1])
    assert verdict == "pass"
    assert {"numpy", "ai_edge_litert", "onnxruntime"} <= set(loaded)
    assert not set(CONVERTER_PACKAGES) & set(loaded)


def test_onnx_artifact_is_not_run_without_onnxruntime(light, bundle, without_onnxruntime):
    code, document, err = light("validate", bundle, "--json", **without_onnxruntime)
    assert (code, err, document["verdict"]) == (0, "", "pass")
    by_format = {item["format"]: item for item in document["artifacts"]}
    assert by_format["tflite"]["verdict"] == "pass"
    assert by_format["onnx"]["verdict"] == "not run"
    assert by_format["onnx"]["runtime"] is None
    assert "onnxruntime" in by_format["onnx"]["reason"]
    assert set(by_format["onnx"]["stages"].values()) == {"not run"}
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
def test_commands_for_the_host_name_the_missing_packages(light, tmp_path, command):
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code, document, _ = light(command, "model.h5", "--json")
    assert code == 2
    assert "tensorflow" in document["error"]["message"]
    assert "edgeattn[convert]" in document["error"]["hint"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.h5"]
