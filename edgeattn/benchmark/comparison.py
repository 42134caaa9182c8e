"""Median latencies of artifacts that are compared with each other, with confidence intervals.

The artifacts run in rounds, each of them once per round for a short block of runs, in an order that
is drawn anew. The value of a round is the median of its block. Runs of one block share conditions
such as the clock frequency, so the rounds, not the runs, count as independent measurements. Each
artifact runs in a worker process of its own and is timed inside it.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.benchmark.artifact_worker import ArtifactWorker
from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.medians import median_interval, required_values
from edgeattn.printable import counted
from edgeattn.process.limits import RunLimits, limited_to
from edgeattn.targets.on_device.session import ends_when_idle
from edgeattn.targets.replies import line, parsing, text

if TYPE_CHECKING:
    from edgeattn.targets.target import Target
    from edgeattn.tensors import Tensors

# Rounds of each artifact, runs and seconds of one block, and seconds for all blocks together. The
# time limit does not apply before every artifact has enough rounds for an interval.
ROUNDS, BLOCK_RUNS, BLOCK_SECONDS, SECONDS = 25, 64, 0.1, 120.0
WARM_UP_RUNS, WARM_UP_SECONDS = 20, 0.5
# Blocks during which the board was throttled are void and repeated, at most this often.
MAX_VOID = 25


@dataclass(frozen=True)
class Comparison:
    """How long to measure, by default as the constants of this module."""

    rounds: int = ROUNDS
    seconds: float = SECONDS


@dataclass(frozen=True)
class MedianLatency:
    """The latency of one artifact.

    Attributes:
        rounds_ms: The median run time in milliseconds of each valid round.
        compared: The number of artifacts that were compared.
        runtime: Name and version of the runtime.
        void: Rounds that were discarded because the board was throttled.
        reason: Why there is no interval.
    """

    rounds_ms: tuple[float, ...]
    compared: int
    runtime: str | None = None
    void: int = 0
    reason: str | None = None

    @property
    def estimate(self) -> tuple[float, float, float] | None:
        """The median and the limits of its interval in milliseconds; None if not measured.

        The level is 95% for all artifacts together, see :func:`median_interval`.
        """
        return None if self.reason is not None else median_interval(self.rounds_ms, self.compared)

    def to_json(self) -> dict[str, Any]:
        return {
            "rounds_ms": list(self.rounds_ms),
            "runtime": self.runtime,
            "void": self.void,
            "reason": self.reason,
        }


def compare_latencies(
    artifacts: Sequence[Artifact],
    target: Target,
    inputs: Tensors,
    comparison: Comparison = Comparison(),
) -> tuple[MedianLatency, ...]:
    """Measure ``artifacts``, files of the folder of ``target``, in turns, with one thread each.

    ``inputs`` has arrays named ``input/NAME``. A file that differs from its hash is not run.
    """
    with contextlib.ExitStack() as stack:
        recorders = []
        for number, artifact in enumerate(artifacts, 1):
            progress.report(
                f"starting {number} of {counted(len(artifacts), 'artifact')} to be timed"
            )
            worker = stack.enter_context(target.start())
            recorders.append(_Recorder(ArtifactWorker(artifact, 1, worker, target.folder, inputs)))
        required = required_values(len(artifacts))
        _run_rounds(recorders, comparison, required)
        return tuple(recorder.result(len(artifacts), required) for recorder in recorders)


@ends_when_idle
def compare_on_this_device(
    folder: str,
    artifacts: list[dict[str, Any]],
    comparison: dict[str, Any],
    limits: dict[str, Any],
    tensors: Tensors,
) -> list[dict[str, Any]]:
    """On a device: :func:`compare_latencies` of files in ``folder``, as JSON."""
    from edgeattn.targets.target import Target

    entries = [Artifact.from_json(item) for item in artifacts]
    with limited_to(RunLimits(**limits)):
        results = compare_latencies(
            entries, Target("here", folder), tensors, Comparison(**comparison)
        )
    return [result.to_json() for result in results]


def parse_latencies(reply: Sequence[Mapping[str, Any]], count: int) -> tuple[MedianLatency, ...]:
    """The results of :func:`compare_on_this_device` for ``count`` artifacts.

    Raises :class:`DeviceError` if the reply of the device is malformed.
    """
    with parsing("measured latencies"):
        results = tuple(_parse(item, count) for item in reply)
        if len(results) != count:
            raise ValueError
    return results


def _parse(item: Mapping[str, Any], count: int) -> MedianLatency:
    values = tuple(item["rounds_ms"])
    if any(type(value) not in (int, float) or not 0 <= value < math.inf for value in values):
        raise ValueError
    if type(item["void"]) is not int:
        raise TypeError
    if item["reason"] is None and len(values) < required_values(count):
        raise ValueError
    return MedianLatency(
        values,
        count,
        None if item["runtime"] is None else text(item["runtime"]),
        item["void"],
        None if item["reason"] is None else line(item["reason"]),
    )


class _Recorder:
    """Runs one artifact and records the median of each valid block."""

    def __init__(self, worker: ArtifactWorker) -> None:
        self._worker = worker
        self.rounds_ms: list[float] = []
        self.void = 0
        worker.call("time_runs", {"count": WARM_UP_RUNS, "seconds": WARM_UP_SECONDS})

    @property
    def failed(self) -> bool:
        return self._worker.reason is not None or self.void >= MAX_VOID

    def run_block(self) -> None:
        returned = self._worker.call("time_runs", {"count": BLOCK_RUNS, "seconds": BLOCK_SECONDS})
        if returned is None:
            return
        conditions, arrays = returned
        if conditions["throttled"]:
            self.void += 1
        else:
            self.rounds_ms.append(float(median(arrays["nanoseconds"].tolist())) / 1e6)

    def result(self, compared: int, required: int) -> MedianLatency:
        reason = self._worker.reason
        if reason is None and len(self.rounds_ms) < required:
            reason = (
                f"The board was throttled in {counted(self.void, 'round')}. Cool it, check its "
                "power supply and measure again."
            )
        return MedianLatency(
            tuple(self.rounds_ms), compared, self._worker.runtime, self.void, reason
        )


def _run_rounds(recorders: Sequence[_Recorder], comparison: Comparison, required: int) -> None:
    order = random.Random(0)
    end = time.monotonic() + comparison.seconds
    rounds = max(comparison.rounds, required)
    while True:
        unfinished = [r for r in recorders if not r.failed and len(r.rounds_ms) < rounds]
        enough = all(len(r.rounds_ms) >= required for r in unfinished)
        if not unfinished or (enough and time.monotonic() > end):
            return
        progress.report(f"measuring latency: round {len(unfinished[0].rounds_ms) + 1} of {rounds}")
        for recorder in order.sample(unfinished, len(unfinished)):
            recorder.run_block()
