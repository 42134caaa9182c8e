"""``edgeattn bench``"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output

if TYPE_CHECKING:
    from edgeattn.benchmark import Benchmark


@click.command("bench")
@click.argument("bundle", type=options.PATH)
@options.formats_option
@options.schemes_option
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    help="Repeatable. Default: 1, 2, 4 and so on, up to the cores that are here.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=700,
    show_default=True,
    help="Runs of each artifact: 64 are needed for p90, 662 for p99.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="End the runs of a number of threads after this long, all artifacts together.",
)
@click.option(
    "--python",
    type=options.PATH,
    help="Run in this other Python of the machine, which has edgeattn.",
)
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    threads: tuple[int, ...],
    runs: int,
    seconds: float,
    python: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure how long the artifacts of BUNDLE take here: cold start, load and warm latency.

    Artifacts take turns. Runs during which the board was throttled are void. A percentile that too
    few runs support is left out.
    """
    from edgeattn.benchmark import bench
    from edgeattn.bundle import Bundle
    from edgeattn.runners.elsewhere import here, interpreter

    opened = Bundle.open(bundle)
    artifacts = opened.select(options.chosen(formats), options.chosen(schemes))
    shown = output.progress(quiet or as_json)
    try:
        found = bench(
            opened,
            artifacts,
            interpreter(python, opened) if python else here(opened),
            threads=threads or doubling(os.cpu_count() or 1),
            runs=runs,
            seconds=seconds,
            on_progress=shown,
        )
    finally:
        output.end_progress(shown)
    if as_json:
        output.emit_json(found.to_json())
    else:
        click.echo(as_text(found, quiet=quiet))
    return found.exit_code


def doubling(cores: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, up to ``cores``."""
    return tuple(1 << power for power in range(cores.bit_length()))


def as_text(found: Benchmark, *, quiet: bool = False) -> str:
    rows = [
        [
            item.artifact.format,
            item.artifact.scheme,
            item.runtime or "-",
            str(item.threads),
            str(len(item.timing.nanoseconds)),
            *(milliseconds(item.timing.percentile_ms(percent)) for percent in (50, 90, 99)),
            milliseconds(item.load_ms),
            milliseconds(item.cold_start_ms),
            "-" if item.memory_bytes is None else output.size(item.memory_bytes),
        ]
        for item in found.measured
    ]
    header = ["format", "scheme", "runtime", "threads", "runs", "p50", "p90", "p99", "load"]
    lines = [output.table([*header, "cold", "memory"], rows, right=tuple(range(3, 11)))]
    for item in found.measured:
        if item.reason:
            lines.append(f"{item.artifact.label}, threads {item.threads}: {item.reason}")
        if item.void:
            lines.append(
                f"{item.artifact.label}, threads {item.threads}: {item.void} runs are void, "
                "the board was throttled"
            )
    if not quiet:
        lines += ["", "Times in ms; cold is from a process' start to its first result."]
        lines.append("Memory is the peak of the whole process. Energy: not measurable.")
        if all(item.throttled is None for item in found.measured):
            lines.append("This machine does not tell whether it is throttled.")
    return "\n".join(lines)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
