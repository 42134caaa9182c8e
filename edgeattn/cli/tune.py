"""``edgeattn tune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import options, output
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError
from edgeattn.printable import Text, join_lines

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
@options.max_drop_option("drop of the task's score")
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

    Every scheme, format and lowering is tried as a whole, those expected to be small first. If the
    smallest ones do not pass, the most sensitive layers get a larger scheme. If no candidate
    passes, the closest one is written. After an interruption, rerun the command to resume.
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
        output.echo("Results so far are stored. Rerun the command to resume.", err=True)
        raise
    if plot is not None:
        _plot(result, plot)
    if as_json:
        output.emit_json(as_document(result))
    else:
        output.echo(as_text(result, table=not quiet))
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
    scores = list(result.reference_scores.values())
    # Scores of several outputs have different lowest values.
    floor = scores[0] - result.options.max_drop if len(scores) == 1 else None
    frontier.draw(points, plot, floor=floor)


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
        "untried": [{"what": what, "reason": reason} for what, reason in result.untried],
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
        "output": result.output,
        "score": result.score,
        "scores": dict(result.scores),
        "drop": None if result.drop is None else result.drop[0],
        "interval": None if result.drop is None else list(result.drop[1:]),
        "excess": result.excess,
        "p50_ms": result.p50_ms,
        "shortfall": result.shortfall,
    }


def as_text(result: TuningResult, *, table: bool) -> Text:
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
    scores = result.reference_scores
    listed = ", ".join(
        f"{score:.4f}" if len(scores) == 1 else f"{name} {score:.4f}"
        for name, score in scores.items()
    )
    lines.append(f"Score of Keras: {listed}; allowed drop: {result.options.max_drop:g}.")
    lines += _conclusion(result)
    lines += _untried(result)
    lines.append(f"Wrote {result.bundle.path}")
    return join_lines(lines)


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
    # Without the word, one that was not tried may be better.
    tried = " tried" if result.untried else ""
    lines = [f"{smallest}{tried} artifact that passes: {chosen.candidate.label}, {size}."]
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


def _untried(result: TuningResult) -> list[str]:
    """One line for each reason why something was not tried."""
    by_reason: dict[str, list[str]] = {}
    for what, reason in result.untried:
        by_reason.setdefault(reason, []).append(what)
    return [f"Not tried ({reason}): {', '.join(items)}." for reason, items in by_reason.items()]


def _table(results: tuple[Result, ...], chosen: Result) -> Text:
    outputs = list(dict.fromkeys(name for item in results for name in item.scores))
    several = len(outputs) > 1
    header = [
        *("", "verdict", "candidate", "size (kB)"),
        *([f"score of {name}" for name in outputs] if several else ["score"]),
        "largest drop (95% interval)" if several else "drop (95% interval)",
        "median latency (ms)",
    ]
    rows = [
        [
            "*" if item.candidate == chosen.candidate else "",
            item.verdict,
            item.candidate.label,
            f"{(item.bytes or 0) / 1000:,.1f}",
            *(_score(item.scores.get(name)) for name in outputs or [""]),
            "-" if item.drop is None else f"{item.drop[1]:+.4f} to {item.drop[2]:+.4f}",
            "-" if item.p50_ms is None else f"{item.p50_ms:.3f}",
        ]
        for item in results
    ]
    scores = max(1, len(outputs))
    return output.table(header, rows, right=(*range(3, 4 + scores), 5 + scores))


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"
