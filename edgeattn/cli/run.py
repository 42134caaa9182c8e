"""``edgeattn run``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgeattn.cli import options, output
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    import io


@click.command("run")
@click.argument("bundle", type=options.PATH)
@click.option(
    "--input",
    "source",
    type=options.PATH,
    required=True,
    help="Samples: .npz, .npy or .csv; - reads them from stdin as they come.",
)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="Default: INPUT.outputs.npz, here."
)
@options.formats_option
@options.schemes_option
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--carry-states",
    is_flag=True,
    help="Each sample goes on where the one before it ended; needs convert --states.",
)
@click.option("--force", is_flag=True, help="Replace an output file that exists.")
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    source: Path,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    threads: int,
    carry_states: bool,
    force: bool,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run one artifact of BUNDLE on data, its outputs to an .npz file.

    Takes the first artifact that fits --format and --scheme and whose runtime is here.

    With --input - a line of stdin is a sample (numbers, or JSON), or .npy arrays follow each other,
    and each is answered at once by a line of JSON on stdout.
    """
    if require_signature is not None:
        bundle = options.opened(bundle, require_signature).path
    if str(source) == "-":
        chosen = (options.chosen(formats), options.chosen(schemes))
        return _stream(bundle, target, *chosen, threads, carry_states)
    from edgeattn.inference.batch import run_bundle

    target = target or Path(f"{source.stem}.outputs.npz")
    outcome = run_bundle(
        bundle,
        source,
        target,
        formats=options.chosen(formats),
        schemes=options.chosen(schemes),
        threads=threads,
        carry_states=carry_states,
        force=force,
    )
    if as_json:
        shapes = {
            name: {"shape": list(array.shape), "dtype": str(array.dtype)}
            for name, array in outcome.outputs.items()
        }
        output.emit_json(
            {
                "outputs": shapes,
                "path": str(target),
                "format": outcome.artifact.format,
                "scheme": outcome.artifact.scheme,
                "runtime": outcome.runtime,
            }
        )
        return 0
    rows = [
        [name, "x".join(map(str, array.shape)), str(array.dtype), _first(array)]
        for name, array in outcome.outputs.items()
    ]
    if not quiet:
        click.echo(f"{outcome.artifact.label} in {outcome.runtime}, {outcome.samples} samples")
    click.echo(output.table(["output", "shape", "dtype", "first"], rows))
    click.echo(f"Wrote {target}")
    return 0


def _stream(
    bundle: Path,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    threads: int,
    carry_states: bool,
) -> int:
    """A line of JSON for each sample of stdin, before the next one is read."""
    from edgeattn.inference.stream import stream_bundle

    if target is not None:
        raise UsageError("A stream is answered on stdout: --input - takes no --output.")
    source = cast("io.BufferedReader", sys.stdin.buffer)
    answers = stream_bundle(
        bundle,
        source,
        formats=formats,
        schemes=schemes,
        threads=threads,
        carry_states=carry_states,
    )
    for outputs in answers:
        output.emit_line({name: array[0].tolist() for name, array in outputs.items()})
    return 0


def _first(array: object) -> str:
    """The first few numbers of the first sample."""
    import numpy as np

    flat = np.asarray(array)[0].reshape(-1)
    shown = " ".join(f"{v:.4g}" if flat.dtype.kind == "f" else str(v) for v in flat[:4])
    return shown + (" ..." if flat.size > 4 else "")
