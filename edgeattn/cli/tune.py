"""``edgeattn tune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import options, output
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn_converters.tuning.search import Result
    from edgeattn_converters.tuning.tune import TuningResult


@click.command("tune")
@click.argument("model", type=options.PATH)
@click.option(
    "--data",
    type=options.PATH,
    required=True,
    help="Samples with labels 'y' on which the task is evaluated: an .npz.",
)
@click.option(
    "--calibration",
    type=options.PATH,
    help="Real inputs for calibration, other than --data; int8 and int16x8 need them.",
)
@options.max_drop_option
@click.option(
    "--for",
    "aim",
    type=click.Choice(["size", "latency"]),
    default="size",
    show_default=True,
    help="What to minimize: bytes, or the median latency on this machine.",
)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="The bundle. Default: MODEL.tuned.edge."
)
@options.formats_option
@options.schemes_option(
    "Schemes to try and to mix; repeatable. Default: all but int4, which is experimental: add it "
    "with --scheme all --scheme int4."
)
@options.model_source
@click.option(
    "--most",
    "max_candidates",
    type=click.IntRange(min=1),
    default=80,
    show_default=True,
    help="Largest number of files to convert.",
)
@click.option("--plot", type=options.PATH, help="Plot of size, score and latency: .svg or .png.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@options.json_option
@options.quiet_option
def command(
    model: Path,
    data: Path,
    calibration: Path | None,
    max_drop: float,
    aim: str,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    loading: options.ModelLoading,
    max_candidates: int,
    plot: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Search for the smallest or fastest artifact of MODEL that passes the verdict.

    Every scheme, format and lowering is tried as a whole. If the smallest ones do not pass, the
    most sensitive layers get a larger scheme. If no candidate passes, the closest one is written.
    After an interruption, rerun the command to resume.
    """
    from edgeattn.samples.files import check_ignored

    converters = import_converters()
    tuning = import_converters("edgeattn_converters.tuning.tune")
    check_ignored(loading.ignore, data, loading.samples, calibration)
    if plot is not None:
        _check_plot(plot)
    try:
        with output.progress(quiet or as_json):
            result = tuning.tune(
                converters.ModelSource(model, **vars(loading)),
                data,
                target,
                options=tuning.TuningOptions(
                    max_drop=max_drop,
                    aim=aim,
                    formats=options.empty_if_all(formats),
                    schemes=schemes,
                    calibration=calibration,
                    max_candidates=max_candidates,
                ),
                force=force,
            )
    except KeyboardInterrupt:
        click.echo("Results so far are stored. Rerun the command to resume.", err=True)
        raise
    if plot is not None:
        _plot(result, plot)
    if as_json:
        output.emit_json(as_document(result))
    else:
        click.echo(as_text(result, table=not quiet))
    return int(result.exit_code)


def _check_plot(plot: Path) -> None:
    if plot.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"Unknown format of plots: {plot.name}.", hint="Use .svg or .png.")
    options.check_writable(plot)
    from edgeattn.plots import style

    style.require("matplotlib", extra="report")


def _plot(result: TuningResult, plot: Path) -> None:
    from edgeattn.report import frontier

    points = [
        frontier.Point(
            item.candidate.label,
            item.bytes or 0,
            item.score,
            item.p50_ms,
            item.passed,
            item.candidate == result.chosen.candidate,
        )
        for item in result.results
        if item.score is not None
    ]
    floors = [score - result.options.max_drop for score in result.reference_scores.values()]
    frontier.draw(points, plot, floor=max(floors, default=None))


def as_document(result: TuningResult) -> dict[str, Any]:
    """The document of ``--json``, whose keys scripts may rely on."""
    uniform = result.best_uniform
    return {
        "bundle": str(result.bundle.path),
        "aim": result.options.aim,
        "max_drop": result.options.max_drop,
        "reference": dict(result.reference_scores),
        "chosen": _entry(result.chosen),
        "best_single": None if uniform is None else _entry(uniform),
        "frontier": [_entry(item) for item in result.frontier],
        "tried": [_entry(item) for item in result.results],
    }


def _entry(result: Result) -> dict[str, Any]:
    candidate = result.candidate
    return {
        "format": candidate.format,
        "scheme": candidate.scheme,
        "lowering": candidate.lowering,
        "precision": dict(candidate.precision),
        "verdict": result.verdict,
        "bytes": result.bytes,
        "score": result.score,
        "drop": None if result.drop is None else result.drop[0],
        "interval": None if result.drop is None else list(result.drop[1:]),
        "excess": result.excess,
        "p50_ms": result.p50_ms,
        "shortfall": result.shortfall,
    }


def as_text(result: TuningResult, *, table: bool) -> str:
    lines = []
    if table:
        converted = [item for item in result.results if item.bytes is not None]
        lines += [
            f"{len(result.results)} candidates: {len(converted)} converted, "
            f"{sum(item.passed for item in converted)} pass.",
            "",
            "Candidates that no other beats in size, score and latency at once:",
            _table(result.frontier or (result.chosen,), result.chosen),
            "",
        ]
    scores = ", ".join(f"{score:.4f}" for score in result.reference_scores.values())
    lines.append(f"Score of Keras: {scores}; allowed drop: {result.options.max_drop:g}.")
    lines += _conclusion(result)
    lines.append(f"Wrote {result.bundle.path}")
    return "\n".join(lines)


def _conclusion(result: TuningResult) -> list[str]:
    chosen, uniform = result.chosen, result.best_uniform
    if not chosen.passed:
        return [
            f"No candidate passes. The closest is {chosen.candidate.label}: {chosen.shortfall}.",
            "Increase --max-drop, or pass more samples.",
        ]
    smallest, smaller = (
        ("Smallest", "smaller") if result.options.aim == "size" else ("Fastest", "faster")
    )
    size = output.size(chosen.bytes or 0)
    lines = [f"{smallest} artifact that passes: {chosen.candidate.label}, {size}."]
    if not chosen.candidate.precision:
        return [*lines, f"No mixture of schemes that was tried is {smaller}."]
    if uniform is not None and uniform.bytes:
        share = 100 * (1 - (chosen.bytes or 0) / uniform.bytes)
        lines.append(
            f"It is {share:.1f}% smaller than the best single scheme, {uniform.candidate.label}, "
            f"{output.size(uniform.bytes)}."
        )
    return lines


def _table(results: tuple[Result, ...], chosen: Result) -> str:
    header = [
        *("", "verdict", "candidate", "size (kB)", "score", "drop (95% interval)"),
        "median latency (ms)",
    ]
    rows = [
        [
            "*" if item.candidate == chosen.candidate else "",
            item.verdict,
            item.candidate.label,
            f"{(item.bytes or 0) / 1000:,.1f}",
            "-" if item.score is None else f"{item.score:.4f}",
            "-" if item.drop is None else f"{item.drop[1]:+.4f} to {item.drop[2]:+.4f}",
            "-" if item.p50_ms is None else f"{item.p50_ms:.3f}",
        ]
        for item in results
    ]
    return output.table(header, rows, right=(3, 4, 6))
