"""``edgeattn.deploy``"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.api.arguments import (
    StrPath,
    artifact_selection,
    check_positive,
    check_seconds,
    optional_path,
)
from edgeattn.api.result import Result, plain
from edgeattn.api.sources import BundleLike, bundle_path, opened
from edgeattn.errors import EdgeattnError, OutputError, UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.deployment.deploy import DeploymentOptions
    from edgeattn.deployment.parallel import Cancellation
    from edgeattn.deployment.results import DeploymentResult
    from edgeattn.validation.recommendation import Recommendation

KEEP, SECONDS = 3, 10.0


@dataclass(frozen=True, repr=False)
class DeployResult(Result):
    """The results on all devices, in the order of the hosts."""

    results: tuple[DeploymentResult, ...]
    _bundle: Bundle | None = field(default=None, compare=False)

    @property
    def bundle(self) -> Bundle:
        """The bundle that was deployed. Raises :class:`UsageError` after a rollback."""
        if self._bundle is None:
            raise UsageError(
                "A rollback has no bundle on this machine.",
                hint="Pass the path of a bundle instead of this result.",
            )
        return self._bundle

    @property
    def recommendation(self) -> Recommendation:
        """The artifact to ship to the only host: the fastest that passes there.

        Raises :class:`UsageError` if there are several hosts.
        """
        from edgeattn.validation.recommendation import Recommendation

        if len(self.results) > 1:
            raise UsageError(
                f"{len(self.results)} hosts have a recommendation each.",
                hint=f"Select one of them: result[{self.results[0].host!r}].recommendation",
            )
        known = self.results[0].recommendation
        return known or Recommendation(None, reason="no artifact was validated there")

    @property
    def exit_code(self) -> int:
        """The most severe exit code of all hosts."""
        from edgeattn.deployment.results import worst_exit_code

        return worst_exit_code(self.results)

    def __getitem__(self, host: str) -> DeploymentResult:
        """The result on one host."""
        by_host = {result.host: result for result in self.results}
        return by_host[host]

    def _document(self) -> dict[str, Any]:
        results = [result.to_json() for result in self.results]
        return {"exit_code": self.exit_code, "hosts": results}

    def _summary(self) -> str:
        return ", ".join(f"{item.host}: {item.state}" for item in self.results)

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["host", "verdict", "version", "state", "recommended", "error"]
        return header, [
            [
                item.host,
                item.verdict,
                item.version or "-",
                item.state,
                "-" if item.recommendation is None else item.recommendation.line,
                "" if item.error is None else item.error.message,
            ]
            for item in self.results
        ]


def deploy(
    bundle: BundleLike,
    *hosts: str,
    hosts_file: StrPath | None = None,
    folder: str | None = None,
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    keep: int = KEEP,
    rollback: bool = False,
    allow_older: bool = False,
    install: bool = False,
    wheels: StrPath | None = None,
    measure: bool = True,
    seconds: float = SECONDS,
    python: StrPath | None = None,
    ssh_config: StrPath | None = None,
    require_signature: StrPath | None = None,
) -> DeployResult:
    """Copy a bundle to devices, validate it there, and switch to it if it passes.

    ``bundle`` is a path or the result of another function, and ``hosts`` are of the form
    ``user@host``. The other arguments are the options of ``edgeattn deploy``; ``folder`` is
    ``--to``, and without ``measure`` no latency is measured. An error on one host is part of its
    result; it does not raise.
    """
    from edgeattn.deployment.deploy import DeploymentOptions, default_folder
    from edgeattn.deployment.parallel import on_each_host
    from edgeattn.deployment.rollback import roll_back

    check_positive(keep=keep)
    check_seconds(seconds)
    destinations = _destinations(hosts, hosts_file)
    if wheels is not None and not install:
        raise UsageError("--wheels requires --install.", hint="Add --install.")
    if install and python is not None:
        raise UsageError(
            "--install installs edgeattn into ~/edge, and --python selects another Python.",
            hint="Pass one of the two.",
        )
    path, selection = bundle_path(bundle), artifact_selection(formats, schemes)
    deployment = DeploymentOptions(
        folder or default_folder(path),
        selection.formats,
        selection.schemes,
        seconds=seconds,
        measure=measure,
        keep=keep,
        python=None if python is None else str(python),
        config=optional_path(ssh_config),
        install=install,
        wheels=optional_path(wheels),
        allow_older=allow_older,
        allowed_signers=optional_path(require_signature),
    )
    if rollback:
        return DeployResult(
            on_each_host(
                destinations, lambda host, cancellation: roll_back(host, deployment, cancellation)
            )
        )
    checked = opened(path, require_signature)
    selection.of(checked)
    return DeployResult(_deploy_to_all(checked, path, destinations, deployment), checked)


def _deploy_to_all(
    bundle: Bundle, path: Path, destinations: Sequence[str], options: DeploymentOptions
) -> tuple[DeploymentResult, ...]:
    from edgeattn.deployment.deploy import deploy as deploy_to_one
    from edgeattn.deployment.parallel import on_each_host

    def deploy_to(host: str, cancellation: Cancellation) -> DeploymentResult:
        with progress.labelled(host):
            return deploy_to_one(bundle, host, options, cancellation)

    results = on_each_host(list(destinations), deploy_to)
    return tuple(_write_report(path, bundle, result) for result in results)


def _destinations(hosts: Sequence[str], hosts_file: StrPath | None) -> list[str]:
    from edgeattn.targets.ssh import parse_destination

    listed: list[str] = []
    if hosts_file is not None:
        try:
            text = Path(hosts_file).read_text("utf-8")
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
            write_html(
                page,
                bundle,
                result.report,
                bench=None if result.bench is None else {**result.bench, "place": result.host},
                recommendation=result.recommendation,
                facts=_facts(result),
            )
        except OutputError:
            raise
        except UsageError:
            # The extra "report" is not installed. A page of an earlier report would be misleading.
            page.unlink(missing_ok=True)
        document = json.dumps(plain(result.to_json()), indent=1, allow_nan=False)
        write_text(report_path(path, result.host, ".json"), document + "\n")
    except EdgeattnError as error:
        return replace(result, error=error)
    except Exception as error:
        message = f"The report cannot be written: {type(error).__name__}: {error}"
        return replace(result, error=EdgeattnError(message))
    return result


def _facts(result: DeploymentResult) -> dict[str, str]:
    """The device and the date of a deployment, for the report."""
    from edgeattn.report.number_formats import format_date

    device = result.host + (f": {result.device.summary}" if result.device else "")
    return {"Device": device, "Validated": format_date(time.time())}


def report_path(bundle: Path, host: str, suffix: str) -> Path:
    """``model.edge.pi@raspberrypi.json``, beside the bundle."""
    name = "".join(c if c.isalnum() or c in "@.-_" else "_" for c in host.removeprefix("ssh://"))
    path = bundle.absolute()
    return path.with_name(f"{path.name.removesuffix('.zip')}.{name}{suffix}")
