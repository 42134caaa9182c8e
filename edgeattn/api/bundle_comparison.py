"""``compare``: an old bundle beside the one that ``edgeattn.validate`` validates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import ArtifactSelection, ModelLoading
from edgeattn.api.foreign_file import is_foreign_file
from edgeattn.api.sources import BundleLike, bundle_path
from edgeattn.api.sources import opened as open_bundle
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.api.validation_request import Request
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.validation.bundle_comparison import Basis, BundleComparison
    from edgeattn.validation.report import ArtifactReport


@dataclass(frozen=True)
class Comparison:
    """What to compare with: an old bundle, latencies measured with it, and limits.

    Attributes:
        old: The old bundle: a path or the result of another function.
        bench: The output of ``edgeattn bench --json`` for it.
        limits: How much worse an artifact may be, see :meth:`ComparisonLimits.parse`.
    """

    old: BundleLike | None
    bench: Path | None
    limits: Sequence[str] | Mapping[str, float]

    def __post_init__(self) -> None:
        if self.old is None:
            for name, value in (("bench", self.bench), ("limit", self.limits)):
                if value:
                    raise UsageError(
                        f"--compare-{name} has no effect without --compare.",
                        hint="Add --compare OLD.edge.",
                    )

    def check(self, path: Path) -> None:
        """Raise :class:`UsageError` unless ``path`` and the old bundle are bundles."""
        if self.old is None:
            return
        for option, file in (("BUNDLE", path), ("OLD", bundle_path(self.old))):
            if is_foreign_file(file):
                raise UsageError(
                    f"--compare compares two bundles, and {option} is the file {file.name}.",
                    hint="Pass the bundle that contains the file.",
                )

    def plan(
        self,
        bundle: Bundle,
        artifacts: Sequence[Artifact],
        selection: ArtifactSelection,
        *,
        signers: Path | None,
        has_data: bool,
        bench: Mapping[str, Any] | None,
        same_labels: bool = False,
    ) -> Plan | None:
        """Open and check the old bundle before any work; None if there is none.

        ``same_labels`` selects the artifacts with the labels of ``artifacts`` only.

        Raises :class:`UsageError` if it is a bundle of another model or has no artifact in common
        with ``artifacts``, and for limits that have no effect.
        """
        from edgeattn.validation.bundle_comparison import Basis
        from edgeattn.validation.changes import ComparisonLimits

        if self.old is None:
            return None
        path = bundle_path(self.old)
        limits = ComparisonLimits.parse(self.limits)
        old = open_bundle(self.old, signers)
        _check_interface(old, bundle)
        earlier = selection.of(old)
        labels = {item.label for item in artifacts}
        common = tuple(item for item in earlier if item.label in labels)
        if not common:
            raise UsageError(
                f"{path.name} and {bundle.path.name} have no artifact in common: "
                f"{', '.join(item.label for item in earlier)}, and {', '.join(sorted(labels))}.",
                hint="Compare bundles with a file of the same format and scheme.",
            )
        latencies, notes = self._latencies(earlier, artifacts, bench)
        same = _same_inputs(old, bundle)
        self._check_limits(has_data=has_data, comparable=same or has_data, timed=bool(latencies))
        basis = Basis(
            path.name,
            limits,
            same,
            int(bundle.manifest.reference["samples"]),
            latencies,
            (*_notes(old, bundle, same, has_data), *notes),
        )
        return Plan(
            self.old,
            old,
            common if same_labels else earlier,
            basis,
            needs_score="score" in self._limit_names,
        )

    @property
    def _limit_names(self) -> list[str]:
        if isinstance(self.limits, Mapping):
            return list(self.limits)
        return [text.partition("=")[0] for text in self.limits]

    def _latencies(
        self,
        old: Sequence[Artifact],
        new: Sequence[Artifact],
        bench: Mapping[str, Any] | None,
    ) -> tuple[dict[tuple[str, int], tuple[float, float]], tuple[str, ...]]:
        """Medians by label and number of threads in both bundles, and where they were measured."""
        from edgeattn.benchmark.document import medians, place, read_bench_of, same_place

        if self.bench is None:
            return {}, ()
        if bench is None:
            raise UsageError(
                "--compare-bench has no effect without the latencies of the new bundle.",
                hint="Add --bench FILE.",
            )
        earlier = read_bench_of(self.bench, old)
        if not same_place(earlier, bench):
            raise UsageError(
                f"The latencies were measured on {place(earlier)} and on {place(bench)}.",
                hint="Measure both bundles on the same machine.",
            )
        by_label = {item.label: item for item in old}
        latencies = {}
        for artifact in new:
            if artifact.label in by_label:
                before = medians(earlier, by_label[artifact.label])
                after = medians(bench, artifact)
                for threads in sorted(before.keys() & after.keys()):
                    latencies[artifact.label, threads] = before[threads], after[threads]
        if not latencies:
            raise UsageError(
                f"{self.bench.name} and the file of --bench have no artifact in common that was "
                "measured with the same number of threads.",
                hint="Measure both with: edgeattn bench BUNDLE --threads 1 --json",
            )
        return latencies, (f"Latencies were measured on {place(bench)}.",)

    def _check_limits(self, *, has_data: bool, comparable: bool, timed: bool) -> None:
        """Raise :class:`UsageError` if the user has set a limit that nothing is compared with."""
        needed = {
            "latency": (timed, "Add --bench and --compare-bench."),
            "score": (has_data, "Add --data FILE with labels."),
            "error": (comparable, "The references differ. Add --data FILE."),
            "attention": (comparable, "The references differ. Add --data FILE."),
        }
        for name in self._limit_names:
            known, hint = needed.get(name, (True, ""))
            if not known:
                raise UsageError(f"--compare-limit {name} has no effect.", hint=hint)


@dataclass(frozen=True)
class Plan:
    """An old bundle that was checked.

    ``source`` is how it was passed, ``needs_score`` whether the user limits the drop of scores.
    """

    source: BundleLike
    old: Bundle
    artifacts: tuple[Artifact, ...]
    basis: Basis
    needs_score: bool

    def request(
        self, new: Request, bundle: Bundle, data: Path | None, checkpoint: Path | None
    ) -> Request:
        """The request ``new`` for ``bundle``, for the old bundle: its samples, limits and place."""
        from edgeattn.evaluation.keras_reference import find_original

        loading, model = ModelLoading(ignore=new.loading.ignore), None
        if data is not None:
            same = self.old.manifest.model.get("sha256") == bundle.manifest.model.get("sha256")
            model = find_original(bundle, new.model) if same else find_original(self.old, None)
            if model is not None:
                loading = new.loading
            else:
                # That of a conversion from memory is not beside the bundle.
                model = getattr(self.source, "model_file", None)
        return replace(
            new,
            path=self.old.path,
            selection=ArtifactSelection(),
            loading=loading,
            data=data,
            model=model,
            reference=None,
            checkpoint=checkpoint,
            explain=False,
        )

    def compare(
        self, old: Sequence[ArtifactReport], new: Sequence[ArtifactReport]
    ) -> BundleComparison:
        """The comparison. Raises :class:`UsageError` if a limit of scores applies to nothing."""
        from edgeattn.validation.bundle_comparison import compare_reports
        from edgeattn.validation.changes import SCORE

        comparison = compare_reports(old, new, self.basis)
        if self.needs_score and not any(item.of(SCORE) for item in comparison.artifacts):
            raise UsageError(
                "--compare-limit score has no effect: no artifact has a score in both bundles.",
                hint="Pass data with labels.",
            )
        return comparison


def _interface(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shapes of inputs and outputs without the batch axis, by name."""
    artifact = bundle.manifest.artifacts[0]
    return (
        {spec.name: tuple(spec.shape[1:]) for spec in artifact.inputs},
        {
            spec.name: tuple(spec.shape[1:])
            for spec in artifact.outputs
            if spec.name not in artifact.attention
        },
    )


def _check_interface(old: Bundle, new: Bundle) -> None:
    for bundle in (old, new):
        if not bundle.manifest.artifacts:
            raise UsageError(
                f"{bundle.path.name} has no artifact.", hint="Convert the model again."
            )
    kinds = ("inputs", "outputs")
    for kind, before, after in zip(kinds, _interface(old), _interface(new), strict=True):
        if before != after:
            raise UsageError(
                f"{old.path.name} and {new.path.name} are bundles of different models: their "
                f"{kind} are {_shapes(before)}, and {_shapes(after)}.",
                hint="Compare bundles of the same model, or of versions of it.",
            )


def _shapes(specs: Mapping[str, tuple[int | None, ...]]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in specs.items())


def _same_inputs(old: Bundle, new: Bundle) -> bool:
    """Whether both references have the same samples, apart from edge cases."""
    import numpy as np

    references = [bundle.manifest.reference for bundle in (old, new)]
    if references[0]["samples"] != references[1]["samples"]:
        return False
    if references[0]["sha256"] == references[1]["sha256"]:
        return True
    samples = int(references[1]["samples"])
    before, after = old.reference(), new.reference()
    return all(
        np.array_equal(
            before[f"input/{spec.name}"][:samples], after[f"input/{spec.name}"][:samples]
        )
        for spec in new.manifest.artifacts[0].inputs
    )


def _notes(old: Bundle, new: Bundle, same_samples: bool, has_data: bool) -> list[str]:
    notes = []
    models = [bundle.manifest.model.get("sha256") for bundle in (old, new)]
    if None in models or models[0] != models[1]:
        differ = "may differ (no SHA-256)" if None in models else "differ (SHA-256)"
        notes.append(
            f"The Keras models {differ}. Scores are those of the files; errors are relative to the "
            "model of each bundle."
        )
    if not same_samples:
        where = "" if has_data else ", so that errors are not compared with limits"
        notes.append(f"The samples of the references differ{where}.")
    return notes
