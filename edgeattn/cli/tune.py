"""``edgeattn tune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeattn.cli import options, output
from edgeattn.errors import UsageError
from edgeattn.schemes import EXPERIMENTAL, SCHEMES

if TYPE_CHECKING:
    from edgeattn_converters.tuning.search import Result
    from edgeattn_converters.tuning.tune import Tuned


@click.command("tune")
@click.argument("model", type=options.PATH)
@click.option(
    "--data",
    type=options.PATH,
    required=True,
    help="Samples with labels 'y' that the task is judged on: an .npz.",
)
@click.option(
    "--calibration",
    type=options.PATH,
    help="Real inputs to measure activations on, other than --data; int8 and int16x8 need them.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="How much of its score the task may lose, at 95%: 0.01 is one point in a hundred.",
)
@click.option(
    "--for",
    "aim",
    type=click.Choice(["size", "latency"]),
    default="size",
    show_default=True,
    help="What is to be least: bytes, or the median time of a run on this machine.",
)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="The bundle. Default: MODEL.tuned.edge"
)
@options.formats_option
@click.option(
    "--scheme",
    "schemes",
    type=click.Choice([*SCHEMES, *EXPERIMENTAL, options.ALL]),
    multiple=True,
    help="Schemes to try and to mix; repeatable. Default: all. int4 is experimental and not among "
    "all: add --scheme int4.",
)
@options.reference_options
@options.loading_options
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=80,
    show_default=True,
    help="Files to try, at most.",
)
@click.option("--plot", type=options.PATH, help="Draw size, score and latency: an .svg or .png.")
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
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
    samples: Path | None,
    time_steps: int | None,
    custom_objects: Path | None,
    architecture: str | None,
    trust: str | None,
    most: int,
    plot: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Search for the smallest or fastest file of MODEL that still passes the verdict.

    Schemes, formats and lowerings are tried as a whole; where the smallest do not pass, layers that
    suffer most get a larger precision. Without one that passes, the best found is written, with
    what it lacks. Ended early, the same command goes on where it was.
    """
    from edgeattn.inspection import NEEDS_HOST, check_host

    check_host()
    try:
        from edgeattn_converters.tuning.tune import tune
    except ImportError as error:
        raise UsageError(f"The converters cannot be imported: {error}", hint=NEEDS_HOST) from error
    if plot is not None:
        _check_plot(plot)
    try:
        with output.progress(quiet or as_json):
            tuned = tune(
                model,
                data,
                target,
                calibration=calibration,
                max_drop=max_drop,
                aim=aim,
                formats=options.chosen(formats),
                schemes=schemes,
                samples=samples,
                time_steps=time_steps,
                custom_objects=custom_objects,
                architecture=architecture,
                trust=trust,
                most=most,
                force=force,
            )
    except KeyboardInterrupt:
        click.echo("What was tried is kept: the same command goes on from there.", err=True)
        raise
    if plot is not None:
        _draw(tuned, plot)
    if as_json:
        output.emit_json(as_document(tuned))
    else:
        click.echo(as_text(tuned, everything=not quiet))
    return tuned.exit_code


def _check_plot(plot: Path) -> None:
    if plot.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"A plot is an .svg or a .png, not {plot.name}.")
    options.check_writable(plot)
    from edgeattn.plots import style

    style.require("matplotlib", extra="report")


def _draw(tuned: Tuned, plot: Path) -> None:
    from edgeattn.report import frontier

    points = [
        frontier.Point(
            item.candidate.label,
            item.bytes or 0,
            item.score,
            item.p50_ms,
            item.passed,
            item.candidate == tuned.chosen.candidate,
        )
        for item in tuned.results
        if item.score is not None
    ]
    floors = [score - tuned.max_drop for score in tuned.reference_scores.values()]
    frontier.draw(points, plot, floor=max(floors, default=None))


def as_document(tuned: Tuned) -> dict[str, Any]:
    """The keys that scripts may rely on."""
    return {
        "bundle": str(tuned.bundle.path),
        "aim": tuned.aim,
        "max_drop": tuned.max_drop,
        "reference": dict(tuned.reference_scores),
        "chosen": _entry(tuned.chosen),
        "best_single": None if tuned.single is None else _entry(tuned.single),
        "frontier": [_entry(item) for item in tuned.frontier],
        "tried": [_entry(item) for item in tuned.results],
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


def as_text(tuned: Tuned, *, everything: bool) -> str:
    lines = []
    if everything:
        made = [r for r in tuned.results if r.bytes is not None]
        lines += [
            f"Tried {len(tuned.results)} candidates, {len(made)} could be made, "
            f"{sum(r.passed for r in made)} pass.",
            "",
        ]
        shown = tuned.frontier or (tuned.chosen,)
        lines += ["Not beaten in size, score and latency at once:", _table(shown, tuned.chosen), ""]
    scores = ", ".join(f"{score:.4f}" for score in tuned.reference_scores.values())
    lines.append(
        f"Keras scores {scores} on these samples; a drop of {tuned.max_drop:g} is allowed."
    )
    lines += _conclusion(tuned)
    lines.append(f"Wrote {tuned.bundle.path}")
    return "\n".join(lines)


def _conclusion(tuned: Tuned) -> list[str]:
    chosen, single = tuned.chosen, tuned.single
    if not chosen.passed:
        return [
            f"Nothing passes. The nearest is {chosen.candidate.label}: {chosen.shortfall}.",
            "Allow a larger --max-drop, or give more samples, if that is not enough.",
        ]
    most, more = ("smallest", "smaller") if tuned.aim == "size" else ("fastest", "faster")
    lines = [f"The {most} that passes: {chosen.candidate.label}, {output.size(chosen.bytes or 0)}."]
    if not chosen.candidate.precision:
        return [*lines, f"No mixture of precisions that was tried is {more}."]
    if single is not None and single.bytes:
        share = 100 * (1 - (chosen.bytes or 0) / single.bytes)
        lines.append(
            f"The best single scheme is {single.candidate.label}, {output.size(single.bytes)}: "
            f"the mixture is {share:.1f}% smaller."
        )
    return lines


def _table(results: tuple[Result, ...], chosen: Result) -> str:
    rows = [
        [
            "*" if item.candidate == chosen.candidate else "",
            item.candidate.label,
            output.size(item.bytes or 0),
            "-" if item.score is None else f"{item.score:.4f}",
            "-" if item.drop is None else f"{item.drop[1]:+.4f} to {item.drop[2]:+.4f}",
            "-" if item.p50_ms is None else f"{item.p50_ms:.3f}",
            item.verdict,
        ]
        for item in results
    ]
    header = ["", "candidate", "size", "score", "drop, 95%", "median ms", "verdict"]
    return output.table(header, rows, right=(2, 3, 5))
