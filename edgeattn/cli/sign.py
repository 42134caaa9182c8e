"""``edgeattn sign``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import options, output
from edgeattn.errors import UsageError


@click.command("sign")
@click.argument("bundle", type=options.PATH)
@click.option(
    "--key",
    type=options.PATH,
    required=True,
    help="A private key of ssh-keygen's, or a public one whose private half your agent holds.",
)
@options.json_option
@options.quiet_option
def command(bundle: Path, key: Path, as_json: bool, quiet: bool) -> int:
    """Sign BUNDLE, a folder, with an ssh key.

    The signature is OpenSSH's and lies in the bundle, over the manifest, which holds the hash of
    every file. Check it with --require-signature of run, validate, bench and deploy.
    """
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.signing import sign

    if bundle.is_file():
        raise UsageError(f"{bundle} is packed: sign the folder, then pack it.")
    made = sign(Bundle.open(bundle), key)
    if as_json:
        output.emit_json({"path": str(made)})
    elif not quiet:
        click.echo(f"Wrote {made}")
    return 0
