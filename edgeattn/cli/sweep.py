"""``edgeattn sweep``"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.cli.values import Integer
from edgeattn.errors import UsageError
from edgeattn.printable import Text, counted, join_lines

if TYPE_CHECKING:
    from edgeattn.api.sweep import SweepResult

# Bundles that are listed.
LISTED = 20


@click.command("sweep", cls=Command)
@click.argument("plan")
@click.option(
    "--where",
    metavar="PROPERTY=PATTERN",
    multiple=True,
    help="Only bundles that match: model, target, lowering or data; repeatable. * stands for any "
    "text.",
)
@click.option(
    "--limit",
    type=Integer(min=1),
    help="Largest number of bundles to compute.",
)
@click.option("--retry", is_flag=True, help="Compute results again that are failures.")
@click.option(
    "--dry-run", is_flag=True, help="List the bundles to compute and how long they may take."
)
@click.option(
    "--jobs",
    type=Integer(min=1),
    help="Bundles to compute in parallel on this machine. Default: one per core.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler whose workers compute the bundles, such as tcp://HOST:8786.",
)
@click.option(
    "--compare",
    metavar="OLD",
    help="Earlier table.parquet, a path or a URL: list what differs from it.",
)
@click.option("--report", type=options.PATH, help="Summary page to write: .html.")
@click.option(
    "--device",
    "devices",
    metavar="NAME=USER@HOST,...",
    multiple=True,
    help="Boards of one kind that measure what passes, one model at a time; repeatable. With "
    "--scheduler: the NAME of boards that joined it, or NAME=COUNT to wait for COUNT of them.",
)
@options.device_access
@options.json_option
@options.quiet_option
def command(
    plan: str,
    where: tuple[str, ...],
    limit: int | None,
    retry: bool,
    dry_run: bool,
    jobs: int | None,
    scheduler: str | None,
    compare: str | None,
    report: Path | None,
    devices: tuple[str, ...],
    access: options.DeviceAccess,
    as_json: bool,
    quiet: bool,
) -> int:
    """Convert and validate the models of PLAN, a TOML file, and write one table of all.

    Every model is converted for every target and lowering, and validated on its datasets. PLAN, the
    models, the data and the results are paths or URLs. Results that exist are not computed again:
    after an interruption, rerun the command to resume.
    """
    from edgeattn.api.sweep import sweep

    try:
        with output.progress(quiet or as_json):
            result = sweep(
                plan,
                where=_patterns(where),
                limit=limit,
                jobs=jobs,
                scheduler=scheduler,
                retry=retry,
                dry_run=dry_run,
                compare=compare,
                report=report,
                devices=devices,
                **vars(access),
            )
    except KeyboardInterrupt:
        output.echo("Results so far are stored. Rerun the command to resume.", err=True)
        raise
    if as_json:
        output.emit_json(result.to_dict())
    else:
        output.echo(as_text(result))
    return result.exit_code


def _patterns(where: tuple[str, ...]) -> dict[str, str]:
    """The patterns by property."""
    patterns: dict[str, str] = {}
    for text in where:
        name, equals, pattern = text.partition("=")
        if not equals or not pattern or name in patterns:
            raise UsageError(
                f"--where {text}: expected PROPERTY=PATTERN, once for each property.",
                hint="Example: --where 'model=digits*'",
            )
        patterns[name] = pattern
    return patterns


def as_text(result: SweepResult) -> Text:
    """The outcome in a few lines."""
    summary = result.summary
    stored = summary.bundles - len(summary.pending)
    lines = []
    if summary.dry_run:
        shown = summary.pending[: summary.selected]
        lines += [f"{label}: would be computed" for label in shown[:LISTED]]
        if len(shown) > LISTED:
            lines.append(f"and {len(shown) - LISTED} more")
        lines.append(
            f"{counted(summary.bundles, 'bundle')}: {stored} stored, {summary.selected} would be "
            f"computed, {_duration(summary.estimate_s)}."
        )
        return join_lines(lines)
    failed = {
        (row["model"], row["lowering"], row["target"]): row["reason"]
        for row in result.rows
        if row["status"] == "failed"
    }
    for (model, lowering, target), reason in list(failed.items())[:LISTED]:
        label = " ".join(filter(None, (model, target, lowering if lowering != "auto" else None)))
        lines.append(f"{label}: failed: {reason}")
    lines += [f"{label}: no result: {error.message}" for label, error in summary.errors.items()]
    counts = ", ".join(f"{count} {name}" for name, count in result.counts.items())
    lines.append(
        f"{counted(summary.bundles, 'bundle')}: {stored} stored before, {summary.done} computed, "
        f"{summary.remaining} remaining."
    )
    lines.append(f"{counted(len(result.rows), 'row')}: {counts or 'none'}")
    if result.changes is not None:
        lines.append(f"{counted(len(result.changes), 'difference')} from the earlier table:")
        for change in result.changes[:LISTED]:
            old, new = ("-" if value is None else value for value in (change.old, change.new))
            lines.append(f"{change.label}: {change.column}: {old} -> {new}")
        if len(result.changes) > LISTED:
            lines.append(f"and {len(result.changes) - LISTED} more, see --json")
    lines.append(f"Table: {summary.results}/table.parquet")
    if result.devices is not None:
        devices = result.devices
        lines += [f"{host} was removed: {reason}" for host, reason in devices.lost.items()]
        lines += [f"{label}: not measured: {reason}" for label, reason in devices.errors.items()]
        verdicts = Counter(f"{row['verdict']} on {row['device']}" for row in devices.rows)
        listed = ", ".join(f"{count} {name}" for name, count in verdicts.items())
        lines.append(f"Measured: {listed or 'nothing'}")
        if devices.rows:
            lines.append(f"Table of the boards: {summary.results}/devices.parquet")
    return join_lines(lines)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "in a time that is not known before the first one"
    if seconds < 90:
        return f"in about {seconds:.0f} s"
    return f"in about {seconds / 60:.0f} min" if seconds < 5400 else f"in {seconds / 3600:.1f} h"
