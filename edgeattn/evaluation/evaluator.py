"""Evaluation of artifacts on a dataset, batch by batch.

The reference and every artifact run a batch, the results are accumulated, and the batch is
discarded. An artifact is loaded anew for each batch and runs its samples consecutively, so that its
outputs depend neither on the number of workers nor on interruptions. If the file accepts any batch
size, it gets the samples in smaller batches of changing sizes; the fallback reference one by one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeattn import progress
from edgeattn.errors import ArtifactError
from edgeattn.evaluation import checkpoint as checkpoints
from edgeattn.evaluation.dataset import Batch, Dataset, fallback_name, main_outputs
from edgeattn.evaluation.measurements import Measurements
from edgeattn.evaluation.results import TaskReport
from edgeattn.evaluation.shards import Shard, ShardResult, ShardRunner, ShardWork
from edgeattn.metrics.limits import Check, Limit
from edgeattn.printable import counted
from edgeattn.process.pool import Opener, RunnerPool
from edgeattn.tensors import Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.checkpoint import Checkpoint

# The sizes, in turn, in which samples run if the file accepts any: results must not depend on them.
BATCH_SIZES = (1, 2, 3, 7, 64)
NO_REFERENCE = (
    "There is no reference: Keras or the model's file is missing, and no float32 artifact of the "
    "bundle agrees with Keras within the limits of float32."
)


@dataclass(frozen=True)
class EvaluationResult:
    """The result of one artifact; ``error`` is the message of the artifact's failure, if any."""

    task: TaskReport
    checks: tuple[Check, ...] = ()
    error: str | None = None
    warnings: tuple[str, ...] = ()


def evaluate_shard(
    dataset: Dataset, shard: Shard, work: ShardWork, pool: RunnerPool
) -> ShardResult:
    """Evaluate artifacts on a part of a dataset, for :func:`evaluate` to merge."""
    evaluation = _Evaluation(dataset, work, pool)
    return evaluation.run_shard(shard)


def evaluate(
    dataset: Dataset,
    artifacts: Sequence[Artifact],
    pool: RunnerPool,
    *,
    fallback_reference: Artifact | None = None,
    limits: Sequence[Limit] = (),
    checkpoint: Checkpoint | None = None,
    shards: ShardRunner | None = None,
) -> dict[str, EvaluationResult]:
    """Evaluate each artifact on all samples of a dataset.

    The reference is what the dataset brings, its own outputs or a Keras model, else the float32
    artifact ``fallback_reference``. With a ``checkpoint``, an earlier evaluation is resumed, and
    unfinished work is stored every few seconds. With ``shards``, the evaluation runs elsewhere, the
    results are the same, and unfinished work is stored whenever a shard ends.

    Returns the results by label. Raises :class:`SampleError` if labels do not fit their output.
    """
    fallback = None if dataset.reference_name else fallback_reference
    if not dataset.reference_name and fallback is None:
        missing = _not_run("none", dataset, NO_REFERENCE)
        return {artifact.label: EvaluationResult(missing) for artifact in artifacts}
    name = dataset.reference_name if fallback is None else fallback_name(fallback)
    reference_label = dataset.fallback_reference if fallback is None else fallback.label
    others = tuple(artifact for artifact in artifacts if artifact.label != reference_label)
    work = ShardWork(others, fallback, tuple(limits), name)
    evaluation = _Evaluation(dataset, work, pool)
    if others and shards is not None:
        evaluation.run_elsewhere(shards, work, checkpoint)
    elif others:
        evaluation.run(checkpoint)
    itself = replace(
        _not_run(name, dataset, f"{reference_label} is the reference itself."), skipped=True
    )
    return {
        artifact.label: EvaluationResult(itself, error=evaluation.reference_error)
        if artifact.label == reference_label
        else evaluation.result(artifact)
        for artifact in artifacts
    }


def _not_run(reference_name: str, dataset: Dataset, reason: str) -> TaskReport:
    return TaskReport(
        reference_name, (), dataset.source, dataset.notes, reason, samples=len(dataset)
    )


@dataclass(frozen=True)
class _PendingBatch:
    """A batch that was submitted to the pool, and the outputs to wait for."""

    batch: Batch
    expected: Future[Tensors]
    actual: Mapping[str, Future[Tensors]]


class _Evaluation:
    """The state of one call of :func:`evaluate`."""

    def __init__(self, dataset: Dataset, work: ShardWork, pool: RunnerPool) -> None:
        self._dataset, self._artifacts, self._pool = dataset, work.artifacts, pool
        self._fallback, self._reference_name = work.fallback, work.reference_name
        self._errors: dict[str, str] = {}
        # Why the fallback reference stopped.
        self.reference_error: str | None = None
        self._maps = {name for item in work.artifacts for name in item.attention}
        self._measured = Measurements(dataset, work.artifacts, work.limits, work.reference_name)

    def run_shard(self, shard: Shard) -> ShardResult:
        """Run the batches of a shard."""
        done = self.run(None, shard)
        return ShardResult(done, self._measured.state, self._errors, self.reference_error)

    def run_elsewhere(
        self, shards: ShardRunner, work: ShardWork, checkpoint: Checkpoint | None
    ) -> None:
        """Add the results of shards, which are all batches together, to those of the checkpoint."""
        done, ended = 0, list[Shard]()
        stopped: Mapping[Shard, Mapping[str, str]] = {}
        if checkpoint is not None and (stored := checkpoint.load()) is not None:
            done, ended, stopped = int(stored.state["done"]), list(stored.shards), stored.stopped
            self._measured.restore(stored.state)
        display = _Progress(self._dataset, done)
        ends: list[tuple[Shard, str]] = []
        for shard, result in shards(work, ended):
            done += result.done
            display.show(done)
            if result.errors:
                stopped = {**stopped, shard: result.errors}
            if result.reference_error is not None:
                ends.append((shard, result.reference_error))
                continue
            self._measured.merge(result.state)
            ended = sorted((*ended, shard))
            if checkpoint is not None:
                state = {"done": np.array(done), **self._measured.state}
                known = {item: stopped[item] for item in ended if item in stopped}
                checkpoint.save(checkpoints.Stored(tuple(ended), known, state))
        last = None
        if ends:
            last, self.reference_error = min(ends)
            if checkpoint is not None:
                checkpoint.remove()
        # Only what stopped first would have been seen on this machine.
        self._errors = checkpoints.first_errors(stopped, last)

    def run(self, checkpoint: Checkpoint | None, shard: Shard | None = None) -> int:
        """Run all batches or those of a shard, or those of them that follow the checkpoint.

        Returns the number of samples.
        """
        first, done = 0 if shard is None else shard.first, 0
        stored = None if checkpoint is None else checkpoint.load_consecutive()
        if stored is not None:
            first, self._errors = stored.shards[-1].stop, checkpoints.first_errors(stored.stopped)
            done = int(stored.state["done"])
            self._measured.restore(stored.state)
        display = _Progress(self._dataset, done)
        batches = self._dataset.batches(first, None if shard is None else shard.stop)
        # Submit as many batches as keep all runners busy, and no more: each takes memory.
        parallel = self._pool.count > 1
        ahead = 1 + parallel * math.ceil(self._pool.count / len(self._artifacts))
        pending: deque[_PendingBatch] = deque()
        saved_at, latest = time.monotonic(), None
        try:
            while True:
                while len(pending) < ahead and (batch := next(batches, None)) is not None:
                    if len(batch):
                        pending.append(self._submit(batch))
                if not pending:
                    break
                submitted = pending.popleft()
                self._accumulate(submitted)
                if self.reference_error is not None:
                    break
                done += len(submitted.batch)
                display.show(done)
                if checkpoint is None:
                    continue
                # An interruption during the next batch stores the state before it.
                state = {"done": np.array(done), **self._measured.state}
                ended = Shard(0, submitted.batch.number + 1)
                errors = {ended: dict(self._errors)} if self._errors else {}
                latest = checkpoints.Stored((ended,), errors, state)
                if time.monotonic() - saved_at >= checkpoints.SAVE_INTERVAL_S:
                    checkpoint.save(latest)
                    saved_at = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            if checkpoint is not None and latest is not None:
                checkpoint.save(latest)
            raise
        if checkpoint is not None and self.reference_error is not None:
            checkpoint.remove()
        elif checkpoint is not None and latest is not None:
            # The caller removes it when the results are stored.
            checkpoint.save(latest)
        return done

    def _submit(self, batch: Batch) -> _PendingBatch:
        required = tuple(batch.reference_outputs or ()) or None
        if batch.reference_outputs is not None:
            expected: Future[Tensors] = Future()
            expected.set_result(batch.reference_outputs)
        elif self._dataset.keras is not None:
            expected = self._pool.submit_background(self._dataset.keras, batch.inputs)
        else:
            assert self._fallback is not None
            expected = self._pool.submit(_outputs, self._fallback, batch.inputs, None)
        actual = {
            artifact.label: self._pool.submit(
                _outputs, artifact, batch.inputs, required, BATCH_SIZES
            )
            for artifact in self._artifacts
            if artifact.label not in self._errors
        }
        return _PendingBatch(batch, expected, actual)

    def _accumulate(self, submitted: _PendingBatch) -> None:
        try:
            expected = submitted.expected.result()
        except ArtifactError as error:
            assert self._fallback is not None
            self.reference_error = (
                f"The fallback reference {self._fallback.label} stopped: {error.message}"
            )
            return
        # Wait for all outputs first, so that an interruption leaves no batch half accumulated.
        outputs: dict[str, Tensors] = {}
        for label, future in submitted.actual.items():
            try:
                outputs[label] = _in_shapes_of(expected, future.result(), self._maps)
            except ArtifactError as error:
                self._errors.setdefault(label, error.message)
        running = {label: outputs[label] for label in outputs if label not in self._errors}
        self._measured.add(submitted.batch.labels, expected, running)

    def result(self, artifact: Artifact) -> EvaluationResult:
        """The result of all batches for one artifact."""
        dataset, label = self._dataset, artifact.label
        error = self._errors.get(label)
        reason = self.reference_error if error is None else f"{label} stopped: {error}"
        if reason is not None:
            report = _not_run(self._reference_name, dataset, reason)
            return EvaluationResult(report, error=error)
        results = self._measured.scores(artifact)
        missing = None if results else f"{dataset.source} contains no labels."
        task = TaskReport(
            self._reference_name,
            results,
            dataset.source,
            dataset.notes,
            reason=missing,
            skipped=not results,
            samples=len(dataset),
        )
        runs = self._fallback is not None or dataset.keras is not None
        return EvaluationResult(
            task,
            tuple(self._measured.checks(artifact)),
            warnings=tuple(self._measured.warnings(artifact, all_outputs=runs)),
        )


def _outputs(
    opener: Opener,
    artifact: Artifact,
    inputs: Tensors,
    required: Sequence[str] | None,
    batch_sizes: Sequence[int] = (),
) -> Tensors:
    """The outputs and maps of a freshly loaded artifact, of which those ``required`` must exist."""
    runner = opener(artifact)
    try:
        outputs = runner.run(inputs, batch_sizes)
    finally:
        runner.close()
    names = (*main_outputs(artifact), *artifact.attention)
    missing = [name for name in required or names if name not in outputs]
    if missing:
        raise ArtifactError(f"Output {missing[0]!r} is missing.")
    return {name: outputs[name] for name in names if name in outputs}


def _in_shapes_of(expected: Tensors, actual: Tensors, maps: Collection[str]) -> Tensors:
    """``actual`` in the shapes of the reference; :class:`ArtifactError` if they do not fit.

    In artifacts of earlier versions, ``maps`` of a MultiHeadAttention over several axes have all
    of these axes; now they have one for all queries and one for all keys.
    """
    shaped = dict(actual)
    for name in expected.keys() & actual.keys():
        wanted, shape = np.shape(expected[name]), actual[name].shape
        axes = (len(shape) - len(wanted)) // 2 + 1
        joined = (*shape[: -2 * axes], *map(math.prod, (shape[-2 * axes : -axes], shape[-axes:])))
        if name in maps and wanted == joined:
            shaped[name] = actual[name].reshape(wanted)
        elif wanted != shape:
            raise ArtifactError(
                f"Output {name!r} has the shape {shape}, and that of the reference has {wanted}."
            )
    return shaped


class _Progress:
    """Reports how many samples are done, and an estimate of the remaining time."""

    def __init__(self, dataset: Dataset, done: int) -> None:
        self._dataset, self._first = dataset, done
        self._start = time.monotonic()
        self.show(done)

    def show(self, done: int) -> None:
        total = len(self._dataset)
        text = f"{self._dataset.source}: {done:,} of {counted(total, 'sample')}"
        if done > self._first:
            pace = (time.monotonic() - self._start) / (done - self._first)
            text += f", {_duration(pace * (total - done))} left"
        progress.report(text)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
