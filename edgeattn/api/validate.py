"""``edgeattn.validate``"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import files
from edgeattn.api.arguments import (
    ModelLoading,
    StrPath,
    TargetOptions,
    artifact_selection,
    check_writable,
    checked_names,
    optional_path,
)
from edgeattn.api.bundle_comparison import Comparison
from edgeattn.api.pictures import compare_maps
from edgeattn.api.raw_data import prepared_file
from edgeattn.api.result import Result, number
from edgeattn.api.sources import (
    BundleLike,
    ModelLike,
    SamplesLike,
    Workspace,
    bundle_path,
    keras_file,
    sample_file,
)
from edgeattn.api.validation_request import Request, checkpoint_path, report_extras
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.diagnosis.diagnose import ArtifactDiagnosis
    from edgeattn.evaluation.dataset import Dataset
    from edgeattn.metrics.limits import Limit
    from edgeattn.process.pool import Opener
    from edgeattn.validation.bundle_comparison import BundleComparison
    from edgeattn.validation.recommendation import Recommendation
    from edgeattn.validation.report import ArtifactReport, Report
    from edgeattn.validation.validate import ValidationOptions

REGRESSION = 7
JUNIT_INCONCLUSIVE = ("error", "failure", "skipped")


@dataclass(frozen=True, repr=False)
class ValidationResult(Result):
    """The report on the artifacts of a bundle.

    Attributes:
        bundle: The bundle; a temporary one for a .tflite or .onnx file.
        report: Checks and verdicts of each artifact.
        target: Where the artifacts ran: ``here``, a Python or a host.
        diagnoses: The first operator of each artifact that computes wrong values, if requested.
        notes: How a .tflite or .onnx file was compared.
        bench: The document of ``edgeattn bench`` with latencies, if one was given.
        comparison: What changed from the bundle of ``compare``, if one was given.
    """

    bundle: Bundle
    report: Report
    target: str
    diagnoses: tuple[ArtifactDiagnosis, ...] | None = None
    notes: tuple[str, ...] = ()
    bench: Mapping[str, Any] | None = None
    comparison: BundleComparison | None = None
    _workspace: Workspace | None = field(default=None, compare=False)

    @property
    def artifacts(self) -> tuple[ArtifactReport, ...]:
        return self.report.artifacts

    @property
    def verdict(self) -> str:
        return self.report.verdict

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.report.warnings

    @property
    def exit_code(self) -> int:
        """0 for a pass, 1 if an artifact fails, 7 if one is worse than that of ``compare``, 6 if
        inconclusive, 5 if nothing ran."""
        code = self.report.exit_code
        regressed = self.comparison is not None and bool(self.comparison.regressions)
        return REGRESSION if regressed and code != 1 else code

    @property
    def recommendation(self) -> Recommendation:
        """The smallest artifact that passes or, with ``bench``, the fastest."""
        from edgeattn.benchmark.document import medians, place
        from edgeattn.validation.recommendation import (
            LATENCY,
            lowest_latencies,
            recommend_reported,
        )

        manifest, bench = self.bundle.manifest, self.bench
        if bench is None:
            return recommend_reported(self.artifacts, manifest, self.target)
        latencies = lowest_latencies(
            (item.artifact, threads, milliseconds)
            for item in self.artifacts
            for threads, milliseconds in medians(bench, item.artifact).items()
        )
        chosen = recommend_reported(self.artifacts, manifest, self.target, latencies)
        return replace(chosen, timed_on=place(bench)) if chosen.criterion == LATENCY else chosen

    def to_json(self) -> dict[str, Any]:
        """The document of the report alone, see :meth:`to_dict`."""
        return self.report.to_json()

    def plot(self, artifact: str | None = None, map: str | None = None, *, sample: int = 0) -> Any:
        """A figure of an attention map of the reference in Keras and in an artifact.

        ``artifact`` is a label such as ``"tflite int8"``, by default the first with a map.
        """
        return compare_maps(self.bundle, self.artifacts, artifact, map, sample)

    def _document(self) -> dict[str, Any]:
        document = {**self.report.to_json(), "recommended": self.recommendation.to_json()}
        if self.comparison is not None:
            document["comparison"] = self.comparison.to_json()
        if self.diagnoses is not None:
            document["explanation"] = [item.to_json() for item in self.diagnoses]
        return document

    def _summary(self) -> str:
        count = len(self.artifacts)
        name = self.bundle.path.name
        return f"{name}: {self.verdict}, {count} artifacts, {self.recommendation.short}"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["verdict", "format", "scheme", "max abs error", "runtime", "reason"]
        return header, [
            [
                item.verdict,
                item.artifact.format,
                item.artifact.scheme,
                number(item.max_abs_error),
                item.runtime or "-",
                item.verdict_reason or "",
            ]
            for item in self.artifacts
        ]


def validate(
    bundle: BundleLike,
    artifacts: Sequence[Artifact] | None = None,
    open_runner_function: Opener | None = None,
    *,
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    data: SamplesLike = None,
    raw_data: SamplesLike = None,
    ignore: Sequence[str] = (),
    max_drop: float | None = None,
    limits: Sequence[str] | Mapping[str, float] = (),
    jobs: int | None = None,
    resume: bool = False,
    resume_file: StrPath | None = None,
    model: ModelLike | None = None,
    reference: StrPath | None = None,
    custom_objects: StrPath | None = None,
    architecture: str | None = None,
    trust: str | None = None,
    explain: bool = False,
    report: StrPath | None = None,
    bench: StrPath | None = None,
    compare: BundleLike | None = None,
    compare_bench: StrPath | None = None,
    compare_limits: Sequence[str] | Mapping[str, float] = (),
    vocabulary: StrPath | None = None,
    junit: StrPath | None = None,
    junit_inconclusive: str | None = None,
    on: str | None = None,
    python: StrPath | None = None,
    ssh_config: StrPath | None = None,
    require_signature: StrPath | None = None,
    dataset: Dataset | None = None,
    options: ValidationOptions | None = None,
) -> ValidationResult:
    """Compare artifacts with the outputs of Keras, on the bundle's reference and on your data.

    The other arguments are the options of ``edgeattn validate``, under the same names.

    Args:
        bundle: A path, or the result of another function. A .tflite or .onnx file needs ``model``
            or ``reference``.
        artifacts: Artifacts of the bundle; default: those of ``formats`` and ``schemes``.
        open_runner_function: Opens a :class:`~edgeattn.Runner` for an artifact, which then runs in
            this process. By default each runs in a worker process.
        data: Samples to evaluate on: a path, or a pair of inputs and labels as arrays or as
            mappings by name.
        raw_data: A raw dataset in place of ``data``, which the front end of the bundle prepares.
        limits: Limits in place of those of the scheme, such as ``{"max_abs_error": 0.01}``.
        model: The Keras model that the bundle was converted from, or its path. Default: the one
            that ``edgeattn.convert`` converted, or the file beside the bundle.
        compare: An old bundle, which is validated in the same way, and compared with this one.
        compare_limits: How much worse an artifact may be, such as ``{"size": 0.1}``.
        dataset: A dataset in place of ``data``.
        options: Limits, jobs and checkpoint in place of the arguments of their names.

    Raises :class:`BundleError` if a file of the bundle is damaged, :class:`SampleError` if the
    data do not fit the model, and :class:`UsageError` for invalid arguments.
    """
    workspace = Workspace()
    if raw_data is None:
        data_path = sample_file(data, workspace, "data")
    elif data is None:
        data_path = prepared_file(bundle, raw_data, require_signature, workspace)
    else:
        raise UsageError("--raw-data and --data exclude each other.", hint="Omit one of them.")
    if model is None and data_path is not None:
        # That of a conversion from memory is not beside the bundle.
        model = getattr(bundle, "model_file", None)
    request = Request(
        bundle_path(bundle),
        artifact_selection(formats, schemes),
        ModelLoading(
            custom_objects=optional_path(custom_objects),
            architecture=architecture,
            trust=trust,
            ignore=tuple(ignore),
        ),
        TargetOptions(on, None if python is None else str(python), optional_path(ssh_config)),
        data=data_path,
        raw=raw_data is not None,
        model=None if model is None else keras_file(model, workspace),
        reference=optional_path(reference),
        limits=_limits(limits),
        max_drop=max_drop,
        jobs=jobs,
        checkpoint=checkpoint_path(
            bundle_path(bundle), data_path, resume, optional_path(resume_file)
        ),
        explain=explain,
        signers=optional_path(require_signature),
    )
    if junit_inconclusive is not None:
        _check_junit(junit, junit_inconclusive)
    comparison = Comparison(compare, optional_path(compare_bench), compare_limits)
    comparison.check(request.path)
    pages = (optional_path(report), optional_path(junit))
    opened, selected, notes = request.open(workspace, artifacts)
    check_writable(*pages, request.checkpoint)
    extras = report_extras(selected, pages[0], optional_path(bench), optional_path(vocabulary))
    plan = comparison.plan(
        opened,
        selected,
        request.selection,
        signers=request.signers,
        has_data=data_path is not None or dataset is not None,
        bench=extras.get("bench"),
        same_labels=artifacts is not None,
    )
    if open_runner_function is not None:
        from edgeattn.validation.validate import validate as validate_in_process

        computed = validate_in_process(
            opened,
            selected,
            open_runner_function,
            dataset=request.open_dataset(opened, selected) if dataset is None else dataset,
            options=options or request.options,
        )
    else:
        computed = request.run(opened, selected, dataset, options)
    diagnoses = request.diagnose(opened, computed)
    compared = None
    if plan is not None:
        own_model = {} if data_path is None else plan.model_options(opened, request)
        earlier = validate(
            plan.source,
            plan.artifacts,
            open_runner_function,
            data=None if raw_data is not None else data_path,
            raw_data=raw_data,
            ignore=ignore,
            max_drop=max_drop,
            limits=limits,
            jobs=jobs,
            resume=resume,
            on=on,
            python=python,
            ssh_config=ssh_config,
            require_signature=require_signature,
            dataset=dataset,
            options=None if options is None else replace(options, checkpoint=None),
            **own_model,
        )
        compared = plan.compare(earlier.artifacts, computed.artifacts)
    result = ValidationResult(
        opened,
        computed,
        request.target.name,
        diagnoses,
        notes,
        bench=extras.get("bench"),
        comparison=compared,
        _workspace=workspace,
    )
    if pages[0] is not None:
        file = raw_data if isinstance(raw_data, str | os.PathLike) else data_path
        extras["facts"] = _facts(result, optional_path(file))
    _write(result, *pages, extras, junit_inconclusive)
    if request.checkpoint is not None:
        # Not earlier: a command that is killed while it writes reports loses no work.
        files.remove(request.checkpoint)
    return result


def _limits(limits: Sequence[str] | Mapping[str, float]) -> tuple[Limit, ...]:
    from edgeattn.metrics.limits import Limit

    if isinstance(limits, Mapping):
        limits = [f"{name}={value!r}" for name, value in limits.items()]
    return tuple(Limit.parse(text) for text in limits)


def _check_junit(junit: StrPath | None, inconclusive: str) -> None:
    checked_names("junit_inconclusive", inconclusive, JUNIT_INCONCLUSIVE)
    if junit is None:
        raise UsageError(
            "--junit-inconclusive has no effect without --junit.", hint="Add --junit FILE."
        )


def _facts(result: ValidationResult, data: Path | None) -> dict[str, str]:
    """What was validated on which data, where and when, for the report."""
    from edgeattn.api.commit import checked_out_commit
    from edgeattn.bundle.manifest import sha256
    from edgeattn.device.info import describe_device
    from edgeattn.report.number_formats import format_date
    from edgeattn.validation.recommendation import LOCAL

    runtimes = sorted({item.runtime for item in result.artifacts if item.runtime})
    device = result.target
    if device == LOCAL:
        device = f"this machine: {describe_device().summary}"
    facts = {"Device": device, "Validated": format_date(time.time())}
    facts["Runtimes"] = ", ".join(runtimes)
    if data is not None:
        facts["SHA-256 of the data"] = f"{sha256(data)} ({data.name})"
    commit = checked_out_commit(result.bundle.path)
    if commit is not None:
        facts["Commit"] = f"{commit[0]}, checked out in {commit[1].name}"
    return facts


def _write(
    result: ValidationResult,
    report: Path | None,
    junit: Path | None,
    extras: Mapping[str, Any],
    junit_inconclusive: str | None,
) -> None:
    if report is not None:
        from edgeattn.report import write_html

        explanations = {
            item.artifact.label: [x for x in (item.diagnosis.message, item.diagnosis.remedy) if x]
            for item in result.diagnoses or ()
        }
        if result.diagnoses is not None:
            extras = {**extras, "explanations": explanations}
        write_html(
            report,
            result.bundle,
            result.report,
            recommendation=result.recommendation,
            comparison=result.comparison,
            **extras,
        )
    if junit is not None:
        from edgeattn.report.junit import write_junit

        write_junit(
            junit,
            result.bundle,
            result.report,
            inconclusive=junit_inconclusive or JUNIT_INCONCLUSIVE[0],
            comparison=result.comparison,
        )
