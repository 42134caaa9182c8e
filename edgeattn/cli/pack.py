"""``edgeattn pack``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import options, output


@click.command("pack")
@click.argument("bundle", type=options.PATH)
@click.option(
    "-o", "--output", "target", type=options.PATH, help="Default: BUNDLE.zip, beside the bundle."
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@options.json_option
@options.quiet_option
def command(bundle: Path, target: Path | None, force: bool, as_json: bool, quiet: bool) -> int:
    """Make BUNDLE a single file, the same bytes every time.

    Every command that takes a bundle takes that file. Its SHA-256 is that of all it holds; a
    signature travels with it.
    """
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import sha256
    from edgeattn.bundle.pack import pack

    opened = Bundle.open(bundle)
    if target is None:
        given = bundle.absolute()
        target = given.with_name(given.name.removesuffix(".zip") + ".zip")
    pack(opened, target, force=force)
    size, digest = target.stat().st_size, sha256(target)
    if as_json:
        output.emit_json({"path": str(target), "bytes": size, "sha256": digest})
    elif quiet:
        click.echo(str(target))
    else:
        click.echo(f"Wrote {target}, {output.size(size)}\nSHA-256 {digest}")
    return 0
