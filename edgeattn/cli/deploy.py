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

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.deployment.deploy import DeploymentOptions, DeploymentResult


@click.command("deploy")
@click.argument("bundle", type=options.PATH)
@click.argument("hosts", metavar="[USER@HOST]...", nargs=-1)
@click.option(
    "--hosts",
    "listed",
    type=options.PATH,
    metavar="FILE",
    help="More hosts, one a line; # begins a comment. All of them side by side.",
)
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    help="Where on the device, from its home folder. Default: edgeattn/NAME of the bundle.",
)
@options.formats_option
@options.schemes_option
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Versions that stay on the device, the serving one among them.",
)
@click.option("--rollback", is_flag=True, help="Let the version serve that served before.")
@click.option("--install", is_flag=True, help="First install edgeattn there, into ~/edge.")
@click.option(
    "--wheels",
    type=options.PATH,
    metavar="DIR",
    help="With --install: a folder of wheels, where this machine has no internet.",
)
@click.option("--no-bench", is_flag=True, help="Judge there, and measure nothing.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="Measure this long, all artifacts together.",
)
@options.device_python_option
@options.ssh_config_option
@options.signature_option
@options.json_option
@options.quiet_option
def command(
    bundle: Path,
    hosts: tuple[str, ...],
    listed: Path | None,
    folder: str | None,
    formats: tuple[str, ...],
    schemes: tuple[str, ...],
    keep: int,
    rollback: bool,
    install: bool,
    wheels: Path | None,
    no_bench: bool,
    seconds: float,
    python: str | None,
    ssh_config: Path | None,
    require_signature: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Copy BUNDLE to devices, judge it there, and let it serve where it passes.

    Only what a device lacks is copied, and every file is hashed there. The old version serves until
    the new one has passed; whatever ends the work before, the same command goes on with it. A
    verdict other than pass switches nothing. Programs on the device open the folder
    edgeattn/NAME/current.

    The reports are written beside BUNDLE, as BUNDLE.HOST.json and BUNDLE.HOST.html. The exit code
    is the worst of all hosts.
    """
    from edgeattn.deployment import deploy as deployment
    from edgeattn.targets.ssh import parse

    named = [parse(host) for host in (*hosts, *_listed(listed))]
    if not named:
        raise UsageError("No host to deploy to.", hint="Give USER@HOST, or --hosts FILE.")
    if len(set(named)) != len(named):
        raise UsageError("A host is named twice: it can take one deployment at a time.")
    if wheels is not None and not install:
        raise UsageError("--wheels is for --install.")
    order = deployment.DeploymentOptions(
        folder or deployment.default_folder(bundle),
        options.chosen(formats),
        options.chosen(schemes),
        seconds=seconds,
        measure=not no_bench,
        keep=keep,
        python=python,
        config=ssh_config,
    )
    if rollback:
        outcomes = deployment.on_each(
            named, lambda host, work: deployment.roll_back(host, order, work)
        )
    else:
        opened = options.opened(bundle, require_signature)
        opened.select(order.formats, order.schemes)
        with output.progress(quiet or as_json):
            outcomes = _deploy(opened, named, order, install, wheels)
        outcomes = tuple(_keep_report(bundle, opened, outcome) for outcome in outcomes)
    code = deployment.worst(outcomes)
    if as_json:
        output.emit_json({"exit_code": code, "hosts": [item.to_json() for item in outcomes]})
    else:
        click.echo(as_text(outcomes, bundle, quiet=quiet))
    return code


def _deploy(
    bundle: Bundle,
    hosts: Sequence[str],
    order: DeploymentOptions,
    install: bool,
    wheels: Path | None,
) -> tuple[DeploymentResult, ...]:
    from edgeattn.deployment import deploy as deployment

    def on(host: str, work: deployment.Work) -> DeploymentResult:
        chosen = order
        if install:
            from edgeattn.deployment import install as installing
            from edgeattn.targets.ssh import look

            chosen = replace(
                order,
                install=lambda remote: installing.install(remote, look(remote, "python3"), wheels),
            )
        with progress.labelled(host):
            return deployment.deploy(bundle, host, chosen, work)

    return deployment.on_each(hosts, on)


def _listed(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _keep_report(given: Path, bundle: Bundle, outcome: DeploymentResult) -> DeploymentResult:
    """Beside the bundle, the device's report: as JSON, and as a page where the plots are here.

    What cannot be written is told with the outcome, which is what it is all the same.
    """
    if outcome.report is None:
        return outcome
    import json

    from edgeattn.files import write_text
    from edgeattn.report import write_html

    page = report_path(given, outcome.host, ".html")
    try:
        try:
            write_html(page, bundle, outcome.report)
        except OutputError:
            raise
        except UsageError:
            # The page needs the extra "report", and the text says so; an old one is not this one's.
            page.unlink(missing_ok=True)
        document = json.dumps(output.plain(outcome.to_json()), indent=1, allow_nan=False)
        write_text(report_path(given, outcome.host, ".json"), document + "\n")
    except EdgeattnError as error:
        return replace(outcome, error=error)
    except Exception as error:
        told = f"The report cannot be made: {type(error).__name__}: {error}"
        return replace(outcome, error=EdgeattnError(told))
    return outcome


def report_path(bundle: Path, host: str, suffix: str) -> Path:
    """``model.edge.pi@raspberrypi.json``, beside the bundle."""
    told = "".join(c if c.isalnum() or c in "@.-_" else "_" for c in host.removeprefix("ssh://"))
    given = bundle.absolute()
    return given.with_name(f"{given.name.removesuffix('.zip')}.{told}{suffix}")


def as_text(outcomes: Sequence[DeploymentResult], bundle: Path, *, quiet: bool = False) -> str:
    rows = [
        [
            item.host,
            (item.device.board if item.device else None) or "-",
            "not run" if item.report is None else item.report.verdict,
            _fastest(item),
            output.size(item.sent),
            item.version or "-",
            item.state,
        ]
        for item in outcomes
    ]
    header = ["host", "board", "verdict", "p50, ms", "sent", "version", "outcome"]
    lines = [output.table(header, rows, right=(3, 4))]
    for item in outcomes:
        if item.error is not None:
            lines.append(f"{item.host}: {item.error.message}")
            if item.error.hint:
                lines.append(f"  {item.error.hint}")
        if item.report is not None:
            lines += _why(item)
    if not quiet:
        lines += _notes(outcomes, bundle)
    return "\n".join(lines)


def _why(outcome: DeploymentResult) -> list[str]:
    from edgeattn.cli.convert import failure_lines

    assert outcome.report is not None
    return [
        f"{outcome.host}: {line}"
        for item in outcome.report.artifacts
        for line in failure_lines(item)
    ]


def _fastest(outcome: DeploymentResult) -> str:
    """The smallest median of the artifacts, the one that a program would choose."""
    told = (outcome.bench or {}).get("artifacts", ())
    found = [item["p50_ms"] for item in told if item.get("p50_ms") is not None]
    return f"{min(found):.3g}" if found else "-"


def _notes(outcomes: Sequence[DeploymentResult], bundle: Path) -> list[str]:
    lines = []
    serving = next((item for item in outcomes if item.folder and not item.error), None)
    if serving is not None:
        lines += ["", f"Programs there open {serving.folder}/current"]
    for item in outcomes:
        if item.report is not None:
            paths = [report_path(bundle, item.host, suffix) for suffix in (".json", ".html")]
            told = " and ".join(path.name for path in paths if path.is_file())
            page = "" if paths[1].is_file() else "; the page needs: pip install 'edgeattn[report]'"
            lines.append(f"Report: {told}{page}")
        if item.state == "refused":
            lines.append(
                f"{item.host}: what served before ({item.previous or 'nothing'}) still serves."
            )
    return lines
