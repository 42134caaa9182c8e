"""``edgeattn sign``"""

from pathlib import Path

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.errors import UsageError


@click.command("sign", cls=Command)
@click.argument("bundle", type=options.PATH)
@click.option(
    "--key",
    type=options.PATH,
    required=True,
    help="Private key of ssh-keygen, or a public key whose private key your ssh agent holds.",
)
@options.json_option
@options.quiet_option
def command(bundle: Path, key: Path, as_json: bool, quiet: bool) -> int:
    """Sign BUNDLE, a folder, with an ssh key.

    The OpenSSH signature is written to the bundle. It covers the manifest, which holds the hash of
    every other file. run, validate, bench, serve and deploy check it with --require-signature.
    """
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import MANIFEST
    from edgeattn.bundle.not_a_bundle import zip_names
    from edgeattn.bundle.signing import sign

    if MANIFEST in (zip_names(bundle) or ()):
        raise UsageError(f"{bundle} is a packed bundle.", hint="Sign the folder, then pack it.")
    signature = sign(Bundle.open(bundle), key)
    if as_json:
        output.emit_json({"path": str(signature)})
    elif not quiet:
        output.echo(f"Wrote {signature}")
    return 0
