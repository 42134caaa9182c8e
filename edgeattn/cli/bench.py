"""``edgeattn bench``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output

if TYPE_CHECKING:
    from edgeattn.benchmark.latency import LatencyReport
    from edgeattn.benchmark.sustained import SustainedResult


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
    "--sustained",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Instead, run each artifact so long without a pause: heat, throttling and energy.",
)
@options.on_option
@options.python_option
@options.ssh_config_option
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    threads: tuple[int, ...],
    runs: int,
    seconds: float,
    sustained: float | None,
    on: str | None,
    python: str | None,
    ssh_config: Path | None,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure how long the artifacts of BUNDLE take: cold start, load and warm latency.

    Artifacts take turns. Runs during which the board was throttled are void. A percentile that too
    few runs support is left out.
    """
    from edgeattn.benchmark.latency import measure_latency
    from edgeattn.targets.target import cpu_count, open_target

    opened = options.opened(bundle, require_signature)
    artifacts = opened.select(options.chosen(formats), options.chosen(schemes))
    with (
        output.progress(quiet or as_json),
        open_target(opened, on, python, config=ssh_config) as place,
    ):
        if sustained is not None:
            from edgeattn.benchmark.sustained import measure_sustained

            held = measure_sustained(
                opened,
                artifacts,
                place,
                seconds=sustained,
                threads=threads or (1,),
            )
            return tell_sustained(held, place.name, as_json=as_json)
        found = measure_latency(
            opened,
            artifacts,
            place,
            threads=threads or doubling(cpu_count(place)),
            runs=runs,
            seconds=seconds,
        )
    if as_json:
        output.emit_json(found.to_json())
    else:
        click.echo(as_text(found, quiet=quiet))
    return found.exit_code


def tell_sustained(held: tuple[SustainedResult, ...], place: str, *, as_json: bool) -> int:
    """Print what was seen under load; the exit code is 0 where all that could run did."""
    broken = any(item.reason and not item.unavailable for item in held)
    ran = any(item.windows for item in held)
    if as_json:
        told = any(item.millijoules for item in held)
        output.emit_json(
            {
                "sustained": [item.to_json() for item in held],
                "place": place,
                "energy": "measured" if told else "not measurable",
            }
        )
    else:
        click.echo(sustained_text(held))
    return 0 if ran and not broken else 5


def sustained_text(held: tuple[SustainedResult, ...]) -> str:
    rows = []
    for item in held:
        heat, energy = item.temperature_c, item.millijoules
        rows.append(
            [
                item.artifact.format,
                item.artifact.scheme,
                item.runtime or "-",
                str(item.threads),
                str(item.runs),
                str(item.void),
                milliseconds(item.first_ms),
                milliseconds(item.last_ms),
                "-" if heat is None else f"{heat[0]:.0f} to {heat[1]:.0f}",
                "-" if energy is None else f"{energy[1]:.3g} of {energy[0]:.3g}",
            ]
        )
    header = ["format", "scheme", "runtime", "threads", "runs", "void", "first", "last", "degrees"]
    lines = [output.table([*header, "mJ"], rows, right=tuple(range(3, 10)))]
    lines += [f"{item.artifact.label}: {item.reason}" for item in held if item.reason]
    lines += [
        "",
        "First and last: medians in ms over the first and the last third of the time.",
        "Runs while the board was throttled are void. mJ: what a run takes beyond the idle board,",
        "of all that the board's chips take in that time.",
    ]
    if not any(item.millijoules for item in held):
        lines.append("Energy: not measurable, no power controller tells here (a Pi 5's does).")
    if all(window.throttled is None for item in held for window in item.windows):
        lines.append("This machine does not tell whether it is throttled.")
    return "\n".join(lines)


def doubling(cores: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, up to ``cores``."""
    return tuple(1 << power for power in range(cores.bit_length()))


def as_text(found: LatencyReport, *, quiet: bool = False) -> str:
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
        for item in found.results
    ]
    header = ["format", "scheme", "runtime", "threads", "runs", "p50", "p90", "p99", "load"]
    lines = [output.table([*header, "cold", "memory"], rows, right=tuple(range(3, 11)))]
    for item in found.results:
        if item.reason:
            lines.append(f"{item.artifact.label}, threads {item.threads}: {item.reason}")
        if item.void:
            lines.append(
                f"{item.artifact.label}, threads {item.threads}: {item.void} runs are void, "
                "the board was throttled"
            )
    if not quiet:
        lines += ["", "Times in ms; cold is from a process' start to its first result."]
        lines.append("Memory is the peak of the whole process.")
        lines.append("Energy: not measurable in turns; see --sustained.")
        if all(item.throttled is None for item in found.results):
            lines.append("This machine does not tell whether it is throttled.")
    return "\n".join(lines)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
