"""Artifacts tried on a user's own samples, segment by segment.

A segment is answered by the reference and by every artifact, counted, and forgotten. Each artifact
is loaded afresh for each segment and runs its samples one after the other: what it answers depends
neither on how many workers there are nor on where work that was cut short went on.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeattn import progress
from edgeattn.errors import ArtifactError
from edgeattn.evaluation import checkpoint as partials
from edgeattn.evaluation.accumulators import TaskTally
from edgeattn.evaluation.dataset import Samples, Segment, main_outputs, stands_in
from edgeattn.evaluation.keras_reference import NAME as KERAS
from edgeattn.evaluation.results import TaskReport
from edgeattn.metrics.limits import Check, Limit, limits_for
from edgeattn.metrics.running import Agreement
from edgeattn.process.pool import Opener, RunnerPool
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.checkpoint import Partial

NOTHING = (
    "There is nothing to compare with: Keras or the model's file is not here, and no float32 "
    "artifact of the bundle is as Keras is."
)


@dataclass(frozen=True)
class Tried:
    """What became of one artifact; ``broken`` says how it stopped, where it did."""

    task: TaskReport
    checks: tuple[Check, ...] = ()
    broken: str | None = None


def try_all(
    samples: Samples,
    artifacts: Sequence[Artifact],
    workers: RunnerPool,
    *,
    stand_in: Artifact | None = None,
    limits: Sequence[Limit] = (),
    partial: Partial | None = None,
) -> dict[str, Tried]:
    """Each artifact on all samples, by its label.

    The reference is what ``samples`` bring along, else Keras as they know it, else the float32
    artifact ``stand_in``. With ``partial``, what is done is kept there every few seconds, and what
    an earlier run kept is not done again. Raises :class:`SampleError` for labels that fit no
    output.
    """
    answered = bool(samples.reference)
    if not answered and stand_in is None:
        return {item.label: Tried(_untried("nothing", samples, NOTHING)) for item in artifacts}
    reference = samples.reference if stand_in is None or answered else stands_in(stand_in)
    in_place = samples.stand_in if answered or stand_in is None else stand_in.label
    tried = [item for item in artifacts if item.label != in_place]
    run = _Run(samples, tried, workers, None if answered else stand_in, limits, reference)
    if tried:
        run.go(partial)
    found = {item.label: run.found(item) for item in tried}
    itself = f"{in_place} is the reference here: it cannot be compared with itself."
    for item in artifacts:
        if item.label == in_place:
            found[item.label] = Tried(_untried(reference, samples, itself))
    return found


def _untried(reference: str, samples: Samples, reason: str) -> TaskReport:
    return TaskReport(reference, (), samples.source, samples.notes, reason)


class _Run:
    def __init__(
        self,
        samples: Samples,
        artifacts: Sequence[Artifact],
        workers: RunnerPool,
        stand_in: Artifact | None,
        limits: Sequence[Limit],
        reference: str,
    ) -> None:
        self._samples, self._artifacts, self._workers = samples, artifacts, workers
        self._stand_in, self._limits, self._reference = stand_in, limits, reference
        self._broken: dict[str, str] = {}
        self._lost: str | None = None
        facts = samples.facts
        self._tasks = {
            item.label: {
                name: TaskTally(name, facts[name]) for name in main_outputs(item) if name in facts
            }
            for item in artifacts
        }
        self._agreements = {
            item.label: {
                name: Agreement(limits_for(item.scheme, name, limits))
                for name in main_outputs(item)
            }
            for item in artifacts
        }

    def go(self, partial: Partial | None) -> None:
        """Answer and count all segments, or those that an earlier run left."""
        following, done = 0, 0
        found = None if partial is None else partial.load()
        if found is not None:
            following, self._broken, state = found
            done = int(state["done"])
            self._restore(state)
        shown = _Progress(self._samples, done)
        segments = self._samples.segments(following)
        # As many at once as keep all workers busy, and no more: each is in memory.
        several = self._workers.count > 1
        ahead = 1 + several * math.ceil(self._workers.count / len(self._artifacts))
        pending: deque[_Asked] = deque()
        saved, kept = time.monotonic(), None
        try:
            while self._lost is None:
                while len(pending) < ahead and (segment := next(segments, None)) is not None:
                    if len(segment):
                        pending.append(self._ask(segment))
                if not pending:
                    break
                asked = pending.popleft()
                self._count(asked)
                done += len(asked.segment)
                shown.show(done)
                if partial is None:
                    continue
                # What interrupts the counting of a segment finds the state before it.
                kept = (asked.segment.number + 1, dict(self._broken), self._state(done))
                if time.monotonic() - saved >= partials.EVERY:
                    partial.save(*kept)
                    saved = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            if partial is not None and kept is not None:
                partial.save(*kept)
            raise
        if partial is not None:
            partial.remove()

    def _ask(self, segment: Segment) -> _Asked:
        wanted = tuple(segment.answers or ()) or None
        if segment.answers is not None:
            before: Future[Tensors] = Future()
            before.set_result(segment.answers)
        elif self._samples.keras is not None:
            before = self._workers.beside(self._samples.keras, segment.inputs)
        else:
            assert self._stand_in is not None
            before = self._workers.submit(_answer, self._stand_in, segment.inputs, None)
        after = {
            item.label: self._workers.submit(_answer, item, segment.inputs, wanted)
            for item in self._artifacts
            if item.label not in self._broken
        }
        return _Asked(segment, before, after)

    def _count(self, asked: _Asked) -> None:
        try:
            before = asked.before.result()
        except ArtifactError as error:
            assert self._stand_in is not None
            self._lost = f"{self._stand_in.label}, in the place of Keras, stopped: {error.message}"
            return
        # All answers first: what interrupts the waiting finds either all of them counted or none.
        answers: dict[str, Tensors] = {}
        for label, future in asked.after.items():
            try:
                after = future.result()
                _check_shapes(before, after)
                answers[label] = after
            except ArtifactError as error:
                self._broken.setdefault(label, error.message)
        for label, after in answers.items():
            if label in self._broken:
                continue
            for name, agreement in self._agreements[label].items():
                if name in before:
                    agreement.add(np.asarray(before[name]), after[name])
            for name, tally in self._tasks[label].items():
                tally.add(asked.segment.labels[name], before[name], after[name])

    def found(self, item: Artifact) -> Tried:
        """What all segments come to for one artifact."""
        samples, label = self._samples, item.label
        reason = self._lost
        broken = self._broken.get(label)
        if broken is not None:
            reason = f"{label} stopped: {broken}"
        if reason is not None:
            return Tried(_untried(self._reference, samples, reason), broken=broken)
        outcomes = tuple(
            outcome
            for name, tally in self._tasks[label].items()
            if (outcome := tally.outcome(limits_for(item.scheme, name, self._limits).retention))
        )
        told = None if outcomes else f"{samples.source} holds no labels."
        task = TaskReport(self._reference, outcomes, samples.source, samples.notes, told)
        return Tried(task, tuple(self._checks(item)))

    def _checks(self, item: Artifact) -> Iterator[Check]:
        for name, agreement in self._agreements[item.label].items():

            def check(
                metric: str,
                value: float,
                limit: float | None = None,
                better: str = "<=",
                *,
                output: str = name,
            ) -> Check:
                source = self._samples.source
                return Check(
                    item.label, "numbers", metric, value, limit, better, output, data=source
                )

            # A stand-in has errors of its own: numbers are judged by Keras alone.
            yield from agreement.checks(check, judged=self._reference == KERAS)

    def _parts(self) -> Iterator[tuple[str, TaskTally | Agreement]]:
        for number, item in enumerate(self._artifacts):
            for place, tally in enumerate(self._tasks[item.label].values()):
                yield f"{number}.{place}.task.", tally
            for place, agreement in enumerate(self._agreements[item.label].values()):
                yield f"{number}.{place}.numbers.", agreement

    def _state(self, done: int) -> dict[str, Array]:
        """A copy of all that was counted."""
        state = {"done": np.array(done)}
        for prefix, part in self._parts():
            state |= {f"{prefix}{name}": np.array(array) for name, array in part.state.items()}
        return state

    def _restore(self, state: Tensors) -> None:
        for prefix, part in self._parts():
            # Arrays that were read are not always to be written to.
            part.state = {
                name.removeprefix(prefix): np.array(array)
                for name, array in state.items()
                if name.startswith(prefix)
            }


@dataclass(frozen=True)
class _Asked:
    segment: Segment
    before: Future[Tensors]
    after: Mapping[str, Future[Tensors]]


def _answer(
    opener: Opener, artifact: Artifact, inputs: Tensors, wanted: Sequence[str] | None
) -> Tensors:
    """The main outputs of a freshly loaded artifact."""
    runner = opener(artifact)
    try:
        told = runner.run(inputs)
    finally:
        runner.close()
    names = main_outputs(artifact)
    missing = [name for name in wanted or names if name not in told]
    if missing:
        raise ArtifactError(f"It gave no output {missing[0]!r}.")
    return {name: told[name] for name in names}


def _check_shapes(before: Tensors, after: Tensors) -> None:
    for name, array in after.items():
        if name in before and np.shape(before[name]) != array.shape:
            raise ArtifactError(
                f"Output {name!r} came with the shape {array.shape}, and the reference's is "
                f"{np.shape(before[name])}."
            )


class _Progress:
    """How many samples are done, and how long the rest will take at this pace."""

    def __init__(self, samples: Samples, done: int) -> None:
        self._samples, self._first = samples, done
        self._start = time.monotonic()
        self.show(done)

    def show(self, done: int) -> None:
        total = len(self._samples)
        text = f"{self._samples.source}: {done:,} of {total:,} samples"
        if done > self._first:
            pace = (time.monotonic() - self._start) / (done - self._first)
            text += f", {_duration(pace * (total - done))} left"
        progress.report(text)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
