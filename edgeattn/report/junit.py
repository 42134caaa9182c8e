"""The verdict as JUnit XML for CI systems: a suite for each artifact, a case for each check."""

from pathlib import Path
from xml.etree import ElementTree

from edgeattn.bundle.bundle import Bundle
from edgeattn.files import write_text
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.validation.report import ArtifactReport, Report


def write_junit(path: Path, bundle: Bundle, report: Report) -> None:
    """Write ``report`` to ``path``.

    Failed checks are failures; what did not run or is inconclusive is skipped. Raises
    :class:`OutputError` if the file cannot be written.
    """
    root = ElementTree.Element("testsuites", name=f"edgeattn validate {bundle.path.name}")
    for item in report.artifacts:
        root.append(_suite(item))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
    write_text(path, text + "\n")


def _suite(report: ArtifactReport) -> ElementTree.Element:
    label = report.artifact.label
    suite = ElementTree.Element("testsuite", name=label)

    def add_case(name: str, stage: str, result: str | None = None, message: str = "") -> None:
        case = ElementTree.SubElement(suite, "testcase", name=name, classname=f"{label}.{stage}")
        if result is not None:
            ElementTree.SubElement(case, result, message=message)

    for check in report.checks:
        if check.limit is not None:
            message = f"{check.metric} {check.value:.3g}, limit {check.relation} {check.limit:.3g}"
            add_case(check.name, check.stage, None if check.passed else "failure", message)
    if report.reason is not None:
        add_case("runs", "runtime", "failure" if report.broken else "skipped", report.reason)
    if report.task is not None:
        for outcome in report.task.results:
            message = (
                f"{outcome.verdict}: {outcome.metric} {outcome.reference_score:.4f} before, "
                f"{outcome.artifact_score:.4f} after; drop {outcome.interval[0]:.4f} to "
                f"{outcome.interval[1]:.4f}, allowed {outcome.margin:.4f}"
            )
            result = {PASS: None, FAIL: "failure"}.get(outcome.verdict, "skipped")
            add_case(f"{outcome.metric} {outcome.output}", "task", result, message)
        if report.task.reason:
            add_case("task", "task", "skipped", report.task.reason)
    suite.set("tests", str(len(suite)))
    for result, attribute in (("failure", "failures"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(result) is not None for case in suite)))
    return suite
