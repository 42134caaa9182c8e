"""Evaluation on a dataset by the workers of a Dask scheduler, each on a part of it at a time.

A shard is a range of whole batches, and what its batches give is merged exactly, so the report is
the same for any number of shards and workers. A worker has one batch in memory.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, sha256
from edgeattn.cluster.scheduler import Cluster
from edgeattn.errors import DeviceError, EdgeattnError, UsageError
from edgeattn.evaluation.evaluator import evaluate_shard
from edgeattn.evaluation.file_dataset import FileDataset
from edgeattn.evaluation.shards import Shard, ShardResult, ShardWork
from edgeattn.process.kept_worker import KeptWorkers
from edgeattn.process.pool import RunnerPool
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner

# Each round of shards is half of what remains, and the last one all of it: workers end at about the
# same time, and few shards are small.
ROUNDS = 6
# With Keras, which each shard starts again, in seconds.
KERAS_ROUNDS = 2
# Seconds for which the process of a runtime waits for the next shard.
IDLE_S = 30.0


@dataclass(frozen=True)
class ShardRequest:
    """A shard to evaluate, on a machine that has the same files at the same paths.

    ``manifest`` is the SHA-256 of the manifest of the bundle, which contains those of its files.
    """

    bundle: Path
    manifest: str
    dataset: FileDataset
    work: ShardWork
    shard: Shard


class DaskShards:
    """Evaluates the shards of ``dataset`` on a cluster."""

    def __init__(self, cluster: Cluster, bundle: Bundle, dataset: FileDataset) -> None:
        self._cluster, self._dataset = cluster, dataset.for_other_machines()
        self._bundle = bundle.path.absolute()

    def __call__(
        self, work: ShardWork, done: Sequence[Shard] = ()
    ) -> Iterator[tuple[Shard, ShardResult]]:
        """The results of the shards as they end, of all batches that are in no shard of ``done``.

        Raises the error of the first shard that cannot be evaluated, and :class:`DeviceError` if
        one ends every worker.
        """
        manifest = sha256(self._bundle / MANIFEST)
        rounds = ROUNDS if self._dataset.keras is None else KERAS_ROUNDS
        shards = split_remaining(self._dataset.batch_count, done, self._cluster.count, rounds)
        calls = {
            shard: (ShardRequest(self._bundle, manifest, self._dataset, work, shard),)
            for shard in shards
        }
        with contextlib.closing(self._cluster.run(evaluate_request, calls)) as ended:
            for call in ended:
                if call.died:
                    rows = self._dataset.rows
                    raise DeviceError(
                        f"Every Dask worker that evaluated the samples {call.item.first * rows:,} "
                        f"to {call.item.stop * rows - 1:,} died.",
                        hint="Start workers with more memory.",
                    )
                if isinstance(call.error, EdgeattnError):
                    raise call.error
                if call.error is not None:
                    raise EdgeattnError(f"{type(call.error).__name__}: {call.error}")
                yield call.item, call.value


def split_remaining(batches: int, done: Sequence[Shard], workers: int, rounds: int) -> list[Shard]:
    """Shards of the batches that are in none of ``done``."""
    remaining = set(range(batches))
    for shard in done:
        remaining -= set(range(shard.first, shard.stop))
    numbers = sorted(remaining)
    shards = []
    for part in split_in_rounds(len(numbers), workers, rounds):
        start = part.first
        for position in range(part.first + 1, part.stop + 1):
            if position == part.stop or numbers[position] != numbers[position - 1] + 1:
                shards.append(Shard(numbers[start], numbers[position - 1] + 1))
                start = position
    return shards


def split_in_rounds(batches: int, workers: int, rounds: int) -> list[Shard]:
    """At most ``rounds`` shards for each worker, the largest first."""
    shards: list[Shard] = []
    for left in range(rounds, 0, -1):
        first = shards[-1].stop if shards else 0
        remaining = batches - first
        count = remaining if left == 1 else remaining - remaining // 2
        shards += split(count, workers, first) if count else []
    return shards


def split(batches: int, count: int, first: int = 0) -> list[Shard]:
    """At most ``count`` shards of about the same size, from the batch ``first`` on."""
    count = max(1, min(batches, count))
    ends = [first + batches * number // count for number in range(count + 1)]
    return [Shard(first, stop) for first, stop in itertools.pairwise(ends)]


def evaluate_request(request: ShardRequest) -> ShardResult:
    """Evaluate a shard in processes of this machine.

    Raises :class:`UsageError` if the bundle or the data are missing here, or are others.
    """
    dataset = request.dataset
    for path in (request.bundle / MANIFEST, dataset.file.path):
        if not path.is_file():
            raise _unreadable(path)
    if sha256(request.bundle / MANIFEST) != request.manifest:
        raise UsageError(
            f"A Dask worker has another bundle at {request.bundle}.",
            hint="Put the bundle on a disk that all workers share.",
        )
    if dataset.changed:
        raise UsageError(
            f"A Dask worker has another file at {dataset.file.path}: its size or time differs.",
            hint="Put the data on a disk that all workers share.",
        )
    bundle = Bundle.open(request.bundle)
    closers = [] if dataset.keras is None else [dataset.keras.close]
    with (
        _runtime(request) as worker,
        RunnerPool(
            [lambda item: IsolatedRunner(bundle.path, item, worker, as_deployed=True)], closers
        ) as pool,
    ):
        return evaluate_shard(dataset, request.shard, request.work, pool)


_kept = KeptWorkers()


@contextlib.contextmanager
def _runtime(request: ShardRequest) -> Iterator[Worker]:
    """A process for the artifacts, which then waits for the next shard of the same bundle."""
    key = (request.bundle, request.manifest)
    worker = _kept.own.take(key) or Worker()
    try:
        yield worker
    except BaseException:
        worker.close()
        raise
    _kept.own.keep(worker, IDLE_S, key)


def _unreadable(path: Path) -> UsageError:
    return UsageError(
        f"A Dask worker has no file {path}.",
        hint="Put the bundle, the data and the model on a disk that all workers share.",
    )
