"""``edgeattn pack``"""

from pathlib import Path

import click

from edgeattn.cli import options, output


@click.command("pack")
@click.argument("bundle", type=options.PATH)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="Default: BUNDLE.zip, beside the bundle."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options.json_option
@options.quiet_option
def command(bundle: Path, target: Path | None, force: bool, as_json: bool, quiet: bool) -> int:
    """Write BUNDLE to a single .zip file; equal bundles give equal bytes.

    Every command that takes a bundle also accepts this file. A signature is included.
    """
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import sha256
    from edgeattn.bundle.packing import pack

    opened = Bundle.open(bundle)
    if target is None:
        path = bundle.absolute()
        target = path.with_name(path.name.removesuffix(".zip") + ".zip")
    pack(opened, target, force=force)
    size, digest = target.stat().st_size, sha256(target)
    if as_json:
        output.emit_json({"path": str(target), "bytes": size, "sha256": digest})
    elif quiet:
        output.echo(str(target))
    else:
        output.echo(f"Wrote {target}, {output.size(size)}", f"SHA-256 {digest}")
    return 0
