"""``edgeattn validate``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import options, output
from edgeattn.cli.convert import why


@click.command("validate")
@click.argument("bundle", type=options.PATH)
@options.formats_option
@options.schemes_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path, formats: tuple[str, ...], schemes: tuple[str, ...], as_json: bool, quiet: bool
) -> int:
    """Hold the artifacts of BUNDLE to what Keras computed, which the bundle brings with it.

    Needs no TensorFlow: run it on the device. An artifact whose runtime is not installed here is
    "not run".
    """
    from edgeattn.bundle import Bundle
    from edgeattn.validation import validate_isolated

    opened = Bundle.open(bundle)
    artifacts = opened.select(options.chosen(formats), options.chosen(schemes))
    report = validate_isolated(opened, artifacts)
    if as_json:
        output.emit_json(report.to_json())
        return report.exit_code
    rows = [
        [
            item.artifact.format,
            item.artifact.scheme,
            item.runtime or "-",
            item.stages["numbers"],
            item.stages["attention"],
            output.number(item.max_abs_error),
            item.verdict,
        ]
        for item in report.artifacts
    ]
    header = ["format", "scheme", "runtime", "numbers", "attention", "max abs error", "verdict"]
    click.echo(output.table(header, rows, right=(5,)))
    for item in report.artifacts:
        for line in why(item):
            click.echo(line)
    if not quiet:
        reference = opened.manifest.reference
        click.echo(
            f"\nHeld to Keras on {reference['samples']} samples ({reference['source']}) and "
            f"{reference['edge_cases']} edge cases. Task and device: not run."
        )
    click.echo(f"Verdict: {report.verdict}")
    return report.exit_code
