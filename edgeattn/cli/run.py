"""``edgeattn run``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import options, output


@click.command("run")
@click.argument("bundle", type=options.PATH)
@click.option(
    "--input", "source", type=options.PATH, required=True, help="Samples: .npz, .npy or .csv."
)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="Default: INPUT.outputs.npz, here."
)
@options.formats_option
@options.schemes_option
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--force", is_flag=True, help="Replace an output file that exists.")
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    source: Path,
    target: Path | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    threads: int,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run one artifact of BUNDLE on data, its outputs to an .npz file.

    Takes the first artifact that fits --format and --scheme and whose runtime is here.
    """
    from edgeattn.running import run_bundle

    target = target or Path(f"{source.stem}.outputs.npz")
    outcome = run_bundle(
        bundle,
        source,
        target,
        formats=options.chosen(formats),
        schemes=options.chosen(schemes),
        threads=threads,
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


def _first(array: object) -> str:
    """The first few numbers of the first sample."""
    import numpy as np

    flat = np.asarray(array)[0].reshape(-1)
    shown = " ".join(f"{v:.4g}" if flat.dtype.kind == "f" else str(v) for v in flat[:4])
    return shown + (" ..." if flat.size > 4 else "")
