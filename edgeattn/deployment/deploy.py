"""Deployment of a bundle to one device, which validates it before it serves.

The steps: check the device, copy missing files, hash every file on the device, validate and measure
on it, save the report on both machines, switch over by one rename. A lost connection, a full disk
or a reboot may interrupt any of them: until the last step the old version serves, and the next
attempt resumes.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn import progress
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.deployment.device_runner import validate_on_device
from edgeattn.deployment.names import bundle_name
from edgeattn.deployment.on_device import steps
from edgeattn.deployment.parallel import Cancellation
from edgeattn.deployment.replies import (
    FormatCheck,
    OpenedFolder,
    parse_measurement,
    parse_version,
    parse_versions,
)
from edgeattn.deployment.results import (
    FAILED,
    REFUSED,
    SWITCHED,
    UNCHANGED,
    DeploymentResult,
)
from edgeattn.errors import (
    BundleError,
    DeviceError,
    EdgeattnError,
    UsageError,
)
from edgeattn.printable import enumerated
from edgeattn.process.limits import run_limits
from edgeattn.targets import ssh
from edgeattn.targets.connection import CALL_TIMEOUT, Connection, send_files
from edgeattn.targets.replies import parse_device
from edgeattn.validation.recommendation import (
    Recommendation,
    lowest_latencies,
    recommend_reported,
)

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.device.info import Device
    from edgeattn.validation.report import Report

# The hint after an installation, instead of the advice to install.
_INSTALLED = "Check on the device that this works: ~/edge/bin/python -c 'import edgeattn'"


@dataclass(frozen=True)
class DeploymentOptions:
    """What to do on each device.

    ``folder`` is a path on the device, relative to its home folder or absolute. Artifacts of
    ``formats`` and ``schemes`` are validated and measured, by default all of them. ``runs`` and
    ``seconds`` limit the measurement, ``keep`` the versions that stay on the device. ``python`` is
    a path on the device, ``config`` replaces ``~/.ssh/config``. ``install`` installs edgeattn
    first, from the folder ``wheels`` or, by default, from pip's index. ``allow_older`` accepts a
    bundle that is older than the one that serves. A rollback restores only versions that one of
    ``allowed_signers``, a file, signed.
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
    allow_older: bool = False
    allowed_signers: Path | None = None


def default_folder(bundle: Path) -> str:
    """The default folder of a bundle on a device: ``edgeattn/NAME``."""
    name = bundle_name(bundle)
    if not name:
        raise UsageError(
            f"The name {bundle.absolute().name!r} cannot be that of a folder on a device.",
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

    ssh.parse_destination(destination)
    device: Device | None = None
    try:
        with ssh.connect(destination, options.config) as host:
            progress.report("checking the device")
            device = parse_device(ssh.system_snapshot(host))
            if options.install:
                install(host, options.wheels)
            worker = ssh.worker_on(host, options.python)
            with (cancellation or Cancellation()).registered(worker):
                return run_steps(bundle, Connection(worker, host), options, device=device)
    except EdgeattnError as error:
        if options.install and "--install" in (error.hint or ""):
            error = DeviceError(f"{error.message} (after --install)", hint=_INSTALLED)
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
    before = open_folder(connection, options)
    if not options.allow_older:
        _check_newer(bundle, before, connection.host)
    progress.report("checking the runtimes of the device")
    checks = FormatCheck.parse_all(connection.call(steps.check_runtimes))
    _check_runtimes(connection.host, artifacts, checks)
    files = bundle.file_hashes()
    sent = send_files(connection, bundle.path, files)
    progress.report("hashing every file on the device")
    version = parse_version(connection.call(steps.add_version, files=files), files[MANIFEST])
    report = validate_on_device(connection, version, bundle, artifacts)
    result = DeploymentResult(
        connection.host.destination,
        state=UNCHANGED if before.current == version else SWITCHED,
        folder=before.folder,
        version=version,
        previous=before.current,
        sent=sent,
        device=device,
        report=report,
    )
    if result.exit_code:
        result = replace(result, state=REFUSED)
    elif options.measure:
        progress.report("measuring latency on the device")
        bench, _ = connection.call_with_tensors(
            steps.measure,
            {
                "version": version,
                "formats": list(options.formats),
                "schemes": list(options.schemes),
                "runs": options.runs,
                "seconds": options.seconds,
                "limits": asdict(run_limits()),
            },
            timeout=CALL_TIMEOUT + options.seconds + run_limits().seconds,
        )
        result = replace(result, bench=parse_measurement(bench, artifacts))
    result = replace(result, recommendation=_recommendation(bundle, result, report, artifacts))
    # JSON has no infinity and no NaN: they become strings.
    document = json.loads(json.dumps(result.to_json()), parse_constant=str)
    connection.call(steps.save_report, version=version, report={**document, "state": None})
    if result.state == REFUSED:
        return result
    if result.state == SWITCHED:
        connection.call(steps.switch, version=version)
    removed = parse_versions(connection.call(steps.prune, keep=options.keep))
    return replace(result, removed=removed)


def _recommendation(
    bundle: Bundle, result: DeploymentResult, report: Report, artifacts: Sequence[Artifact]
) -> Recommendation:
    """The fastest artifact that passes on the device; the smallest if nothing was measured."""
    by_name = {(item.format, item.scheme): item for item in artifacts}
    latencies = lowest_latencies(
        (by_name[item["format"], item["scheme"]], item.get("threads"), item["p50_ms"])
        for item in (result.bench or {}).get("artifacts", ())
    )
    return recommend_reported(report.artifacts, bundle.manifest, result.host, latencies)


def _check_newer(bundle: Bundle, before: OpenedFolder, host: ssh.SSHHost) -> None:
    """Raise :class:`BundleError` if ``bundle`` is older than the one that serves.

    An old bundle has a valid signature, too, so it could be passed off as new. Bundles of earlier
    versions of edgeattn, which do not store when they were converted, are older than all that do.
    """
    if before.created is None or (bundle.manifest.created or 0) >= before.created:
        return
    raise BundleError(
        f"{bundle.path.name} was converted {_time(bundle.manifest.created)}, before the bundle "
        f"that serves on {host.destination} ({_time(before.created)}).",
        hint="To deploy it nevertheless, pass --allow-older. To restore the previous version, use "
        "--rollback.",
    )


def _time(created: int | None) -> str:
    if created is None:
        return "at an unknown time"
    return f"{datetime.datetime.fromtimestamp(created, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def open_folder(connection: Connection, options: DeploymentOptions) -> OpenedFolder:
    reply = connection.call(steps.open_folder, folder=options.folder)
    return OpenedFolder.parse(reply, connection.host.destination)


def _check_runtimes(
    host: ssh.SSHHost, artifacts: Sequence[Artifact], checks: Sequence[FormatCheck]
) -> None:
    """Before anything is copied: each runtime must compute a tiny model correctly."""
    working = {check.format for check in checks if check.works}
    formats = {artifact.format for artifact in artifacts}
    missing = sorted(formats - working)
    if missing:
        reasons = "; ".join(
            f"{check.format}: {check.reason}" for check in checks if check.format in missing
        )
        others = "".join(f" --format {name}" for name in sorted(formats & working))
        raise DeviceError(
            f"No runtime for {enumerated(missing, 'or')} files works on {host.destination}: "
            f"{reasons}",
            hint=f"Check the device: edgeattn doctor {host.destination}"
            + (f". To validate the other artifacts only, pass{others}" if others else ""),
        )
