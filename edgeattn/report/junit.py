"""A verdict as JUnit XML, which other people's CI shows: an artifact is a suite, a check a case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from edgeattn.evaluation.task import FAIL, PASS
from edgeattn.files import write_text

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.validation.validate import ArtifactReport, Report


def write_junit(path: Path, bundle: Bundle, report: Report) -> None:
    """Write ``path``: failed checks are failures, what did not run or cannot tell is skipped."""
    root = ElementTree.Element("testsuites", name=f"edgeattn validate {bundle.path.name}")
    for item in report.artifacts:
        root.append(_suite(item))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
    write_text(path, text + "\n")


def _suite(report: ArtifactReport) -> ElementTree.Element:
    label = report.artifact.label
    suite = ElementTree.Element("testsuite", name=label)

    def case(name: str, stage: str) -> ElementTree.Element:
        return ElementTree.SubElement(suite, "testcase", name=name, classname=f"{label}.{stage}")

    for check in report.checks:
        if check.passed is None:
            continue
        found = case(check.name, check.stage)
        if not check.passed:
            told = f"{check.metric} is {check.value:.3g}, must be {check.better} {check.limit:.3g}"
            ElementTree.SubElement(found, "failure", message=told)
    if report.reason is not None:
        kind = "failure" if report.broken else "skipped"
        ElementTree.SubElement(case("runs", "runtime"), kind, message=report.reason)
    if report.task is not None:
        for outcome in report.task.outcomes:
            found = case(f"{outcome.score} {outcome.output}", "task")
            told = (
                f"{outcome.score} {outcome.before:.4f} before, {outcome.after:.4f} after; the drop "
                f"is {outcome.interval[0]:.4f} to {outcome.interval[1]:.4f}, and may be "
                f"{outcome.margin:.4f}"
            )
            if outcome.verdict != PASS:
                kind = "failure" if outcome.verdict == FAIL else "skipped"
                ElementTree.SubElement(found, kind, message=f"{outcome.verdict}: {told}")
        if report.task.reason:
            ElementTree.SubElement(case("task", "task"), "skipped", message=report.task.reason)
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for kind, name in (("failure", "failures"), ("skipped", "skipped")):
        suite.set(name, str(sum(found.find(kind) is not None for found in cases)))
    return suite
