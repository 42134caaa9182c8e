"""``validate --scheduler``: the report of this machine, from the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifacts
import numpy as np
import pytest
from dask_cluster import dask_cluster

import edgeattn
from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import UsageError
from edgeattn.evaluation.checkpoint import Checkpoint, Stored
from sweep.sweeps import LUONG

pytest.importorskip("distributed", reason="dask is not installed")

SCHEDULER = ("--scheduler", "tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--scheduler has no effect without --data"),
        (("--data", "test.npz", "--jobs", "2"), "--jobs has no effect with --scheduler"),
        (("--data", "test.npz", "--python", "python3"), "no effect with --on and --python"),
    ],
)
def test_options_without_effect(
    dense_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edgeattn: Callable[..., Any],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    x = artifacts.samples(8)
    np.savez("test.npz", x=x, y=np.arange(8) % 2)
    result = edgeattn("validate", dense_bundle.path, *SCHEDULER, *arguments)
    assert (result.code, message in result.err) == (2, True), result.err


def test_objects_in_place_of_files(dense_bundle: Bundle) -> None:
    data = (artifacts.samples(8), np.arange(8) % 2)
    with pytest.raises(UsageError, match="scheduler has no effect with a runner function"):
        edgeattn.validate(
            dense_bundle, None, lambda artifact: None, data=data, scheduler="tcp://127.0.0.1:9"
        )


def test_a_cluster_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeattn.cluster.scheduler import Cluster
    from edgeattn.cluster.versions import package_versions

    cluster = Cluster.__new__(Cluster)
    cluster.versions = {**package_versions(), "keras of another machine": "1"}
    cluster.check_versions()
    cluster.versions["numpy"] = "0"
    with pytest.raises(UsageError, match="The Dask workers have numpy 0, and this process has"):
        cluster.check_versions()


def resumed_report(edgeattn: Callable[..., Any], command: tuple[Any, ...]) -> Any:
    """The report of a command that resumes another one, which ends after its first shard."""
    checkpoint, ended = Path("dense.edge.dense.unfinished.npz"), []
    save = Checkpoint.save

    def save_and_stop(self: Checkpoint, stored: Stored) -> None:
        save(self, stored)
        ended.append(stored.shards)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        stopped = edgeattn(*command, "--resume")
    assert "Rerun the command to resume" in stopped.err
    assert [len(shards) for shards in ended] == [1]
    assert checkpoint.exists()
    result = edgeattn(*command, "--resume")
    assert not checkpoint.exists()
    return result.document


@pytest.mark.long
def test_the_report_is_that_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeattn: Callable[..., Any]
) -> None:
    """With the fallback reference and a worker that is killed, and with Keras on the workers."""
    monkeypatch.chdir(tmp_path)
    artifacts.write_dense_bundle(tmp_path / "dense.edge")
    count = 5000
    x = artifacts.samples(count)
    x[:, 1] += np.arange(count) / 400
    y = artifacts.dense(x).argmax(1)
    y[::7] = 1 - y[::7]
    np.savez("dense.npz", x=x, y=y)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1500, 7, 2)).astype(np.float32)
    np.savez("luong.npz", x=inputs, y=rng.normal(size=(1500, 11)))
    (tmp_path / "luong.h5").write_bytes(LUONG.read_bytes())
    options = ("--scheme", "float32", "--scheme", "float16", "--format", "tflite")
    assert edgeattn("convert", "luong.h5", *options).code == 0
    preload = Path(__file__).with_name("dying_shard.py")
    with dask_cluster(tmp_path / "cluster", 2, preload) as dask:
        for name in ("dense", "luong"):
            command = ("validate", f"{name}.edge", "--data", f"{name}.npz", "--json")
            spread = edgeattn(*command, "--scheduler", dask.address)
            alone = edgeattn(*command)
            assert spread.code == alone.code, spread.err
            assert spread.document == alone.document
            task = alone.document["artifacts"][-1]["task"]
            assert task["samples"] == (count if name == "dense" else 1500)
            assert task["reference"] == ("Keras" if name == "luong" else task["reference"])
        attempts = (tmp_path / "attempts").read_text().split()
        command = ("validate", "dense.edge", "--data", "dense.npz", "--json")
        resumed = resumed_report(edgeattn, (*command, "--scheduler", dask.address))
    # 5 batches of 1024 samples in 4 shards, of which one ran twice, and 2 batches.
    assert (set(attempts), len(attempts)) == (set("0134"), 4 + 1 + 2)
    assert resumed == edgeattn(*command).document
