"""The verdict as JUnit XML for CI systems: a suite for each artifact, a case for each check."""

from pathlib import Path
from xml.etree import ElementTree

from edgeattn.bundle.bundle import Bundle
from edgeattn.files import write_text
from edgeattn.metrics.limits import Check
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.printable import printable
from edgeattn.validation.bundle_comparison import BundleComparison
from edgeattn.validation.report import ArtifactReport, Report


def write_junit(
    path: Path,
    bundle: Bundle,
    report: Report,
    *,
    inconclusive: str = "error",
    comparison: BundleComparison | None = None,
) -> None:
    """Write ``report`` to ``path``.

    Failed checks are failures. ``inconclusive`` (``error``, ``failure`` or ``skipped``) is the
    result of an artifact that is inconclusive or did not run, of such a task, and of a limit that
    was missed on synthetic samples only. A task without labels, and that of the reference itself,
    are skipped. Regressions of a ``comparison`` are failures. Raises :class:`OutputError` if the
    file cannot be written.
    """
    root = ElementTree.Element(
        "testsuites", name=printable(f"edgeattn validate {bundle.path.name}")
    )
    for item in report.artifacts:
        root.append(_suite(item, inconclusive))
    if comparison is not None:
        root.append(_comparison_suite(comparison))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
    write_text(path, text + "\n")


def _element(report: ArtifactReport, check: Check, inconclusive: str) -> str | None:
    """The element of a check that does not pass; None if it does."""
    if check.passed:
        return None
    if check in report.failed:
        return "failure"
    # Open until real samples, more samples or the user decide it.
    still_open = any(check == other for _, other in report.open_limits)
    return inconclusive if still_open else "skipped"


def _comparison_suite(comparison: BundleComparison) -> ElementTree.Element:
    """A case for each artifact, which fails if it is worse than in the old bundle."""
    name = printable(f"compared with {comparison.old}")
    suite = ElementTree.Element("testsuite", name=name)
    for item in comparison.artifacts:
        case = ElementTree.SubElement(
            suite, "testcase", name=item.artifact.label, classname="comparison"
        )
        if item.regressions:
            message = printable("; ".join(item.regressions))
            ElementTree.SubElement(case, "failure", message=message)
    _count(suite)
    return suite


def _suite(report: ArtifactReport, inconclusive: str) -> ElementTree.Element:
    label = report.artifact.label
    suite = ElementTree.Element("testsuite", name=label)

    def add_case(name: str, stage: str, result: str | None = None, message: str = "") -> None:
        # XML cannot represent control characters.
        name, message = printable(name), printable(message)
        case = ElementTree.SubElement(suite, "testcase", name=name, classname=f"{label}.{stage}")
        if result is not None:
            ElementTree.SubElement(case, result, message=message)

    for check in report.checks:
        if check.limit is not None:
            message = f"{check.metric} {check.value:.3g}, limit {check.relation} {check.limit:.3g}"
            message += f": {check.detail}" if check.detail else ""
            add_case(check.name, check.stage, _element(report, check, inconclusive), message)
    if report.reason is not None:
        add_case("runs", "runtime", "failure" if report.broken else inconclusive, report.reason)
    if report.task is not None:
        for outcome in report.task.results:
            message = f"{outcome.verdict}: {outcome.summary}"
            if outcome.verdict == INCONCLUSIVE:
                message += f". {outcome.remedy}"
            result = {PASS: None, FAIL: "failure"}.get(outcome.verdict, inconclusive)
            add_case(f"{outcome.metric} {outcome.output}", "task", result, message)
        if report.task.reason:
            result = "skipped" if report.task.skipped else inconclusive
            add_case("task", "task", result, report.task.reason)
    unsettled = report.verdict in (INCONCLUSIVE, NOT_RUN)
    if unsettled and suite.find(f"testcase/{inconclusive}") is None:
        add_case("verdict", "verdict", inconclusive, report.verdict)
    _count(suite)
    return suite


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite)))
    counts = (("failure", "failures"), ("error", "errors"), ("skipped", "skipped"))
    for result, attribute in counts:
        suite.set(attribute, str(sum(case.find(result) is not None for case in suite)))
