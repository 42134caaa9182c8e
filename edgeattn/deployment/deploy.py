"""Deployment of a bundle to one device, which validates it before it serves.

The steps: check the device, copy missing files, hash every file on the device, validate and measure
on it, save the report on both machines, switch over by one rename. A lost connection, a full disk
or a reboot may interrupt any of them: until the last step the old version serves, and the next
attempt resumes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.deployment.fleet import Cancellation
from edgeattn.deployment.on_device import steps
from edgeattn.deployment.results import (
    FAILED,
    REFUSED,
    ROLLED_BACK,
    SWITCHED,
    UNCHANGED,
    DeploymentResult,
)
from edgeattn.errors import DeviceError, EdgeattnError, UsageError
from edgeattn.targets import ssh
from edgeattn.targets.connection import CALL_TIMEOUT, Connection, send_files

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.device.info import Device
    from edgeattn.tensors import Tensors
    from edgeattn.validation.report import Report


@dataclass(frozen=True)
class DeploymentOptions:
    """What to do on each device.

    ``folder`` is a path on the device, relative to its home folder or absolute. Artifacts of
    ``formats`` and ``schemes`` are validated and measured, by default all of them. ``runs`` and
    ``seconds`` limit the measurement, ``keep`` the versions that stay on the device. ``python`` is
    a path on the device, ``config`` replaces ``~/.ssh/config``. ``install`` installs edgeattn
    first, from the folder ``wheels`` or, by default, from pip's index.
    """

    folder: str
    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    runs: int = 700
    seconds: float = 10.0
    measure: bool = True
    keep: int = 3
    python: str | None = None
    config: Path | None = None
    install: bool = False
    wheels: Path | None = None


def default_folder(bundle: Path) -> str:
    """The default folder of a bundle on a device: ``edgeattn/NAME``."""
    name = bundle.absolute().name.removesuffix(".zip").removesuffix(".edge")
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise UsageError(
            f"The bundle's name {name!r} cannot be used as a folder name on a device.",
            hint="Choose a folder: --to edgeattn/NAME",
        )
    return f"edgeattn/{name}"


def deploy(
    bundle: Bundle,
    destination: str,
    options: DeploymentOptions,
    cancellation: Cancellation | None = None,
) -> DeploymentResult:
    """Deploy ``bundle`` to the host ``destination``; errors on the way are part of the result.

    Raises :class:`UsageError` if ``destination`` is invalid.
    """
    from edgeattn.deployment.install import install
    from edgeattn.device import info

    ssh.parse_destination(destination)
    device: Device | None = None
    try:
        with ssh.connect(destination, options.config) as host:
            progress.report("checking the device")
            device = info.device_from_snapshot(ssh.system_snapshot(host))
            if options.install:
                install(host, options.wheels)
            worker = ssh.worker_on(host, options.python)
            with (cancellation or Cancellation()).registered(worker):
                return run_steps(bundle, Connection(worker, host), options, device=device)
    except EdgeattnError as error:
        return DeploymentResult(destination, FAILED, device=device, error=error)
    except Exception as error:
        # An internal error, or malformed data of a device, must not end the other deployments.
        fault = EdgeattnError(f"{type(error).__name__}: {error}")
        return DeploymentResult(destination, FAILED, device=device, error=fault)


def run_steps(
    bundle: Bundle,
    connection: Connection,
    options: DeploymentOptions,
    *,
    device: Device | None = None,
) -> DeploymentResult:
    """The steps of a deployment, over an open connection; :class:`DeviceError` if one fails."""
    artifacts = bundle.select(options.formats, options.schemes)
    before = connection.call(steps.open_folder, folder=options.folder)
    _check_version(connection.host, before["edgeattn"])
    progress.report("checking the runtimes of the device")
    _check_runtimes(connection.host, artifacts, connection.call(steps.check_runtimes))
    files = bundle.file_hashes()
    sent = send_files(connection, bundle.path, files)
    progress.report("hashing every file on the device")
    version = connection.call(steps.add_version, files=files)
    progress.report("validating on the device")
    selection = {
        "version": version,
        "formats": list(options.formats),
        "schemes": list(options.schemes),
    }
    report = device_report(
        bundle, artifacts, *connection.call_with_tensors(steps.validate, selection)
    )
    result = DeploymentResult(
        connection.host.destination,
        state=UNCHANGED if before["current"] == version else SWITCHED,
        folder=before["folder"],
        version=version,
        previous=before["current"],
        sent=sent,
        device=device,
        report=report,
    )
    if report.exit_code:
        result = replace(result, state=REFUSED)
    elif options.measure:
        progress.report("measuring latency on the device")
        bench, _ = connection.call_with_tensors(
            steps.measure,
            {**selection, "runs": options.runs, "seconds": options.seconds},
            timeout=CALL_TIMEOUT + options.seconds,
        )
        result = replace(result, bench=bench)
    # JSON has no infinity and no NaN: they become strings.
    document = json.loads(json.dumps(result.to_json()), parse_constant=str)
    connection.call(steps.save_report, version=version, report={**document, "state": None})
    if result.state == REFUSED:
        return result
    if result.state == SWITCHED:
        connection.call(steps.switch, version=version)
    return replace(result, removed=tuple(connection.call(steps.prune, keep=options.keep)))


def roll_back(
    destination: str, options: DeploymentOptions, cancellation: Cancellation | None = None
) -> DeploymentResult:
    """Let the previous version on a host serve again; errors are as in :func:`deploy`."""
    ssh.parse_destination(destination)
    try:
        with (
            ssh.connect(destination, options.config) as host,
            (cancellation or Cancellation()).registered(
                ssh.worker_on(host, options.python)
            ) as worker,
        ):
            return roll_back_over(Connection(worker, host), options)
    except EdgeattnError as error:
        return DeploymentResult(destination, FAILED, error=error)


def roll_back_over(connection: Connection, options: DeploymentOptions) -> DeploymentResult:
    """The steps of a rollback, over an open connection."""
    before = connection.call(steps.open_folder, folder=options.folder)
    versions = connection.call(steps.roll_back)
    return DeploymentResult(
        connection.host.destination, ROLLED_BACK, before["folder"], versions["to"], versions["from"]
    )


def device_report(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    summaries: Sequence[dict[str, Any]],
    outputs: Tensors,
) -> Report:
    """The validation report of a device, with the stage ``device`` if this machine has the runtime.

    ``summaries`` and ``outputs`` are the result of the device's
    :func:`edgeattn.deployment.on_device.steps.validate`. Raises :class:`DeviceError` if a verdict
    of the device contradicts its checks.
    """
    from edgeattn import ArtifactReport, Check, Report, validate_isolated
    from edgeattn.validation.device_parity import add_device_stage

    by_path = {artifact.path: artifact for artifact in artifacts}
    reports = []
    for number, summary in enumerate(summaries):
        prefix = f"{number}/"
        report = ArtifactReport(
            by_path[summary["path"]],
            summary["runtime"],
            tuple(
                Check(**{**check, "heads": tuple(check["heads"])}) for check in summary["checks"]
            ),
            reason=summary["reason"],
            broken=summary["broken"],
            outputs={
                name.removeprefix(prefix): array
                for name, array in outputs.items()
                if name.startswith(prefix)
            },
        )
        if report.verdict != summary["verdict"]:
            raise DeviceError(
                f"The device reports {summary['verdict']} for {report.artifact.label}, but its "
                f"checks amount to {report.verdict}.",
                hint="Install this edgeattn on the device with --install.",
            )
        reports.append(report)
    return add_device_stage(Report(tuple(reports)), validate_isolated(bundle, artifacts), bundle)


def _check_version(host: ssh.SSHHost, version: str) -> None:
    from edgeattn.version import __version__

    if version != __version__:
        raise DeviceError(
            f"{host.destination} has edgeattn {version}, this machine has {__version__}: both must "
            "apply the same checks.",
            hint="Install this version on the device with --install.",
        )


def _check_runtimes(
    host: ssh.SSHHost, artifacts: Sequence[Artifact], checks: Sequence[dict[str, Any]]
) -> None:
    """Before anything is copied: a runtime must compute a tiny model correctly."""
    working = {check["format"] for check in checks if check["state"] == "pass"}
    formats = sorted({artifact.format for artifact in artifacts})
    if working.isdisjoint(formats):
        reasons = "; ".join(
            f"{check['format']}: {check['reason'] or check['state']}"
            for check in checks
            if check["format"] in formats
        )
        raise DeviceError(
            f"No runtime for {' or '.join(formats)} files works on {host.destination}: {reasons}",
            hint=f"Check the device: edgeattn doctor {host.destination}",
        )
