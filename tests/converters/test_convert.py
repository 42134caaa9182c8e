"""``edgeattn convert`` as users run it, on valid and on invalid files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus.routes import in_this_process

import models
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn_converters.lowering.rnn import onnx_nodes

COMMAND = [sys.executable, "-m", "edgeattn"]
FLOAT = ("--scheme", "float32")
ROOT = Path(__file__).parents[2]
Command = Callable[..., Any]


def edgeattn_process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.h5"
    models.filled(models.lstm_luong()).save(path)
    return path


@pytest.fixture(scope="module")
def bundle(saved: Path) -> Path:
    target = saved.parent / "made.edge"
    done = edgeattn_process("convert", saved, "-o", target, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bundle"] == str(target)
    assert document["failures"] == []
    artifacts = {(item["format"], item["scheme"]): item for item in document["artifacts"]}
    schemes = ("float32", "float16", "dynamic_int8")
    assert set(artifacts) == {
        (format, scheme) for format in ("tflite", "onnx") for scheme in schemes
    }
    for (_, scheme), item in artifacts.items():
        assert item["verdict"] == "pass"
        if scheme == "float32":
            assert item["max_abs_error"] <= 1e-5
        assert (target / item["path"]).stat().st_size == item["bytes"]
    return target


def test_the_bundle_is_complete(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    opened.verify()
    listed = {item.path for item in opened.manifest.artifacts}
    assert {file.name for file in bundle.iterdir()} == {*listed, MANIFEST, "reference.npz"}
    assert opened.manifest.model["attention"][0]["name"] == "attention/look"
    reference = opened.reference()
    rows = opened.manifest.reference["samples"] + opened.manifest.reference["edge_cases"]
    assert reference["input/sensor"].shape == (rows, 13, 3)
    assert reference["attention/look"].shape == (rows, 13)


def test_the_time_of_conversion_is_in_the_manifest(bundle: Path, saved: Path) -> None:
    """In whole seconds, between the times of the model and of the manifest."""
    created = json.loads((bundle / MANIFEST).read_text())["created"]
    assert type(created) is int
    assert int(saved.stat().st_mtime) <= created <= (bundle / MANIFEST).stat().st_mtime + 1


def test_the_reference_contains_the_outputs_of_keras(bundle: Path) -> None:
    reference = Bundle.open(bundle).reference()
    expected = models.filled(models.lstm_luong()).predict(reference["input/sensor"], verbose=0)
    np.testing.assert_allclose(reference["output/answer"], expected, atol=1e-6)


def test_validate_and_run(bundle: Path, tmp_path: Path) -> None:
    done = edgeattn_process("validate", bundle, "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "pass")
    reference = Bundle.open(bundle).reference()
    np.save(tmp_path / "x.npy", reference["input/sensor"])
    for format in ("tflite", "onnx"):
        done = edgeattn_process(
            "run", bundle, "--input", "x.npy", "--format", format, "--force", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "x.outputs.npz") as outputs:
            np.testing.assert_allclose(
                outputs["answer"], reference["output/answer"], atol=1e-5, rtol=1e-4
            )


def test_one_format_and_real_samples(edgeattn: Command, saved: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 13, 3)).astype("float32")
    np.savez(tmp_path / "samples.npz", x=x, y=np.arange(5))
    target = tmp_path / "one.edge"
    done = edgeattn(
        *("convert", *FLOAT, saved, "-o", target, "--format", "onnx", "--samples"),
        tmp_path / "samples.npz",
    )
    assert done.code == 0, done.err
    assert "tflite" not in done.out
    reference = Bundle.open(target).reference()
    np.testing.assert_array_equal(reference["input/sensor"][:5], x)
    np.testing.assert_array_equal(reference["target"], np.arange(5))


@pytest.mark.long
def test_free_time_axis(edgeattn: Command, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((None, 3), name="sensor")
    states = keras.layers.LSTM(5, return_sequences=True)(inputs)
    free = models.filled(keras.Model(inputs, models.Attention(2)(states)))
    free.save(tmp_path / "free.keras")
    refused = edgeattn("convert", *FLOAT, "free.keras")
    assert refused.code == 2
    assert "--time-steps" in refused.err
    assert [file.name for file in tmp_path.iterdir()] == ["free.keras"]
    done = edgeattn("convert", *FLOAT, "free.keras", "--time-steps", "7", "--format", "onnx")
    assert done.code == 0, done.err
    x = np.ones((2, 11, 3), "float32")
    np.savez(tmp_path / "samples.npz", x=x)
    done = edgeattn(
        *(
            "convert",
            *FLOAT,
            "free.keras",
            "--samples",
            "samples.npz",
            "--format",
            "onnx",
            "--force",
        ),
    )
    assert done.code == 0, done.err
    assert Bundle.open(tmp_path / "free.edge").manifest.artifacts[0].inputs[0].shape[1] == 11


def test_time_steps_of_a_model_with_a_fixed_length(
    edgeattn: Command, saved: Path, tmp_path: Path
) -> None:
    done = edgeattn("convert", saved, "--time-steps", "7", "-o", tmp_path / "out.edge")
    assert done.code == 2
    assert "fixed sequence length" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_not_a_model(edgeattn: Command, bundle: Path) -> None:
    done = edgeattn("convert", bundle)
    assert done.code == 2
    assert "is already a bundle" in done.err


def test_a_folder_is_not_a_model(edgeattn: Command, tmp_path: Path) -> None:
    done = edgeattn("convert", ".")
    assert done.code == 3
    assert list(tmp_path.iterdir()) == []


def _no_such(folder: Path, saved: Path) -> str:
    return "No such file"


def _empty(folder: Path, saved: Path) -> str:
    (folder / "bad.h5").write_bytes(b"")
    return "empty"


def _text(folder: Path, saved: Path) -> str:
    (folder / "bad.h5").write_text("epoch,loss\n1,0.5\n")
    return "text"


def _truncated(folder: Path, saved: Path) -> str:
    (folder / "bad.h5").write_bytes(saved.read_bytes()[:9000])
    return "cut short"


def _folder(folder: Path, saved: Path) -> str:
    (folder / "bad.h5").mkdir()
    return "folder"


def _only_config(folder: Path, saved: Path) -> str:
    import h5py

    (folder / "bad.h5").write_bytes(saved.read_bytes())
    with h5py.File(folder / "bad.h5", "a") as file:
        del file["model_weights"]
    return "weights"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_no_such, 2),
        (_empty, 3),
        (_text, 3),
        (_truncated, 3),
        (_folder, 3),
        (_only_config, 3),
    ],
)
def test_bad_models(
    edgeattn: Command, make: Callable[[Path, Path], str], code: int, saved: Path, tmp_path: Path
) -> None:
    message = make(tmp_path, saved)
    before = sorted(tmp_path.rglob("*"))
    done = edgeattn("convert", *FLOAT, "bad.h5")
    assert done.code == code, done.err
    assert done.out == ""
    assert message in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) <= 3
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 12, 3), "float32")}, "the shape (samples, 13, 3), found (3, 12, 3)"),
        ({"x": np.zeros((13, 3), "float32")}, "x[None]"),
        ({"x": np.full((3, 13, 3), np.nan)}, "NaN"),
        ({"x": np.full((3, 13, 3), np.inf)}, "infinite"),
        ({"x": np.array(["a", "b"])}, "is text; it takes float32"),
        ({"z": np.zeros((3, 13, 3))}, "'sensor'"),
        ({"x": np.zeros((3, 13, 3)), "y": np.zeros(2)}, "different numbers"),
        ({"x": np.zeros((0, 13, 3))}, "no samples"),
    ],
)
def test_bad_samples(arrays: dict[str, Any], message: str, saved: Path, tmp_path: Path) -> None:
    """They are rejected before TensorFlow is used, so no worker is needed."""
    import re

    from edgeattn.errors import SampleError
    from edgeattn.tensors import TensorSpec
    from edgeattn_converters.reference import reference_file
    from edgeattn_converters.tracing.trace import Interface

    path = tmp_path / "samples.npz"
    np.savez(path, **arrays)
    interface = Interface((TensorSpec("sensor", (None, 13, 3), "float32"),), (), ())
    with pytest.raises(SampleError) as caught:
        reference_file.write(
            _NoModel(), interface, tmp_path / "out.npz", samples=path, attention=True
        )
    assert re.search("|".join(map(re.escape, message.split("|"))), str(caught.value))
    assert not (tmp_path / "out.npz").exists()


class _NoModel:
    """A model without layers."""

    inputs = (None,)

    def _flatten_layers(self, **_: Any) -> Iterator[Any]:
        return iter(())


def test_bad_samples_on_the_command_line(edgeattn: Command, saved: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", x=np.full((3, 13, 3), np.nan, "float32"))
    done = edgeattn("convert", *FLOAT, saved, "-o", "out.edge", "--samples", "samples.npz")
    assert done.code == 2
    assert "NaN" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["samples.npz"]


def test_an_existing_output_folder(edgeattn: Command, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "out.edge").mkdir()
    other_file = tmp_path / "out.edge" / "precious.txt"
    other_file.write_text("mine")
    for force in ([], ["--force"]):
        done = edgeattn("convert", *FLOAT, saved, "-o", tmp_path / "out.edge", *force)
        assert done.code == 2, done.err
    assert other_file.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["out.edge"]


@pytest.mark.long
def test_tables_and_details(edgeattn: Command, saved: Path, tmp_path: Path) -> None:
    arguments = ("convert", saved, "--format", "onnx", "--scheme", "dynamic_int8", "--force")
    done = edgeattn(*arguments, "-o", tmp_path / "out.edge")
    header, row = done.out.splitlines()[2:4]
    assert header.split()[:3] == ["verdict", "format", "scheme"]
    assert row.split()[:3] == ["pass", "onnx", "dynamic_int8"]
    assert "onnx dynamic_int8: " not in done.out
    verbose = edgeattn(*arguments, "-o", tmp_path / "out.edge", "--verbose")
    assert "onnx dynamic_int8: " in verbose.out


def test_force_replaces_a_bundle(
    edgeattn: Command, bundle: Path, saved: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.edge"
    target.mkdir()
    (target / MANIFEST).write_text("an old one")
    config = tmp_path / "edgeattn.toml"
    config.write_text('[convert]\nformat = "onnx"\n')
    done = edgeattn("convert", *FLOAT, saved, "-o", target, "--force")
    assert done.code == 0, done.err
    assert done.err == "Options from edgeattn.toml: format\n"
    new = Bundle.open(target)
    new.verify()
    assert [item.format for item in new.manifest.artifacts] == ["onnx"]
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    record = {"file": "edgeattn.toml", "sha256": digest, "recipe": None}
    assert new.manifest.config == {**record, "options": {"format": "onnx"}}
    assert "options from edgeattn.toml: format" in edgeattn("inspect", target).out
    config.unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["out.edge"]


@pytest.mark.long
def test_a_full_disk(saved: Path, tmp_path: Path) -> None:
    def limit() -> None:
        # Writing beyond this size fails as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    done = edgeattn_process("convert", *FLOAT, saved, "-o", tmp_path / "out.edge", preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "Free some space" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)],
    ids=["ctrl-c", "term"],
)
def test_interrupted(number: signal.Signals, code: int, saved: Path, tmp_path: Path) -> None:
    """The signal arrives while the worker converts: it reads from a pipe that has no data."""
    pipe, output = tmp_path / "pipe", tmp_path / "output"
    os.mkfifo(pipe)
    output.mkdir()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'edgeattn_converters.formats.tflite':\n"
        f"            open({str(pipe)!r}).read()\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "convert", *FLOAT, str(saved), "-o", str(output / "out.edge")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        # The tests may run with the signal ignored, as shells do for background jobs.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    with os.fdopen(_opened_by_reader(pipe, process), "wb"):
        assert list(output.iterdir())
        # Ctrl-C reaches the whole process group; a service manager signals the first process.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert list(output.iterdir()) == []
    with pytest.raises(ProcessLookupError):  # no process of the group is left
        os.killpg(process.pid, 0)


def _opened_by_reader(pipe: Path, process: subprocess.Popen[str]) -> int:
    """The descriptor for writing to ``pipe``, once a process reads from it."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.long
def test_a_converter_that_crashes(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The TFLite converter is killed; the ONNX file is written and the failure is listed."""
    from edgeattn_converters import ConversionOptions, convert

    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'edgeattn_converters.formats.tflite':\n"
        "            os.kill(os.getpid(), 11)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    conversion = convert(
        saved, tmp_path / "out.edge", options=ConversionOptions(schemes=("float32",))
    )
    assert conversion.exit_code == 3
    assert [item.format for item in conversion.bundle.manifest.artifacts] == ["onnx"]
    (failure,) = conversion.failures
    assert failure["format"] == "tflite"
    assert (
        failure["reason"]
        == "The worker process died of SIGSEGV while converting to tflite float32."
    )
    Bundle.open(tmp_path / "out.edge").verify()


def test_wrong_weights_fail(
    edgeattn: Command, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter with wrong weights, in this process."""
    original = onnx_nodes.onnx_weights

    def wrong(*arguments: Any) -> Any:
        weights, *rest = original(*arguments)
        return (weights * 1.01, *rest)

    monkeypatch.setattr(onnx_nodes, "onnx_weights", wrong)
    with in_this_process():
        result = edgeattn("convert", *FLOAT, saved, "--format", "onnx", "-o", tmp_path / "out.edge")
    assert result.code == 1, result.err
    rows = [line.split()[:3] for line in result.out.splitlines()]
    assert ["fail", "onnx", "float32"] in rows
    assert "onnx float32: tolerance_ratio of answer is" in result.out


@pytest.mark.long
def test_an_artifact_that_does_not_match_keras(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter with wrong weights: the verdict is fail and the exit code is 1."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name != 'edgeattn_converters.formats.onnx':\n"
        "            return None\n"
        "        sys.meta_path.remove(self)\n"
        "        import edgeattn_converters.lowering.rnn.onnx_nodes as nodes\n"
        "        original = nodes.onnx_weights\n"
        "        def wrong(*arguments, **options):\n"
        "            w, *rest = original(*arguments, **options)\n"
        "            return (w * 1.01, *rest)\n"
        "        nodes.onnx_weights = wrong\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    arguments = ("convert", *FLOAT, saved, "--format", "onnx", "-o", tmp_path / "out.edge")
    done = edgeattn_process(*arguments, env=environment)
    assert done.returncode == 1, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["fail", "onnx", "float32"] in rows
    assert "onnx float32: tolerance_ratio of answer is" in done.stdout
