"""Two bundles side by side: what changed in size, latency, score, errors, maps and verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeattn.metrics.limits import json_number
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.printable import counted
from edgeattn.validation.changes import (
    ATTENTION,
    ERROR,
    LATENCY,
    SCORE,
    SIZE,
    Change,
    ComparisonLimits,
    difference,
    growth,
)

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.validation.report import ArtifactReport

BOTH, ONLY_NEW, ONLY_OLD = "both", "new", "old"
# From the best verdict to the worst.
VERDICTS = (PASS, INCONCLUSIVE, NOT_RUN, FAIL)


@dataclass(frozen=True)
class ArtifactComparison:
    """An artifact of the same format and scheme in both bundles, or in one of them.

    Attributes:
        old: Its report in the old bundle, if it has the artifact.
        new: Its report in the new bundle, if it has the artifact.
        changes: Values in both bundles.
        lost_maps: Attention maps that only the old artifact has.
        output_change: The largest difference between the outputs of the old and the new file on
            the same inputs, those of the reference; None if the references differ.
        map_change: The same of attention weights.
    """

    old: ArtifactReport | None
    new: ArtifactReport | None
    changes: tuple[Change, ...] = ()
    lost_maps: tuple[str, ...] = ()
    output_change: float | None = None
    map_change: float | None = None

    @property
    def artifact(self) -> Artifact:
        report = self.new or self.old
        assert report is not None
        return report.artifact

    @property
    def present_in(self) -> str:
        return ONLY_NEW if self.old is None else ONLY_OLD if self.new is None else BOTH

    @property
    def regressions(self) -> tuple[str, ...]:
        """What is worse than in the old bundle beyond the limits, in words."""
        return tuple(self._regressions())

    def _regressions(self) -> Iterator[str]:
        if self.new is None:
            yield "not in the new bundle"
        if self.old is None or self.new is None:
            return
        old, new = self.old.verdict, self.new.verdict
        if VERDICTS.index(new) > VERDICTS.index(old):
            yield f"verdict was {old} and is {new}"
        for name in self.lost_maps:
            yield f"no longer has the attention map {name.removeprefix('attention/')}"
        yield from (change.describe() for change in self.changes if change.is_regression)

    def of(self, metric: str) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.metric == metric)

    def to_json(self) -> dict[str, Any]:
        sides = {"old": self.old, "new": self.new}
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "present_in": self.present_in,
            "verdict": {name: item and item.verdict for name, item in sides.items()},
            "changes": [change.to_json() for change in self.changes],
            "lost_maps": list(self.lost_maps),
            "output_change": _optional_json(self.output_change),
            "map_change": _optional_json(self.map_change),
            "regressions": list(self.regressions),
        }


@dataclass(frozen=True)
class BundleComparison:
    """The artifacts of two bundles side by side.

    Attributes:
        old: Name of the old bundle.
        artifacts: Those of the new bundle in its order, then those that only the old one has.
        limits: The limits beyond which a change is a regression.
        notes: What the reader should know about the comparison.
    """

    old: str
    artifacts: tuple[ArtifactComparison, ...]
    limits: ComparisonLimits = field(default_factory=ComparisonLimits)
    notes: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[str, ...]:
        """Every regression with its artifact: ``tflite int8: size grew by 12.3% (limit 10%)``."""
        return tuple(
            f"{item.artifact.label}: {text}" for item in self.artifacts for text in item.regressions
        )

    @property
    def summary(self) -> str:
        """``no regression from old.edge``, as part of a sentence."""
        count = len(self.regressions)
        return f"{counted(count, 'regression') if count else 'no regression'} from {self.old}"

    def to_json(self) -> dict[str, Any]:
        return {
            "old": self.old,
            "limits": self.limits.to_json(),
            "notes": list(self.notes),
            "artifacts": [item.to_json() for item in self.artifacts],
            "regressions": list(self.regressions),
        }


@dataclass(frozen=True)
class Basis:
    """What the two bundles are compared on.

    Attributes:
        old: Name of the old bundle.
        limits: The limits of changes.
        same_samples: Whether both references have the same inputs.
        samples: Their number, without edge cases.
        latencies: Medians in milliseconds in the old and the new bundle, by the label of the
            artifact and the number of threads.
        notes: What the reader should know.
    """

    old: str
    limits: ComparisonLimits
    same_samples: bool
    samples: int
    latencies: Mapping[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def compare_reports(
    old: Sequence[ArtifactReport], new: Sequence[ArtifactReport], basis: Basis
) -> BundleComparison:
    """Compare the reports on two bundles, which were validated in the same way.

    Errors on samples that differ are shown, but are no regression.
    """
    before = {item.artifact.label: item for item in old}
    after = {item.artifact.label: item for item in new}
    pairs = [_compared(before.get(label), item, basis) for label, item in after.items()]
    pairs += [
        ArtifactComparison(item, None) for label, item in before.items() if label not in after
    ]
    notes = [*basis.notes]
    for item in pairs:
        counts = [report.task.samples for report in (item.old, item.new) if report and report.task]
        if len(set(counts)) > 1:
            notes.append(
                f"The bundles were compared on {counts[0]:,} and {counts[1]:,} of your samples, "
                "without those that each was calibrated on."
            )
    return BundleComparison(basis.old, tuple(pairs), basis.limits, tuple(dict.fromkeys(notes)))


def _compared(old: ArtifactReport | None, new: ArtifactReport, basis: Basis) -> ArtifactComparison:
    if old is None:
        return ArtifactComparison(None, new)
    maps = set(new.artifact.attention)
    result = ArtifactComparison(
        old,
        new,
        tuple(_changes(old, new, basis)),
        tuple(name for name in old.artifact.attention if name not in maps),
    )
    if not basis.same_samples:
        return result
    outputs = [spec.name for spec in new.artifact.outputs if spec.name not in maps]
    return replace(
        result,
        output_change=_largest_change(old, new, outputs, basis.samples),
        map_change=_largest_change(old, new, new.artifact.attention, basis.samples),
    )


def _changes(old: ArtifactReport, new: ArtifactReport, basis: Basis) -> Iterator[Change]:
    limits, label = basis.limits, new.artifact.label
    sizes = float(old.artifact.bytes), float(new.artifact.bytes)
    yield Change(SIZE, *sizes, growth(*sizes), limits.size)
    for (measured, threads), medians in basis.latencies.items():
        if measured == label:
            detail = counted(threads, "thread")
            yield Change(LATENCY, *medians, growth(*medians), limits.latency, detail)
    scores = {} if old.task is None else {item.output: item for item in old.task.results}
    for result in () if new.task is None else new.task.results:
        earlier = scores.get(result.output)
        if earlier is not None and earlier.metric == result.metric:
            pair = earlier.artifact_score, result.artifact_score
            yield Change(SCORE, *pair, difference(pair[1], pair[0]), limits.score, result.output)
    comparable = old.data == new.data and (old.data is not None or basis.same_samples)
    for metric, key in ((ERROR, "max_abs_error"), (ATTENTION, "attention_max_abs_error")):
        before, after = old.headline[key], new.headline[key]
        worse = None
        if comparable and before is not None and after is not None:
            worse = growth(before, after) if metric == ERROR else difference(before, after)
        if before is not None or after is not None:
            yield Change(metric, before, after, worse, getattr(limits, metric))


def _largest_change(
    old: ArtifactReport, new: ArtifactReport, names: Sequence[str], samples: int
) -> float | None:
    """The largest difference of these outputs on the first ``samples`` rows of the reference."""
    largest = []
    for name in names:
        before, after = old.outputs.get(name), new.outputs.get(name)
        if before is None or after is None or before.shape[1:] != after.shape[1:]:
            continue
        with np.errstate(invalid="ignore"):
            difference = np.abs(
                after[:samples].astype(np.float64) - before[:samples].astype(np.float64)
            )
        largest.append(float(np.max(difference, initial=0.0)))
    return max(largest) if largest else None


def _optional_json(value: float | None) -> float | str | None:
    return None if value is None else json_number(value)
