"""Which artifact to ship: the fastest that passes or, without latencies, the smallest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeattn.metrics.verdict import NOT_RUN, PASS
from edgeattn.printable import counted, printable

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
    """

    artifact: Artifact
    verdict: str
    reference: str
    data: str
    runtime: str | None
    p50_ms: float | None = None
    threads: int | None = None


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
    """

    candidate: Candidate | None
    criterion: str = SIZE
    device: str = ""
    reason: str = ""
    all_timed: bool = True
    timed_on: str = ""

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
        size = f"{candidate.artifact.bytes / 1000:,.1f} kB"
        if self.criterion == LATENCY:
            count = candidate.threads
            threads = f" with {counted(count, 'thread')}" if count else ""
            threads += f" on {self.timed_on}" if self.timed_on else ""
            passes = "passes" if self.all_timed else "was timed and passes"
            best = f"the fastest that {passes}: median {candidate.p50_ms:.3g} ms{threads}, {size}"
        else:
            best = f"the smallest that passes: {size}"
        where = f"in {candidate.runtime} on {self.device}"
        return f"{best}. Compared with {candidate.reference} on {candidate.data}, {where}"


def recommend(candidates: Iterable[Candidate], device: str) -> Recommendation:
    """The fastest of ``candidates`` that passes; the smallest if no latency was measured.

    Equally fast ones are ordered by size, equal ones keep the order of the bundle. An artifact
    with any other verdict than pass is never recommended.
    """
    known = list(candidates)
    passing = [item for item in known if item.verdict == PASS]
    if not passing:
        compared = any(item.verdict != NOT_RUN for item in known)
        return Recommendation(
            None, reason="no artifact passes" if compared else "no artifact was compared with Keras"
        )
    timed = [item for item in passing if item.p50_ms is not None]
    if timed:
        fastest = min(timed, key=lambda item: (item.p50_ms or 0.0, item.artifact.bytes))
        return Recommendation(fastest, LATENCY, device, all_timed=len(timed) == len(passing))
    return Recommendation(min(passing, key=lambda item: item.artifact.bytes), SIZE, device)


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
