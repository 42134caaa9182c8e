"""``edgeattn bench``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.cli.terminal import styled_line
from edgeattn.cli.values import Integer, Number
from edgeattn.printable import Text, counted, join_lines

if TYPE_CHECKING:
    from edgeattn.benchmark.latency import LatencyReport
    from edgeattn.benchmark.sustained import SustainedResult

NO_THROTTLING_FLAGS = "This machine does not report whether it is throttled."


@click.command("bench", cls=Command)
@click.argument("bundle", type=options.PATH)
@options.artifact_selection
@click.option(
    "--threads",
    type=Integer(min=1),
    multiple=True,
    help="Number of threads; repeatable. Default: the powers of two up to the number of cores.",
)
@click.option(
    "--runs",
    type=Integer(min=1),
    default=700,
    show_default=True,
    help="Valid runs of each artifact; p90 requires 64, p99 requires 662.",
)
@click.option(
    "--seconds",
    type=Number(min=0),
    default=60,
    show_default=True,
    help="Time limit for all artifacts together, per number of threads.",
)
@click.option(
    "--sustained",
    type=Number(min=0, min_open=True),
    metavar="SECONDS",
    help="Run each artifact this long without pause instead, to measure temperature, throttling "
    "and energy.",
)
@options.target
@options.run_limits_options
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    selection: options.ArtifactSelection,
    threads: tuple[int, ...],
    runs: int,
    seconds: float,
    sustained: float | None,
    target: options.TargetOptions,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure cold start, load time and latency of the artifacts of BUNDLE.

    The artifacts take turns. Runs during which the board was throttled are void. Percentiles that
    require more runs are omitted.
    """
    from edgeattn.api.bench import bench

    with output.progress(quiet or as_json):
        result = bench(
            bundle,
            **vars(selection),
            threads=threads,
            runs=runs,
            seconds=seconds,
            sustained=sustained,
            **vars(target),
            require_signature=require_signature,
        )
    if as_json:
        output.emit_json(result.to_dict())
        return result.exit_code
    if result.latency is None:
        output.echo(format_sustained(result.sustained))
    else:
        output.echo(format_latency(result.latency, quiet=quiet))
    if not quiet:
        output.echo(f"Measured on {result.device.summary}, Python {result.device.python}.")
    output.echo(styled_line(result.recommendation.line))
    return result.exit_code


def format_sustained(results: tuple[SustainedResult, ...]) -> Text:
    rows = []
    for result in results:
        celsius, energy = result.temperature_c, result.millijoules
        rows.append(
            [
                result.artifact.format,
                result.artifact.scheme,
                result.runtime or "-",
                str(result.threads),
                str(result.runs),
                str(result.void),
                milliseconds(result.first_ms),
                milliseconds(result.last_ms),
                "-" if celsius is None else f"{celsius[0]:.0f} to {celsius[1]:.0f}",
                "-" if energy is None else f"{energy[0]:.3g}",
                "-" if energy is None else f"{energy[1]:.3g}",
            ]
        )
    header = ["format", "scheme", "runtime", "threads", "runs", "void"]
    header += ["first (ms)", "last (ms)", "board (°C)", "energy (mJ)", "above idle (mJ)"]
    lines: list[str] = [output.table(header, rows, right=tuple(range(3, 11)))]
    lines += [f"{result.artifact.label}: {result.reason}" for result in results if result.reason]
    lines += [
        "",
        "First, last: median latency over the first and the last third of the time.",
        "Void: runs while the board was throttled. Energy: per run, of all chips on the board.",
    ]
    if not any(result.millijoules for result in results):
        lines.append("Energy was not measured: it requires a power controller as in a Pi 5.")
    if all(window.throttled is None for result in results for window in result.windows):
        lines.append(NO_THROTTLING_FLAGS)
    return join_lines(lines)


def format_latency(report: LatencyReport, *, quiet: bool = False) -> Text:
    rows = [
        [
            result.artifact.format,
            result.artifact.scheme,
            result.runtime or "-",
            str(result.threads),
            str(len(result.timing.nanoseconds)),
            *(milliseconds(result.timing.percentile_ms(percent)) for percent in (50, 90, 99)),
            milliseconds(result.load_ms),
            milliseconds(result.cold_start_ms),
            "-" if result.memory_bytes is None else f"{result.memory_bytes / 1e6:.1f}",
        ]
        for result in report.results
    ]
    header = ["format", "scheme", "runtime", "threads", "runs", "p50 (ms)", "p90 (ms)", "p99 (ms)"]
    header += ["load (ms)", "cold (ms)", "memory (MB)"]
    lines: list[str] = [output.table(header, rows, right=tuple(range(3, 11)))]
    for result in report.results:
        label = f"{result.artifact.label}, threads {result.threads}"
        if result.reason:
            lines.append(f"{label}: {result.reason}")
        if result.void:
            lines.append(
                f"{label}: void because the board was throttled: {counted(result.void, 'run')}"
            )
    if not quiet:
        lines += [
            "",
            "Cold: from the start of a process to its first output.",
            "Memory: peak of the whole process. Energy: see --sustained.",
        ]
        if all(result.throttled is None for result in report.results):
            lines.append(NO_THROTTLING_FLAGS)
    return join_lines(lines)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
