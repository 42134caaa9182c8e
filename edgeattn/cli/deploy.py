"""``edgeattn deploy``"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeattn import progress
from edgeattn.cli import options, output
from edgeattn.errors import EdgeattnError, OutputError, UsageError
from edgeattn.printable import Text, join_lines

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.deployment.results import DeploymentResult


@click.command("deploy")
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
    type=click.IntRange(min=1),
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
    type=click.FloatRange(min=0),
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
    from edgeattn.deployment.deploy import DeploymentOptions, default_folder, deploy
    from edgeattn.deployment.fleet import Cancellation, on_each_host
    from edgeattn.deployment.results import worst_exit_code
    from edgeattn.deployment.rollback import roll_back

    destinations = _destinations(hosts, hosts_file)
    if wheels is not None and not install:
        raise UsageError("--wheels requires --install.")
    if install and access.python is not None:
        raise UsageError(
            "--install installs edgeattn into ~/edge, and --python selects another Python.",
            hint="Pass one of the two.",
        )
    deployment = DeploymentOptions(
        folder or default_folder(bundle),
        selection.formats,
        selection.schemes,
        seconds=seconds,
        measure=not no_bench,
        keep=keep,
        python=access.python,
        config=access.ssh_config,
        install=install,
        wheels=wheels,
        allow_older=allow_older,
        allowed_signers=require_signature,
    )
    if rollback:
        results = on_each_host(
            destinations, lambda host, cancellation: roll_back(host, deployment, cancellation)
        )
    else:
        opened = options.open_bundle(bundle, require_signature)
        selection.of(opened)

        def deploy_to(host: str, cancellation: Cancellation) -> DeploymentResult:
            with progress.labelled(host):
                return deploy(opened, host, deployment, cancellation)

        with output.progress(quiet or as_json):
            results = on_each_host(destinations, deploy_to)
        results = tuple(_write_report(bundle, opened, result) for result in results)
    code = worst_exit_code(results)
    if as_json:
        output.emit_json({"exit_code": code, "hosts": [result.to_json() for result in results]})
    else:
        output.echo(as_text(results, bundle, quiet=quiet))
    return code


def _destinations(hosts: Sequence[str], hosts_file: Path | None) -> list[str]:
    from edgeattn.targets.ssh import parse_destination

    listed: list[str] = []
    if hosts_file is not None:
        try:
            text = hosts_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{hosts_file} cannot be read: {error}") from error
        listed = [line.partition("#")[0].strip() for line in text.splitlines()]
    destinations = [parse_destination(host) for host in (*hosts, *filter(None, listed))]
    if not destinations:
        raise UsageError("No host to deploy to.", hint="Pass USER@HOST or --hosts FILE.")
    for host in destinations:
        if destinations.count(host) > 1:
            raise UsageError(f"{host} is listed twice.", hint="List every host once.")
    return destinations


def _write_report(path: Path, bundle: Bundle, result: DeploymentResult) -> DeploymentResult:
    """Write the device's report beside the bundle at ``path``, as JSON and HTML.

    The page is skipped if the extra "report" is not installed. If a file cannot be written, that
    error is added to the result.
    """
    if result.report is None:
        return result
    import json

    from edgeattn.files import write_text
    from edgeattn.report import write_html

    page = report_path(path, result.host, ".html")
    try:
        try:
            write_html(page, bundle, result.report)
        except OutputError:
            raise
        except UsageError:
            # The extra "report" is not installed. A page of an earlier report would be misleading.
            page.unlink(missing_ok=True)
        document = json.dumps(output.plain(result.to_json()), indent=1, allow_nan=False)
        write_text(report_path(path, result.host, ".json"), document + "\n")
    except EdgeattnError as error:
        return replace(result, error=error)
    except Exception as error:
        message = f"The report cannot be written: {type(error).__name__}: {error}"
        return replace(result, error=EdgeattnError(message))
    return result


def report_path(bundle: Path, host: str, suffix: str) -> Path:
    """``model.edge.pi@raspberrypi.json``, beside the bundle."""
    name = "".join(c if c.isalnum() or c in "@.-_" else "_" for c in host.removeprefix("ssh://"))
    path = bundle.absolute()
    return path.with_name(f"{path.name.removesuffix('.zip')}.{name}{suffix}")


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
            lines.append(f"{result.host}: {result.error.message}")
            if result.error.hint:
                lines.append(f"  {result.error.hint}")
        lines += _reasons(result)
    if not quiet:
        lines += _notes(results, bundle)
    return join_lines(lines)


def _reasons(result: DeploymentResult) -> list[str]:
    """Why artifacts did not pass."""
    from edgeattn.cli.convert import failure_lines

    artifacts = () if result.report is None else result.report.artifacts
    return [f"{result.host}: {line}" for artifact in artifacts for line in failure_lines(artifact)]


def _lowest_latency(result: DeploymentResult) -> str:
    """The smallest median over all artifacts."""
    measured = (result.bench or {}).get("artifacts", ())
    medians = [item["p50_ms"] for item in measured if item.get("p50_ms") is not None]
    return f"{min(medians):.3g}" if medians else "-"


def _notes(results: Sequence[DeploymentResult], bundle: Path) -> list[str]:
    lines = []
    serving = next((result for result in results if result.folder and not result.error), None)
    if serving is not None:
        lines += ["", f"Programs on the device open {serving.folder}/current"]
    for result in results:
        if result.report is not None:
            paths = [report_path(bundle, result.host, suffix) for suffix in (".json", ".html")]
            names = " and ".join(path.name for path in paths if path.is_file())
            hint = (
                "" if paths[1].is_file() else ". For the HTML page: pip install 'edgeattn[report]'"
            )
            lines.append(f"Report: {names}{hint}")
        if result.state == "refused":
            version = result.previous or "none"
            lines.append(f"{result.host}: not switched; current version: {version}")
    return lines
