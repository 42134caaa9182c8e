"""``edgeattn.bench``"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import (
    StrPath,
    TargetOptions,
    artifact_selection,
    check_positive,
    check_seconds,
    optional_path,
)
from edgeattn.api.result import Result, number
from edgeattn.api.sources import BundleLike, opened
from edgeattn.errors import UsageError
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn.benchmark.latency import LatencyReport, LatencyResult
    from edgeattn.benchmark.sustained import SustainedResult
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.device.info import Device
    from edgeattn.targets.target import Target
    from edgeattn.validation.recommendation import Recommendation
    from edgeattn.validation.report import Report

RUNS, SECONDS = 700, 60.0


@dataclass(frozen=True, repr=False)
class BenchResult(Result):
    """Latencies of artifacts on one machine, and the fastest artifact that passes there.

    Attributes:
        bundle: The bundle.
        target: Where the artifacts ran: ``here``, a Python or a host.
        device: The machine that they ran on.
        latency: The measurement in turns; None if artifacts ran under sustained load.
        sustained: The results under sustained load.
        recommendation: The fastest artifact that passes on the bundle's reference.
    """

    bundle: Bundle
    target: str
    device: Device
    latency: LatencyReport | None
    sustained: tuple[SustainedResult, ...]
    recommendation: Recommendation

    @property
    def exit_code(self) -> int:
        """0 if an artifact ran and none failed, apart from missing runtimes."""
        from edgeattn.benchmark.artifact_worker import failure_code

        if self.latency is not None:
            return self.latency.exit_code
        codes = {item.exit_code for item in self.sustained if item.reason and not item.unavailable}
        ran = any(item.windows for item in self.sustained)
        return 0 if ran and not codes else failure_code(codes)

    def _document(self) -> dict[str, Any]:
        if self.latency is not None:
            document = self.latency.to_json()
        else:
            has_energy = any(item.millijoules for item in self.sustained)
            document = {
                "sustained": [item.to_json() for item in self.sustained],
                "place": self.target,
                "energy": "measured" if has_energy else "not measurable",
            }
        return {
            **document,
            "machine": self.device.summary,
            "device": self.device.to_json(),
            "recommended": self.recommendation.to_json(),
        }

    def _summary(self) -> str:
        count = len({item.artifact.label for item in self._results})
        return f"{self.bundle.path.name}: {counted(count, 'artifact')}, {self.recommendation.short}"

    @property
    def _results(self) -> Sequence[Any]:
        return self.sustained if self.latency is None else self.latency.results

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["format", "scheme", "runtime", "threads", "median (ms)"]
        return header, [
            [
                item.artifact.format,
                item.artifact.scheme,
                item.runtime or "-",
                str(item.threads),
                number(_median_ms(item), ".3g"),
            ]
            for item in self._results
        ]


def bench(
    bundle: BundleLike,
    *,
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    threads: int | Sequence[int] = (),
    runs: int = RUNS,
    seconds: float = SECONDS,
    sustained: float | None = None,
    on: str | None = None,
    python: StrPath | None = None,
    ssh_config: StrPath | None = None,
    require_signature: StrPath | None = None,
) -> BenchResult:
    """Measure cold start, load time and latency of artifacts, on this machine or another.

    ``bundle`` is a path or the result of another function; the other arguments are the options of
    ``edgeattn bench``. Before the measurement, artifacts are compared with Keras on the bundle's
    reference there, because only one that passes is recommended.
    """
    from edgeattn.benchmark.latency import measure_latency
    from edgeattn.benchmark.sustained import measure_sustained
    from edgeattn.targets.target import cpu_count
    from edgeattn.validation.recommendation import lowest_latencies, recommend_reported

    counts = (threads,) if isinstance(threads, int) else tuple(threads)
    check_positive(runs=runs, sustained=sustained)
    check_seconds(seconds)
    if any(count < 1 for count in counts):
        raise UsageError(f"threads has {min(counts)}.", hint="Pass numbers of at least 1.")
    selection = artifact_selection(formats, schemes)
    target = TargetOptions(on, None if python is None else str(python), optional_path(ssh_config))
    checked = opened(bundle, require_signature)
    artifacts = selection.of(checked)
    with target.open(checked) as machine:
        report = _validated(checked, artifacts, machine)
        device = _device_of(machine, target, checked)
        latency = None
        under_load: tuple[SustainedResult, ...] = ()
        if sustained is not None:
            under_load = measure_sustained(
                checked, artifacts, machine, seconds=sustained, threads=counts or (1,)
            )
        else:
            latency = measure_latency(
                checked,
                artifacts,
                machine,
                threads=counts or powers_of_two(cpu_count(machine)),
                runs=runs,
                seconds=seconds,
            )
    latencies = lowest_latencies(
        (item.artifact, item.threads, _median_ms(item))
        for item in (under_load if latency is None else latency.results)
    )
    recommendation = recommend_reported(report.artifacts, checked.manifest, machine.name, latencies)
    return BenchResult(checked, machine.name, device, latency, under_load, recommendation)


def _device_of(target: Target, options: TargetOptions, bundle: Bundle) -> Device:
    """The machine, with the version of the Python that runs the artifacts."""
    from edgeattn.device.info import describe_device
    from edgeattn.targets.replies import parse_device
    from edgeattn.targets.ssh import system_snapshot
    from edgeattn.targets.target import identify

    if target.host is not None:
        return parse_device(system_snapshot(target.host, options.python))
    if not target.command:
        return describe_device()
    with target.start() as worker:
        return describe_device(python=identify(target, bundle, worker)["python"])


def _validated(bundle: Bundle, artifacts: tuple[Artifact, ...], target: Target) -> Report:
    """The report on the reference, where the artifacts are measured."""
    from edgeattn.validation.on_target import validate_on_target
    from edgeattn.validation.validate import validate_isolated

    if target.command:
        return validate_on_target(target, bundle, artifacts)
    return validate_isolated(bundle, artifacts)


def _median_ms(result: LatencyResult | SustainedResult) -> float | None:
    """The median latency; under sustained load, that of the last third of the time."""
    from edgeattn.benchmark.latency import LatencyResult

    if isinstance(result, LatencyResult):
        return result.timing.percentile_ms(50)
    return result.last_ms


def powers_of_two(limit: int) -> tuple[int, ...]:
    """Return the powers of two from 1 up to ``limit``."""
    return tuple(1 << power for power in range(limit.bit_length()))
