"""``edgeattn tune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command, recorded_options
from edgeattn.cli.terminal import styled_line
from edgeattn.cli.values import Choice, Integer
from edgeattn.printable import Text, counted, join_lines

if TYPE_CHECKING:
    from edgeattn_converters.tuning.tune import TuningResult


@click.command("tune", cls=Command)
@click.argument("model", type=options.PATH)
@click.option(
    "--data",
    type=options.PATH,
    help="Samples with labels 'y' on which the task is evaluated: an .npz.",
)
@options.raw_data_option
@click.option(
    "--calibration",
    type=options.PATH,
    help="Real inputs for calibration, other than --data; int8 and int16x8 need them.",
)
@options.raw_calibration_option
@options.max_drop_option("drop of the task's score")
@click.option(
    "--for",
    "aim",
    type=Choice(["size", "latency"]),
    default="size",
    show_default=True,
    help="What to minimize: bytes, or the median latency.",
)
@click.option(
    "--on",
    metavar="USER@HOST",
    help="Measure latencies on a host that ssh reaches. Default: this machine.",
)
@click.option(
    "--device",
    metavar="NAME=USER@HOST,...",
    help="Measure latencies on one of these boards; if it fails, on another one. With --scheduler: "
    "the NAME of boards that joined it, or NAME=COUNT to wait for COUNT of them.",
)
@options.device_access
@click.option(
    "-o", "--output", "target", type=options.PATH, help="The bundle. Default: MODEL.tuned.edge."
)
@options.formats_option
@options.schemes_option(
    "Schemes to try and to mix; repeatable. Default: all but int16x8, which is slow on these "
    "targets, and int4, which is experimental; add one with --scheme all --scheme int4."
)
@options.model_source
@click.option(
    "--most",
    "max_candidates",
    type=Integer(min=1),
    default=80,
    show_default=True,
    help="Largest number of files to convert.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers evaluate the candidates with one scheme, such as "
    "tcp://HOST:8786.",
)
@click.option("--plot", type=options.PATH, help="Plot of size, score and latency: .svg or .png.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@options.json_option
@options.quiet_option
def command(
    model: Path,
    data: Path | None,
    raw_data: Path | None,
    calibration: Path | None,
    raw_calibration: Path | None,
    max_drop: float,
    aim: str,
    on: str | None,
    device: str | None,
    access: options.DeviceAccess,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    loading: options.ModelLoading,
    max_candidates: int,
    scheduler: str | None,
    plot: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Search for the smallest or fastest artifact of MODEL that passes the verdict.

    Every scheme, format and lowering is tried as a whole, those expected to be small first. If the
    smallest ones do not pass, the most sensitive layers get a larger scheme. If no candidate
    passes, the closest one is written. After an interruption, rerun the command to resume.

    Latencies are measured in turns. A difference counts only if the 95% intervals do not overlap;
    of several fastest candidates, the smallest is chosen.
    """
    from edgeattn.api.tune import tune

    try:
        with output.progress(quiet or as_json), recorded_options():
            result = tune(
                model,
                data,
                target,
                raw_data=raw_data,
                calibration=calibration,
                raw_calibration=raw_calibration,
                max_drop=max_drop,
                aim=aim,
                formats=formats,
                schemes=schemes,
                **vars(loading),
                max_candidates=max_candidates,
                scheduler=scheduler,
                plot=plot,
                force=force,
                on=on,
                device=device,
                **vars(access),
            )
    except KeyboardInterrupt:
        output.echo("Results so far are stored. Rerun the command to resume.", err=True)
        raise
    if not quiet:
        notes = result.bundle.manifest.model["notes"]
        output.echo(*(styled_line(f"note: {note}", err=True) for note in notes), err=True)
    if as_json:
        output.emit_json(result.to_dict())
    else:
        output.echo(as_text(result.search, table=not quiet))
    return result.exit_code


def as_text(result: TuningResult, *, table: bool) -> Text:
    lines = []
    if table:
        converted = [item for item in result.results if item.bytes is not None]
        lines += [
            f"{counted(len(result.results), 'candidate')}: {len(converted)} converted, "
            f"{sum(item.passed for item in converted)} passed.",
            "",
            "Candidates that no other beats in size, score and latency at once:",
            _table(result),
            "",
        ]
    scores = result.reference_scores
    listed = ", ".join(
        f"{score:.4f}" if len(scores) == 1 else f"{name} {score:.4f}"
        for name, score in scores.items()
    )
    lines.append(f"Score of Keras: {listed}; allowed drop: {result.options.max_drop:g}.")
    lines += [f"{board} was removed: {reason}" for board, reason in result.lost.items()]
    lines += [*_conclusion(result), *_latency(result)]
    lines += _untried(result)
    lines.append(f"Wrote {result.bundle.path}")
    return join_lines(lines)


def _conclusion(result: TuningResult) -> list[str]:
    chosen, uniform = result.chosen, result.best_uniform
    if not chosen.passed:
        return [
            f"No candidate passes. The closest is {chosen.candidate.label}: "
            f"{chosen.shortfall.removesuffix('.')}.",
            "Increase --max-drop, or pass more samples.",
        ]
    by_size = result.options.aim == "size"
    smaller = "smaller" if by_size else "faster"
    size = output.size(chosen.bytes or 0)
    # Without the word, one that was not tried may be better.
    tried = " tried" if result.untried else ""
    group = len(result.fastest_group)
    best = (
        "Smallest" if by_size else "Fastest" if group == 1 else f"Smallest of the {group} fastest"
    )
    plural = "s" if not by_size and group > 1 else ""
    passes = "pass" if plural else "passes"
    lines = [f"{best}{tried} artifact{plural} that {passes}: {chosen.candidate.label}, {size}."]
    if not chosen.candidate.precision:
        mixtures = any(item.candidate.precision for item in result.results)
        return (
            [*lines, f"No mixture of schemes that was tried is {smaller}."] if mixtures else lines
        )
    if uniform is not None and uniform.bytes:
        share = 100 * (1 - (chosen.bytes or 0) / uniform.bytes)
        lines.append(
            f"It is {share:.1f}% smaller than the best single scheme, {uniform.candidate.label}, "
            f"{output.size(uniform.bytes)}."
        )
    return lines


def _latency(result: TuningResult) -> list[str]:
    """The latency of the chosen artifact, and where it was measured."""
    measured = result.measured
    if measured is None:
        return []
    low, high = measured["interval_ms"]
    where = measured["on"] + (f" ({measured['device']})" if measured["device"] else "")
    lines = [
        f"Its median latency on {where} is {measured['p50_ms']:.4g} ms "
        f"(95% interval: {low:.4g} to {high:.4g})."
    ]
    if result.options.aim == "latency" and measured["no_difference_measured"]:
        lines.append(
            "No difference in latency measured from: "
            f"{', '.join(measured['no_difference_measured'])}."
        )
    return lines


def _untried(result: TuningResult) -> list[str]:
    """One line for each reason why something was not tried."""
    by_reason: dict[str, list[str]] = {}
    for what, reason in result.untried:
        by_reason.setdefault(reason, []).append(what)
    return [f"Not tried ({reason}): {', '.join(items)}." for reason, items in by_reason.items()]


def _table(result: TuningResult) -> Text:
    results, chosen = result.frontier or (result.chosen,), result.chosen
    outputs = list(dict.fromkeys(name for item in results for name in item.scores))
    several = len(outputs) > 1
    header = [
        *("", "verdict", "candidate", "size (kB)"),
        *([f"score of {name}" for name in outputs] if several else ["score"]),
        "largest drop (95% interval)" if several else "drop (95% interval)",
        "median latency (ms)",
        "95% interval (ms)",
        "latency",
    ]
    rows = [
        [
            "*" if item.candidate == chosen.candidate else "",
            item.verdict,
            item.candidate.label,
            f"{(item.bytes or 0) / 1000:,.1f}",
            *(_score(item.scores.get(name)) for name in outputs or [""]),
            "-" if item.drop is None else f"{item.drop[1]:+.4f} to {item.drop[2]:+.4f}",
            "-" if item.p50_ms is None else f"{item.p50_ms:.4g}",
            "-" if item.interval_ms is None else "{:.4g} to {:.4g}".format(*item.interval_ms),
            result.compare_with_fastest(item) or "-",
        ]
        for item in results
    ]
    scores = max(1, len(outputs))
    return output.table(header, rows, right=(*range(3, 4 + scores), 5 + scores))


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"
