"""The result of a search: the bundle of the chosen artifact, and what was not evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import REFERENCE, Artifact, Manifest, write_manifest
from edgeattn.frontend.description import FRONTEND
from edgeattn.metrics.verdict import INCONCLUSIVE
from edgeattn.printable import counted
from edgeattn_converters.recipes import ALL, RECIPES, default_schemes
from edgeattn_converters.tuning.evaluation import CandidateEvaluator
from edgeattn_converters.tuning.latency import TIMED
from edgeattn_converters.tuning.search import (
    Result,
    SearchResult,
    compare_with_fastest,
    fastest_group,
)
from edgeattn_converters.tuning.tuning_options import TuningOptions


@dataclass(frozen=True)
class TuningResult:
    """The bundle with the ``chosen`` artifact, and all results of the search.

    Attributes:
        best_uniform: The best result without a mixture, if one passes.
        untried: What the search left out, with the reason; empty if it was complete.
        measured: How the latency of the chosen artifact was measured, as in its manifest.
        lost: Why a board was removed from its pool, by its address.
    """

    bundle: Bundle
    chosen: Result
    best_uniform: Result | None
    results: tuple[Result, ...]
    frontier: tuple[Result, ...]
    reference_scores: Mapping[str, float]
    options: TuningOptions
    untried: tuple[tuple[str, str], ...] = ()
    measured: Mapping[str, Any] | None = None
    lost: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if the chosen artifact passes, 6 if that is inconclusive, else 1."""
        if self.chosen.passed:
            return 0
        return 6 if self.chosen.verdict == INCONCLUSIVE else 1

    @property
    def fastest_group(self) -> tuple[Result, ...]:
        """The results that pass and from which no other is shown to be faster."""
        return fastest_group(self.results)

    def compare_with_fastest(self, result: Result) -> str | None:
        """How the latency of ``result`` compares with the fastest; None if it was not measured."""
        return compare_with_fastest(result, self.results)


def untried_candidates(
    searched: SearchResult, results: Sequence[Result], options: TuningOptions
) -> tuple[tuple[str, str], ...]:
    """What could be better than the chosen artifact and was not evaluated, with the reason."""
    budget = f"--most {options.max_candidates}"
    untried = [(candidate.label, budget) for candidate in searched.untried]
    if not searched.mixtures:
        untried.append(("mixtures of schemes", budget))
    if not options.quantization.calibrated and (not options.schemes or ALL in options.schemes):
        untried += [
            (scheme, "no --calibration")
            for scheme in default_schemes(calibrated=True)
            if RECIPES[scheme].needs_calibration
        ]
    passing = [result for result in results if result.passed]
    not_timed = sum(result.p50_ms is None and not result.unmeasured for result in passing)
    if options.aim == "latency" and not_timed:
        untried.append(
            (f"latency of {counted(not_timed, 'other')}", f"only {TIMED['latency']} are timed")
        )
    untried += [
        (f"latency of {result.candidate.label}", result.unmeasured.rstrip("."))
        for result in results
        if result.unmeasured
    ]
    return tuple(untried)


def write_bundle(
    folder: Path,
    evaluator: CandidateEvaluator,
    chosen: Result,
    options: TuningOptions,
    measured: Mapping[str, Any] | None,
) -> Manifest:
    """Write the bundle of the chosen artifact, with its latency, to ``folder``."""
    artifact = Artifact.from_json(chosen.artifact)
    candidate = chosen.candidate
    path = f"{Path(evaluator.source.path).stem}.{candidate.scheme}.{candidate.format}"
    tuned = {
        "aim": options.aim,
        "max_drop": options.max_drop,
        "lowering": candidate.lowering,
        "precision": dict(candidate.precision),
        "verdict": chosen.verdict,
        "shortfall": chosen.shortfall,
        "latency": measured,
    }
    achieved = {**artifact.achieved, "tuned": tuned}
    shutil.copyfile(evaluator.folder / artifact.path, folder / path)
    for name in (REFERENCE, *([FRONTEND] if evaluator.manifest.frontend else [])):
        shutil.copyfile(evaluator.folder / name, folder / name)
    renamed = replace(artifact, path=path, achieved=achieved)
    manifest = replace(evaluator.manifest, artifacts=(renamed,))
    write_manifest(folder, manifest)
    return manifest
