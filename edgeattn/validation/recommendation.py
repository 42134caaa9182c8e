"""Which artifact to ship: the fastest that passes or, without latencies, the smallest.

Integers are clipped to ranges of calibration samples. An artifact that was compared on so few
samples that they do not show what this costs is recommended only if no other one passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeattn.metrics.verdict import NOT_RUN, PASS
from edgeattn.printable import counted, enumerated, printable
from edgeattn.validation.few_samples import uncertain_share

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact, Manifest
    from edgeattn.validation.report import ArtifactReport

SIZE, LATENCY = "size", "latency"
# The name of the target that is this interpreter.
LOCAL = "here"
# A median in milliseconds, and the number of threads with which it was measured.
Latency = tuple[float, int | None]


@dataclass(frozen=True)
class Candidate:
    """An artifact, its verdict, and what the verdict rests on.

    Attributes:
        artifact: The artifact.
        verdict: That of its report.
        reference: What its outputs were compared with.
        data: The samples on which they were compared, in words.
        runtime: Name and version of the runtime that ran it.
        p50_ms: Its median latency in milliseconds, if it was measured.
        threads: The number of threads with that latency.
        uncertain: The share of other samples that may have larger errors because values are
            clipped, if it is large; see :mod:`edgeattn.validation.few_samples`.
    """

    artifact: Artifact
    verdict: str
    reference: str
    data: str
    runtime: str | None
    p50_ms: float | None = None
    threads: int | None = None
    uncertain: float | None = None

    @property
    def uncertainty(self) -> str:
        """What the few samples do not show, in words."""
        return (
            f"up to {self.uncertain:.0%} of other samples may have larger errors in integers than "
            "any of these (97.5% confidence)"
        )


@dataclass(frozen=True)
class Recommendation:
    """The artifact to ship, if there is one.

    Attributes:
        candidate: The recommended artifact; None if none passes or nothing is known.
        criterion: :data:`SIZE` or :data:`LATENCY`: what it is the smallest or fastest by.
        device: The machine on which it passed, in words.
        reason: Why there is no recommendation.
        all_timed: Whether every artifact that passes was timed.
        timed_on: The machine on which it was timed, if that may be another.
        passed_over: The smaller or faster artifacts that pass, but on too few samples.
    """

    candidate: Candidate | None
    criterion: str = SIZE
    device: str = ""
    reason: str = ""
    all_timed: bool = True
    timed_on: str = ""
    passed_over: tuple[Candidate, ...] = ()

    @property
    def artifact(self) -> Artifact | None:
        return None if self.candidate is None else self.candidate.artifact

    def __repr__(self) -> str:
        return f"<Recommendation {printable(self.line)}>"

    @property
    def line(self) -> str:
        """The recommendation and its reason, in one line."""
        if self.candidate is None:
            return f"Recommended: none, because {self.reason}."
        artifact = self.candidate.artifact
        return f"Recommended: {artifact.path} ({artifact.achieved_label}), {self.why}."

    @property
    def why(self) -> str:
        """What the recommended artifact is best in, and what it was compared with."""
        return "" if self.candidate is None else self._why(self.candidate)

    @property
    def short(self) -> str:
        """The recommendation in a few words."""
        artifact = self.artifact
        return "none recommended" if artifact is None else f"recommended: {artifact.achieved_label}"

    def to_json(self) -> dict[str, Any] | None:
        """The value of the key ``recommended``."""
        if self.candidate is None:
            return None
        artifact = self.candidate.artifact
        return {
            "format": artifact.format,
            "scheme": artifact.scheme,
            "path": artifact.path,
            "bytes": artifact.bytes,
            "criterion": self.criterion,
            "p50_ms": self.candidate.p50_ms,
            "threads": self.candidate.threads,
            "compared_with": self.candidate.reference,
            "data": self.candidate.data,
            "runtime": self.candidate.runtime,
            "device": self.device,
            "timed_on": self.timed_on or self.device if self.criterion == LATENCY else None,
            "reason": self.why,
        }

    def _why(self, candidate: Candidate) -> str:
        labels = enumerated([item.artifact.label for item in self.passed_over])
        apart = f", apart from {labels}" if labels else ""
        size = f"{candidate.artifact.bytes / 1000:,.1f} kB"
        if self.criterion == LATENCY:
            count = candidate.threads
            threads = f" with {counted(count, 'thread')}" if count else ""
            threads += f" on {self.timed_on}" if self.timed_on else ""
            passes = "passes" if self.all_timed else "was timed and passes"
            best = f"the fastest that {passes}{apart}: median {candidate.p50_ms:.3g} ms{threads}"
            best = f"{best}, {size}"
        else:
            best = f"the smallest that passes{apart}: {size}"
        where = f"in {candidate.runtime} on {self.device}"
        text = f"{best}. Compared with {candidate.reference} on {candidate.data}, {where}"
        if candidate.uncertain is not None:
            return f"{text}; {candidate.uncertainty}"
        if labels:
            than = "faster" if self.criterion == LATENCY else "smaller"
            verb = "is" if len(self.passed_over) == 1 else "are"
            fewest = max(self.passed_over, key=lambda item: item.uncertain or 0.0)
            return f"{text}. {labels} {verb} {than}, but {fewest.uncertainty}"
        return text


def recommend(candidates: Iterable[Candidate], device: str) -> Recommendation:
    """The fastest of ``candidates`` that passes; the smallest if no latency was measured.

    Equally fast ones are ordered by size, equal ones keep the order of the bundle. An artifact
    with any other verdict than pass is never recommended, and an uncertain one only if all are.
    """
    known = list(candidates)
    passing = [item for item in known if item.verdict == PASS]
    if not passing:
        compared = any(item.verdict != NOT_RUN for item in known)
        return Recommendation(
            None, reason="no artifact passes" if compared else "no artifact was compared with Keras"
        )
    timed = [item for item in passing if item.p50_ms is not None]
    ranked = sorted(timed or passing, key=_rank)
    chosen = next((item for item in ranked if item.uncertain is None), ranked[0])
    return Recommendation(
        chosen,
        LATENCY if timed else SIZE,
        device,
        all_timed=not timed or len(timed) == len(passing),
        passed_over=tuple(ranked[: ranked.index(chosen)]),
    )


def _rank(candidate: Candidate) -> tuple[float, int]:
    """Latency, if it was measured, then size."""
    return candidate.p50_ms or 0.0, candidate.artifact.bytes


def recommend_reported(
    reports: Sequence[ArtifactReport],
    manifest: Manifest,
    target: str = LOCAL,
    latencies: Mapping[str, Latency] | None = None,
) -> Recommendation:
    """:func:`recommend` for reports of artifacts that ran on the target named ``target``.

    ``latencies`` are those of :func:`lowest_latencies`.
    """
    candidates = []
    for report in reports:
        expected = str(manifest.reference.get("expected", "Keras"))
        data = manifest.reference_samples
        if report.data is not None and report.task is not None:
            expected = report.task.reference_name
            data = f"{counted(report.task.samples, 'sample')} ({report.task.source})"
        milliseconds, threads = (latencies or {}).get(report.artifact.label, (None, None))
        candidates.append(
            Candidate(
                report.artifact,
                report.verdict,
                expected,
                data,
                report.runtime,
                milliseconds,
                threads,
                uncertain_share(report.artifact, report.samples),
            )
        )
    return recommend(candidates, "this machine" if target == LOCAL else target)


def lowest_latencies(
    measured: Iterable[tuple[Artifact, int | None, float | None]],
) -> dict[str, Latency]:
    """The lowest median of each artifact, with its number of threads, by artifact label.

    ``measured`` has an artifact, a number of threads and the median in milliseconds, if known.
    """
    lowest: dict[str, Latency] = {}
    for artifact, threads, milliseconds in measured:
        if milliseconds is not None:
            earlier = lowest.get(artifact.label)
            if earlier is None or milliseconds < earlier[0]:
                lowest[artifact.label] = (milliseconds, threads)
    return lowest
