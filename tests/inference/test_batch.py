"""One artifact run on a file of samples: its choice, and complete output files only."""

import errno
import os
import zipfile
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import X, Y, dense, samples

from edgeattn.errors import (
    ArtifactError,
    BundleError,
    OutputError,
    RuntimeUnavailableError,
    SampleError,
)
from edgeattn.inference import run
from edgeattn.inference.run import RunOptions, run_bundle
from edgeattn.runners.isolated import IsolatedRunner


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "x.npy", samples(11))
    return tmp_path / "x.npy"


def without_runtime(monkeypatch, *formats):
    class Missing(IsolatedRunner):
        def __init__(self, folder, artifact, worker, **options):
            if artifact.format in formats:
                raise RuntimeUnavailableError(f"no runtime for {artifact.format}")
            super().__init__(folder, artifact, worker, **options)

    monkeypatch.setattr(run, "IsolatedRunner", Missing)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_outputs_are_written(dense_bundle, source, tmp_path, format):
    target = tmp_path / "out.npz"
    result = run_bundle(dense_bundle.path, source, target, RunOptions(formats=(format,)))
    assert (result.artifact.format, result.samples) == (format, 11)
    with np.load(target) as got:
        assert got.files == ["score"]
        np.testing.assert_array_equal(got["score"], dense(samples(11)))
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_first_artifact_whose_runtime_is_installed(dense_bundle, source, tmp_path, monkeypatch):
    without_runtime(monkeypatch, "tflite")
    assert run_bundle(dense_bundle.path, source, tmp_path / "a.npz").artifact.format == "onnx"
    with pytest.raises(RuntimeUnavailableError, match="tflite"):
        run_bundle(dense_bundle.path, source, tmp_path / "b.npz", RunOptions(formats=("tflite",)))
    without_runtime(monkeypatch, "tflite", "onnx")
    with pytest.raises(RuntimeUnavailableError, match="for tflite"):
        run_bundle(dense_bundle.path, source, tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()


def test_samples_must_fit_the_artifact_that_runs(tmp_path, monkeypatch):
    """The first artifact has another shape than the samples, but its runtime is missing."""
    bundle = artifacts.write_dense_bundle(tmp_path / "b.edge", formats=("tflite", "onnx"))
    first, second = bundle.manifest.artifacts
    first = replace(first, inputs=(replace(X, shape=(1, 2)),))
    artifacts.write_bundle(bundle.path, (first, second), bundle.reference())
    np.save(tmp_path / "x.npy", samples())
    without_runtime(monkeypatch, "tflite")
    result = run_bundle(bundle.path, tmp_path / "x.npy", tmp_path / "out.npz")
    assert result.artifact.format == "onnx"


def test_an_existing_file_needs_force(dense_bundle, source, tmp_path):
    target = tmp_path / "out.npz"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists") as caught:
        run_bundle(dense_bundle.path, source, target)
    assert "--force" in caught.value.hint
    assert target.read_text() == "mine"
    run_bundle(dense_bundle.path, source, target, force=True)
    assert zipfile.is_zipfile(target)


@pytest.mark.parametrize("force", [True, False])
def test_pipes_and_folders_are_never_replaced(dense_bundle, source, tmp_path, force):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OutputError, match="not a file"):
            run_bundle(dense_bundle.path, source, tmp_path / name, force=force)
    with pytest.raises(OutputError, match="No such folder"):
        run_bundle(dense_bundle.path, source, tmp_path / "no" / "out.npz", force=force)
    assert (tmp_path / "pipe").is_fifo()


def test_changed_bundles_are_not_run(dense_bundle, source, tmp_path):
    file = dense_bundle.path / "reference.npz"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        run_bundle(dense_bundle.path, source, tmp_path / "out.npz")


@pytest.mark.parametrize("failure", ["samples", "artifact", "disk", "interrupt"])
def test_a_failed_run_leaves_no_files(dense_bundle, source, tmp_path, monkeypatch, failure):
    expected = SampleError
    if failure == "samples":
        np.save(source, samples()[:, :2])
    elif failure == "artifact":
        expected = ArtifactError
        (dense_bundle.path / "dense.float32.tflite").write_bytes(b"garbage")
        artifacts.rehash(dense_bundle.path)
    else:
        expected = OutputError if failure == "disk" else KeyboardInterrupt

        def full(file, _):
            file.write(b"incomplete")
            if failure == "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "write_npz", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(expected):
        run_bundle(dense_bundle.path, source, tmp_path / "out.npz")
    assert sorted(tmp_path.iterdir()) == before


def test_output_names_that_savez_reserves(tmp_path, source):
    """numpy.savez has parameters ``file`` and ``allow_pickle``."""
    names = ("file", "allow_pickle")
    folder = tmp_path / "b.edge"
    folder.mkdir()
    artifacts.write_dense_onnx(folder / "m.onnx", outputs=names)
    outputs = tuple(replace(Y, name=name) for name in names)
    entry = artifacts.artifact(folder / "m.onnx", outputs=outputs)
    reference = {"input/x": samples(), **{f"output/{n}": dense(samples()) for n in names}}
    artifacts.write_bundle(folder, [entry], reference)
    run_bundle(folder, source, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as got:
        assert set(got.files) == set(names)
        np.testing.assert_array_equal(got["allow_pickle"], -dense(samples(11)))
