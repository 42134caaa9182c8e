"""Validates every planted fault and every sound artifact, and formats the results as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, sha256
from edgeattn.evaluation.dataset import InMemoryDataset
from edgeattn.evaluation.file_dataset import read_dataset
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.runners import Runner, open_runner
from edgeattn.validation.artifact import validate_artifact
from edgeattn.validation.report import ArtifactReport

from .bundles import ROOT
from .catalog import FAULTS
from .fault import LOADING, TASK, Fault, recounted

# Sound artifacts that exceed the limits of their scheme, with the reason.
EXCEPTIONS: Mapping[tuple[str, str, str], str] = {}
START, END = "<!-- planted faults -->", "<!-- end of planted faults -->"
PAGE = ROOT / "docs" / "evidence.md"
SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")

SoundReports = Mapping[tuple[str, str, str], ArtifactReport]


@dataclass(frozen=True)
class FaultResult:
    """The stages that failed, and the first failed check of the expected stage."""

    fault: Fault
    stages: tuple[str, ...]
    first: str

    @property
    def detected(self) -> bool:
        others = set(self.stages) - {self.fault.stage}
        return self.fault.stage in self.stages and not (self.fault.only and others)


def open_file(path: Path, artifact: Artifact) -> Runner:
    return open_runner(path, artifact.format, artifact.inputs, artifact.outputs, as_deployed=True)


def validate_sound(bundles: Mapping[str, Bundle]) -> dict[tuple[str, str, str], ArtifactReport]:
    """The reports on all artifacts as converted, by model, format and scheme."""
    return {
        (name, item.format, item.scheme): validate_artifact(
            bundle, item, bundle.reference(), lambda a, b=bundle: open_file(b.artifact_path(a), a)
        )
        for name, bundle in bundles.items()
        for item in bundle.manifest.artifacts
    }


def validate_faults(bundles: Mapping[str, Bundle], folder: Path) -> list[FaultResult]:
    """Plant every fault in a file in ``folder`` and validate it."""
    bundle = bundles["digits"]
    dataset = read_dataset(ROOT / "sample_models" / "digits" / "samples.npz", bundle)
    fallback = next(item for item in bundle.manifest.artifacts if item.scheme == "float32")
    runner = open_file(bundle.artifact_path(fallback), fallback)
    dataset = dataset.with_fallback_reference(fallback, runner)
    maps = {name: runner.run(dataset.inputs)[name] for name in fallback.attention}
    # An artifact with the label of the fallback reference, but with a fault, is evaluated too.
    dataset = replace(
        dataset,
        fallback_reference=None,
        reference_outputs={**dataset.reference_outputs, **maps},
    )
    return [_validate_fault(fault, bundles[fault.model], folder, dataset) for fault in FAULTS]


def _validate_fault(
    fault: Fault, bundle: Bundle, folder: Path, dataset: InMemoryDataset
) -> FaultResult:
    (sound,) = bundle.select((fault.format,), (fault.scheme,))
    (source,) = bundle.select((fault.format,), (fault.source or fault.scheme,))
    content = bundle.artifact_path(source).read_bytes()
    if fault.plant is not None:
        content = fault.plant(content)
    path = folder / f"planted.{fault.format}"
    path.write_bytes(content)
    faulty = replace(sound, path=path.name, sha256=sha256(path))
    if fault.recounted:
        faulty = recounted(faulty, content)
    if fault.entry is not None:
        faulty = fault.entry(faulty, content)

    def open_faulty(artifact: Artifact) -> Runner:
        runner = open_file(path, artifact)
        return runner if fault.wrap is None else fault.wrap(runner)

    report = validate_artifact(
        Bundle(folder, replace(bundle.manifest, artifacts=(faulty,))),
        faulty,
        bundle.reference(),
        open_faulty,
        dataset=dataset if fault.data or fault.stage == TASK else None,
    )
    if report.broken:
        return FaultResult(fault, (LOADING,), "the runtime refuses it")
    stages = tuple(name for name, verdict in report.stages.items() if verdict == FAIL)
    return FaultResult(fault, stages, _first_failure(fault, report))


def _first_failure(fault: Fault, report: ArtifactReport) -> str:
    for check in report.failed:
        if check.stage == fault.stage:
            return f"`{check.metric}`"
    if report.task is not None and report.task.verdict == FAIL:
        return report.task.results[0].metric
    return "none"


def table(sound: SoundReports, results: Sequence[FaultResult]) -> str:
    """The generated part of the page: both tables and their counts."""
    expected = [report for key, report in sound.items() if key not in EXCEPTIONS]
    passed = sum(report.verdict == PASS for report in expected)
    detected = sum(result.detected for result in results)
    models = sorted({key[0] for key in sound})
    columns = sorted({key[1:] for key in sound}, key=lambda k: (SCHEMES.index(k[1]), k[0]))
    lines = [
        START,
        f"**{detected} of {len(results)} planted faults ({100 * detected / len(results):.1f}%) are "
        f"detected by the expected stage; {passed} of {len(expected)} sound artifacts pass.**",
        fault_rows(results),
        "",
        "| model, without faults | " + " | ".join(f"{f} {s}" for f, s in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for model in models:
        cells = [_cell((model, *column), sound) for column in columns]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    if EXCEPTIONS:
        lines += ["", "Sound artifacts that exceed the limits of their scheme:", ""]
        lines += [f"- {' '.join(key)}: {reason}." for key, reason in EXCEPTIONS.items()]
    return "\n".join([*lines, END])


def fault_rows(results: Sequence[FaultResult]) -> str:
    """The table of faults, after those that cannot be detected."""
    lines = [
        *_outside(results),
        "",
        "| fault | artifact | expected stage | failed stages | first failed check |",
        "|---|---|---|---|---|",
        *(_fault_row(result) for result in results),
    ]
    return "\n".join(lines)


def _outside(results: Sequence[FaultResult]) -> list[str]:
    """Which faults cannot be detected, by reason."""
    names: dict[str, list[str]] = {}
    for item in results:
        if item.fault.outside and not item.detected:
            names.setdefault(item.fault.outside, []).append(item.fault.name)
    lines = [f"- because {reason}: {'; '.join(items)}." for reason, items in names.items()]
    return ["", "Not detected:", "", *lines] if lines else []


def _fault_row(result: FaultResult) -> str:
    fault = result.fault
    artifact = f"{fault.model}, {fault.format} {fault.scheme}"
    stages = ", ".join(result.stages) or "none"
    # Without the value, which differs between machines by rounding.
    return f"| {fault.name} | {artifact} | {fault.stage} | {stages} | {result.first} |"


def _cell(key: tuple[str, str, str], sound: SoundReports) -> str:
    if key not in sound:
        return "-"
    return "exception" if key in EXCEPTIONS else sound[key].verdict
