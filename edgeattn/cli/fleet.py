"""``edgeattn fleet``"""

from __future__ import annotations

from pathlib import Path

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Group
from edgeattn.cli.values import Integer
from edgeattn.errors import UsageError


@click.group("fleet", cls=Group)
def command() -> None:
    """Write what an updater of a fleet, such as Mender, needs to install bundles."""


@command.command("mender-artifact")
@click.argument("bundle", type=options.PATH)
@click.option("--artifact-name", required=True, help="Name of the release, unique for Mender.")
@click.option(
    "--device-type",
    "device_types",
    metavar="TYPE",
    multiple=True,
    required=True,
    help="Type of the devices, as in their /var/lib/mender/device_type; repeatable.",
)
@click.option(
    "--name",
    help="Folder of the bundle on the device, in /var/lib/edgeattn. Default: the bundle's name.",
)
@options.artifact_selection
@click.option(
    "-o",
    "--output",
    "target",
    type=options.PATH,
    help="Default: ARTIFACT_NAME.mender in the current folder.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options.signature_option
@options.json_option
@options.quiet_option
def mender_artifact(
    bundle: Path,
    artifact_name: str,
    device_types: tuple[str, ...],
    name: str | None,
    selection: options.ArtifactSelection,
    target: Path | None,
    force: bool,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write a Mender Artifact (format version 3) that installs BUNDLE.

    The device needs the Update Module of edgeattn, see edgeattn fleet mender-module. It validates
    the bundle before it serves; with any other verdict than pass, Mender rolls back. --format and
    --scheme restrict the validation to some artifacts. Sign BUNDLE with edgeattn sign, and the file
    with mender-artifact sign.
    """
    from edgeattn.deployment.mender import ArtifactOptions, write_mender_artifact
    from edgeattn.deployment.names import bundle_name

    opened = options.open_bundle(bundle, require_signature)
    selection.of(opened)
    settings = ArtifactOptions(
        artifact_name,
        device_types,
        bundle_name(bundle) if name is None else name,
        selection.formats,
        selection.schemes,
    )
    if target is None:
        if "/" in artifact_name:
            raise UsageError(
                f"{artifact_name!r} is no file name.", hint="Choose a file name with -o FILE."
            )
        target = Path(f"{artifact_name}.mender")
    write_mender_artifact(opened, target, settings, force=force)
    output.emit_written(target, as_json=as_json, quiet=quiet)
    return 0


@command.command("mender-module")
@click.option(
    "-o",
    "--output",
    "target",
    type=options.PATH,
    default=Path("edgeattn"),
    show_default=True,
    help="The script. On the device: /usr/share/mender/modules/v3/edgeattn.",
)
@click.option(
    "--python",
    metavar="PATH",
    default="/opt/edgeattn/bin/python",
    show_default=True,
    help="Python on the device that has edgeattn.",
)
@click.option(
    "--root",
    metavar="FOLDER",
    default="/var/lib/edgeattn",
    show_default=True,
    help="Folder of the bundles on the device.",
)
@click.option(
    "--require-signature",
    metavar="ALLOWED_SIGNERS",
    help="File on the device; bundles that no signer in it signed are refused.",
)
@click.option("--allow-older", is_flag=True, help="Accept bundles older than the one that serves.")
@click.option(
    "--keep",
    type=Integer(min=1),
    default=3,
    show_default=True,
    help="Number of versions to keep on the device, including the current one.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options.json_option
@options.quiet_option
def mender_module(
    target: Path,
    python: str,
    root: str,
    require_signature: str | None,
    allow_older: bool,
    keep: int,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write the Mender Update Module, a script for devices, with the policy of the device.

    Copy it to the folder of Mender's modules and make it executable.
    """
    from edgeattn.deployment.mender import module_script
    from edgeattn.files import atomic_write, require_new

    for option, path in (("--root", root), ("--require-signature", require_signature)):
        if path is not None and not path.startswith("/"):
            raise UsageError(
                f"{option} {path}: Mender starts the module in any folder.",
                hint="Pass an absolute path of the device.",
            )
    signers = [] if require_signature is None else ["--require-signature", require_signature]
    older = ["--allow-older"] if allow_older else []
    script = module_script(python, ["--root", root, "--keep", str(keep), *signers, *older])
    require_new(target, force=force)
    with atomic_write(target, hint="Choose another file with -o FILE.") as file:
        file.write(script.encode())
    target.chmod(0o755)
    if as_json:
        output.emit_json({"path": str(target)})
    elif quiet:
        output.echo(str(target))
    else:
        output.echo(f"Wrote {target}")
    return 0
