"""Every fault and every sound artifact through the verdict, and the table of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.evaluation.dataset import InMemoryDataset
from edgeattn.evaluation.file_dataset import read_dataset
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.runners import Runner, open_runner
from edgeattn.validation.report import ArtifactReport
from edgeattn.validation.validate import validate_artifact

from .making import ROOT
from .planting import FAULTS, LOADING, TASK, Fault

# Sound files that are beyond their scheme's limits, and why: no fault, and no pass.
BEYOND: Mapping[tuple[str, str, str], str] = {}
START, END = "<!-- planted faults -->", "<!-- end of planted faults -->"
PAGE = ROOT / "docs" / "verdict.md"


@dataclass(frozen=True)
class Found:
    """What became of a fault: the stages that failed, and the first check that did."""

    fault: Fault
    stages: tuple[str, ...]
    first: str

    @property
    def caught(self) -> bool:
        others = set(self.stages) - {self.fault.stage}
        return self.fault.stage in self.stages and not (self.fault.only and others)


def opened(path: Path, artifact: Artifact) -> Runner:
    return open_runner(path, artifact.format, artifact.inputs, artifact.outputs, as_deployed=True)


def judge_sound(bundles: Mapping[str, Bundle]) -> dict[tuple[str, str, str], ArtifactReport]:
    """Every artifact as it was converted, by model, format and scheme."""
    return {
        (name, item.format, item.scheme): validate_artifact(
            bundle, item, bundle.reference(), lambda a, b=bundle: opened(b.artifact_path(a), a)
        )
        for name, bundle in bundles.items()
        for item in bundle.manifest.artifacts
    }


def judge_faults(bundles: Mapping[str, Bundle], folder: Path) -> list[Found]:
    """Every fault, planted in a file in ``folder``."""
    bundle = bundles["digits"]
    dataset = read_dataset(ROOT / "sample_models" / "digits" / "samples.npz", bundle)
    fallback = next(item for item in bundle.manifest.artifacts if item.scheme == "float32")
    runner = opened(bundle.artifact_path(fallback), fallback)
    dataset = dataset.with_fallback_reference(fallback, runner)
    return [_judge(fault, bundles[fault.model], folder, dataset) for fault in FAULTS]


def _judge(fault: Fault, bundle: Bundle, folder: Path, labelled: InMemoryDataset) -> Found:
    (right,) = bundle.select((fault.format,), (fault.scheme,))
    content = bundle.artifact_path(right).read_bytes()
    if fault.plant is not None:
        content = fault.plant(content)
    path = folder / f"planted.{fault.format}"
    path.write_bytes(content)
    wrong = right if fault.entry is None else fault.entry(right, content)

    def open_wrong(artifact: Artifact) -> Runner:
        runner = opened(path, artifact)
        return runner if fault.wrap is None else fault.wrap(runner)

    dataset = labelled if fault.stage == TASK else None
    if dataset is not None:
        # The faulty artifact has the label of the fallback reference, and must still be compared.
        dataset = replace(dataset, fallback_reference=None)
    report = validate_artifact(bundle, wrong, bundle.reference(), open_wrong, dataset=dataset)
    stages = tuple(name for name, verdict in report.stages.items() if verdict == FAIL)
    if report.broken:
        return Found(fault, (LOADING,), "the runtime refuses it")
    return Found(fault, stages, _first(fault, report))


def _first(fault: Fault, report: ArtifactReport) -> str:
    for check in report.failed:
        if check.stage == fault.stage:
            bound = f"{check.relation} {check.limit:.2g}"
            return f"`{check.metric}` is {check.value:.2g}, {bound} needed"
    if report.task is not None and report.task.verdict == FAIL:
        result = report.task.results[0]
        return f"{result.metric} from {result.reference_score:.3f} to {result.artifact_score:.3f}"
    return "nothing"


def table(sound: Mapping[tuple[str, str, str], ArtifactReport], found: Sequence[Found]) -> str:
    """The part of the page that is made: both tables and their counts."""
    held = {key: report for key, report in sound.items() if key not in BEYOND}
    passed = sum(report.verdict == PASS for report in held.values())
    caught = sum(item.caught for item in found)
    models = sorted({key[0] for key in sound})
    columns = sorted({key[1:] for key in sound}, key=_column)
    lines = [
        START,
        f"**{caught} of {len(found)} planted faults are caught by the stage that must see them, "
        f"{passed} of {len(held)} sound artifacts pass.**",
        "",
        "| fault | in | must be seen by | caught by | seen as |",
        "|---|---|---|---|---|",
        *(_fault_row(item) for item in found),
        "",
        "| sound: model | " + " | ".join(f"{f} {s}" for f, s in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for model in models:
        cells = [_cell((model, *column), sound) for column in columns]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    if BEYOND:
        lines += ["", "Beyond their scheme's limits without any fault, and told as that:", ""]
        lines += [f"- {' '.join(key)}: {why}." for key, why in BEYOND.items()]
    return "\n".join([*lines, END])


def _column(key: tuple[str, str]) -> tuple[int, str]:
    order = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
    return order.index(key[1]), key[0]


def _fault_row(item: Found) -> str:
    fault = item.fault
    where = f"{fault.model}, {fault.format} {fault.scheme}"
    seen = ", ".join(item.stages) or "nothing"
    # Numbers move by a rounding from machine to machine, so what is seen is named and not told.
    metric = item.first.split(" is ")[0].split(" from ")[0]
    return f"| {fault.name} | {where} | {fault.stage} | {seen} | {metric} |"


def _cell(key: tuple[str, str, str], sound: Mapping[tuple[str, str, str], ArtifactReport]) -> str:
    if key not in sound:
        return "-"
    return "beyond" if key in BEYOND else sound[key].verdict
