"""``edgeattn pack``"""

from pathlib import Path

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.errors import UsageError
from edgeattn.printable import counted


@click.command("pack", cls=Command)
@click.argument("bundle", type=options.PATH)
@click.option(
    "-o",
    "--output",
    "target",
    type=options.PATH,
    help="Default: BUNDLE.zip, or the folder BUNDLE-c with --c-array, beside the bundle.",
)
@click.option(
    "--c-array",
    is_flag=True,
    help="Write the file for microcontrollers as C++ source, with the size of its arena and its "
    "operators.",
)
@options.schemes_option("With --c-array: which file, if the bundle has several.")
@click.option("--force", is_flag=True, help="Replace an existing file or folder.")
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    target: Path | None,
    c_array: bool,
    schemes: tuple[str, ...],
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write BUNDLE to a single .zip file; equal bundles give equal bytes.

    Every command that takes a bundle accepts this file too, except sign. A signature is included.
    """
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.packing import pack

    if c_array:
        return _write_c_array(bundle, target, schemes, force=force, as_json=as_json, quiet=quiet)
    if schemes:
        raise UsageError(
            "--scheme has no effect: the .zip file has the whole bundle.", hint="Add --c-array."
        )
    opened = Bundle.open(bundle)
    if target is None:
        path = bundle.absolute()
        target = path.with_name(path.name.removesuffix(".zip") + ".zip")
    pack(opened, target, force=force)
    output.emit_written(target, as_json=as_json, quiet=quiet)
    return 0


def _write_c_array(
    path: Path,
    target: Path | None,
    schemes: tuple[str, ...],
    *,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.deployment.c_array import HEADER, SOURCE, micro_artifact, write_c_array

    bundle = Bundle.open(path)
    artifact = micro_artifact(bundle, options.empty_if_all(schemes))
    if target is None:
        absolute = path.absolute()
        target = absolute.with_name(absolute.name.removesuffix(".zip").removesuffix(".edge") + "-c")
    array = write_c_array(bundle, artifact, target, force=force)
    if as_json:
        output.emit_json(
            {
                "path": str(target),
                "artifact": artifact.path,
                "flash_bytes": array.flash_bytes,
                "arena_bytes": array.arena_bytes,
                "operators": list(array.operators),
            }
        )
    elif quiet:
        output.echo(str(target))
    else:
        output.echo(
            f"Wrote {target}: {HEADER}, {SOURCE}",
            f"{artifact.label}: {array.flash_bytes:,} bytes of flash, {array.arena_bytes:,} bytes "
            f"of RAM for the arena, {counted(len(array.operators), 'kind')} of operators",
        )
    return 0
