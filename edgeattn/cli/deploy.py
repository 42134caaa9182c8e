"""``edgeattn deploy``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn.cli import options, output
from edgeattn.cli.command import Command
from edgeattn.cli.values import Integer, Number
from edgeattn.printable import Text, enumerated, join_lines

if TYPE_CHECKING:
    from edgeattn.deployment.results import DeploymentResult


@click.command("deploy", cls=Command)
@click.argument("bundle", type=options.PATH)
@click.argument("hosts", metavar="[USER@HOST]...", nargs=-1)
@click.option(
    "--hosts",
    "hosts_file",
    type=options.PATH,
    metavar="FILE",
    help="File with more hosts, one per line; # starts a comment.",
)
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    help="Folder on the device, relative to its home folder. Default: edgeattn/NAME, where NAME is "
    "the bundle's name.",
)
@options.artifact_selection
@click.option(
    "--keep",
    type=Integer(min=1),
    default=3,
    show_default=True,
    help="Number of versions to keep on the device, including the current one.",
)
@click.option("--rollback", is_flag=True, help="Switch back to the previous version.")
@click.option(
    "--allow-older",
    is_flag=True,
    help="Deploy BUNDLE even if it was converted before the one that serves.",
)
@click.option("--install", is_flag=True, help="Install edgeattn on the device first, into ~/edge.")
@click.option(
    "--wheels",
    type=options.PATH,
    metavar="DIR",
    help="With --install: folder of wheels, if this machine has no internet access.",
)
@click.option("--no-bench", is_flag=True, help="Skip the latency measurement.")
@click.option(
    "--seconds",
    type=Number(min=0),
    default=10,
    show_default=True,
    help="Duration of the latency measurement, all artifacts together.",
)
@options.device_access
@options.run_limits_options
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    hosts: tuple[str, ...],
    hosts_file: Path | None,
    folder: str | None,
    selection: options.ArtifactSelection,
    keep: int,
    rollback: bool,
    allow_older: bool,
    install: bool,
    wheels: Path | None,
    no_bench: bool,
    seconds: float,
    access: options.DeviceAccess,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Copy BUNDLE to devices, validate it there, and switch to it if it passes.

    Only missing files are copied, and every file is hashed on the device. The previous version
    serves until the new one has passed; with any other verdict than pass it stays. Rerun the
    command to resume after an interruption. Programs on the device open the folder
    edgeattn/NAME/current.

    The reports are written beside BUNDLE, as BUNDLE.HOST.json and BUNDLE.HOST.html. The exit code
    is the most severe one of all hosts.
    """
    from edgeattn.api.deploy import deploy

    with output.progress(quiet or as_json):
        result = deploy(
            bundle,
            *hosts,
            hosts_file=hosts_file,
            folder=folder,
            **vars(selection),
            keep=keep,
            rollback=rollback,
            allow_older=allow_older,
            install=install,
            wheels=wheels,
            measure=not no_bench,
            seconds=seconds,
            **vars(access),
            require_signature=require_signature,
        )
    if as_json:
        output.emit_json(result.to_dict())
    else:
        output.echo(as_text(result.results, bundle, quiet=quiet))
    return result.exit_code


def as_text(results: Sequence[DeploymentResult], bundle: Path, *, quiet: bool = False) -> Text:
    rows = [
        [
            result.host,
            (result.device.board if result.device else None) or "-",
            result.verdict,
            _lowest_latency(result),
            f"{result.sent / 1000:.1f}",
            result.version or "-",
            result.state,
        ]
        for result in results
    ]
    header = ["host", "board", "verdict", "p50 (ms)", "sent (kB)", "version", "state"]
    lines: list[str] = [output.table(header, rows, right=(3, 4))]
    for result in results:
        if result.error is not None:
            # Errors of ssh name the host already.
            message = result.error.message.removeprefix(f"{result.host}: ")
            lines.append(f"{result.host}: {message}")
            if result.error.hint:
                lines.append(f"  {result.error.hint}")
        lines += _reasons(result)
        if result.recommendation is not None:
            lines.append(f"{result.host}: {result.recommendation.line}")
    if not quiet:
        lines += _notes(results, bundle)
    return join_lines(lines)


def _reasons(result: DeploymentResult) -> list[str]:
    """Why artifacts did not pass."""
    from edgeattn.cli.artifact_lines import failure_lines

    artifacts = () if result.report is None else result.report.artifacts
    return [f"{result.host}: {line}" for artifact in artifacts for line in failure_lines(artifact)]


def _lowest_latency(result: DeploymentResult) -> str:
    """The smallest median over all artifacts."""
    measured = (result.bench or {}).get("artifacts", ())
    medians = [item["p50_ms"] for item in measured if item.get("p50_ms") is not None]
    return f"{min(medians):.3g}" if medians else "-"


def _notes(results: Sequence[DeploymentResult], bundle: Path) -> list[str]:
    from edgeattn.api.deploy import report_path

    lines = []
    serving = next((result for result in results if result.folder and not result.error), None)
    if serving is not None:
        lines += ["", f"Programs on the device open {serving.folder}/current"]
    for result in results:
        if result.report is not None:
            paths = [report_path(bundle, result.host, suffix) for suffix in (".json", ".html")]
            names = enumerated([path.name for path in paths if path.is_file()])
            hint = (
                "" if paths[1].is_file() else ". For the HTML page: pip install 'edgeattn[report]'"
            )
            lines.append(f"Report: {names}{hint}")
        if result.state == "refused":
            version = result.previous or "none"
            lines.append(f"{result.host}: not switched; current version: {version}")
    return lines
