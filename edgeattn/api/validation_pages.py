"""The files that ``edgeattn.validate`` writes: an HTML report, and JUnit XML."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import StrPath, checked_names
from edgeattn.errors import UsageError
from edgeattn.samples.prepared import shown_name

if TYPE_CHECKING:
    from edgeattn.api.validation_result import ValidationResult
    from edgeattn.bundle.manifest import Artifact

JUNIT_INCONCLUSIVE = ("error", "failure", "skipped")


def report_extras(
    artifacts: Sequence[Artifact], report: Path | None, bench: Path | None, vocabulary: Path | None
) -> dict[str, Any]:
    """Latencies and the words of the report, read and checked before any work starts."""
    if report is None and vocabulary is not None:
        raise UsageError(
            "--vocabulary has no effect without --report.", hint="Add --report FILE.html."
        )
    extras: dict[str, Any] = {}
    if report is not None:
        from edgeattn.report import require_libraries

        require_libraries()
    if bench is not None:
        from edgeattn.benchmark.document import read_bench_of

        extras["bench"] = read_bench_of(bench, artifacts)
    if vocabulary is not None:
        from edgeattn.report.attended_inputs import has_token_maps
        from edgeattn.report.vocabulary import read_vocabulary

        extras["vocabulary"] = read_vocabulary(vocabulary)
        if not any(has_token_maps(item) for item in artifacts):
            raise UsageError(
                "--vocabulary has no effect: no artifact has an attention map over tokens.",
                hint="Omit --vocabulary.",
            )
    return extras


def check_junit(junit: StrPath | None, inconclusive: str) -> None:
    checked_names("junit_inconclusive", inconclusive, JUNIT_INCONCLUSIVE)
    if junit is None:
        raise UsageError(
            "--junit-inconclusive has no effect without --junit.", hint="Add --junit FILE."
        )


def facts_of(result: ValidationResult, data: Path | None) -> dict[str, str]:
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
        facts["SHA-256 of the data"] = f"{sha256(data)} ({shown_name(data)})"
    commit = checked_out_commit(result.bundle.path)
    if commit is not None:
        facts["Commit"] = f"{commit[0]}, checked out in {commit[1].name}"
    return facts


def write_pages(
    result: ValidationResult,
    report: Path | None,
    junit: Path | None,
    extras: Mapping[str, Any],
    junit_inconclusive: str | None,
) -> None:
    """Write the HTML report and the JUnit XML file, as requested."""
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
