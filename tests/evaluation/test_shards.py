"""Shards of a dataset: the report is that of an undivided evaluation, however it is cut."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.errors import ArtifactError, UsageError
from edgeattn.evaluation import dataset as datasets
from edgeattn.evaluation.evaluator import evaluate_shard
from edgeattn.evaluation.file_dataset import FileDataset, open_dataset
from edgeattn.evaluation.shards import Shard, ShardResult, ShardWork
from edgeattn.process.pool import RunnerPool
from edgeattn.validation.dask_shards import (
    ShardRequest,
    evaluate_request,
    split,
    split_in_rounds,
    split_remaining,
)
from edgeattn.validation.validate import ValidationOptions, validate

COUNT = 330


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BATCH_SIZE", 32)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return artifacts.write_dense_bundle(tmp_path / "dense.edge")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x = artifacts.samples(COUNT)
    x[:, 1] += np.arange(COUNT) / 4
    y = artifacts.dense(x).argmax(1)
    y[::7] = 1 - y[::7]
    np.savez(tmp_path / "test.npz", x=x, y=y)
    return tmp_path / "test.npz"


def right(tensors: Any) -> Any:
    return {"score": artifacts.dense(tensors["x"])}


def noisy(tensors: Any) -> Any:
    score = artifacts.dense(tensors["x"])
    score[tensors["x"][:, 0] > 7] *= -1
    return {"score": score + np.float32(1e-3) * np.sin(tensors["x"][:, :1])}


def stops_above(limit: float, function: Any) -> Any:
    """A function that stops with an error at samples beyond ``limit``."""

    def stopping(tensors: Any) -> Any:
        if (beyond := tensors["x"][:, 1]).max() > limit and len(beyond) > 1:
            raise ArtifactError(f"stopped at {beyond.max():.2f}")
        return function(tensors)

    return stopping


def opener(onnx: Any, tflite: Any) -> Any:
    def open_function(artifact: Any) -> FunctionRunner:
        chosen = tflite if artifact.format == "tflite" else onnx
        return FunctionRunner(chosen, artifact.inputs, artifact.outputs)

    return open_function


class LocalShards:
    """Evaluates shards in this process, in another order than that of the data.

    The command is interrupted after ``stop`` shards.
    """

    def __init__(
        self, dataset: FileDataset, open_runner: Any, count: int, stop: int | None = None
    ) -> None:
        self._dataset, self._open, self._count = dataset, open_runner, count
        self._stop = stop
        self.batches: list[int] = []

    def __call__(
        self, work: ShardWork, ended: Sequence[Shard]
    ) -> Iterator[tuple[Shard, ShardResult]]:
        shards = split_remaining(self._dataset.batch_count, ended, self._count, 1)
        for number, shard in enumerate(reversed(shards)):
            if number == self._stop:
                raise KeyboardInterrupt
            self.batches += range(shard.first, shard.stop)
            dataset, sent = pickle.loads(pickle.dumps((self._dataset, work)))
            with RunnerPool([self._open]) as pool:
                result = evaluate_shard(dataset, shard, sent, pool)
            yield shard, pickle.loads(pickle.dumps(result))


WAYS_TO_STOP = [
    (noisy, right),
    # Artifacts stop in the middle, and so does the fallback reference.
    (stops_above(50, noisy), right),
    (noisy, stops_above(40, right)),
    (stops_above(60, noisy), stops_above(40, right)),
    (stops_above(30, noisy), stops_above(70, right)),
]


def report_of(
    bundle: Bundle,
    dataset: FileDataset,
    open_runner: Any,
    shards: LocalShards | None = None,
    checkpoint: Path | None = None,
) -> str:
    options = ValidationOptions(shards=shards, checkpoint=checkpoint)
    artifacts = bundle.manifest.artifacts
    report = validate(bundle, artifacts, open_runner, dataset=dataset, options=options)
    return json.dumps(report.to_json(), sort_keys=True, allow_nan=False)


@pytest.mark.parametrize(("onnx", "tflite"), WAYS_TO_STOP)
def test_any_number_of_shards_gives_the_same_report(
    bundle: Bundle, data: Path, onnx: Any, tflite: Any
) -> None:
    dataset, open_runner = open_dataset(data, bundle), opener(onnx, tflite)
    assert dataset.batch_count == 11
    reports = []
    for count in (None, 1, 2, 3, 11, 40):
        shards = None if count is None else LocalShards(dataset, open_runner, count)
        reports.append(report_of(bundle, dataset, open_runner, shards))
    assert len(set(reports)) == 1
    assert str(COUNT) in reports[0]


@pytest.mark.parametrize(("onnx", "tflite"), WAYS_TO_STOP)
def test_interrupted_shards_resume_to_the_same_report(
    bundle: Bundle, data: Path, tmp_path: Path, onnx: Any, tflite: Any
) -> None:
    """With other numbers of shards each time, and with what one machine did before."""
    dataset, open_runner = open_dataset(data, bundle), opener(onnx, tflite)
    whole = report_of(bundle, dataset, open_runner)
    checkpoint, batches = tmp_path / "unfinished.npz", []
    for count, stop in ((5, 2), (4, 1), (3, 1)):
        shards = LocalShards(dataset, open_runner, count, stop)
        with pytest.raises(KeyboardInterrupt):
            report_of(bundle, dataset, open_runner, shards, checkpoint)
        batches += shards.batches
    shards = LocalShards(dataset, open_runner, 2)
    assert report_of(bundle, dataset, open_runner, shards, checkpoint) == whole
    # A shard whose reference stopped is not stored, nor is an evaluation without a reference.
    if tflite is right:
        assert sorted(batches + shards.batches) == list(range(11))
        # The work is complete, and the caller has not removed it.
        again = LocalShards(dataset, open_runner, 2)
        assert report_of(bundle, dataset, open_runner, again, checkpoint) == whole
        assert again.batches == []
    else:
        assert not checkpoint.exists()


def test_shards_and_one_machine_resume_each_other(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(data, bundle)
    whole = report_of(bundle, dataset, opener(noisy, right))

    def interrupted(tensors: Any) -> Any:
        if tensors["x"][:, 1].max() > 40:
            raise KeyboardInterrupt
        return noisy(tensors)

    checkpoint = tmp_path / "unfinished.npz"
    with pytest.raises(KeyboardInterrupt):
        report_of(bundle, dataset, opener(interrupted, right), checkpoint=checkpoint)
    shards = LocalShards(dataset, opener(noisy, right), 3, 1)
    with pytest.raises(KeyboardInterrupt):
        report_of(bundle, dataset, opener(noisy, right), shards, checkpoint)
    first, *_, last = np.load(checkpoint)["shards"].tolist()
    assert (first[0], last[1]) == (0, 11)
    # The last batches are done, and others before them are not.
    with pytest.raises(UsageError, match="is an unfinished validation by Dask workers") as caught:
        report_of(bundle, dataset, opener(noisy, right), checkpoint=checkpoint)
    assert "Pass --scheduler" in caught.value.hint
    remaining = LocalShards(dataset, opener(noisy, right), 2)
    assert report_of(bundle, dataset, opener(noisy, right), remaining, checkpoint) == whole
    assert sorted(shards.batches + remaining.batches) == list(range(first[1], 11))
    # All batches are consecutive now.
    assert report_of(bundle, dataset, opener(noisy, right), checkpoint=checkpoint) == whole


def test_shards_of_what_remains() -> None:
    ended = (Shard(2, 4), Shard(7, 8))
    assert split_remaining(10, ended, 1, 1) == [Shard(0, 2), Shard(4, 7), Shard(8, 10)]
    # 7 batches: 4, then 3, for 2 workers.
    assert split_remaining(10, ended, 2, 2) == [
        *(Shard(0, 2), Shard(4, 6)),
        *(Shard(6, 7), Shard(8, 10)),
    ]
    assert split_remaining(10, (Shard(0, 10),), 2, 2) == []


@pytest.mark.parametrize(("batches", "count"), [(1, 8), (11, 3), (8, 8), (1000, 7)])
def test_shards_are_all_batches_once(batches: int, count: int) -> None:
    shards = split(batches, count)
    numbers = [number for shard in shards for number in range(shard.first, shard.stop)]
    assert numbers == list(range(batches))
    sizes = [shard.stop - shard.first for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert len(shards) == min(batches, count)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("batches", [1, 5, 50, 977])
def test_rounds_of_shards_are_all_batches_once(batches: int, workers: int) -> None:
    shards = split_in_rounds(batches, workers, 6)
    numbers = [number for shard in shards for number in range(shard.first, shard.stop)]
    assert numbers == list(range(batches))
    sizes = [shard.stop - shard.first for shard in shards]
    assert len(shards) <= 6 * workers
    if batches == 977:
        # Half of the batches in the first round, and the last shard is a 32nd of a worker's part.
        assert sum(sizes[:workers]) == 489
        assert max(sizes[-workers:]) <= 977 / 32 / workers + 1


def request(bundle: Bundle, dataset: FileDataset, manifest: str = "0") -> ShardRequest:
    work = ShardWork(bundle.manifest.artifacts, None, (), "Keras")
    return ShardRequest(bundle.path, manifest, dataset.for_other_machines(), work, Shard(0, 1))


def test_a_worker_without_the_files(bundle: Bundle, data: Path) -> None:
    dataset = open_dataset(data, bundle)
    with pytest.raises(UsageError, match="has another bundle"):
        evaluate_request(request(bundle, dataset))
    manifest = sha256(bundle.path / MANIFEST)
    # A copy of the same time is the same file for another machine.
    content, modified = data.read_bytes(), dataset.stamp[2]
    data.unlink()
    with pytest.raises(UsageError, match="has no file"):
        evaluate_request(request(bundle, dataset, manifest))
    data.write_bytes(content)
    os.utime(data, ns=(modified, modified))
    assert not dataset.for_other_machines().changed
    os.utime(data, ns=(modified, modified + 1))
    with pytest.raises(UsageError, match="its size or time differs"):
        evaluate_request(request(bundle, dataset, manifest))
